"""A normal distribution along the principal components of given levels."""

import torch
from torch import Tensor

from lit_crl.curriculum.rejection import valid_levels
from lit_crl.curriculum.sources import SourceContext
from lit_crl.envs.given_levels import given_levels

#: How many levels are drawn at most in search of valid ones.
MOST = 2**20


def principal_components(levels: Tensor, kept: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, components and standard deviations of levels, Jolliffe 2002, §2.3.

    Args:
        levels: Levels ``[K, d]``.
        kept: Share of the variance that the components must have at least.

    Returns:
        The mean ``[d]``; the first q principal components ``[q, d]``, orthonormal; the standard
        deviation along each, ``[q]``.
    """
    mean = levels.mean(dim=0)
    _, spread, components = torch.linalg.svd(levels - mean, full_matrices=False)
    variance = spread.square() / (len(levels) - 1)
    needed = min(int((variance.cumsum(0) < kept * variance.sum()).sum()) + 1, len(variance))
    return mean, components[:needed], variance[:needed].sqrt()


class PcaGaussian:
    """The arm ``gaussian``: levels from a normal distribution fitted to the given ones.

    x = μ + Σᵢ σᵢ εᵢ vᵢ with ε ~ N(0, 1): μ is the mean of the given levels, v are their first
    principal components, and σ their standard deviations there (Tipping & Bishop 1999, without
    noise). Coordinates count in the box scaled to [−1, 1], and end at its faces.
    """

    def __init__(self, kept: float = 0.95) -> None:
        """Prepare to fit.

        Args:
            kept: Share of the variance that the components keep.
        """
        self.kept = kept

    def __call__(self, n: int, curriculum: SourceContext, teacher: object) -> Tensor:
        """``n`` valid levels ``[n, d]``.

        Raises:
            ConfigError: If hardly any level of the distribution is valid.
        """
        env, box, rng = curriculum.env, curriculum.box, curriculum.rng
        given = box.to_unit(given_levels(env))
        mean, components, deviation = principal_components(given, self.kept)

        def draw(k: int) -> Tensor:
            steps = torch.randn(k, len(deviation), generator=rng, device=rng.device) * deviation
            return box.from_unit(mean + steps @ components)

        return valid_levels(draw, n, env, MOST, "gaussian", "use data.curriculum.arm edits or gan")
