"""Clipping of a gradient that is one vector."""

import math

import torch
from torch import Tensor


def clip_to_norm(gradient: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
    """The norm ‖g‖ and g · min(1, c / ‖g‖), Pascanu et al. 2013, algorithm 1; c is ``max_norm``.

    >>> clip_to_norm(torch.tensor([3.0, 4.0]), max_norm=1.0)
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    norm = torch.linalg.vector_norm(gradient)
    if max_norm == math.inf:
        return norm, gradient
    return norm, gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0)
