"""Clipping, with or without the loss scaling of half precision."""

import math
from typing import Any

import torch
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from torch import Tensor
from torch.optim import Optimizer


def clip_gradients(optimizer: Optimizer, max_norm: float, scaler: Any) -> Tensor:
    """Scale an optimizer's gradients down to ``max_norm``; returns their norm before.

    A fused optimizer unscales them only in its step, so that the limit is scaled instead
    (``Trainer(gradient_clip_val)`` refuses that combination).
    """
    if scaler is not None and _optimizer_handles_unscaling(optimizer):
        max_norm *= scaler.get_scale()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    # As torch's clip_grad_norm_ does, in half its time: here all are of one device and type.
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if max_norm < math.inf:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def clip_to_norm(gradient: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
    """The norm ‖g‖ and g · min(1, c / ‖g‖), Pascanu et al. 2013, algorithm 1; c is ``max_norm``."""
    norm = torch.linalg.vector_norm(gradient)
    if max_norm == math.inf:
        return norm, gradient
    return norm, gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0)
