"""What is known of the finished training episodes."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lit_crl.curriculum.sources import SOURCES

#: Of how many of the newest episodes means are taken.
RECENT = 100
#: Episodes of which each is counted by itself: few are counted faster so.
MANY = 64


@dataclass
class EpisodeLog:
    """Returns, successes and counts of the finished training episodes."""

    returns: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    successes: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    episodes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    solved: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    #: Episodes whose success or failure is known.
    known: int = 0
    #: Known episodes that explored little enough to say something about the policy.
    judged: int = 0

    def add(
        self, returns: Tensor, success: Tensor, known: Tensor, source: Tensor, greedy: Tensor
    ) -> None:
        """Record finished episodes ``[m]``.

        Args:
            returns: Their returns.
            success: Whether they succeeded, where that is ``known``.
            known: Whether it is.
            source: Index of the source of their level.
            greedy: Whether they explored little: only these are averaged.
        """
        # One wait for the device; float64 holds all of them exactly.
        table = torch.stack([x.double() for x in (returns, success, known, source, greedy)]).cpu()
        if table.shape[1] > MANY:
            self._count(table)
            return
        rows = table.tolist()
        for episode_return, solved, is_known, index, is_greedy in zip(*rows, strict=True):
            self.episodes[SOURCES[int(index)]] += 1
            if is_greedy:
                self.returns.append(episode_return)
            if is_known:
                self.known += 1
                self.solved[SOURCES[int(index)]] += int(solved)
            if is_known and is_greedy:
                self.judged += 1
                self.successes.append(solved)

    def _count(self, table: Tensor) -> None:
        """Do the same for many episodes, in a time that hardly depends on their number."""
        returns, success, known, source, greedy = table
        is_known, is_greedy, source = known > 0, greedy > 0, source.long()
        self.returns.extend(returns[is_greedy][-RECENT:].tolist())
        self.successes.extend(success[is_known & is_greedy][-RECENT:].tolist())
        self.known += int(is_known.sum())
        self.judged += int((is_known & is_greedy).sum())
        solved = source[is_known & (success > 0)]
        for counts, found in ((self.episodes, source), (self.solved, solved)):
            for name, n in zip(SOURCES, found.bincount(minlength=len(SOURCES)), strict=True):
                counts[name] += int(n)

    @property
    def ended(self) -> int:
        """Episodes that have ended."""
        return sum(self.episodes.values())

    def state_dict(self) -> dict[str, Any]:
        """All that is logged, in plain values."""
        return {
            "returns": list(self.returns),
            "successes": list(self.successes),
            "episodes": dict(self.episodes),
            "solved": dict(self.solved),
            "known": self.known,
            "judged": self.judged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name in ("returns", "successes"):
            recent: deque[float] = getattr(self, name)
            recent.clear()
            recent.extend(state[name])
        self.episodes.update(state["episodes"])
        self.solved.update(state["solved"])
        self.known, self.judged = state["known"], state["judged"]

    def means(self) -> dict[str, float]:
        """As metrics: recent return and success, and episodes by the source of their level.

        Successes are absent as long as none has been known.
        """
        numbers: dict[str, float] = {}
        if self.returns:
            numbers["behaviour/return_mean"] = sum(self.returns) / len(self.returns)
        if self.successes:
            numbers["behaviour/success_rate"] = sum(self.successes) / len(self.successes)
        for source in SOURCES:
            numbers[f"curriculum/{source}_episodes"] = self.episodes[source]
            if self.known or not self.ended:
                numbers[f"curriculum/{source}_solved"] = self.solved[source]
        return numbers
