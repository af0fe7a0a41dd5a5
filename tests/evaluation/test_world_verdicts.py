"""Sentences about a world: each appears where its numbers are wrong, and not where they are not."""

import pytest

from lit_crl.evaluation import world_verdicts as verdicts

GOOD = {
    "world/dream_return": 210.0,
    "world/dream_return_gap": 10.0,
    "world/disagreement": 0.02,
    "world/disagreement_far": 0.2,
    "world/data_noise": 0.5,
    "world/z_used": 0.9,
    "world/dreamed_ends": 2.0,
    "world/real_ends": 4.0,
}


def test_a_good_world_needs_no_sentence() -> None:
    for numbers in (GOOD, {}):
        assert not verdicts.dreams_pay_too_much(numbers, 1.0)
        assert not verdicts.members_agree(numbers)
        assert verdicts.ignores_noise(numbers) is None
        assert verdicts.missed_ends(numbers, 20_000) == 0


@pytest.mark.parametrize(
    ("dreamed", "real", "scale", "too_much"),
    [
        (301.0, 200.0, 1.0, True),
        (299.0, 200.0, 1.0, False),
        (-99.0, -200.0, 1.0, True),
        (-101.0, -200.0, 1.0, False),
        (0.6, 0.0, 1.0, True),
        (0.4, 0.0, 1.0, False),
        (400.0, 0.0, 1000.0, False),
        (50.0, 200.0, 1.0, False),
    ],
)
def test_dreams_may_pay_half_more(
    dreamed: float, real: float, scale: float, too_much: bool
) -> None:
    numbers = {"world/dream_return": dreamed, "world/dream_return_gap": dreamed - real}
    assert verdicts.dreams_pay_too_much(numbers, scale) is too_much


def test_a_world_is_exploited_after_two_looks() -> None:
    numbers = GOOD | {"world/dream_return": 400.0, "world/dream_return_gap": 200.0}
    assert verdicts.exploited(numbers, 1.0, 1) is None
    said = verdicts.exploited(numbers, 1.0, 2)
    assert said is not None and "now 400)" in said and "task (200)" in said and "most 100" in said


@pytest.mark.parametrize(("near", "far"), [(0.1, 0.1), (0.2, 0.1), (0.0, 0.0), (1e-7, 1e-6)])
def test_curiosity_is_frozen_after_two_looks(near: float, far: float) -> None:
    numbers = GOOD | {"world/disagreement": near, "world/disagreement_far": far}
    assert verdicts.members_agree(numbers)
    assert verdicts.frozen(numbers, 1) is None
    assert "frozen" in str(verdicts.frozen(numbers, 2))


def test_noise_is_ignored_only_where_there_is_some_that_members_agree_on() -> None:
    ignored = GOOD | {"world/z_used": 0.01}
    assert "ignores its noise" in str(verdicts.ignores_noise(ignored))
    assert verdicts.ignores_noise(ignored | {"world/data_noise": 0.1}) is None
    assert verdicts.ignores_noise(ignored | {"world/disagreement": 0.3}) is None


def test_blindness_needs_enough_dreams_twice_running() -> None:
    blind = GOOD | {"world/dreamed_ends": 0.0}
    assert verdicts.missed_ends(blind, 10_000) == 40 >= verdicts.MISSED_ENDS
    assert verdicts.missed_ends(blind, 1_000) < verdicts.MISSED_ENDS
    assert verdicts.missed_ends(blind | {"world/real_ends": 0.0}, 10_000) == 0
    assert verdicts.blind_to_ends(blind, 10_000, running=1) is None
    assert "steps had 40, and so the time before" in str(verdicts.blind_to_ends(blind, 10_000, 2))
