"""The GAN's networks for levels that are vectors; those for maps are in ``map_networks``."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lit_crl.core.mlp import mlp


class VectorGenerator(nn.Module):
    """Noise to levels in the unit cube: an MLP without normalisation, tanh at the end."""

    def __init__(self, level_dim: int, noise_dim: int, hidden: Sequence[int] = (128, 128)) -> None:
        """``noise_dim`` numbers in, ``level_dim`` coordinates in [−1, 1] out."""
        super().__init__()
        self.noise_dim = noise_dim
        self.body = mlp([noise_dim, *hidden], nn.LeakyReLU, layer_norm=False)
        self.head = nn.Linear(hidden[-1], level_dim)

    def forward(self, z: Tensor) -> Tensor:
        """``z [B, noise_dim]`` to levels ``[B, level_dim]`` in the unit cube."""
        return torch.tanh(self.head(self.body(z)))


class VectorDiscriminator(nn.Module):
    """Two judgements of a level: is it like the reals, and would the policy solve it?

    The two heads have bodies of their own: the gradient penalty wants the first smooth, while
    the second must follow the frontier's edge.
    """

    def __init__(self, level_dim: int, hidden: Sequence[int] = (128, 128)) -> None:
        """``level_dim`` coordinates in the unit cube in."""
        super().__init__()
        sizes = [level_dim, *hidden]
        self.critic = nn.Sequential(
            mlp(sizes, nn.LeakyReLU, layer_norm=False), nn.Linear(hidden[-1], 1)
        )
        self.success_head = nn.Sequential(
            mlp(sizes, nn.LeakyReLU, layer_norm=False), nn.Linear(hidden[-1], 1)
        )

    def forward(self, level: Tensor) -> Tensor:
        """Realness logits ``[B]`` of levels ``[B, level_dim]`` in the unit cube."""
        return cast(Tensor, self.critic(level)).squeeze(-1)

    def success_logit(self, level: Tensor) -> Tensor:
        """Logits ``[B]`` of p̂, the probability that the present policy solves the level."""
        return cast(Tensor, self.success_head(level)).squeeze(-1)
