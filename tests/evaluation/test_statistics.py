"""Statistics over seeds, against scipy, brute force and closed forms."""

import itertools
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm, trim_mean, ttest_ind, ttest_rel
from scipy.stats import t as student

from lit_crl.evaluation import statistics
from lit_crl.evaluation.statistics import Estimate

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12).map(np.array)


@given(scores)
def test_iqm_drops_the_lowest_and_the_highest_quarter(values):
    cut = int(0.25 * len(values))
    kept = sorted(values)[cut : len(values) - cut]
    assert statistics.iqm(values[:, None]) == pytest.approx(sum(kept) / len(kept))
    assert statistics.iqm(values[:, None]) == pytest.approx(trim_mean(values, 0.25))


def test_iqm_takes_all_tasks_together():
    values = np.arange(8.0).reshape(4, 2)
    assert statistics.iqm(values) == np.mean([2, 3, 4, 5])
    assert statistics.iqm(np.stack([values, 9 * values])).tolist() == [3.5, 31.5]


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


@given(scores)
def test_a_profile_counts_the_runs_above_each_threshold(values):
    thresholds = np.linspace(-6, 6, 25)
    expected = [sum(v > t for v in values) / len(values) for t in thresholds]
    assert statistics.performance_profile(values, thresholds).tolist() == pytest.approx(expected)


def test_a_bootstrap_sample_keeps_every_task_to_itself():
    values = np.arange(20.0).reshape(10, 2)
    drawn = statistics.resamples(values, 300, np.random.default_rng(0))
    assert drawn.shape == (300, 10, 2)
    for task in range(2):
        assert set(drawn[:, :, task].ravel()) == set(values[:, task])
    assert not np.array_equal(drawn[:, :, 0] + 1, drawn[:, :, 1])  # seeds are drawn per task


@pytest.mark.parametrize("freedom", [1.0, 2.5, 4.0, 9.0, 18.0, 300.0])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.9, 0.975, 0.9999])
def test_quantiles_of_students_t_are_those_of_scipy(probability, freedom):
    found = statistics.t_quantile(probability, freedom)
    assert found == pytest.approx(student.ppf(probability, freedom), rel=1e-4, abs=1e-4)


def mean(scores):
    return scores.mean(axis=(-2, -1))


