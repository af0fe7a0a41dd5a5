"""Statistics over seeds: robust means, their uncertainty, and the difference of two arms.

Scores are ``[S, T]``: seeds by tasks (or metrics, or levels). With few seeds, means and medians are
unreliable. Agarwal et al. 2021, *Deep RL at the Edge of the Statistical Precipice*
(arXiv:2108.13264), recommend the interquartile mean and the stratified bootstrap instead. With five
or ten seeds the plain bootstrap's intervals are too narrow. They are widened after Hesterberg 2015,
*What Teachers Should Know About the Bootstrap* (arXiv:1411.5279).
"""

from collections.abc import Callable, Hashable, Mapping
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
#: From scores ``[..., S, T]`` to one number for each of the leading indices.
Statistic = Callable[[Scores], Scores]
Pair = TypeVar("Pair", bound=Hashable)

#: The probability that an interval misses the truth.
ALPHA = 0.05
#: Bootstrap samples: with this many, dozens of them lie beyond each end of an interval.
REPETITIONS = 20_000


class Estimate(NamedTuple):
    """A statistic of the scores, and the ends of its interval."""

    value: float
    low: float
    high: float

    def negated(self) -> "Estimate":
        """The estimate of the opposite number: of ``b − a``, if this is of ``a − b``."""
        return Estimate(-self.value, -self.high, -self.low)

    @property
    def excludes_0(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    @property
    def evidence(self) -> float:
        """How far the value is from 0, measured by its distance from the end towards 0."""
        nearest = self.value - self.low if self.value > 0 else self.high - self.value
        if nearest > 0:
            return abs(self.value) / nearest
        return float("inf") if self.value else 0.0


def iqm(scores: Scores) -> Scores:
    """Interquartile mean of scores ``[..., S, T]``: the mean of the middle half of all, §4.3.

    >>> float(iqm(np.array([[0.0], [0.5], [0.75], [100.0]])))
    0.625
    """
    ranked = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    total = ranked.shape[-1]
    cut = total // 4
    middle: Scores = ranked[..., cut : total - cut].mean(axis=-1)
    return middle


def performance_profile(scores: Scores, thresholds: Scores) -> Scores:
    """Share of runs that score above each threshold ``[K]``, §4.2: a tail distribution.

    >>> performance_profile(np.array([[0.0], [0.5], [1.0]]), np.array([-1.0, 0.5])).round(3)
    array([1.   , 0.333])
    """
    above: Scores = (scores.reshape(-1, 1) > thresholds).mean(axis=0)
    return above


def cvar(ranking: Scores, scores: Scores, alpha: float = 0.1) -> float:
    """CVaR_α: the mean score of the worst share α of levels (Rockafellar & Uryasev 2002).

    As in Rutherford et al. 2024 (SFL), one evaluation pass decides which levels are worst, and
    another measures how bad they are. With a single pass, failures by chance would make the tail
    look worse than it is. This needs chance: two passes of a greedy policy in a deterministic
    environment are equal.

    >>> ranking, scores = np.array([0.0, 0.5, 1.0, 1.0]), np.array([0.25, 0.5, 1.0, 1.0])
    >>> cvar(ranking, scores, alpha=0.5)
    0.375

    Args:
        ranking: Each level's score on the first pass, ``[L]``.
        scores: Each level's score on an independent second pass, ``[L]``.
        alpha: The share. If levels with equal rank lie at its end, each of them counts in part.
    """
    _, group, sizes = np.unique(ranking, return_inverse=True, return_counts=True)
    mass = alpha * len(ranking)
    taken = np.clip(mass - (sizes.cumsum() - sizes), 0, sizes)
    means = np.bincount(group, weights=scores) / sizes
    return float((taken * means).sum() / mass)


def resamples(scores: Scores, repetitions: int, rng: np.random.Generator) -> Scores:
    """Stratified bootstrap samples ``[R, S, T]``: seeds drawn anew for each task, §4.1."""
    seeds = rng.integers(len(scores), size=(repetitions, *scores.shape))
    return np.take_along_axis(scores[None], seeds, axis=1)


def t_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t with ν = ``freedom`` degrees of freedom.

    With t = √ν tan θ the density is proportional to cos(θ)^(ν − 1) on (−π/2, π/2). Its integral is
    tabulated here and inverted, because the package does not depend on SciPy.

    >>> round(t_quantile(0.975, freedom=4), 3)
    2.776
    """
    angles = np.linspace(-np.pi / 2, np.pi / 2, 10_001)
    density = np.cos(angles).clip(0) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(freedom) * np.tan(np.interp(probability * mass[-1], mass, angles)))


def interval(
    statistic: Statistic, scores: Scores, repetitions: int = REPETITIONS, seed: int = 0
) -> Estimate:
    """A statistic with its 95 % expanded percentile interval by stratified bootstrap.

    The ends are the percentiles Φ(∓ √(n/(n − 1)) t) of the bootstrap instead of Φ(∓ z), where t is
    the quantile of Student's t with n − 1 degrees of freedom (Hesterberg 2015). The interval stays
    within the range of the scores. With five seeds it covers the truth in 93 % of cases, the plain
    one in 89 to 90 %. A single seed has no spread: both ends are its score.
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
    ``pairs`` intervals hold simultaneously with 95 % (Bonferroni). Its ends are percentiles q of
    the bootstrap, moved away from the value d to d + c (q − d), with a factor for few seeds::

        c = √(v̂ / v) · t / z,    v = v₁ + v₂,    v̂ = v₁ n₁/(n₁ − 1) + v₂ n₂/(n₂ − 1)

    Here v₁ and v₂ are the bootstrap's variances, z is the normal quantile, and t is the quantile of
    Student's t with the degrees of freedom of Welch and Satterthwaite. Welch's interval is longer
    by this factor than a normal one with the bootstrap's standard error.

    Args:
        statistic: What is compared, e.g. ``iqm``.
        ours: Scores ``[S₁, T]`` of at least two seeds.
        theirs: Scores ``[S₂, T]`` of at least two seeds.
        pairs: How many differences are judged together, for instance in one table.
        repetitions: Bootstrap samples.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    both = [statistic(resamples(scores, repetitions, rng)) for scores in (ours, theirs)]
    value = float(statistic(ours) - statistic(theirs))
    sizes = np.array([len(ours), len(theirs)])
    plain = np.array([found.var() for found in both])
    if not plain.any():  # all samples are equal
        return Estimate(value, value, value)
    corrected = plain * sizes / (sizes - 1)
    freedom = corrected.sum() ** 2 / (corrected**2 / (sizes - 1)).sum()
    tail = ALPHA / pairs / 2
    stretch = t_quantile(1 - tail, freedom) / NormalDist().inv_cdf(1 - tail)
    stretch *= np.sqrt(corrected.sum() / plain.sum())
    return _stretched(value, both[0] - both[1], tail, stretch)


def paired_difference(
    statistic: Statistic,
    ours: Scores,
    theirs: Scores,
    pairs: int = 1,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Estimate:
    """Statistic of ours minus that of theirs, if a seed brings the same luck to both arms.

    So it is if a seed decides which levels or which log both arms are given. The same seeds are
    drawn for both, so that luck which both share cancels. With c = √(n/(n − 1)) · t / z, where t
    has n − 1 degrees of freedom, ends are moved away from the value as in ``difference``.

    Args:
        statistic: What is compared, e.g. ``iqm``.
        ours: Scores ``[S, T]`` of at least two seeds.
        theirs: Scores ``[S, T]`` of the same seeds, in the same order.
        pairs: How many differences are judged together, for instance in one table.
        repetitions: Bootstrap samples.
        seed: Seed of the resampling.
    """
    n = len(ours)
    drawn = np.random.default_rng(seed).integers(n, size=(repetitions, n))
    found = statistic(ours[drawn]) - statistic(theirs[drawn])
    value = float(statistic(ours) - statistic(theirs))
    tail = ALPHA / pairs / 2
    stretch = t_quantile(1 - tail, n - 1) / NormalDist().inv_cdf(1 - tail)
    stretch *= np.sqrt(n / (n - 1))
    return _stretched(value, found, tail, stretch)


def _stretched(value: float, found: Scores, tail: float, stretch: float) -> Estimate:
    """The percentiles of the bootstrap ``found [R]``, moved away from the value."""
    ends = np.quantile(found, [tail, 1 - tail])
    low, high = value + stretch * (ends - value)
    return Estimate(value, float(low), float(high))


def holm(compare: Mapping[Pair, Callable[[int], Estimate]]) -> dict[Pair, Estimate]:
    """All differences of a table; those that exclude 0 do so together with 95 % (Holm 1979).

    The clearest difference of m is judged at the level 1 − α/m. Each that excludes 0 leaves one
    fewer to be judged: the next one gets 1 − α/(m − 1), and so on. This holds in any order of the
    differences, because the first one that is wrongly called apart from 0 comes after right ones
    alone, so that its level is at least 1 − α/m₀ if m₀ differences are truly 0.

    Args:
        compare: For each pair a function that takes the number of differences to be judged, and
            gives the difference with its interval.
    """
    everything = {pair: at_level(len(compare)) for pair, at_level in compare.items()}
    order = sorted(compare, key=lambda pair: everything[pair].evidence, reverse=True)
    remaining = len(compare)
    found = {}
    for pair in order:
        found[pair] = compare[pair](remaining)
        remaining -= found[pair].excludes_0
    return {pair: found[pair] for pair in compare}


def verdict(difference: Estimate, margin: float | None = None) -> str:
    """Whether ours is ahead of theirs, judged by the interval of their difference.

    >>> verdict(Estimate(0.2, 0.1, 0.3)), verdict(Estimate(0.2, -0.1, 0.5))
    ('ahead', 'undecided')

    Args:
        difference: Ours minus theirs.
        margin: The largest difference that does not matter, if it was chosen before the runs.

    Returns:
        ``equivalent`` if the interval lies within ± margin, else ``ahead`` or ``behind`` if it lies
        on one side of 0, else ``undecided``.
    """
    if margin is not None and -margin <= difference.low and difference.high <= margin:
        return "equivalent"
    if not difference.excludes_0:
        return "undecided"
    return "ahead" if difference.value > 0 else "behind"
