"""The archive: levels met so far, with their outcomes, and how much each deserves practice.

It has two rings of preallocated tensors. *Tried* levels are those at which an episode started, with
the outcome of that episode. *Visited* levels are states that were met on the way, from which an
episode could start. They have no outcome: a state met late in an episode has fewer steps left than
an episode that starts there would have.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_crl.core import distributed
from lit_crl.gan.equations import learnability

#: Levels among which a level's neighbours are looked for, and the neighbour whose distance measures
#: novelty: about one known level in a hundred is nearer. Larger numbers are steadier and slower.
NOVELTY_SAMPLE, NOVELTY_NEIGHBOUR = 256, 3
#: How many of the newest outcomes, and of the newest visited states, are kept by default.
TRIED, VISITED = 4_096, 32_768
#: Fewest outcomes that the success head learns from: it would memorise fewer.
MIN_RECENT = 256


def novelty(levels: Tensor, known: Tensor) -> Tensor:
    """Distance of each level ``[n, d]`` to its third nearest of ``known [m, d]``, about 1, ``[n]``.

    The k-th neighbour's distance is a density estimate (Loftsgaarden & Quesenberry 1965):
    p(x) ∝ distance⁻ᵈ, so weighting by it counters what is visited most.

    >>> known = torch.tensor([[0.0], [0.1], [0.2], [0.3]])
    >>> novelty(torch.tensor([[0.1], [0.9]]), known)  # the second is far from all known levels
    tensor([0.2222, 1.7778])
    """
    # topk is several times as fast as kthvalue.
    k = min(NOVELTY_NEIGHBOUR, len(known))
    distance = torch.cdist(levels, known).topk(k, largest=False).values[:, -1]
    # Without this floor a level that was drawn or visited many times could never be drawn again.
    return (distance / distance.mean().clamp(min=1e-8)).clamp(min=0.1)


def frontier_weight(p: Tensor, novelty: Tensor, exponent: float, floor: float = 0.01) -> Tensor:
    """The weight w = (4 p̂ (1 − p̂) + floor)² · novelty^exponent, at most 20 times its mean.

    The floor leaves every level a chance; the limit keeps one outlier from being all reals.

    >>> frontier_weight(torch.tensor([0.0, 0.5, 0.9]), novelty=torch.ones(3), exponent=0.5)
    tensor([1.0000e-04, 1.0201e+00, 1.3690e-01])
    """
    weight = (learnability(p) + floor).square() * novelty.pow(exponent)
    return weight.clamp(max=20 * weight.mean())


@dataclass
class LevelRing:
    """The newest ``len(levels)`` levels, and a number with each, for example its outcome."""

    levels: Tensor
    values: Tensor
    written: int = 0

    @classmethod
    def empty(cls, capacity: int, dim: int, device: torch.device | str) -> "LevelRing":
        """A ring of ``capacity`` levels of ``dim`` coordinates."""
        return cls(torch.zeros(capacity, dim, device=device), torch.zeros(capacity, device=device))

    def __len__(self) -> int:
        """How many levels it holds now."""
        return min(self.written, len(self.levels))

    def add(self, levels: Tensor, values: Tensor) -> None:
        """Append ``levels [n, d]`` with their ``values [n]``; the oldest make room."""
        # Of more levels than the ring holds, the first would be overwritten at once. On a GPU the
        # order of writes to one row is undefined, so they must not be written at all.
        overrun = max(0, len(levels) - len(self.levels))
        self.written += overrun
        levels, values = levels[overrun:], values[overrun:]
        position = torch.arange(self.written, self.written + len(levels), device=levels.device)
        position %= len(self.levels)
        self.levels[position] = levels
        self.values[position] = values
        self.written += len(levels)

    def draw(
        self, n: int, rng: torch.Generator, newest: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """``n`` levels and values, uniformly with replacement from all or the ``newest`` ones."""
        window = len(self) if newest is None else min(newest, len(self))
        age = torch.randint(1, window + 1, (n,), generator=rng, device=self.levels.device)
        pick = (self.written - age) % len(self.levels)
        return self.levels[pick], self.values[pick]


class Archive:
    """Tried levels with outcomes, and visited levels, both in the environment's units."""

    def __init__(
        self,
        level_dim: int,
        *,
        tried: int = TRIED,
        visited: int = VISITED,
        device: torch.device | str = "cpu",
    ) -> None:
        """Keep the newest ``tried`` outcomes and the newest ``visited`` states."""
        self.tried = LevelRing.empty(tried, level_dim, device)
        self.visited = LevelRing.empty(visited, level_dim, device)
        #: Outcomes of this process alone, until all processes exchange theirs.
        self._new: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        """How many levels it holds, of both kinds."""
        return len(self.tried) + len(self.visited)

    def add_outcomes(self, levels: Tensor, success: Tensor) -> None:
        """Record episodes that started at ``levels [n, d]`` and ended in ``success [n]``.

        With several processes they are not drawn before the next ``exchange_outcomes``.
        """
        if distributed.is_alone():
            self.tried.add(levels, success.float())
        else:
            self._new.append((levels.clone(), success.float()))

    def exchange_outcomes(self) -> None:
        """Add the outcomes of all processes, in one order, so that all judge levels alike."""
        levels = torch.cat([self.tried.levels[:0], *(levels for levels, _ in self._new)])
        success = torch.cat([self.tried.values[:0], *(success for _, success in self._new)])
        self.tried.add(distributed.gather_rows(levels), distributed.gather_rows(success))
        self._new.clear()

    def add_visited(self, levels: Tensor) -> None:
        """Record states that were met, as the levels ``[n, d]`` that would start there."""
        self.visited.add(levels, torch.zeros(len(levels), device=levels.device))

    def draw_outcomes(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """``n`` of the newer tried levels ``[n, d]`` and their outcomes ``[n]``.

        Only the newest quarter of all outcomes (at least ``MIN_RECENT``) is about the present
        policy.
        """
        return self.tried.draw(n, rng, newest=max(MIN_RECENT, self.tried.written // 4))

    def candidates(self, n: int, rng: torch.Generator) -> Tensor:
        """``n`` levels: half visited and half tried ones, or all from one ring if one is empty."""
        rings = [ring for ring in (self.visited, self.tried) if len(ring)]
        shares = [n - n // 2, n // 2] if len(rings) == 2 else [n]
        return torch.cat([ring.draw(k, rng)[0] for ring, k in zip(rings, shares, strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """What both rings hold, as tensors and counts, and the outcomes not yet exchanged."""
        rings: dict[str, Any] = {}
        for name, ring in (("tried", self.tried), ("visited", self.visited)):
            rings[f"{name}.levels"] = ring.levels[: len(ring)]
            rings[f"{name}.values"] = ring.values[: len(ring)]
            rings[f"{name}.written"], rings[f"{name}.size"] = ring.written, len(ring.levels)
        return {"rings": rings, "new": [list(outcomes) for outcomes in self._new]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        device = self.tried.levels.device  # files are read to the CPU
        self._new = [(levels.to(device), success.to(device)) for levels, success in state["new"]]
        for name in ("tried", "visited"):
            self.load_ring(name, state["rings"])

    def load_ring(self, name: str, rings: dict[str, Any]) -> None:
        """Restore ``tried`` or ``visited`` from a saved state's ``rings``.

        Raises:
            ValueError: If the ring had another size.
        """
        ring: LevelRing = getattr(self, name)
        size, levels = rings[f"{name}.size"], rings[f"{name}.levels"]
        if size != len(ring.levels):
            raise ValueError(
                f"the saved archive has room for {size} {name} levels, this run's for "
                f"{len(ring.levels)}"
            )
        ring.written = rings[f"{name}.written"]
        ring.levels[: len(levels)].copy_(levels)
        ring.values[: len(levels)].copy_(rings[f"{name}.values"])
