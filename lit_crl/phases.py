"""The two phases, one operation at a time; ``compiled.py`` has the same as whole graphs.

In a phase one or two *players* take turns on each minibatch (the DQN; discriminator and then
generator), each descending its own objective, and then slow copies follow the fast networks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from lit_crl.dqn import polyak_update
from lit_crl.gradients import clip_gradients
from lit_crl.objectives import LossAndReport

#: Updates for which the slow network foresees at once, at most.
STRETCH = 8


@dataclass
class Player:
    """A network, its objective, and how it descends.

    Args:
        network: Whose parameters the optimizer holds.
        objective: Its loss, and what to report, as a function of a minibatch's fields.
        optimizer: As Lightning wraps it.
        norm_name: What the gradient's norm is reported as.
        max_norm: The gradient is scaled down to this norm.
    """

    network: nn.Module
    objective: Callable[..., LossAndReport]
    optimizer: LightningOptimizer
    norm_name: str
    max_norm: float
    #: The norm of the last gradient by its name; empty where a loss scaler looks after it.
    norm: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """List the parameters once: asking the network takes longer than using them."""
        self.parameters = list(self.network.parameters())
        # An earlier fit may have been interrupted in the middle of an update.
        self.network.requires_grad_(True)
        self.network.zero_grad()

    def clip(self, scaler: Any) -> None:
        """Scale the gradient down, if there is a scaler once that has unscaled it."""
        norm = clip_gradients(self.optimizer.optimizer, self.max_norm, scaler)
        self.norm = {self.norm_name: norm} if scaler is None else {}


def players_of(learner: Any) -> list[Player]:
    """The DQN and, if there are levels, discriminator and generator of a ``CreativeLearner``."""
    optimizers = learner.optimizers()
    q_optimizer, *gan = optimizers if isinstance(optimizers, list) else [optimizers]
    student = Player(
        learner.q_network,
        learner.dqn_objective,
        q_optimizer,
        "dqn/gradient_norm",
        learner.max_grad_norm,
    )
    if learner.level_gan is None:
        return [student]
    judge = Player(
        learner.level_gan.discriminator,
        learner.discriminator_objective,
        gan[0],
        "gan/discriminator_gradient_norm",
        math.inf,
    )
    maker = Player(
        learner.level_gan.generator,
        learner.generator_objective,
        gan[1],
        "gan/generator_gradient_norm",
        math.inf,
    )
    return [student, judge, maker]


@dataclass(frozen=True)
class Turns:
    """Who takes turns in a phase, and who then follows whom."""

    players: Sequence[Player]
    slow: nn.Module
    fast: nn.Module
    #: What the slow network adds to the fields ``[K, B, ...]`` of minibatches that all come before
    #: its next change.
    foresee: Callable[..., Tensor] | None = None


class Phase(Protocol):
    """K updates of the players of one phase."""

    def __call__(
        self, rates: Sequence[float], fields: Sequence[Tensor | None]
    ) -> dict[str, Tensor]:
        """Update on each of K minibatches; what to report, each ``[K]`` (TD errors: ``[K, B]``).

        Args:
            rates: Share of the fast networks' weights that goes into the slow ones after each
                update, K numbers.
            fields: What the objectives take, as stacks of minibatches ``[K, B, ...]``, or None.
        """


def listens_to_backward(hooked: LightningModule | Callback) -> bool:
    """Whether a module or callback has hooks of its own around the backward pass."""
    base = LightningModule if isinstance(hooked, LightningModule) else Callback
    names = ("on_before_backward", "on_after_backward")
    return any(getattr(type(hooked), name) is not getattr(base, name) for name in names)


def between_changes(rates: Sequence[float]) -> list[tuple[int, int]]:
    """Where stretches of updates start and end that see the slow network as one.

    They are short: what a network makes of many minibatches at once falls out of the cache.
    """
    updates = enumerate(rates, start=1)
    ends = [k for k, rate in updates if rate > 0 or k % STRETCH == 0 or k == len(rates)]
    return list(pairwise([0, *ends]))


class EagerPhase:
    """A phase under Lightning's manual optimization, which knows every precision and strategy."""

    def __init__(self, learner: Any, turns: Turns) -> None:
        """Train the players of a ``CreativeLearner``."""
        self._learner = learner
        self._players = list(turns.players)
        self._slow, self._fast, self._foresee = turns.slow, turns.fast, turns.foresee
        self._scaler = getattr(learner.trainer.precision_plugin, "scaler", None)
        self._is_plain = (
            self._scaler is None
            and isinstance(learner.trainer.strategy, SingleDeviceStrategy)
            and not any(map(listens_to_backward, [learner, *learner.trainer.callbacks]))
        )

    def __call__(
        self, rates: Sequence[float], fields: Sequence[Tensor | None]
    ) -> dict[str, Tensor]:
        """See ``Phase``."""
        reports = []
        for rate, *minibatch in self._minibatches(rates, fields):
            report: dict[str, Tensor] = {}
            for player in self._players:
                report |= self._descend(player, minibatch)
            if rate > 0:
                polyak_update(self._slow, self._fast, rate)
            reports.append(report)
        return {name: torch.stack([report[name] for report in reports]) for name in reports[0]}

    def _minibatches(
        self, rates: Sequence[float], fields: Sequence[Tensor | None]
    ) -> Iterator[tuple[Any, ...]]:
        """Rate and fields of each update; what is foreseen waits until the slow network is due."""
        for start, end in between_changes(rates):
            stacks = [None if field is None else field[start:end] for field in fields]
            if self._foresee is not None:
                stacks.append(self._foresee(*stacks))
            absent = [None] * (end - start)
            each = (absent if stack is None else stack.unbind() for stack in stacks)
            yield from zip(rates[start:end], *each, strict=True)

    def _descend(self, player: Player, minibatch: list[Tensor | None]) -> dict[str, Tensor]:
        others = [other for other in self._players if other is not player]
        for other in others:
            other.network.requires_grad_(False)
        loss, report = player.objective(*minibatch)
        for other in others:
            other.network.requires_grad_(True)
        # Lightning's wrappers would add a fifth to the time of a small network's update: they are
        # asked only where they have something to do.
        if self._is_plain:
            torch.autograd.backward(loss)
        else:
            self._learner.manual_backward(loss)
        if self._scaler is None:
            player.clip(None)
            player.optimizer.optimizer.step()
        else:
            player.optimizer.step()
        # Now, not before the next backward: data-parallel strategies average what gradients exist.
        for parameter in player.parameters:
            parameter.grad = None
        return {name: number.detach() for name, number in report.items()} | player.norm
