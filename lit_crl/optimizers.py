"""The default optimizers of both players, and what any other one must be able to do."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Adam, Optimizer, SparseAdam

from lit_crl.checks import ConfigError


def q_adam(params: Any) -> Optimizer:
    """Adam for the Q-network: one fused kernel, learning rate 5e-4."""
    return Adam(params, lr=5e-4, eps=1e-5, fused=True)


def gan_adam(params: Any) -> Optimizer:
    """Adam for the GAN: no momentum, which would chase the other player (R3GAN, β₁ = 0)."""
    return Adam(params, lr=5e-4, betas=(0.0, 0.99), fused=True)


def make_optimizer(key: str, make: Callable[[Any], Any], network: nn.Module) -> Optimizer:
    """The optimizer that the setting ``model.<key>`` makes of a network's parameters.

    Raises:
        ConfigError: If it makes none, or one that a phase cannot step.
    """
    try:
        optimizer = make(network.parameters())
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
