"""The GAN of levels: its networks, and how levels are made and judged with them."""

import copy

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from lit_crl.core.levels import UnitBox
from lit_crl.gan import equations as gan
from lit_crl.gan.batch import GanBatch
from lit_crl.gan.map_networks import GridDiscriminator, GridGenerator, edited
from lit_crl.gan.networks import Discriminator, VectorDiscriminator, VectorGenerator

#: How many candidates are made for each level of a given difficulty.
CANDIDATES_PER_LEVEL = 16


def nearest(p: Tensor, difficulty: float, n: int) -> Tensor:
    """Indices ``[n]`` of the candidates whose p̂ ``[m]`` is nearest to ``difficulty``.

    >>> nearest(torch.tensor([0.1, 0.5, 0.9, 0.4]), difficulty=0.45, n=2).sort().values
    tensor([1, 3])
    """
    return (p - difficulty).abs().topk(n, largest=False).indices


def perturbed(
    unit: Tensor,
    share: float,
    box: UnitBox,
    level_shape: tuple[int, int, int] | None,
    rng: torch.Generator,
) -> Tensor:
    """Levels ``[n, d]`` of the unit cube, changed a little, in the environment's units.

    Of maps, ``share`` of the tiles turn from wall to floor or back. Vectors get Gaussian noise with
    a standard deviation of ``share`` times the level space's width.
    """
    if level_shape is not None:
        maps = (unit.view(-1, *level_shape) + 1) / 2
        return edited(maps, share, rng).flatten(1)
    noise = torch.randn(unit.shape, generator=rng, device=rng.device)
    return box.from_unit(unit + 2 * share * noise)  # the unit cube is 2 wide


class LevelGan(nn.Module):
    """Generator, its moving average, and discriminator with success head.

    Methods take and return levels in the environment's units; the networks see them in the cube
    [−1, 1]ᵈ.
    """

    generator: VectorGenerator | GridGenerator
    discriminator: Discriminator

    def __init__(
        self,
        level_space: Box,
        level_shape: tuple[int, int, int] | None,
        noise_dim: int,
        hidden: tuple[int, ...],
    ) -> None:
        """Make the networks that fit the levels.

        Args:
            level_space: The levels' bounds.
            level_shape: Shape (C, H, W) of levels that are maps of tiles; None for vectors.
            noise_dim: Length of z; 0 means 32 for maps, and max(8, 2·d) for vectors.
            hidden: Width of each hidden layer; maps have convolutions in place of all but the last.
        """
        super().__init__()
        self.box = UnitBox.of(level_space)
        self.level_shape = level_shape
        if level_shape is None:
            dim = self.box.dim
            self.generator = VectorGenerator(dim, noise_dim or max(8, 2 * dim), hidden)
            self.discriminator = VectorDiscriminator(dim, hidden)
        else:
            self.generator = GridGenerator(level_shape, noise_dim or 32)
            self.discriminator = GridDiscriminator(level_shape, hidden)
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)

    def draw_noise(self, n: int, rng: torch.Generator) -> Tensor:
        """Noise z for ``n`` levels, ``[n, noise_dim]``."""
        return torch.randn(n, self.generator.noise_dim, generator=rng, device=rng.device)

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """The averaged generator's levels for noise ``z [n, noise_dim]``, ``[n, d]``."""
        return self.box.from_unit(self.generator_ema(z))

    @torch.no_grad()
    def explore(self, n: int, level_noise: float, rng: torch.Generator) -> Tensor:
        """``n`` generated levels, perturbed by the share ``level_noise``, ``[n, d]``."""
        unit = self.generator_ema(self.draw_noise(n, rng))
        return perturbed(unit, level_noise, self.box, self.level_shape, rng)

    def of_difficulty(
        self, n: int, difficulty: float, level_noise: float, rng: torch.Generator
    ) -> Tensor:
        """``n`` levels ``[n, d]`` as ``explore`` makes them, with p̂ near ``difficulty``.

        They are the nearest of 16 n candidates, nearest first. The alternative is a generator with
        the desired p̂ as an input (Racanière & Lampinen et al. 2020, Setter-Solver). On the point
        mass its p̂ was further off (by .20 to .29 on average, against .04 to .06), the policy's true
        success rate was no closer, and the levels were half as diverse.
        """
        candidates = self.explore(CANDIDATES_PER_LEVEL * n, level_noise, rng)
        return candidates[nearest(self.success_probability(candidates), difficulty, n)]

    @torch.no_grad()
    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ ``[n]``: how likely the present policy is to solve ``levels [n, d]``."""
        return torch.sigmoid(self.discriminator.success_logit(self.box.to_unit(levels)))

    @torch.no_grad()
    def realness(self, levels: Tensor) -> Tensor:
        """The discriminator's logits ``[n]`` of ``levels [n, d]``."""
        logit: Tensor = self.discriminator(self.box.to_unit(levels))
        return logit

    def discriminator_losses(
        self, batch: GanBatch, z: Tensor, kind: gan.GANLoss, r1: float, r2: float
    ) -> dict[str, Tensor]:
        """The discriminator's losses: adversarial, penalty and success; it minimises their sum."""
        real, level = self.box.to_unit(batch.real), self.box.to_unit(batch.level)
        with torch.no_grad():
            fake = self.generator(z)
        losses = gan.discriminator_losses(self.discriminator, kind, real, batch.label, fake, r1, r2)
        logit = self.discriminator.success_logit(level)
        return losses | {"gan/success_loss": gan.success_loss(logit, batch.success)}

    def generator_losses(
        self, batch: GanBatch, z: Tensor, kind: gan.GANLoss
    ) -> tuple[Tensor, Tensor]:
        """Challenge and L_GAN; freeze the discriminator first, or it gets a gradient, too."""
        real = self.box.to_unit(batch.real)
        return gan.generator_losses(self.discriminator, kind, real, self.generator(z))
