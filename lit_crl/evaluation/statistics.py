"""Statistics over seeds: robust means, their uncertainty, and the difference of two arms.

Scores are ``[S, T]``: seeds by tasks (or metrics, or levels). Few seeds make means and medians
unreliable. In their place Agarwal et al. 2021, *Deep RL at the Edge of the Statistical Precipice*
(arXiv:2108.13264), recommend the interquartile mean and the stratified bootstrap. Of five or ten
seeds the plain bootstrap makes intervals that are too narrow. How to widen them is from Hesterberg
2015, *What Teachers Should Know About the Bootstrap* (arXiv:1411.5279).
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
#: From scores ``[..., S, T]`` to one number for each of the leading indices.
Statistic = Callable[[Scores], Scores]

#: The probability that an interval misses the truth.
ALPHA = 0.05
#: Bootstrap samples: those that the ends of an interval rest on are then dozens at least.
REPETITIONS = 20_000


class Estimate(NamedTuple):
    """A statistic of the scores, and the ends of its interval."""

    value: float
    low: float
    high: float

    def negated(self) -> "Estimate":
        """The same of the opposite number: of ``b − a``, if this is of ``a − b``."""
        return Estimate(-self.value, -self.high, -self.low)


def iqm(scores: Scores) -> Scores:
    """Interquartile mean of scores ``[..., S, T]``: the mean of the middle half of all, §4.3."""
    ranked = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    total = ranked.shape[-1]
    cut = total // 4
    middle: Scores = ranked[..., cut : total - cut].mean(axis=-1)
    return middle


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


def resamples(scores: Scores, repetitions: int, rng: np.random.Generator) -> Scores:
    """Stratified bootstrap samples ``[R, S, T]``: seeds drawn anew, each task by itself, §4.1."""
    seeds = rng.integers(len(scores), size=(repetitions, *scores.shape))
    return np.take_along_axis(scores[None], seeds, axis=1)


def t_quantile(probability: float, freedom: float) -> float:
    """Student's t: the value that it stays below with this probability.

    With t = √ν tan θ its density is proportional to cos(θ)^(ν − 1) on (−π/2, π/2); the integral of
    that is tabulated here, and read backwards.
    """
    angles = np.linspace(-np.pi / 2, np.pi / 2, 100_001)
    density = np.cos(angles).clip(0) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(freedom) * np.tan(np.interp(probability * mass[-1], mass, angles)))


def interval(
    statistic: Statistic, scores: Scores, repetitions: int = REPETITIONS, seed: int = 0
) -> Estimate:
    """A statistic with its 95 % expanded percentile interval by stratified bootstrap.

    The ends are the percentiles Φ(∓ √(n/(n − 1)) t) of the bootstrap, t being the quantile of
    Student's t with n − 1 degrees of freedom, in place of Φ(∓ z) (Hesterberg 2015). The interval
    stays within the range of the scores. Of five seeds it covers the truth in 93 % of cases, where
    the plain one does in 89 to 90 %. A single seed has no spread: both ends are its score.
    """
    value, n = float(statistic(scores)), len(scores)
    if n == 1:
        return Estimate(value, value, value)
    found = statistic(resamples(scores, repetitions, np.random.default_rng(seed)))
    t = t_quantile(1 - ALPHA / 2, n - 1)
    tail = NormalDist().cdf(-np.sqrt(n / (n - 1)) * t)
    low, high = np.quantile(found, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def difference(
    statistic: Statistic,
    ours: Scores,
    theirs: Scores,
    pairs: int = 1,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Estimate:
    """Statistic of ours minus that of theirs, with its bootstrap interval.

    The seeds of both are drawn anew independently. Each interval has the level 1 − α/pairs, so that
    ``pairs`` of them hold all at once with 95 % (Bonferroni). Its ends are percentiles q of the
    bootstrap, moved away from the value d to d + c (q − d), with the factor that few seeds need::

        c = √(v̂ / v) · t / z,    v = v₁ + v₂,    v̂ = v₁ n₁/(n₁ − 1) + v₂ n₂/(n₂ − 1)

    Here v₁ and v₂ are the bootstrap's variances, z is the normal quantile, and t is the quantile of
    Student's t with the degrees of freedom of Welch and Satterthwaite. By this factor Welch's
    interval is longer than a normal one with the bootstrap's standard error.

    Args:
        statistic: What is compared, e.g. ``iqm``.
        ours: Scores ``[S₁, T]``, of two seeds at least.
        theirs: Scores ``[S₂, T]``, of two seeds at least.
        pairs: How many differences are judged together, as in one table.
        repetitions: Bootstrap samples.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    both = [statistic(resamples(scores, repetitions, rng)) for scores in (ours, theirs)]
    value = float(statistic(ours) - statistic(theirs))
    sizes = np.array([len(ours), len(theirs)])
    plain = np.array([found.var() for found in both])
    if not plain.any():  # every sample is the same
        return Estimate(value, value, value)
    corrected = plain * sizes / (sizes - 1)
    freedom = corrected.sum() ** 2 / (corrected**2 / (sizes - 1)).sum()
    tail = ALPHA / pairs / 2
    stretch = t_quantile(1 - tail, freedom) / NormalDist().inv_cdf(1 - tail)
    stretch *= np.sqrt(corrected.sum() / plain.sum())
    low, high = np.quantile(both[0] - both[1], [tail, 1 - tail])
    return Estimate(
        value, float(value + stretch * (low - value)), float(value + stretch * (high - value))
    )


def verdict(difference: Estimate, margin: float | None = None) -> str:
    """What the interval of a difference says of ours against theirs.

    Args:
        difference: Ours minus theirs.
        margin: The largest difference that does not matter, if one was named before the runs.

    Returns:
        ``equivalent`` if the interval lies within ± margin, else ``ahead`` or ``behind`` if it lies
        on one side of 0, else ``undecided``.
    """
    if margin is not None and -margin <= difference.low and difference.high <= margin:
        return "equivalent"
    if difference.low > 0:
        return "ahead"
    return "behind" if difference.high < 0 else "undecided"
