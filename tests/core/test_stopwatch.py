"""The stopwatch, with a clock that the test moves."""

import pytest

from lit_crl.core import stopwatch
from lit_crl.core.stopwatch import Stopwatch


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_a_part_within_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = Clock(), Stopwatch()
    monkeypatch.setattr(stopwatch, "time", clock)
    for _ in range(2):
        clock.now += 50  # outside of all parts
        with watch("outer"):
            clock.now += 1
            with watch("inner"):
                clock.now += 10
            clock.now += 2
            with pytest.raises(ValueError), watch("inner"):
                clock.now += 20
                raise ValueError
            with watch("outer"):  # a part within itself
                clock.now += 4
    assert watch.seconds == {"outer": 14.0, "inner": 60.0}
