"""Updates under Lightning's manual optimization, which knows every precision and strategy."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic

import torch
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer import call
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from lit_crl.dqn.equations import polyak_update
from lit_crl.training.updates import AnyMinibatch, LossAndReport, Networks, Report, Update

#: Hooks of a module or callback that Lightning documents around the backward pass, and around the
#: optimizer's step.
BACKWARD_HOOKS = ("on_before_backward", "on_after_backward")
STEP_HOOKS = ("on_before_optimizer_step", "on_before_zero_grad")


class EagerPhase(Generic[AnyMinibatch]):
    """Runs updates one operation at a time; the ``Engine`` and the ``Phase`` of ``updates``.

    It takes every optimizer. Lightning's wrappers would add a fifth to a small network's
    update. They are used only where they have something to do: for a loss scaler, for several
    processes, and for hooks. Without any of them, and with Adam, ``TracedPhase`` is faster.
    """

    def __init__(
        self, learner: LightningModule, update: Update[AnyMinibatch], networks: Networks
    ) -> None:
        """Prepare to run ``update`` for a learner that a Trainer trains."""
        trainer = learner.trainer
        self._learner, self._trainer, self._update = learner, trainer, update
        self._optimizers = {network: o for network, o in networks.items() if o is not None}
        # Listed once: asking a network for its parameters takes longer than using them.
        self._all: dict[nn.Module, list[Tensor]] = {
            network: list(network.parameters()) for network in networks
        }
        self._parameters = {network: self._all[network] for network in self._optimizers}
        for network in self._optimizers:
            # An earlier fit may have been interrupted in the middle of an update.
            network.requires_grad_(True)
            network.zero_grad()
        self._max_norm = math.inf
        self._scaler: GradScaler | None = getattr(trainer.precision_plugin, "scaler", None)
        if self._scaler is not None:
            for optimizer in self._optimizers.values():
                optimizer.optimizer.register_step_pre_hook(self._clip_scaled)
        self._is_plain_backward = (
            self._scaler is None
            and isinstance(trainer.strategy, SingleDeviceStrategy)
            and not listeners(learner, BACKWARD_HOOKS)
            and not has_own_backward(learner)
        )
        self._hooks = [hook for hook in STEP_HOOKS if listeners(learner, [hook])]

    def __call__(self, rates: Sequence[float], stack: AnyMinibatch) -> Report:
        """See ``Phase``."""
        reports = [
            self._update(self, minibatch, rate)
            for rate, minibatch in zip(rates, stack.unstack(), strict=True)
        ]
        return {name: torch.stack([report[name] for report in reports]) for name in reports[0]}

    def descend(
        self,
        network: nn.Module,
        loss: Callable[[], LossAndReport],
        norm_name: str,
        max_norm: float = math.inf,
    ) -> Report:
        """See ``Engine``."""
        optimizer = self._optimizers[network].optimizer
        others = [
            p for other in self._parameters if other is not network for p in self._parameters[other]
        ]
        for parameter in others:
            parameter.requires_grad_(False)
        minimised, report = loss()
        for parameter in others:
            parameter.requires_grad_(True)
        if self._is_plain_backward:
            torch.autograd.backward(minimised)
        else:
            self._learner.manual_backward(minimised)
        report = {name: number.detach() for name, number in report.items()}
        if self._scaler is None:
            self._call_hooks("on_before_optimizer_step", optimizer)
            report[norm_name] = clip_gradients(optimizer, max_norm)
            optimizer.step()
            count_steps(self._trainer, 1)
        else:
            self._max_norm = max_norm
            self._optimizers[network].step()  # unscales, calls the hooks, and counts
        self._call_hooks("on_before_zero_grad", optimizer)
        # Not only before the next backward: data-parallel strategies average all gradients.
        for parameter in self._parameters[network]:
            parameter.grad = None
        return report

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float | Tensor) -> None:
        """See ``Engine``."""
        if rate > 0:
            polyak_update(self._all[slow], self._all[fast], float(rate))

    def _clip_scaled(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Clip as soon as the loss scaler has unscaled the gradients, just before the step.

        A fused optimizer unscales them only in its step, so that the limit is scaled instead
        (``Trainer(gradient_clip_val)`` refuses that combination).
        """
        assert self._scaler is not None
        is_scaled = _optimizer_handles_unscaling(optimizer)
        clip_gradients(optimizer, self._max_norm * (self._scaler.get_scale() if is_scaled else 1))

    def _call_hooks(self, name: str, optimizer: Optimizer) -> None:
        """Call the hook of the callbacks and then of the learner, as Lightning itself does."""
        if name in self._hooks:
            call._call_callback_hooks(self._trainer, name, optimizer)
            call._call_lightning_module_hook(self._trainer, name, optimizer)


def clip_gradients(optimizer: Optimizer, max_norm: float) -> Tensor:
    """Scale an optimizer's gradients down to ``max_norm``; returns their norm before."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    # As torch's clip_grad_norm_ does, in half its time: here all are of one device and type.
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if max_norm < math.inf:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def count_steps(trainer: Trainer, steps: int) -> None:
    """Add optimizer steps that went around Lightning's wrapper to ``trainer.global_step``."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    progress.total.increment_by(steps)
    progress.current.increment_by(steps)


def is_overridden(hook: str, hooked: LightningModule | Callback) -> bool:
    """Whether a module or callback has a hook of its own, in its class or set on the object."""
    base = LightningModule if isinstance(hooked, LightningModule) else Callback
    return getattr(getattr(hooked, hook), "__func__", None) is not getattr(base, hook)


def has_own_backward(learner: LightningModule) -> bool:
    """Whether the learner's class has a backward pass of its own."""
    return any(is_overridden(name, learner) for name in ("backward", "manual_backward"))


def listeners(learner: LightningModule, hooks: Sequence[str]) -> list[str]:
    """Which of these hooks the learner or a callback of its Trainer has, ``Class.hook`` each."""
    everyone = (learner, *learner.trainer.callbacks)  # type: ignore[attr-defined]
    return [
        f"{type(hooked).__name__}.{hook}"
        for hooked in everyone
        for hook in hooks
        if is_overridden(hook, hooked)
    ]
