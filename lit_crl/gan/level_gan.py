"""The GAN of levels: its networks, and how levels are made and judged with them."""

import copy
from typing import cast

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from lit_crl.core.levels import UnitBox
from lit_crl.gan.map_networks import GridDiscriminator, GridGenerator, edited
from lit_crl.gan.networks import VectorDiscriminator, VectorGenerator

#: Candidates for each level of a given difficulty, see ``nearest``.
CANDIDATES = 16


def nearest(p: Tensor, difficulty: float, n: int) -> Tensor:
    """Indices of the ``n`` candidates whose p̂ ``[m]`` is nearest to the one wanted, ``[n]``."""
    return (p - difficulty).abs().topk(n, largest=False).indices


class LevelGan(nn.Module):
    """Generator, its moving average, and discriminator with success head.

    Levels come and go in the environment's units; the networks see them in the cube [−1, 1]ᵈ.
    """

    generator: VectorGenerator | GridGenerator
    discriminator: VectorDiscriminator | GridDiscriminator

    def __init__(
        self,
        level_space: Box,
        level_shape: tuple[int, int, int] | None,
        noise_dim: int,
        hidden: tuple[int, ...],
    ) -> None:
        """Make the networks that fit levels.

        Args:
            level_space: The levels' bounds.
            level_shape: Of levels that are maps of tiles; None for vectors.
            noise_dim: Length of z; 0: 32 for maps, and max(8, 2·d) for vectors.
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
        """``n`` generated levels, blurred by ``level_noise`` times the level space, ``[n, d]``.

        Of maps, that share of the tiles is changed.
        """
        unit = self.generator_ema(self.draw_noise(n, rng))
        if self.level_shape is not None:
            maps = (unit.view(-1, *self.level_shape) + 1) / 2
            return edited(maps, level_noise, rng).flatten(1)
        noise = torch.randn(unit.shape, generator=rng, device=rng.device)
        # The unit cube is 2 wide.
        return self.box.from_unit(unit + 2 * level_noise * noise)

    def of_difficulty(
        self, n: int, difficulty: float, level_noise: float, rng: torch.Generator
    ) -> Tensor:
        """``n`` levels ``[n, d]`` as ``explore`` makes them, of p̂ near ``difficulty``.

        They are the nearest of 16 n, nearest first. On the point mass a generator that was trained
        with the p̂ wanted as its input (as in Racanière & Lampinen et al. 2020, Setter-Solver)
        missed it by more (.20 to .29 against .04 to .06 on average), was as far off in what the
        policy then solved, and made levels half as diverse.
        """
        candidates = self.explore(CANDIDATES * n, level_noise, rng)
        return candidates[nearest(self.success_probability(candidates), difficulty, n)]

    @torch.no_grad()
    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ ``[n]``: how likely the present policy solves ``levels [n, d]``."""
        return torch.sigmoid(self.discriminator.success_logit(self.box.to_unit(levels)))

    @torch.no_grad()
    def realness(self, levels: Tensor) -> Tensor:
        """The discriminator's logits ``[n]`` of ``levels [n, d]``."""
        return cast(Tensor, self.discriminator(self.box.to_unit(levels)))
