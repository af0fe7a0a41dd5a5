"""Metrics of generated levels, against naive loops and known cases."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.evaluation import generator_metrics, level_manifold
from lit_crl.evaluation.generator_metrics import (
    BrierScore,
    FrontierHitRate,
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
        level_manifold.coverage(points(9, 0), points(5, 1))


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


def test_levels_that_come_again_in_a_later_batch_are_not_unique() -> None:
    metric = UniqueRate()
    for _ in range(2):
        metric.update(points(20, 0))
    assert metric.compute().item() == pytest.approx(0.5)


def test_the_examples_in_the_docstrings_run() -> None:
    found = doctest.testmod(generator_metrics)
    assert found.attempted >= 6 and found.failed == 0