def test_the_interval_is_that_of_scipys_bootstrap_at_the_expanded_level():
    values = np.random.default_rng(1).gamma(1.0, size=9)
    found = statistics.interval(statistics.iqm, values[:, None])
    level = 1 - 2 * norm.cdf(-np.sqrt(9 / 8) * student.ppf(0.975, 8))
    expected = bootstrap(
        (values,), lambda x, axis: trim_mean(x, 0.25, axis=axis), method="percentile",
        confidence_level=level, n_resamples=20_000, rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert found.value == pytest.approx(trim_mean(values, 0.25))
    assert found[1:] == pytest.approx([expected.low, expected.high], rel=0.03)
    assert values.min() <= found.low and found.high <= values.max()


def test_a_single_seed_has_no_spread():
    assert statistics.interval(statistics.iqm, np.array([[0.3]])) == (0.3, 0.3, 0.3)


def coverage(draw, seeds, runs=400):
    """The share of samples whose interval has the true IQM."""
    truth = float(statistics.iqm(draw(2_000_000)[:, None]))
    found = (statistics.interval(statistics.iqm, draw(seeds)[:, None], 1_000) for _ in range(runs))
    return np.mean([each.low <= truth <= each.high for each in found])


def test_intervals_of_few_seeds_cover_the_truth():
    """The plain percentile interval of five seeds does so in 89 % of cases."""
    rng = np.random.default_rng(0)
    assert coverage(lambda n: rng.normal(size=n), 5) > 0.91
    assert coverage(lambda n: rng.random(n), 10) > 0.93


# Differences


def test_the_difference_of_many_seeds_has_the_interval_of_scipys_bootstrap():
    rng = np.random.default_rng(4)
    ours, theirs = rng.gamma(2.0, size=400), rng.gamma(1.5, size=300)
    found = statistics.difference(statistics.iqm, ours[:, None], theirs[:, None])
    expected = bootstrap(
        (ours, theirs), lambda x, y, axis: trim_mean(x, 0.25, axis) - trim_mean(y, 0.25, axis),
        method="percentile", n_resamples=10_000, rng=rng,
    ).confidence_interval  # fmt: skip
    assert found.value == pytest.approx(trim_mean(ours, 0.25) - trim_mean(theirs, 0.25))
    assert found[1:] == pytest.approx([expected.low, expected.high], abs=0.01)


@pytest.mark.parametrize(("seeds", "pairs"), [((6, 9), 1), ((10, 10), 6)])
def test_the_difference_of_two_means_has_about_welchs_interval(seeds, pairs):
    """Of means of normal scores the bootstrap is normal: what is left is Welch's interval."""
    rng = np.random.default_rng(0)
    ours, theirs = (student.rvs(50, size=n, random_state=rng) for n in seeds)
    found = statistics.difference(mean, ours[:, None], theirs[:, None], pairs, 200_000)
    welch = ttest_ind(ours, theirs, equal_var=False).confidence_interval(1 - 0.05 / pairs)
    assert found[1:] == pytest.approx([welch.low, welch.high], abs=0.06 * (welch.high - welch.low))


@pytest.mark.parametrize("pairs", [1, 6])
def test_the_paired_difference_of_two_means_has_about_the_interval_of_the_paired_t_test(pairs):
    rng = np.random.default_rng(0)
    shared = 10 * rng.normal(size=30)
    ours, theirs = (shared + rng.normal(size=30) for _ in range(2))
    found = statistics.paired_difference(mean, ours[:, None], theirs[:, None], pairs, 100_000)
    paired = ttest_rel(ours, theirs).confidence_interval(1 - 0.05 / pairs)
    width = paired.high - paired.low
    assert found[1:] == pytest.approx([paired.low, paired.high], abs=0.06 * width)
    apart = statistics.difference(mean, ours[:, None], theirs[:, None], pairs)
    assert apart.high - apart.low > 3 * width


def test_holm_gives_each_further_difference_a_wider_level_than_bonferroni():
    """A step-down by hand, with intervals of the normal distribution."""

    def at(value):
        def found(pairs):
            half = NormalDist().inv_cdf(1 - 0.025 / pairs)
            return Estimate(value, value - half, value + half)

        return found

    values = {"a": 2.3, "b": 9.0, "c": 0.1, "d": -2.35}
    levels = {"b": 4, "d": 3, "a": 2, "c": 1}
    # With 4 pairs an interval reaches 2.50 away, with 3 pairs 2.39, with 2 pairs 2.24.
    expected = {"a": 3, "b": 4, "c": 3, "d": 3}
    found = statistics.holm({name: at(value) for name, value in values.items()})
    assert found == {name: at(value)(expected[name]) for name, value in values.items()}
    assert list(found) == list(values)
    values["d"] = -2.45
    found = statistics.holm({name: at(value) for name, value in values.items()})
    assert found == {name: at(value)(levels[name]) for name, value in values.items()}


def test_holm_rejects_what_the_step_down_of_p_values_rejects():
    """p-values of Welch's test, stepped down one after another."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        arms = {n: rng.normal(rng.choice([0.0, 1.0, 2.0]), size=10) for n in range(6)}
        rest, first = list(arms)[1:], arms[0]

        def judge(other, first=first, arms=arms):
            test = ttest_ind(first, arms[other], equal_var=False)
            apart = first.mean() - arms[other].mean()
            return lambda pairs: Estimate(apart, *test.confidence_interval(1 - 0.05 / pairs))

        p = {n: ttest_ind(first, arms[n], equal_var=False).pvalue for n in rest}
        rejected = set()
        for rank, n in enumerate(sorted(rest, key=p.__getitem__)):
            if p[n] > 0.05 / (len(rest) - rank):
                break
            rejected.add(n)
        found = statistics.holm({n: judge(n) for n in rest})
        assert {n for n, each in found.items() if each.excludes_0} == rejected


def test_a_difference_has_an_opposite():
    assert Estimate(1.0, -2.0, 3.0).negated() == (-1.0, -3.0, 2.0)


def test_arms_whose_seeds_are_all_alike_differ_by_exactly_that():
    ones, zeros = np.ones((5, 1)), np.zeros((5, 1))
    assert statistics.difference(statistics.iqm, ones, zeros) == (1, 1, 1)
    assert statistics.verdict(statistics.difference(statistics.iqm, ones, ones)) == "undecided"


def collapsing(rng, shape):
    """One seed in five fails, the others are near the ceiling."""
    return np.where(rng.random(shape) < 0.2, 0.0, 0.95 + 0.05 * rng.random(shape))


@pytest.mark.parametrize("draw", [collapsing, lambda rng, shape: rng.random(shape)])
@pytest.mark.parametrize(
    ("seeds", "arms"),
    [
        (5, 5),
        pytest.param(5, 10, marks=pytest.mark.slow),
        pytest.param(10, 6, marks=pytest.mark.slow),
    ],
)
def test_of_equal_arms_a_table_rarely_calls_one_ahead(draw, seeds, arms):
    """One arm against all others: of ten arms, percentiles alone find one in 12 to 15 %."""
    rng, wrong, tables = np.random.default_rng(0), 0, 120
    for _ in range(tables):
        first, *others = draw(rng, (arms, seeds, 1))
        found = statistics.holm(
            {
                n: lambda pairs, other=other, first=first: statistics.difference(
                    statistics.iqm, first, other, pairs, 2_000
                )
                for n, other in enumerate(others)
            }
        )
        wrong += any(statistics.verdict(each) != "undecided" for each in found.values())
    assert wrong / tables < 0.05


def test_arms_that_are_clearly_apart_are_called_so():
    rng = np.random.default_rng(0)
    ours, theirs = 0.9 + 0.05 * rng.random((10, 1)), 0.6 + 0.2 * rng.random((10, 1))
    found = statistics.difference(statistics.iqm, ours, theirs, 20)
    assert statistics.verdict(found) == "ahead" and statistics.verdict(found.negated()) == "behind"


@pytest.mark.parametrize(
    ("difference", "margin", "expected"),
    [
        ((0.3, 0.1, 0.5), None, "ahead"),
        ((-0.3, -0.5, -0.1), None, "behind"),
        ((0.3, 0.0, 0.5), None, "undecided"),
        ((0.0, 0.0, 0.0), None, "undecided"),
        ((0.01, -0.04, 0.05), 0.05, "equivalent"),
        ((0.02, 0.01, 0.03), 0.05, "equivalent"),
        ((0.01, -0.04, 0.051), 0.05, "undecided"),
        ((0.3, 0.1, 0.5), 0.05, "ahead"),
    ],
)
def test_only_an_interval_on_one_side_of_0_or_within_a_named_margin_decides(
    difference, margin, expected
):
    assert statistics.verdict(Estimate(*difference), margin) == expected
