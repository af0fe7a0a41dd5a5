"""Statistics over seeds: robust means, their uncertainty, and comparisons of two arms.

Scores are ``[S, T]``: seeds by tasks (or metrics, or levels). Few seeds make means and medians
unreliable; these are what Agarwal et al. 2021, *Deep RL at the Edge of the Statistical Precipice*
(arXiv:2108.13264), recommend in their place.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


class Estimate(NamedTuple):
    """A statistic of the scores, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def is_above(self, other: "Estimate") -> bool:
        """Whether the whole interval lies above the other one."""
        return self.low > other.high


def iqm(scores: Scores) -> float:
    """Interquartile mean: the mean of the middle half of all scores, §4.3."""
    ranked = np.sort(scores, axis=None)
    cut = len(ranked) // 4
    return float(ranked[cut : len(ranked) - cut].mean())


def improvement(ours: Scores, theirs: Scores) -> float:
    """P(X > Y) + ½ P(X = Y) for a seed of each, averaged over tasks, §4.3 (Mann–Whitney U)."""
    difference = ours[:, None] - theirs[None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def performance_profile(scores: Scores, thresholds: Scores) -> Scores:
    """Share of runs that score above each threshold ``[K]``, §4.2: a tail distribution."""
    above: Scores = (scores.reshape(-1, 1) > thresholds).mean(axis=0)
    return above


def cvar(ranking: Scores, scores: Scores, alpha: float = 0.1) -> float:
    """CVaR_α: the mean score of the worst share α of levels (Rockafellar & Uryasev 2002).

    As Rutherford et al. 2024 (SFL) have it, one evaluation pass says which levels are worst and
    another how bad they are: from one alone, failures by chance would make the tail look worse than
    it is. The passes of a greedy policy in a deterministic environment do not differ.

    Args:
        ranking: Each level's score on the first pass, ``[L]``.
        scores: Each level's score on an independent second pass, ``[L]``.
        alpha: The share; of levels that rank alike at its end each counts the same part.
    """
    _, group, sizes = np.unique(ranking, return_inverse=True, return_counts=True)
    mass = alpha * len(ranking)
    taken = np.clip(mass - (sizes.cumsum() - sizes), 0, sizes)
    means = np.bincount(group, weights=scores) / sizes
    return float((taken * means).sum() / mass)


def resample(scores: Scores, rng: np.random.Generator) -> Scores:
    """Seeds drawn anew with replacement, for each task by itself: a stratified bootstrap sample."""
    seeds = rng.integers(len(scores), size=scores.shape)
    return np.take_along_axis(scores, seeds, axis=0)


def interval(
    statistic: Callable[[Scores], float], scores: Scores, repetitions: int = 2_000, seed: int = 0
) -> Estimate:
    """A statistic with its 95 % percentile interval by stratified bootstrap, §4.1."""
    rng = np.random.default_rng(seed)
    found = [statistic(resample(scores, rng)) for _ in range(repetitions)]
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(statistic(scores), float(low), float(high))


def verdict(ours: Estimate, theirs: Estimate) -> str:
    """``ahead`` or ``behind`` where the intervals are apart, else ``tie``."""
    if ours.is_above(theirs):
        return "ahead"
    return "behind" if theirs.is_above(ours) else "tie"
