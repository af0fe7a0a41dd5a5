"""Settings of the Q-network and of how it learns."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Adam, Optimizer

from lit_crl.core.checks import ConfigError, Fields
from lit_crl.dqn.equations import TDLoss

#: Convolutions for images.
Torso = Literal["plain", "minatar", "impala"]


def q_adam(params: Iterable[Any]) -> Optimizer:
    """Adam for the Q-network: one fused kernel, learning rate 5e-4."""
    return Adam(params, lr=5e-4, eps=1e-5, fused=True)


@dataclass(frozen=True)
class NetworkSettings:
    """The architecture of the Q-network.

    Args:
        hidden: Width of each hidden layer.
        dueling: Split the head into state value and advantages.
        layer_norm: Apply LayerNorm after each hidden layer.
        scale_obs: Scale bounded vectors to [−1, 1]. Turn it off where the bounds are far wider
            than the values that occur.
        planning_steps: Longest path that the network plans in maps around the agent; 0: a plain
            network.
        torso: Convolutions for images: ``plain`` (three layers as in Mnih et al. 2015, or two for
            small images), the single layer of ``minatar`` (Young & Tian 2019), or the residual ones
            of ``impala``, which see more and take longer.
        atoms: Atoms of the distribution of returns that the network learns for each action (C51;
            51 in the papers); 0: it learns the mean alone.
        noise: σ₀ of noisy layers (0.5 in the papers), which all fully connected layers then are;
            0: none is. They explore in the place of ε, and are drawn anew for each update and, in
            each environment, for each step; evaluations and exported policies use their means.
        memory: Units of a GRU that remembers what an episode has shown so far, for tasks whose
            observations do not show everything; 0: none. It learns from sequences
            (``data.replay.burn_in`` and ``sequence_length``), whose updates take about ten times
            as long.
    """

    hidden: Sequence[int] = (128, 128)
    dueling: bool = False
    layer_norm: bool = True
    scale_obs: bool = True
    planning_steps: int = 0
    torso: Torso = "plain"
    atoms: int = 0
    noise: float = 0.0
    memory: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        fields = Fields("model.network", self)
        fields.widths("hidden")
        fields.one_of("torso", Torso)
        fields.non_negative("planning_steps", "atoms", "noise", "memory")
        if self.atoms == 1:
            raise ConfigError(
                "model.network.atoms is 1, and a distribution has two or more: give 51, or 0 for "
                "none"
            )
        others = {"torso": "plain", "atoms": 0, "noise": 0, "memory": 0}
        changed = [name for name, value in others.items() if getattr(self, name) != value]
        if self.planning_steps and changed:
            raise ConfigError(
                f"model.network.planning_steps is {self.planning_steps}, but a network that plans "
                f"has no {' and no '.join(changed)}: set model.network.planning_steps to 0, or "
                f"leave out {', '.join(f'model.network.{name}' for name in changed)}"
            )
        for name in ("atoms", "noise"):
            if self.memory and (value := getattr(self, name)):
                raise ConfigError(
                    f"model.network.{name} is {value:g}, but a network with memory has none "
                    f"(model.network.memory {self.memory}): set one of them to 0"
                )


@dataclass(frozen=True)
class DqnSettings:
    """How the Q-network learns.

    Args:
        double: The online network selects the bootstrap action (double DQN).
        td_loss: Loss of a TD error: ``huber``, linear beyond 1, or ``mse``, its square. The loss
            of distributions (``model.network.atoms``) is their divergence instead.
        support: Lowest and highest return of distributions (``model.network.atoms``), for instance
            [-10, 10]; null: the returns that the rewards seen so far can add up to. An explorer's
            rewards have another unit, so that its support always follows from them.
        target_rate: Share of online weights in each sync of the target network; 1: hard copy.
        target_period: DQN updates from one sync of the target network to the next.
        max_grad_norm: A gradient with a larger norm is scaled down to this norm.
        final_lr: The learning rate falls linearly over the run to this share of its start;
            1 keeps it constant.
        conservative_weight: α of the conservative penalty (CQL), which values actions that the
            replay lacks less: for training from a log.
        optimizer: Optimizer of the Q-network.
    """

    double: bool = True
    td_loss: TDLoss = "huber"
    support: Sequence[float] | None = None
    target_rate: float = 0.01
    target_period: int = 1
    max_grad_norm: float = 10.0
    final_lr: float = 0.1
    conservative_weight: float = 0.0
    optimizer: Callable[[Iterable[Any]], Optimizer] = q_adam

    def __post_init__(self) -> None:
        """Check the numbers."""
        fields = Fields("model.dqn", self)
        fields.one_of("td_loss", TDLoss)
        if (given := self.support) is not None:
            in_order = len(given) == 2 and -math.inf < given[0] < given[1] < math.inf
            if not in_order:
                raise ConfigError(
                    f"model.dqn.support is {list(given)}: give the lowest and the highest return, "
                    "for instance [-10, 10], or null"
                )
        fields.positive("target_period", "max_grad_norm")
        fields.non_negative("conservative_weight")
        fields.positive_unit_interval("target_rate", "final_lr")
        fields.optimizers("optimizer")

    def target_rates(self, first: int, updates: int) -> list[float]:
        """Share of online weights that the target network takes at each of some ``updates``.

        Args:
            first: Number of the first of them in the run, from 1.
            updates: How many.

        >>> DqnSettings(target_rate=0.5, target_period=2).target_rates(first=3, updates=3)
        [0.0, 0.5, 0.0]
        """
        numbers = range(first, first + updates)
        return [self.target_rate * (n % self.target_period == 0) for n in numbers]
