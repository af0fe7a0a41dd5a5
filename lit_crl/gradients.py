"""Clipping, with or without the loss scaling of half precision."""

from typing import Any

from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

#: What the norms are called, in the order of the learner's optimizers.
GRADIENT_NORMS = (
    "dqn/gradient_norm",
    "gan/discriminator_gradient_norm",
    "gan/generator_gradient_norm",
)


def clip_gradients(optimizer: Optimizer, max_norm: float, scaler: Any) -> Tensor:
    """Scale an optimizer's gradients down to ``max_norm``; returns their norm before.

    A fused optimizer unscales them only in its step, so that the limit is scaled instead
    (``Trainer(gradient_clip_val)`` refuses that combination).
    """
    if scaler is not None and _optimizer_handles_unscaling(optimizer):
        max_norm *= scaler.get_scale()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return clip_grad_norm_(parameters, max_norm)
