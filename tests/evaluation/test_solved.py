"""When a run counts as solved."""

import itertools

import pytest
import torch

from lit_crl.envs import CartPole, MountainCar, ThinManifold
from lit_crl.evaluation.solved import meets_bar, return_threshold, solved_at


def test_it_is_the_first_of_two_validations_running() -> None:
    """Against a search through all pairs, for every sequence of up to six validations."""
    for length in range(7):
        for met in itertools.product([False, True], repeat=length):
            validations = [(100 * i, is_met) for i, is_met in enumerate(met)]
            pairs = [i for i in range(length - 1) if met[i] and met[i + 1]]
            assert solved_at(validations) == (100 * pairs[0] if pairs else None)


@pytest.mark.parametrize(
    ("results", "threshold", "expected"),
    [
        ({"target_success_rate": 0.9}, None, True),
        ({"target_success_rate": torch.tensor(0.9).item()}, None, True),
        ({"target_success_rate": 0.8999}, None, False),
        ({"target_success_rate": 0.85, "target_return_mean": 500.0}, 475.0, False),
        ({"target_return_mean": 475.0}, 475.0, True),
        ({"target_return_mean": 474.9}, 475.0, False),
        ({"target_return_mean": 1e9}, None, False),
    ],
)
def test_success_decides_and_else_the_return(
    results: dict[str, float], threshold: float | None, expected: bool
) -> None:
    assert meets_bar(results, threshold) is expected


def test_the_threshold_is_gymnasiums() -> None:
    assert return_threshold(CartPole(1)) == 475
    assert return_threshold(MountainCar(1)) == -110
    assert return_threshold(ThinManifold(1)) is None
