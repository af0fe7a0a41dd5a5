"""Fully connected layers of the Q-network and of the GAN."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

#: Layers with at most this many inputs or outputs are narrow.
NARROW = 8


def narrow_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer as products and a sum: ``[..., in], [out, in], [out] -> [..., out]``.

    >>> x, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    >>> narrow_linear(x, weight, bias=torch.tensor([0.5, 0.0]))
    tensor([[1.5000, 5.0000]])
    """
    return (x.unsqueeze(-2) * weight).sum(-1) + bias


class Linear(nn.Linear):
    """A linear layer that a compiler for GPUs can fuse with its neighbours where it is narrow.

    A matrix product is a kernel of its own, which takes some 4 µs however narrow it is, and so are
    the two products of its gradient. As sums they are parts of other kernels.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``."""
        if is_fused(x) and min(self.in_features, self.out_features) <= NARROW:
            return narrow_linear(x, self.weight, self.bias)
        return super().forward(x)


def is_fused(x: Tensor) -> bool:
    """Whether operations on ``x`` are being compiled into kernels for a GPU."""
    return torch.compiler.is_compiling() and x.is_cuda


def mlp(
    sizes: Sequence[int],
    activation: type[nn.Module],
    layer_norm: bool,
    linear: Callable[[int, int], nn.Module] = Linear,
) -> nn.Sequential:
    """Linear layers of these sizes, each followed by (LayerNorm and) the activation."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers.append(linear(inputs, outputs))
        if layer_norm:
            layers.append(nn.LayerNorm(outputs))
        layers.append(activation())
    return nn.Sequential(*layers)
