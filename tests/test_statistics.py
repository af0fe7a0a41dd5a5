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
