"""Sampling of rows, uniformly or in proportion to their values: pure functions."""

import torch
from torch import Tensor

#: Leading dimensions of what is drawn.
Shape = tuple[int, ...]
#: Rows whose values are added up in one sum. With so few float32 is exact enough; the cumulative
#: sum over all blocks is in float64.
ROWS_PER_BLOCK = 32
EMPTY = "the replay buffer is empty: collect steps before sampling"


def draw_uniform(allowed: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """``n`` rows drawn uniformly, with replacement, from those ``allowed [rows]``.

    Rows are drawn from all, and kept if they are allowed. So the time does not depend on the number
    of rows, as long as most of them are allowed.

    >>> allowed = torch.tensor([False, True, False, True])
    >>> draw_uniform(allowed, 1_000, torch.Generator().manual_seed(0)).unique()
    tensor([1, 3])

    Raises:
        RuntimeError: If no row is allowed.
    """
    found: list[Tensor] = []
    missing, draws = n, n + n // 4 + 16  # one round is nearly always enough
    while missing > 0:
        row = torch.randint(len(allowed), (draws,), generator=rng, device=allowed.device)
        kept = row[allowed.index_select(0, row)][:missing]
        if not len(kept) and not allowed.any():
            raise RuntimeError(EMPTY)
        found.append(kept)
        missing, draws = missing - len(kept), 2 * draws
    return torch.cat(found)


def draw_by_rank(allowed: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """``n`` rows drawn as by ``draw_uniform``, in steps whose shapes do not depend on ``allowed``.

    A number below the count of allowed rows is drawn, and the row with that rank is looked up. So a
    GPU does not wait for the program, but all rows are counted, however many there are.

    >>> allowed = torch.tensor([False, True, False, True])
    >>> draw_by_rank(allowed, 1_000, torch.Generator().manual_seed(0)).unique()
    tensor([1, 3])
    """
    upto = allowed.cumsum(0)
    uniform = torch.rand(n, generator=rng, device=rng.device, dtype=torch.float64)
    return torch.searchsorted(upto, (uniform * upto[-1]).long(), right=True)


def draw_stretches(
    written: Tensor, length: int, n: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Stretches of rows in rings, drawn uniformly with replacement.

    Args:
        written: How many rows of each ring may be drawn, its newest ones, ``[N]``.
        length: Rows of a stretch.
        n: How many stretches.
        rng: Random stream.

    Returns:
        The ring of each stretch, and the age of its first row (the newest row has age 1), ``[n]``
        each.

    >>> ring, age = draw_stretches(torch.tensor([2, 4]), 3, 1_000, torch.Generator().manual_seed(0))
    >>> ring.unique(), age.unique()  # the first ring is too short
    (tensor([1]), tensor([3, 4]))

    Raises:
        RuntimeError: If no ring has so many rows.
    """
    starts = (written - length + 1).clamp(min=0)
    upto = starts.cumsum(0)
    if not upto[-1] > 0:
        raise RuntimeError(EMPTY)
    uniform = torch.rand(n, generator=rng, device=rng.device, dtype=torch.float64)
    rank = (uniform * upto[-1]).long()
    ring = torch.searchsorted(upto, rank, right=True)
    return ring, length + rank - (upto - starts).index_select(0, ring)


def draw_proportional(values: Tensor, sums: Tensor, shape: Shape, rng: torch.Generator) -> Tensor:
    """Rows ``shape = [..., B]`` in proportion to ``values [blocks, ROWS_PER_BLOCK]``.

    ``sums [blocks]`` are the sums of the blocks. Each minibatch of B has one row from each of B
    equal ranges of the cumulative sum, as in Schaul et al. 2016, appendix B.2.1. Here their sum
    tree has only two levels: first a block is found by the cumulative sum over blocks, which is
    computed once for all minibatches, and then a row in the block.

    Raises:
        RuntimeError: If all values are 0.
    """
    n, batch = torch.Size(shape).numel(), shape[-1]
    upto = sums.cumsum(0, dtype=torch.float64)
    if not upto[-1] > 0:
        raise RuntimeError(EMPTY)
    # The strata are in ascending order, so the search reads addresses in order, too.
    block = torch.searchsorted(upto, _strata(n, rng) * (upto[-1] / n), right=True)
    # In float64 the sums are exact: a value of 0 adds nothing, in whatever order a GPU adds.
    within = values.index_select(0, block).cumsum(1, dtype=torch.float64)
    uniform = torch.rand(n, 1, generator=rng, device=rng.device, dtype=torch.float64)
    row = (
        block * ROWS_PER_BLOCK
        + torch.searchsorted(within, uniform * within[:, -1:], right=True)[:, 0]
    )
    # Each of the B ranges has K strata, one for each minibatch: which one gets which is random.
    turn = torch.randperm(n // batch, generator=rng, device=rng.device)
    return row.view(batch, -1).t().contiguous().index_select(0, turn).view(shape)


def _strata(n: int, rng: torch.Generator) -> Tensor:
    """One number from each of the ranges [i, i + 1), ``[n]``, in float64.

    The random part is drawn in float32, so that no sum is rounded up to the next range.
    """
    lower = torch.arange(n, dtype=torch.float64, device=rng.device)
    return lower.add_(torch.rand(n, generator=rng, device=rng.device))
