"""Prioritized level replay: levels that were played, drawn again by how much there is to learn.

Jiang et al. 2021 (PLR, arXiv:2010.03934; PLR⊥, arXiv:2110.02439), Parker-Holder et al. 2022 (ACCEL,
arXiv:2203.01302), with scores that a DQN has: V(s) = max_a Q(s, a).
"""

from typing import Any, Literal

import torch
from torch import Tensor

from lit_crl.curriculum.sources import Finished, SourceContext
from lit_crl.gan.map_networks import edited

Score = Literal["max_mc", "td_error"]


def max_mc(best_to_go: Tensor, value: Tensor) -> Tensor:
    """MaxMC, mean_t (R_t − V(s_t)) of the best episode, at least 0, ``[n]``.

    Jiang et al. 2021 (PLR⊥), §4, have R_max, the level's best return, for all R_t. V is
    discounted, so the returns are too, each from its step t on: where V is exact the score is 0.
    (Without discount, and with a reward at the end alone, R_t = R_max.) An overestimating Q would
    make it negative.
    """
    return (best_to_go - value).clamp(min=0)


def rank_priorities(score: Tensor, temperature: float) -> Tensor:
    """P_S(i) ∝ (1 / rank of score i)^(1 / β), ``[n]``; Jiang et al. 2021 (PLR), eq. 2."""
    rank = score.argsort(descending=True, stable=True).argsort() + 1
    weight = (1 / rank.to(score.dtype)).pow(1 / temperature)
    return weight / weight.sum()


def staleness_priorities(age: Tensor) -> Tensor:
    """P_C(i) ∝ how long ago level i was last played, ``[n]``; Jiang et al. 2021 (PLR), eq. 3."""
    return age / age.sum() if age.sum() > 0 else torch.full_like(age, 1 / len(age))


class PrioritizedLevelReplay:
    """A buffer of the highest-scoring levels so far; the arm ``plr`` draws from it.

    New levels come with the other sources' episodes, reference levels mainly. With several
    processes each keeps its own buffer.
    """

    def __init__(
        self,
        size: int = 4_000,
        least: int = 128,
        score: Score = "max_mc",
        temperature: float = 0.3,
        staleness: float = 0.3,
    ) -> None:
        """Start empty.

        Args:
            size: Levels that are kept.
            least: Until so many are known this source gives none.
            score: ``max_mc`` or ``td_error`` (mean |δ| of the newest episode).
            temperature: β of the priorities by rank; small: only the best few are replayed.
            staleness: Share ρ of priority by the time since a level was last played.
        """
        self.size, self.least, self.score = size, least, score
        self.temperature, self.staleness = temperature, staleness
        self.levels: Tensor | None = None
        #: Per level: score, best return to go of an episode that ended the task (−∞: none did), and
        #: the number of drawn levels when it was last played.
        self.numbers = torch.zeros(0, 3)
        self.drawn = 0

    def __len__(self) -> int:
        """Levels in the buffer."""
        return len(self.numbers)

    def __call__(self, n: int, curriculum: SourceContext, teacher: object) -> Tensor:
        """``n`` levels ``[n, d]``, by priority; none while too few are known."""
        if self.levels is None or len(self) < self.least:
            return curriculum.blank(0)
        score, _, last = self.numbers.unbind(1)
        fresh = rank_priorities(score, self.temperature)
        stale = staleness_priorities(self.drawn - last)
        priority = torch.lerp(fresh, stale, self.staleness)
        pick = torch.multinomial(priority, n, replacement=True, generator=curriculum.rng)
        self.drawn += n
        self.numbers[pick, 2] = self.drawn
        return self.levels[pick]

    def record(self, finished: Finished) -> None:
        """Score the episodes' levels anew, or take them in if they score enough."""
        if self.levels is None:
            self.levels = finished.levels[:0]
            self.numbers = self.numbers.to(finished.levels)
        # One entry a level: the last of equal rows stands for all of them.
        levels, place = torch.unique(finished.levels, dim=0, return_inverse=True)
        # Where the time was up part of the return is only V's guess: good for now, but no record.
        record = finished.to_go.where(finished.terminated, -torch.inf).to(levels)
        best = torch.full_like(levels[:, 0], -torch.inf).scatter_reduce(0, place, record, "amax")
        to_go, value, td_error = (torch.zeros_like(best) for _ in range(3))
        to_go[place], value[place] = finished.to_go, finished.value
        td_error[place] = finished.td_error
        known, index = self._find(levels)
        best[known] = best[known].maximum(self.numbers[index, 1])
        score = max_mc(best.maximum(to_go), value) if self.score == "max_mc" else td_error
        row = torch.stack([score, best, torch.full_like(score, self.drawn)], dim=1)
        self.numbers[index, :2] = row[known, :2]
        self._take_in(levels[~known], row[~known])

    def _find(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Which of some different levels ``[n, d]`` are in the buffer ``[n]``, and where those."""
        assert self.levels is not None
        same = (levels[:, None] == self.levels).all(dim=2)
        return same.any(dim=1), same.nonzero()[:, 1]

    def _take_in(self, levels: Tensor, rows: Tensor) -> None:
        assert self.levels is not None
        self.levels, self.numbers = (
            torch.cat([self.levels, levels]),
            torch.cat([self.numbers, rows]),
        )
        if len(self) > self.size:
            keep = self.numbers[:, 0].topk(self.size).indices.sort().values
            self.levels, self.numbers = self.levels[keep], self.numbers[keep]

    def state_dict(self) -> dict[str, Any]:
        """The buffer."""
        return {"levels": self.levels, "numbers": self.numbers, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.levels, self.numbers, self.drawn = state["levels"], state["numbers"], state["drawn"]


class EditedLevelReplay(PrioritizedLevelReplay):
    """Half replays, half small edits of them, which enter the buffer if they score enough.

    The arm ``accel``, Parker-Holder et al. 2022, algorithm 1. Of maps some tiles turn from wall to
    floor or back; vectors get Gaussian noise.
    """

    def __init__(self, edit: float = 0.05, **replay: Any) -> None:
        """Start empty.

        Args:
            edit: Share of a map's tiles that an edit changes, or standard deviation of its noise as
                a share of the level space's width.
            **replay: As ``PrioritizedLevelReplay``.
        """
        super().__init__(**replay)
        self.edit = edit

    def __call__(self, n: int, curriculum: SourceContext, teacher: object) -> Tensor:
        """``n`` levels ``[n, d]``; an edit that cannot be played is undone."""
        levels = super().__call__(n, curriculum, teacher)
        if not len(levels):
            return levels
        changed = self._edited(levels, curriculum)
        coin = torch.rand(n, generator=curriculum.rng, device=levels.device) < 0.5
        return torch.where((coin & curriculum.env.valid(changed))[:, None], changed, levels)

    def _edited(self, levels: Tensor, curriculum: SourceContext) -> Tensor:
        shape: tuple[int, int, int] | None = getattr(curriculum.env, "level_shape", None)
        if shape is not None:
            return edited(levels.view(-1, *shape), self.edit, curriculum.rng).flatten(1)
        noise = torch.randn(levels.shape, generator=curriculum.rng, device=levels.device)
        # The unit cube is 2 wide.
        return curriculum.box.from_unit(curriculum.box.to_unit(levels) + 2 * self.edit * noise)
