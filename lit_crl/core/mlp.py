"""Fully connected layers of the Q-network and of the GAN."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int], activation: type[nn.Module], layer_norm: bool) -> nn.Sequential:
    """Linear layers of these sizes, each followed by (LayerNorm and) the activation."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers.append(nn.Linear(inputs, outputs))
        if layer_norm:
            layers.append(nn.LayerNorm(outputs))
        layers.append(activation())
    return nn.Sequential(*layers)
