"""Metrics of generated levels, against naive loops and known cases."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.evaluation import manifold
from lit_crl.evaluation.level_metrics import (
    BrierScore,
    FrontierHitRate,
    Learnability,
    LevelManifold,
    PathLengthQuantiles,
    UniqueRate,
)

K = 2


def points(n: int, seed: int, dim: int = 3) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(fake: list[list[float]], real: list[list[float]], k: int) -> dict[str, float]:
    """Loops over the definitions in the two papers."""

    def distance(a: list[float], b: list[float]) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5

    def radius(of: list[list[float]], i: int) -> float:
        return sorted(distance(of[i], other) for j, other in enumerate(of) if j != i)[k - 1]

    def holds(centres: list[list[float]], i: int, point: list[float]) -> bool:
        return distance(centres[i], point) <= radius(centres, i)

    def covered(each: list[list[float]], centres: list[list[float]]) -> float:
        return sum(any(holds(centres, i, p) for i in range(len(centres))) for p in each) / len(each)

    def spread(of: list[list[float]]) -> float:
        pairs = [(i, j) for i in range(len(of)) for j in range(i)]
        return sum(distance(of[i], of[j]) for i, j in pairs) / len(pairs)

    balls = range(len(real))
    return {
        "precision": covered(fake, real),
        "recall": covered(real, fake),
        "density": sum(holds(real, i, p) for p in fake for i in balls) / (k * len(fake)),
        "coverage": sum(any(holds(real, i, p) for p in fake) for i in balls) / len(real),
        "diversity": spread(fake) / spread(real),
    }


@given(st.integers(K + 1, 12), st.integers(K + 1, 12), st.integers(0, 1_000))
def test_the_manifold_metrics_agree_with_naive_loops(n: int, m: int, seed: int) -> None:
    fake, real = 0.7 * points(n, seed), points(m, seed + 1)
    metric = LevelManifold(k=K)
    metric.update(fake[:1], real[:2])
    metric.update(fake[1:], real[2:])
    expected = naive(fake.tolist(), real.tolist(), K)
    found = {name: number.item() for name, number in metric.compute().items()}
    assert found == pytest.approx(expected, abs=1e-6)


def test_equal_distributions_score_near_one_and_a_collapsed_one_near_zero() -> None:
    real, alike = points(800, 0, 2), points(800, 1, 2)
    collapsed = real[:1] + 1e-4 * points(800, 2, 2)
    metric = LevelManifold()
    metric.update(alike, real)
    good = metric.compute()
    assert all(0.9 < number < 1.1 for number in good.values())
    metric.reset()
    metric.update(collapsed, real)
    bad = metric.compute()
    assert bad["precision"] == 1  # which alone would be fooled
    assert max(bad[name] for name in ("recall", "coverage", "diversity")) < 0.02


def test_too_few_levels_are_told() -> None:
    with pytest.raises(ValueError, match="5 levels have no 5-th neighbour: give more than 5"):
        manifold.coverage(points(9, 0), points(5, 1))


@given(st.lists(st.lists(st.booleans(), min_size=10, max_size=10), min_size=2, max_size=9))
def test_the_frontier_is_what_is_solved_sometimes(outcomes: list[list[bool]]) -> None:
    metric = FrontierHitRate()
    metric.update(torch.tensor(outcomes[:1]))
    metric.update(torch.tensor(outcomes[1:]))
    hits = sum(1 < sum(each) < 9 for each in outcomes)
    assert metric.compute().item() == pytest.approx(hits / len(outcomes))


def test_brier_is_the_mean_over_all_batches() -> None:
    p, success = points(30, 0, 4), points(30, 1, 4) > 0.5
    metric = BrierScore()
    metric.update(p[:7], success[:7])
    metric.update(p[7:], success[7:])
    pairs = zip(p.flatten().tolist(), success.flatten().tolist(), strict=True)
    assert metric.compute().item() == pytest.approx(sum((a - b) ** 2 for a, b in pairs) / 120)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=30))
def test_path_lengths_have_numpys_quantiles(steps: list[int]) -> None:
    metric = PathLengthQuantiles()
    metric.update(torch.tensor(steps[:1]))
    metric.update(torch.tensor(steps[1:]))
    found = [metric.compute()[name].item() for name in ("p10", "p50", "p90")]
    assert found == pytest.approx(np.percentile(steps, [10, 50, 90]).tolist())


def naive_unique_rate(fake: list[list[float]], real: list[list[float]]) -> float:
    nearest = [min(math.dist(a, b) for b in real if b is not a) for a in real]
    least = sorted(nearest)[(len(nearest) - 1) // 2] / 2
    distinct = [all(math.dist(a, b) > least for b in fake[:i]) for i, a in enumerate(fake)]
    return sum(distinct) / len(fake)


@given(st.integers(2, 15), st.integers(1, 20), st.integers(0, 1_000))
def test_the_unique_rate_agrees_with_naive_loops(n: int, dim: int, seed: int) -> None:
    fake, real = 0.6 * points(n, seed, dim), points(n, seed + 1, dim)
    metric = UniqueRate()
    for part in (slice(None, 1), slice(1, None)):
        metric.update(fake[part], real[part])
    assert metric.compute().item() == pytest.approx(naive_unique_rate(fake.tolist(), real.tolist()))


@pytest.mark.parametrize("dim", [2, 6, 20])
def test_a_generator_that_collapses_is_not_unique_in_any_dimension(dim: int) -> None:
    real = 2 * points(64, 0, dim) - 1
    rates = {}
    for name, fake in {
        "alike": 2 * points(64, 1, dim) - 1,
        "collapsed": 0.3 + 0.01 * (2 * points(64, 2, dim) - 1),
        "two points": (real[:2] + 0.01 * points(2, 3, dim)).repeat(32, 1),
        "half": torch.cat([real[:32], 0.01 * points(32, 4, dim)]),
    }.items():
        metric = UniqueRate()
        metric.update(fake, real)
        rates[name] = metric.compute().item()
    assert rates["alike"] > 0.8
    assert rates["collapsed"] == pytest.approx(1 / 64)
    assert rates["two points"] == pytest.approx(2 / 64)
    assert rates["half"] == pytest.approx(0.5, abs=0.1)


@given(st.integers(2, 7), st.floats(0, 1))
def test_learnability_has_no_bias(episodes: int, p: float) -> None:
    """Over all ways in which a coin can fall, weighed by how likely they are."""
    expected = 0.0
    for falls in itertools.product([0.0, 1.0], repeat=episodes):
        metric = Learnability()
        metric.update(torch.tensor([falls]))
        wins = sum(falls)
        expected += p**wins * (1 - p) ** (episodes - wins) * metric.compute().item()
    assert expected == pytest.approx(4 * p * (1 - p), abs=1e-5)
