"""Drawing rows at random, uniformly or in proportion to a number each: pure functions."""

import torch
from torch import Tensor

#: Rows that one sum stands for when rows are drawn in proportion. Sums within a block are short
#: enough for float32; the cumulative one over the blocks is in float64.
BLOCK = 32
EMPTY = "the replay buffer is empty: collect steps before sampling"


def draw_uniform(allowed: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """``n`` rows drawn uniformly, with replacement, from those ``allowed [rows]``.

    Any row is drawn and kept if it is allowed. The time does not depend on the number of rows,
    as long as most are allowed.

    Raises:
        RuntimeError: If no row is allowed.
    """
    found: list[Tensor] = []
    missing, draws = n, n + n // 4 + 16  # enough nearly always: one round
    while missing > 0:
        row = torch.randint(len(allowed), (draws,), generator=rng, device=allowed.device)
        kept = row[allowed.index_select(0, row)][:missing]
        if not len(kept) and not allowed.any():
            raise RuntimeError(EMPTY)
        found.append(kept)
        missing, draws = missing - len(kept), 2 * draws
    return torch.cat(found)


def draw_proportional(
    values: Tensor, sums: Tensor, shape: tuple[int, ...], rng: torch.Generator
) -> Tensor:
    """Rows ``shape = [..., B]`` in proportion to ``values [blocks, BLOCK]`` of these ``sums``.

    Each minibatch of B has one row from each of B equal ranges of the cumulative sum, as in
    Schaul et al. 2016, appendix B.2.1. Their sum tree has two levels here: a block is found by its
    cumulative sum, which is taken once for all minibatches, and then a row in the block.

    Raises:
        RuntimeError: If all values are 0.
    """
    n, batch = torch.Size(shape).numel(), shape[-1]
    upto = sums.cumsum(0, dtype=torch.float64)
    if not upto[-1] > 0:
        raise RuntimeError(EMPTY)
    # Searched in ascending order, which reads memory in order too.
    block = torch.searchsorted(upto, _strata(n, rng) * (upto[-1] / n), right=True)
    # In float64 these are exact, so that a value of 0 adds nothing in whatever order a GPU sums.
    within = values.index_select(0, block).cumsum(1, dtype=torch.float64)
    uniform = torch.rand(n, 1, generator=rng, device=rng.device, dtype=torch.float64)
    row = block * BLOCK + torch.searchsorted(within, uniform * within[:, -1:], right=True)[:, 0]
    # A range of a minibatch is K strata, one for each minibatch: which has which is random.
    turn = torch.randperm(n // batch, generator=rng, device=rng.device)
    return row.view(batch, -1).t().contiguous().index_select(0, turn).view(shape)


def _strata(n: int, rng: torch.Generator) -> Tensor:
    """One number from each of the ranges [i, i + 1), ``[n]``, in float64.

    What is random in it is of float32, so that no sum is rounded up to the next range.
    """
    lower = torch.arange(n, dtype=torch.float64, device=rng.device)
    return lower.add_(torch.rand(n, generator=rng, device=rng.device))
