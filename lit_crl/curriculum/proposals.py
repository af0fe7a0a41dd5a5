"""Levels that a generator proposes: which of them to play, and what became of them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_crl.gan.equations import learnability

#: Which of the generator's candidates are played, see ``choose_proposals``.
Proposals = Literal["frontier", "realistic", "projected", "valid"]
#: Share of the real levels that are less real to the discriminator than what is ``realistic``.
REJECTED = 0.2
#: Visited states among which a proposal finds its nearest: many are closer, few are faster.
NEIGHBOURS = 4_096
#: How distances are computed: by matrix products those of close levels would be inexact.
EXACT = "donot_use_mm_for_euclid_dist"
#: Levels among which distinct ones are counted.
COMPARED = 256
#: Standard deviation, in the unit cube, below which levels are taken to be all alike.
FLAT = 1e-3


def spacing(reference: Tensor) -> float:
    """Half the median distance of reference levels ``[n, d]`` to their nearest neighbour.

    In many dimensions neighbours are far apart, and the more levels there are, the nearer they are:
    so this is measured on as many reference levels as there are levels to compare with them.
    """
    if len(reference) < 2:
        return 0.0
    distance = torch.cdist(reference, reference, compute_mode=EXACT).fill_diagonal_(torch.inf)
    return float(distance.min(dim=1).values.median()) / 2


def unique_rate(levels: Tensor, spacing: float) -> float:
    """Share of distinct levels ``[n, d]``: further than ``spacing`` from all before them."""
    is_near = torch.cdist(levels, levels, compute_mode=EXACT) <= spacing
    is_copy = is_near.tril(diagonal=-1).any(dim=1)
    return 1 - float(is_copy.float().mean()) if len(levels) else 0.0


def on_frontier(p: Tensor) -> Tensor:
    """Which levels the policy solves sometimes: 0.1 < p < 0.9, Florensa et al. 2018, §4.1."""
    return (p > 0.1) & (p < 0.9)


def proposal_weight(kind: Proposals, p: Tensor) -> Tensor:
    """How likely valid candidates of p̂ ``[m]`` are to be played, up to a factor, ``[m]``.

    ``frontier``: (4 p̂ (1 − p̂) + 0.01)², so that there are proposals even while no candidate has a
    p̂ between 0.1 and 0.9; ``realistic`` and ``projected``: the same; ``valid``: all alike, as a
    generator without labels has it.
    """
    return torch.ones_like(p) if kind == "valid" else (learnability(p) + 0.01).square()


def realistic(candidate: Tensor, real: Tensor) -> Tensor:
    """Which candidates ``[m]`` look as real as most reals ``[n]`` do, given their logits.

    Above the reals' 0.2 quantile: rejection by the discriminator, as Azadi et al. 2019 (DRS) have
    it, with a threshold that does not mind the constant up to which a relativistic one is defined.
    """
    return candidate >= real.quantile(REJECTED)


def projected(candidate: Tensor, known: Tensor) -> Tensor:
    """The index ``[m]`` of the known level ``[n, d]`` that is nearest to each candidate ``[m, d]``.

    Levels that were met lie on the manifold of legal ones. A generator always errs a little off it,
    the more so the thinner it is, and so it serves as an index: it says *which* of them to play.
    Each coordinate counts in units of the known levels' standard deviation, or not at all where
    they do not differ.
    """
    spread = known.std(dim=0, correction=0)
    unit = torch.where(spread > FLAT, spread, torch.inf)
    return torch.cdist(candidate / unit, known / unit).argmin(dim=1)


def choose_proposals(valid: Tensor, weight: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Which of a generator's candidates to play: at most ``n`` valid ones, by weight.

    They are drawn without replacement.

    Args:
        valid: Which candidates can be played, ``[m]``.
        weight: Their weight, positive, ``[m]``.
        n: How many to choose at most.
        rng: Random stream.

    Returns:
        Their indices.
    """
    keep = min(n, int(valid.sum()))
    if keep == 0:
        return torch.empty(0, dtype=torch.long, device=weight.device)
    return torch.multinomial(weight * valid, keep, replacement=False, generator=rng)


@dataclass
class ProposalCounts:
    """What became of the levels that the generator made, over the whole run."""

    candidates: int = 0
    valid: int = 0
    frontier: int = 0
    unique: float = 0.0
    played: int = 0

    def rates(self) -> dict[str, float]:
        """As metrics: how many were made, which share was any good, how many were played."""
        made = max(self.candidates, 1)
        return {
            "curriculum/generated": self.candidates,
            "curriculum/generated_valid_rate": self.valid / made,
            "curriculum/generated_predicted_frontier_rate": self.frontier / made,
            "curriculum/generated_unique_rate": self.unique / made,
            "curriculum/generated_played": self.played,
        }
