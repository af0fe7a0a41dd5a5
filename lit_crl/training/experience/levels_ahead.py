"""Levels that are drawn before it is known how many episodes will end.

A graph that resets environments cannot ask for as many levels as it needs. So it takes them from a
table, one after another. A table that is too small begins again from its start.
"""

from typing import Any

import torch
from torch import Tensor

#: Levels that are drawn beyond a quarter more than were needed the last time.
SPARE = 64


class LevelsAhead:
    """A table of levels to reset to, and how many of them have been taken."""

    def __init__(self, num_envs: int, level_dim: int, device: torch.device) -> None:
        """Hold no levels yet; there is room for four a environment."""
        room = 4 * num_envs + SPARE
        self.levels = torch.zeros(room, level_dim, device=device)
        self.source = torch.zeros(room, dtype=torch.int64, device=device)
        #: How many levels the table has (1: or none), and how many have been taken, ``[1]`` each.
        self.size = torch.ones(1, dtype=torch.int64, device=device)
        self.taken = torch.zeros(1, dtype=torch.int64, device=device)
        self._size = 0
        #: How many levels should be drawn the next time.
        self.wanted = num_envs + SPARE

    @property
    def is_empty(self) -> bool:
        """Whether there are no levels yet."""
        return self._size == 0

    def changing(self) -> list[Tensor]:
        """What taking levels changes."""
        return [self.taken]

    def take(self, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """A level ``[N, d]`` and its source ``[N]`` for each place, new ones where ``wanted [N]``.

        Elsewhere they mean nothing.
        """
        row = (self.taken + wanted.cumsum(0) - 1) % self.size
        self.taken += wanted.sum()
        return self.levels.index_select(0, row), self.source.index_select(0, row)

    def unused(self) -> Tensor:
        """Sources of the levels that nobody took; waits for the GPU."""
        taken = int(self.taken)
        if not self.is_empty:
            self.wanted = min(taken + taken // 4 + SPARE, len(self.levels))
        return self.source[min(taken, self._size) : self._size]

    def replace(self, levels: Tensor, source: Tensor) -> None:
        """Hold ``levels [n, d]`` with their sources ``[n]`` from now on, and none taken yet."""
        n = len(levels)
        self.levels[:n].copy_(levels)
        self.source[:n].copy_(source)
        self._size = n
        self.size.fill_(n)
        self.taken.zero_()

    def state_dict(self) -> dict[str, Any]:
        """The levels, and how many of them were taken."""
        n = self._size
        kept = {"levels": self.levels[:n], "source": self.source[:n], "taken": self.taken}
        return {**kept, "wanted": self.wanted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.replace(state["levels"], state["source"])
        self.taken.copy_(state["taken"])
        self.wanted = state["wanted"]
