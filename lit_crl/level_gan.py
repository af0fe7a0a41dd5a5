"""The GAN of levels: its networks, and how levels are made and judged with them."""

import copy

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from lit_crl import gan
from lit_crl.batches import GanBatch
from lit_crl.levels import UnitBox
from lit_crl.networks import discriminator_for, generator_for


class LevelGan(nn.Module):
    """Generator, its moving average, and discriminator with success head.

    Levels come and go in the environment's units; the networks see them in the cube [−1, 1]ᵈ.
    """

    def __init__(self, level_space: Box, noise_dim: int, hidden: tuple[int, ...]) -> None:
        """Make the networks that fit ``level_space``; ``noise_dim`` 0 means max(8, 2·d)."""
        super().__init__()
        self.box = UnitBox.of(level_space)
        self.generator = generator_for(self.box, noise_dim, hidden)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.discriminator = discriminator_for(self.box, hidden)

    def draw_noise(self, n: int, rng: torch.Generator) -> Tensor:
        """Noise z for ``n`` levels, ``[n, noise_dim]``."""
        return torch.randn(n, self.generator.noise_dim, generator=rng, device=rng.device)

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """The averaged generator's levels for noise ``z [n, noise_dim]``, ``[n, d]``."""
        return self.box.from_unit(self.generator_ema(z))

    @torch.no_grad()
    def explore(self, n: int, level_noise: float, rng: torch.Generator) -> Tensor:
        """``n`` generated levels, blurred by ``level_noise`` times the level space, ``[n, d]``."""
        unit = self.generator_ema(self.draw_noise(n, rng))
        noise = torch.randn(unit.shape, generator=rng, device=rng.device)
        # The unit cube is 2 wide.
        return self.box.from_unit(unit + 2 * level_noise * noise)

    @torch.no_grad()
    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ ``[n]``: how likely the present policy solves ``levels [n, d]``."""
        return torch.sigmoid(self.discriminator.success_logit(self.box.to_unit(levels)))

    def discriminator_losses(
        self, batch: GanBatch, z: Tensor, kind: gan.GANLoss, r1: float, r2: float
    ) -> dict[str, Tensor]:
        """What the discriminator minimises the sum of: adversarial, penalty and success loss."""
        real, level = self.box.to_unit(batch.real), self.box.to_unit(batch.level)
        with torch.no_grad():
            fake = self.generator(z)
        losses = gan.discriminator_losses(self.discriminator, kind, real, batch.label, fake, r1, r2)
        logit = self.discriminator.success_logit(level)
        return losses | {"gan/success_loss": gan.success_loss(logit, batch.success)}

    def generator_losses(
        self, batch: GanBatch, z: Tensor, kind: gan.GANLoss
    ) -> tuple[Tensor, Tensor]:
        """The generator's challenge and L_GAN; freeze the discriminator, or it gets a gradient."""
        real = self.box.to_unit(batch.real)
        return gan.generator_losses(self.discriminator, kind, real, self.generator(z))
