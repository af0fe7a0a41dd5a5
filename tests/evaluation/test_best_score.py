"""The score that chooses a run's best policy: it follows what lasts, not what was lucky."""

import numpy as np
import pytest

from lit_crl.evaluation.best_score import VALIDATIONS, score


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([], None),
        ([1.0, 2.0], None),
        ([1.0, 2.0, 6.0], 3.0),  # a lucky one counts for a third
        ([9.0, 9.0, 0.0], 0.0),  # a bad one counts in full
        ([-200.0, -150.0, -100.0, -125.0], -125.0),  # the first is too old to count
    ],
)
def test_written_out_scores(returns: list[float], expected: float | None) -> None:
    assert score(returns) == expected


def chosen(returns: np.ndarray) -> int:
    """The validation that a run keeps: the first of the highest score."""
    found = [score(returns[: n + 1].tolist()) for n in range(len(returns))]
    return max(range(VALIDATIONS - 1, len(found)), key=lambda n: found[n])


def test_the_chosen_policy_is_better_than_that_of_the_highest_number() -> None:
    """Policies that learn towards 100 and wander as they do, each measured with noise."""
    rng = np.random.default_rng(0)
    gains, boasts = [], []
    for _ in range(1_000):
        wandering = np.zeros(40)
        for n in range(1, 40):
            wandering[n] = 0.8 * wandering[n - 1] + rng.normal(0.0, 8.0)
        true = 100 * (1 - np.exp(-np.arange(40) / 8)) + wandering
        measured = true + rng.normal(0.0, 40.0, size=40)
        gains.append(true[chosen(measured)] - true[measured.argmax()])
        boasts.append(measured.max() - true[measured.argmax()])
    assert np.mean(gains) > 3 * np.std(gains) / len(gains) ** 0.5
    assert np.mean(boasts) > 40  # so the number that chose is no number to report


def test_a_policy_that_has_just_forgotten_the_task_is_not_chosen() -> None:
    assert chosen(np.array([0.0, 90.0, 90.0, 90.0, 10.0, 0.0])) == 3
