"""The GAN's networks for levels that are vectors; those for maps are in ``map_networks``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_crl.core.mlp import Linear, mlp


class VectorGenerator(nn.Module):
    """Noise to levels in the unit cube: an MLP without normalisation, tanh at the end."""

    def __init__(self, level_dim: int, noise_dim: int, hidden: Sequence[int] = (128, 128)) -> None:
        """``noise_dim`` numbers in, ``level_dim`` coordinates in [−1, 1] out."""
        super().__init__()
        self.noise_dim = noise_dim
        self.body = mlp([noise_dim, *hidden], nn.LeakyReLU, layer_norm=False)
        self.head = Linear(hidden[-1], level_dim)

    def forward(self, z: Tensor) -> Tensor:
        """``z [B, noise_dim]`` to levels ``[B, level_dim]`` in the unit cube."""
        return torch.tanh(self.head(self.body(z)))


class Discriminator(nn.Module):
    """Judges levels of the unit cube twice: do they look real, and would the policy solve them?

    The two heads share no layers: the gradient penalty keeps the critic smooth, while the success
    head must follow the sharp edge of the frontier.
    """

    def __init__(self, critic: nn.Module, success_head: nn.Module) -> None:
        """Both map levels ``[B, d]`` to logits ``[B, 1]``."""
        super().__init__()
        self.critic = critic
        self.success_head = success_head

    def forward(self, level: Tensor) -> Tensor:
        """Realness logits ``[B]`` of levels ``[B, d]`` in the unit cube."""
        return torch.squeeze(self.critic(level), -1)

    def success_logit(self, level: Tensor) -> Tensor:
        """Logits ``[B]`` of p̂, the probability that the present policy solves the level."""
        return torch.squeeze(self.success_head(level), -1)


class VectorDiscriminator(Discriminator):
    """A discriminator of vectors: two MLPs without normalisation."""

    def __init__(self, level_dim: int, hidden: Sequence[int] = (128, 128)) -> None:
        """``level_dim`` coordinates in the unit cube in."""
        critic, success_head = (
            nn.Sequential(
                mlp([level_dim, *hidden], nn.LeakyReLU, layer_norm=False),
                Linear(hidden[-1], 1),
            )
            for _ in range(2)
        )
        super().__init__(critic, success_head)
