"""Statistics over seeds, against scipy, brute force and closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from lit_crl.evaluation import statistics
from lit_crl.evaluation.statistics import Estimate

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12).map(np.array)


@given(scores)
def test_iqm_drops_the_lowest_and_the_highest_quarter(values):
    cut = int(0.25 * len(values))
    kept = sorted(values)[cut : len(values) - cut]
    assert statistics.iqm(values) == pytest.approx(sum(kept) / len(kept))


def test_iqm_takes_all_tasks_together():
    values = np.arange(8.0).reshape(4, 2)
    assert statistics.iqm(values) == np.mean([2, 3, 4, 5])


@given(scores, scores)
def test_improvement_is_the_mann_whitney_statistic(ours, theirs):
    u = mannwhitneyu(ours, theirs).statistic
    found = statistics.improvement(ours[:, None], theirs[:, None])
    assert found == pytest.approx(u / (len(ours) * len(theirs)))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 3)), min_size=1, max_size=6),
       st.sampled_from([0.1, 0.25, 0.5, 1.0]))  # fmt: skip
def test_cvar_is_the_mean_of_the_worst_share_whatever_order_equals_have(pairs, alpha):
    ranking, scores = np.array(pairs, dtype=float).T
    found = []
    for order in itertools.permutations(range(len(pairs))):
        ranked = sorted(order, key=lambda level: ranking[level])  # stable: keeps that order
        left, total = alpha * len(pairs), 0.0
        for level in ranked:
            part = min(1.0, left)
            total, left = total + part * scores[level], left - part
        found.append(total / (alpha * len(pairs)))
    assert statistics.cvar(ranking, scores, alpha) == pytest.approx(np.mean(found), abs=1e-9)


def test_cvar_of_equal_passes_is_what_the_failures_leave_of_the_tail():
    success = np.array([0.0] * 4 + [1.0] * 96)
    assert statistics.cvar(success, success) == pytest.approx(0.6)
    assert statistics.cvar(1 - success, 1 - success) == 0


def test_cvar_of_two_passes_is_not_biased_by_chance_and_that_of_one_is():
    rng = np.random.default_rng(0)
    first, second = (rng.random((2_000, 50)) < 0.7).astype(float), rng.random((2_000, 50)) < 0.7
    both = [statistics.cvar(a, b) for a, b in zip(first, second.astype(float), strict=True)]
    once = [statistics.cvar(a, a) for a in first]
    assert np.mean(both) == pytest.approx(0.7, abs=0.01)  # every level is as hard as any other
    assert np.mean(once) < 0.01


def test_improvement_averages_over_tasks():
    ours, theirs = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 0.0]])
    assert statistics.improvement(ours, theirs) == 0.75


@given(scores)
def test_a_profile_counts_the_runs_above_each_threshold(values):
    thresholds = np.linspace(-6, 6, 25)
    expected = [sum(v > t for v in values) / len(values) for t in thresholds]
    assert statistics.performance_profile(values, thresholds).tolist() == pytest.approx(expected)


def test_a_bootstrap_sample_keeps_every_task_to_itself():
    values = np.arange(20.0).reshape(10, 2)
    rng = np.random.default_rng(0)
    drawn = np.stack([statistics.resample(values, rng) for _ in range(300)])
    assert drawn.shape == (300, 10, 2)
    for task in range(2):
        assert set(drawn[:, :, task].ravel()) == set(values[:, task])
    assert not np.array_equal(drawn[:, :, 0] + 1, drawn[:, :, 1])  # seeds are drawn per task


def test_the_interval_is_the_exact_bootstrap_of_four_seeds():
    """All 256 samples of four seeds are counted out; the mean's percentiles follow."""
    values = np.array([0.0, 1.0, 5.0, 2.5])
    means = [np.mean(each) for each in itertools.product(values, repeat=4)]
    ends = np.percentile(means, [2.5, 97.5], method="inverted_cdf")
    found = statistics.interval(lambda x: float(x.mean()), values[:, None], repetitions=20_000)
    assert found.value == 2.125
    assert found[1:] == pytest.approx(ends, abs=0.01)
    assert found == statistics.interval(
        lambda x: float(x.mean()), values[:, None], repetitions=20_000
    )


def test_the_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(3).normal(size=(400, 1))
    found = statistics.interval(lambda x: float(x.mean()), values)
    half = 1.96 * values.std() / 20
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), "ahead"),
        ((0.5, 0.4, 0.6), (0.8, 0.7, 0.9), "behind"),
        ((0.5, 0.4, 0.71), (0.8, 0.7, 0.9), "tie"),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), "tie"),
    ],
)
def test_only_separated_intervals_make_a_winner(ours, theirs, expected):
    assert statistics.verdict(Estimate(*ours), Estimate(*theirs)) == expected
