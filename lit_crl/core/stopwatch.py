"""Where the wall time of a run goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by part of the work; a part within another part counts only for itself.

    An accelerator works asynchronously: there the seconds say where the program waits for it.
    """

    def __init__(self) -> None:
        """Time nothing yet."""
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._mark = 0.0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time the block of a ``with`` statement as ``part``."""
        self._charge()
        self._running.append(part)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._running:
            part = self._running[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._mark
        self._mark = now
