"""Exploration schedules against their closed forms, number by number."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.exploration import EpsilonLadder, LinearEpsilon


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(0.1, 0.9), st.floats(0.5, 8), st.integers(0, 10**7))
def test_the_ladder_is_the_formula_at_all_times(
    n: int, base: float, exponent: float, env_steps: int
) -> None:
    epsilon = EpsilonLadder(base, exponent)(n, env_steps).tolist()
    expected = [base ** (1 + exponent * (i / (n - 1) if n > 1 else 1)) for i in range(n)]
    assert epsilon == pytest.approx(expected, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 1000),
    st.integers(0, 3000),
)
def test_the_linear_schedule_interpolates_and_then_stays(
    n: int, start: float, end: float, steps: int, now: int
) -> None:
    epsilon = LinearEpsilon(start, end, steps)(n, now)
    expected = start + (end - start) * now / steps if now < steps else end
    assert epsilon.shape == (n,)
    assert epsilon.tolist() == pytest.approx([expected] * n, abs=1e-6)


def test_the_linear_schedule_starts_and_ends_where_it_says() -> None:
    schedule = LinearEpsilon(start=0.8, end=0.2, steps=100)
    values = [schedule(1, now).item() for now in (0, 50, 100, 10**9)]
    assert values == pytest.approx([0.8, 0.5, 0.2, 0.2])


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: EpsilonLadder(base=1.5), "data.collect.exploration.base"),
        (lambda: EpsilonLadder(base=-0.1), "data.collect.exploration.base"),
        (lambda: EpsilonLadder(exponent=0), "data.collect.exploration.exponent"),
        (lambda: LinearEpsilon(start=2), "data.collect.exploration.start"),
        (lambda: LinearEpsilon(end=float("nan")), "data.collect.exploration.end"),
        (lambda: LinearEpsilon(steps=0), "data.collect.exploration.steps"),
    ],
)
def test_a_rate_that_makes_no_sense_is_refused_by_name(make: object, key: str) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        make()  # type: ignore[operator]
