"""What optimizers must be able to do, and how one is resumed."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer, SparseAdam
from torch.optim.optimizer import ParamsT

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.settings import DqnSettings, NetworkSettings
from lit_crl.gan.level_gan import LevelGan
from lit_crl.gan.settings import GanSettings
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan


class Trained(NamedTuple):
    """Networks, and the setting ``model.<key>`` that makes their optimizer."""

    key: str
    make: Callable[[ParamsT], object]
    networks: Sequence[nn.Module]


def without_optimizers(
    settings: NetworkSettings | DqnSettings | GanSettings | WorldSettings,
) -> dict[str, Any]:
    """The fields of a group of settings that a checkpoint can hold: optimizers are code."""
    fields = dataclasses.asdict(settings)
    return {name: value for name, value in fields.items() if not name.endswith("optimizer")}


def trained_of_levels(level_gan: LevelGan, settings: GanSettings) -> tuple[Trained, Trained]:
    """What a level GAN gives to the optimizers of discriminators and of generators."""
    make_judge, make_maker = settings.discriminator_optimizer, settings.generator_optimizer
    return (
        Trained("gan.discriminator_optimizer", make_judge, [level_gan.discriminator]),
        Trained("gan.generator_optimizer", make_maker, [level_gan.generator]),
    )


def trained_of_world(world: TransitionGan, settings: WorldSettings) -> tuple[Trained, Trained]:
    """What a world gives to the optimizers of discriminators, with its heads, and of generators."""
    make_judge, make_maker = settings.discriminator_optimizer, settings.generator_optimizer
    judges = [world.heads, *([world.discriminators] if world.discriminators else [])]
    return (
        Trained("world.discriminator_optimizer", make_judge, judges),
        Trained("world.generator_optimizer", make_maker, [world.generators]),
    )


def make_optimizer(trained: Sequence[Trained]) -> Optimizer:
    """One optimizer for all of ``trained``, with a group of parameters for each of them.

    Raises:
        ConfigError: If a setting makes no optimizer, one that an update cannot step, or another
            class of optimizers than the first one: a step is the same in all groups.
    """
    (key, optimizer), *others = [(one.key, _optimizer(*one)) for one in trained]
    for other_key, other in others:
        if type(other) is not type(optimizer):
            raise ConfigError(
                f"model.{key} is {type(optimizer).__name__} and model.{other_key} is "
                f"{type(other).__name__}, but one optimizer trains both: give both the same class"
            )
        for group in other.param_groups:
            optimizer.add_param_group(group)
    return optimizer


def _optimizer(
    key: str, make: Callable[[ParamsT], object], networks: Sequence[nn.Module]
) -> Optimizer:
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
