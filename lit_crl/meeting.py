"""Threads of one process in step: what each brings, one of them works on for all."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Brought = TypeVar("Brought")
Taken = TypeVar("Taken")


class MeetingBroken(Exception):
    """Another thread has failed, and will not come."""


class Meeting:
    """Where a number of threads meet again and again, all in the same order.

    It is always the first thread's turn to work, since a CUDA graph belongs to the thread that
    recorded it. The others wait without using the processor.
    """

    def __init__(self, parties: int) -> None:
        """Let so many threads meet."""
        self.parties = parties
        self._barrier = threading.Barrier(parties)
        self._brought: list[Any] = [None] * parties
        self._taken: Sequence[Any] = ()

    def __call__(
        self,
        number: int,
        brought: Brought,
        work: Callable[[list[Brought]], Sequence[Taken]],
    ) -> Taken:
        """Bring something, and take away the ``number``-th of what ``work`` makes of all of it.

        Raises:
            MeetingBroken: If another thread has failed.
        """
        self._brought[number] = brought
        self._wait()
        if number == 0:
            self._taken = work(list(self._brought))
        self._wait()
        taken: Taken = self._taken[number]
        return taken

    def _wait(self) -> None:
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError as error:
            raise MeetingBroken from error

    def break_up(self) -> None:
        """Send everyone away who waits, now or later."""
        self._barrier.abort()
