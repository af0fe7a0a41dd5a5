"""The stopwatch against a clock that the test turns."""

import pytest

from lit_crl.core import stopwatch
from lit_crl.core.stopwatch import Stopwatch


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_a_part_within_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = Clock(), Stopwatch()
    monkeypatch.setattr(stopwatch, "time", clock)
    for _ in range(2):
        clock.now += 50  # nobody's
        with watch("outer"):
            clock.now += 1
            with watch("inner"):
                clock.now += 10
            clock.now += 2
            with pytest.raises(ValueError), watch("inner"):
                clock.now += 20
                raise ValueError
            with watch("outer"):  # of itself
                clock.now += 4
    assert watch.seconds == {"outer": 14.0, "inner": 60.0}
