"""The generator's proposals: which of its levels are played, and statistics about all of them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_crl.gan.equations import learnability

#: Which of the generator's candidates are played, see ``proposal_weight``.
Proposals = Literal["frontier", "realistic", "projected", "redrawn", "valid"]
#: A ``realistic`` level looks more real to the discriminator than this share of the real levels.
REJECTED_SHARE = 0.2
#: Visited states among which a proposal finds its nearest one. With more of them the nearest one is
#: closer, with fewer the search is faster.
PROJECTION_SAMPLE = 4_096
#: How distances are computed: matrix products would be inexact where levels are close.
EXACT = "donot_use_mm_for_euclid_dist"
#: Levels among which distinct ones are counted.
UNIQUE_SAMPLE = 256
#: Below this standard deviation, in the unit cube, a coordinate counts as the same in all levels.
MIN_SPREAD = 1e-3


def spacing(reference: Tensor) -> float:
    """Half the median distance of reference levels ``[n, d]`` to their nearest neighbour.

    The distance to a neighbour grows with the number of dimensions, and falls with the number of
    levels. Compare as many levels with it as there are reference levels.

    >>> spacing(torch.tensor([[0.0], [0.2], [0.4], [0.6]]))
    0.10000000149011612
    """
    if len(reference) < 2:
        return 0.0
    distance = torch.cdist(reference, reference, compute_mode=EXACT).fill_diagonal_(torch.inf)
    return float(distance.min(dim=1).values.median()) / 2


def unique_rate(levels: Tensor, spacing: float) -> float:
    """Share of distinct levels ``[n, d]``: further than ``spacing`` from all before them.

    >>> unique_rate(torch.tensor([[0.0], [0.5], [0.51], [0.52]]), spacing=0.1)
    0.5
    """
    is_near = torch.cdist(levels, levels, compute_mode=EXACT) <= spacing
    is_copy = is_near.tril(diagonal=-1).any(dim=1)
    return 1 - float(is_copy.float().mean()) if len(levels) else 0.0


def on_frontier(p: Tensor) -> Tensor:
    """Which levels the policy solves sometimes: 0.1 < p < 0.9, Florensa et al. 2018, §4.1.

    >>> on_frontier(torch.tensor([0.0, 0.3, 0.95]))
    tensor([False,  True, False])
    """
    return (p > 0.1) & (p < 0.9)


def proposal_weight(kind: Proposals, p: Tensor) -> Tensor:
    """How likely valid candidates of p̂ ``[m]`` are to be played, up to a factor, ``[m]``.

    For ``frontier``, ``realistic`` and ``projected`` this is (4 p̂ (1 − p̂) + 0.01)², so that some
    are played even while no candidate has a p̂ between 0.1 and 0.9. For ``valid`` and ``redrawn``
    all weights are equal, as in a generator without labels.
    """
    return torch.ones_like(p) if kind in ("valid", "redrawn") else (learnability(p) + 0.01).square()


def realistic(candidate: Tensor, real: Tensor) -> Tensor:
    """Which candidates ``[m]`` look as real as most reals ``[n]`` do, given the logits of both.

    Those above the reals' 0.2 quantile. This is rejection by the discriminator, as in Azadi et al.
    2019 (DRS), but the threshold moves with the constant up to which a relativistic discriminator
    is defined.

    >>> realistic(torch.tensor([-2.0, 0.5]), real=torch.tensor([-1.0, 0.0, 1.0, 2.0, 3.0]))
    tensor([False,  True])
    """
    return candidate >= real.quantile(REJECTED_SHARE)


def projected(candidate: Tensor, known: Tensor) -> Tensor:
    """The index ``[m]`` of the known level ``[n, d]`` that is nearest to each candidate ``[m, d]``.

    Known levels lie on the manifold of valid ones. A generator is always a little off it, and
    misses a thin manifold nearly always. So it only says *which* known level to play. Each
    coordinate counts in units of the known levels' standard deviation, or not at all if they do not
    differ in it.

    >>> projected(torch.tensor([[0.9, 5.0]]), known=torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    tensor([1])
    """
    spread = known.std(dim=0, correction=0)
    unit = torch.where(spread > MIN_SPREAD, spread, torch.inf)
    return torch.cdist(candidate / unit, known / unit).argmin(dim=1)


def choose_proposals(valid: Tensor, weight: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Draw at most ``n`` valid candidates by weight, without replacement.

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
    """Counts of the generator's levels over the whole run."""

    candidates: int = 0
    valid: int = 0
    frontier: int = 0
    unique: float = 0.0
    played: int = 0

    def rates(self) -> dict[str, float]:
        """Metrics: how many were made and played, and the shares of good ones among them."""
        made = max(self.candidates, 1)
        return {
            "curriculum/generated": self.candidates,
            "curriculum/generated_valid_rate": self.valid / made,
            "curriculum/generated_predicted_frontier_rate": self.frontier / made,
            "curriculum/generated_unique_rate": self.unique / made,
            "curriculum/generated_played": self.played,
        }
