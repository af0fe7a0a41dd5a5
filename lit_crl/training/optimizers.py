"""What optimizers must be able to do, and how one is resumed."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, SparseAdam
from torch.optim.optimizer import ParamsT

from lit_crl.core.checks import ConfigError


def make_optimizer(key: str, make: Callable[[ParamsT], object], *networks: nn.Module) -> Optimizer:
    """The optimizer that the setting ``model.<key>`` makes for the parameters of networks.

    Raises:
        ConfigError: If it makes no optimizer, or one that an update cannot step.
    """
    try:
        optimizer = make([p for network in networks for p in network.parameters()])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.{key} cannot be made: {error}") from error
    name = type(optimizer).__name__
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"model.{key} makes a {name}: give a class of optimizers, for instance torch.optim.Adam"
        )
    step = inspect.signature(optimizer.step).parameters
    needs_closure = "closure" in step and step["closure"].default is inspect.Parameter.empty
    if needs_closure or isinstance(optimizer, SparseAdam):
        raise ConfigError(
            f"model.{key} is {name}, but each update has one gradient, which is dense: give an "
            "optimizer that steps along it, for instance torch.optim.Adam"
        )
    if any("lr" not in group for group in optimizer.param_groups):
        raise ConfigError(
            f"model.{key} is {name}, which has no learning rate 'lr': give an optimizer with one, "
            "for instance torch.optim.Adam"
        )
    return optimizer


def refresh_settings(key: str, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Give a saved ``state`` the settings of the ``optimizer`` that will load it.

    A learning rate that was changed since then is used, and only what the optimizer had learnt,
    such as Adam's moments, comes from the checkpoint.

    Args:
        key: The setting that made ``optimizer``.
        optimizer: One that has made no step.
        state: An optimizer's ``state_dict``; its ``param_groups`` are changed.

    Raises:
        ConfigError: If ``optimizer`` keeps other numbers than the saved one did, or groups the
            parameters in another way.
    """
    groups = optimizer.param_groups
    sizes, saved_sizes = (
        [len(group["params"]) for group in one] for one in (groups, state["param_groups"])
    )
    kept = {name for numbers in state["state"].values() for name in numbers}
    if sizes != saved_sizes or (kept and kept != state_names(optimizer)):
        raise ConfigError(
            f"{key} is now {type(optimizer).__name__}, which cannot go on with what the "
            f"checkpoint's optimizer had learnt ({', '.join(sorted(kept))}): resume with the class "
            "and the switches that it was saved with"
        )
    state["param_groups"] = [
        {**saved, **{name: value for name, value in group.items() if name != "params"}}
        for saved, group in zip(state["param_groups"], groups, strict=True)
    ]


def state_names(optimizer: Optimizer) -> set[str]:
    """Names of what an optimizer keeps about each parameter, found by a step of a copy."""
    probe = copy.deepcopy(optimizer)
    for group in probe.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    probe.step()
    return {name for numbers in probe.state.values() for name in numbers}
