"""Prioritized level replay: played levels are drawn again by how much there is to learn.

Jiang et al. 2021 (PLR, arXiv:2010.03934; PLR⊥, arXiv:2110.02439), Parker-Holder et al. 2022 (ACCEL,
arXiv:2203.01302), with scores that a DQN can compute: V(s) = max_a Q(s, a).
"""

from typing import Any, Literal

import torch
from torch import Tensor

from lit_crl.curriculum.edits import valid_edits
from lit_crl.curriculum.sources import FinishedEpisodes, SourceContext
from lit_crl.envs.given_levels import distinct, given_levels, has_given_levels

Score = Literal["max_mc", "td_error"]


def max_mc(best_to_go: Tensor, value: Tensor) -> Tensor:
    """MaxMC, mean_t (R_t − V(s_t)) of the best episode, at least 0, ``[n]``.

    Jiang et al. 2021 (PLR⊥), §4, use R_max, the level's best return, for all R_t. V is discounted,
    so R_t is discounted, too, and starts at step t: where V is exact the score is 0. (Without
    discount, and with a reward only at the end, R_t = R_max.) Where Q overestimates, the difference
    is negative and the score is 0.
    """
    return (best_to_go - value).clamp(min=0)


def rank_priorities(score: Tensor, temperature: float) -> Tensor:
    """P_S(i) ∝ (1 / rank of score i)^(1 / β), ``[n]``; Jiang et al. 2021 (PLR), eq. 2.

    >>> rank_priorities(torch.tensor([0.1, 0.7]), temperature=1.0)
    tensor([0.3333, 0.6667])
    """
    rank = score.argsort(descending=True, stable=True).argsort() + 1
    weight = (1 / rank.to(score.dtype)).pow(1 / temperature)
    return weight / weight.sum()


def staleness_priorities(age: Tensor) -> Tensor:
    """P_C(i) ∝ how long ago level i was last played, ``[n]``; Jiang et al. 2021 (PLR), eq. 3.

    >>> staleness_priorities(torch.tensor([0.0, 1.0, 3.0]))
    tensor([0.0000, 0.2500, 0.7500])
    """
    return age / age.sum() if age.sum() > 0 else torch.full_like(age, 1 / len(age))


class PrioritizedLevelReplay:
    """A buffer of the highest-scoring levels so far; the arm ``plr`` draws from it.

    New levels come from the other sources' episodes, mainly reference levels. Each process keeps
    a buffer for itself.
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
            least: This source gives no levels before it knows this many, or as many as a user has
                given (``data.given``).
            score: ``max_mc`` or ``td_error`` (mean |δ| of the newest episode).
            temperature: β of the priorities by rank; with a small one only the best are replayed.
            staleness: Share ρ of priority by the time since a level was last played.
        """
        self.size, self.least, self.score = size, least, score
        self.temperature, self.staleness = temperature, staleness
        self.levels: Tensor | None = None
        #: For each level: its score, the best return to go of the episodes that ended the task (−∞:
        #: none did), and the number of drawn levels when it was last played.
        self.numbers = torch.zeros(0, 3)
        self.drawn = 0

    def __len__(self) -> int:
        """Levels in the buffer."""
        return len(self.numbers)

    def __call__(self, n: int, curriculum: SourceContext, teacher: object) -> Tensor:
        """``n`` levels ``[n, d]``, by priority; none while too few are known."""
        if self.levels is None or not self._knows_enough(curriculum):
            return curriculum.no_levels()
        score, _, last = self.numbers.unbind(1)
        priority = torch.lerp(
            rank_priorities(score, self.temperature),
            staleness_priorities(self.drawn - last),
            self.staleness,
        )
        pick = torch.multinomial(priority, n, replacement=True, generator=curriculum.rng)
        self.drawn += n
        self.numbers[pick, 2] = self.drawn
        return self.levels[pick]

    def _knows_enough(self, curriculum: SourceContext) -> bool:
        """Whether ``least`` levels are known, or as many as a user gave: others may never come."""
        if len(self) >= self.least:
            return True
        env = curriculum.env
        return has_given_levels(env) and len(self) >= len(distinct(given_levels(env)))

    def record(self, finished: FinishedEpisodes) -> None:
        """Update the scores of known levels, and add new levels whose scores are high enough."""
        if self.levels is None:
            self.levels = finished.levels[:0]
            self.numbers = self.numbers.to(finished.levels)
        # One entry for each level: of equal rows the last one counts.
        levels, place = torch.unique(finished.levels, dim=0, return_inverse=True)
        # At a time limit V estimates the rest of the return. This is good enough for the present
        # score, but it must not be kept as the level's best return.
        record = finished.to_go.where(finished.terminated, -torch.inf).to(levels)
        best = torch.full_like(levels[:, 0], -torch.inf).scatter_reduce(0, place, record, "amax")
        to_go, value, td_error = (torch.zeros_like(best) for _ in range(3))
        to_go[place], value[place] = finished.to_go, finished.value
        td_error[place] = finished.td_error
        same = (levels[:, None] == self.levels).all(dim=2)
        known, index = same.any(dim=1), same.nonzero()[:, 1]
        best[known] = best[known].maximum(self.numbers[index, 1])
        score = max_mc(best.maximum(to_go), value) if self.score == "max_mc" else td_error
        row = torch.stack([score, best, torch.full_like(score, self.drawn)], dim=1)
        self.numbers[index, :2] = row[known, :2]
        self.levels = torch.cat([self.levels, levels[~known]])
        self.numbers = torch.cat([self.numbers, row[~known]])
        if len(self) > self.size:
            keep = self.numbers[:, 0].topk(self.size).indices.sort().values
            self.levels, self.numbers = self.levels[keep], self.numbers[keep]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue."""
        return {"levels": self.levels, "numbers": self.numbers, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.levels, self.numbers, self.drawn = state["levels"], state["numbers"], state["drawn"]


class EditedLevelReplay(PrioritizedLevelReplay):
    """The arm ``accel``: half of the replayed levels are edited a little before they are played.

    Edited levels enter the buffer if their scores are high enough (Parker-Holder et al. 2022,
    algorithm 1). In maps some tiles turn from wall to floor or back; vectors get Gaussian noise.
    """

    def __init__(self, edit: float = 0.05, **replay: Any) -> None:
        """Start empty.

        Args:
            edit: Share of a map's tiles that an edit changes, or standard deviation of its noise as
                a share of the level space's width.
            **replay: The arguments of ``PrioritizedLevelReplay``.
        """
        super().__init__(**replay)
        self.edit = edit

    def __call__(self, n: int, curriculum: SourceContext, teacher: object) -> Tensor:
        """``n`` levels ``[n, d]``; an edit that makes a level invalid is undone."""
        levels = super().__call__(n, curriculum, teacher)
        if not len(levels):
            return levels
        changed = valid_edits(levels, self.edit, curriculum)
        coin = torch.rand(n, generator=curriculum.rng, device=levels.device) < 0.5
        return torch.where(coin[:, None], changed, levels)
