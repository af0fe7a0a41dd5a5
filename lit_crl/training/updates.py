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
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer import call
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_crl.core.objective import LossAndReport
from lit_crl.dqn.equations import polyak_update
from lit_crl.training.gradients import clip_gradients

#: Updates for which the slow network foresees at once, at most.
STRETCH = 8
#: Hooks of a module or callback that Lightning documents around the backward pass, and around the
#: optimizer's step.
BACKWARD_HOOKS = ("on_before_backward", "on_after_backward")
STEP_HOOKS = ("on_before_optimizer_step", "on_before_zero_grad")


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

    def clip(self) -> None:
        """Scale the gradient down, and remember its norm."""
        norm = clip_gradients(self.optimizer.optimizer, self.max_norm, None)
        self.norm = {self.norm_name: norm}

    def clip_before_steps(self, scaler: Any) -> None:
        """Scale gradients down as soon as the loss scaler has unscaled them, before each step."""

        def clip(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            clip_gradients(optimizer, self.max_norm, scaler)

        self.optimizer.optimizer.register_step_pre_hook(clip)


def players_of(learner: Any) -> list[Player]:
    """The DQN and, if there are levels, discriminator and generator of a ``CreativeLearner``."""
    optimizers = learner.optimizers()
    q_optimizer, *gan = optimizers if isinstance(optimizers, list) else [optimizers]
    student = Player(
        learner.q_network,
        learner.dqn_objective,
        q_optimizer,
        "dqn/gradient_norm",
        learner.dqn.max_grad_norm,
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


def is_overridden(hook: str, hooked: LightningModule | Callback) -> bool:
    """Whether a module or callback has a hook of its own, in its class or set on the object."""
    base = LightningModule if isinstance(hooked, LightningModule) else Callback
    return getattr(getattr(hooked, hook), "__func__", None) is not getattr(base, hook)


def listeners(learner: LightningModule, hooks: Sequence[str]) -> list[str]:
    """Which of these hooks the learner or a callback of its Trainer has, ``Class.hook`` each."""
    everyone = (learner, *learner.trainer.callbacks)  # type: ignore[attr-defined]
    return [
        f"{type(hooked).__name__}.{hook}"
        for hooked in everyone
        for hook in hooks
        if is_overridden(hook, hooked)
    ]


def count_steps(trainer: Trainer, steps: int) -> None:
    """Add optimizer steps that went around Lightning's wrapper to ``trainer.global_step``."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    progress.total.increment_by(steps)
    progress.current.increment_by(steps)


def between_changes(rates: Sequence[float]) -> list[tuple[int, int]]:
    """Where stretches of updates start and end that see the slow network as one.

    They are short: what a network makes of many minibatches at once falls out of the cache.
    """
    updates = enumerate(rates, start=1)
    ends = [k for k, rate in updates if rate > 0 or k % STRETCH == 0 or k == len(rates)]
    return list(pairwise([0, *ends]))


class EagerPhase:
    """A phase under Lightning's manual optimization, which knows every precision and strategy.

    Lightning's wrappers would add a fifth to the time of a small network's update. They are used
    only where they have something to do: for a loss scaler, for several processes, and for hooks.
    """

    def __init__(self, learner: Any, turns: Turns) -> None:
        """Train the players of a ``CreativeLearner``."""
        self._learner = learner
        self._players = list(turns.players)
        self._slow, self._fast, self._foresee = turns.slow, turns.fast, turns.foresee
        self._trainer: Trainer = learner.trainer
        self._scaler = getattr(learner.trainer.precision_plugin, "scaler", None)
        if self._scaler is not None:
            for player in self._players:
                player.clip_before_steps(self._scaler)
        overridden = ("backward", "manual_backward")
        self._is_plain_backward = (
            self._scaler is None
            and isinstance(learner.trainer.strategy, SingleDeviceStrategy)
            and not listeners(learner, BACKWARD_HOOKS)
            and not any(is_overridden(name, learner) for name in overridden)
        )
        self._hooks = [hook for hook in STEP_HOOKS if listeners(learner, [hook])]

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
        if self._is_plain_backward:
            torch.autograd.backward(loss)
        else:
            self._learner.manual_backward(loss)
        if self._scaler is None:
            self._call_hooks("on_before_optimizer_step", player)
            player.clip()
            player.optimizer.optimizer.step()
            count_steps(self._trainer, 1)
        else:
            player.optimizer.step()  # unscales, calls the hooks, and counts
        self._call_hooks("on_before_zero_grad", player)
        # Now, not before the next backward: data-parallel strategies average what gradients exist.
        for parameter in player.parameters:
            parameter.grad = None
        return {name: number.detach() for name, number in report.items()} | player.norm

    def _call_hooks(self, name: str, player: Player) -> None:
        """Call the hook of the callbacks and then of the learner, as Lightning itself does."""
        if name in self._hooks:
            optimizer = player.optimizer.optimizer
            call._call_callback_hooks(self._trainer, name, optimizer)
            call._call_lightning_module_hook(self._trainer, name, optimizer)
