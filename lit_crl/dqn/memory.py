"""Memory of an episode: a GRU along stored sequences, as in R2D2 (Kapturowski et al. 2019).

The GRU's state is the memory of what the observations of an episode have shown so far. It is 0 at a
reset, and the final observation of an episode is the last one that it sees of it.

A *sequence* is a stretch of rows that one environment wrote one after another, so it may hold the
end of an episode and the begin of the next one. It has three parts:

1. *Burn-in*: the memory that was stored at its first row is carried along these rows, without a
   gradient, by the weights of now. The stored memory is the one at the time of acting, so older
   weights made it (R2D2 §3, "stored state" with "burn-in").
2. *Steps that count*: each of these has a TD error, and the gradient runs back along them as far as
   the end of burn-in or the begin of their episode. Rows that hold the final observation of an
   episode are no steps, so they do not count.
3. *What follows*: the last n rows are there for the bootstrap values of n-step targets alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Sequences(NamedTuple):
    """Stretches of b + L + n rows: b of burn-in, L that count, n that follow.

    Every field has the same leading dimensions before those named here; the replay has folded the
    n-step returns.
    """

    #: The memory stored at the first row, ``[H]``.
    memory: Tensor
    #: Observations of the burn-in, ``[b, *shape]``.
    burn_in: Tensor
    #: Observations of the steps that count and of what follows them, ``[L + n, *shape]``.
    obs: Tensor
    #: Where an episode begins, so that the memory is 0, ``[b + L + n]``.
    begins: Tensor
    #: Action, n-step reward and discount of the steps that count, ``[L]`` each.
    action: Tensor
    reward: Tensor
    discount: Tensor
    #: Which of ``obs`` has the bootstrap value of each, ``[L]``.
    after: Tensor
    #: Which of them are steps: the others are final observations, ``[L]``.
    counts: Tensor


def begins_after(boundary: Tensor) -> Tensor:
    """Where an episode begins: in the row below the final observation of the one before.

    The first row is none of them: it has its stored memory, which is 0 if an episode begins there.

    >>> begins_after(torch.tensor([False, True, False]))
    tensor([False, False,  True])
    """
    return torch.cat([torch.zeros_like(boundary[..., :1]), boundary[..., :-1]], -1)


def remembered(cell: nn.GRUCell, features: Tensor, memory: Tensor, begins: Tensor) -> Tensor:
    """The memory after each row, ``[B, T, H]``; h_t = GRU(x_t, h_t−1), Cho et al. 2014, eq. 5–8.

    Args:
        cell: The GRU.
        features: x of each row, ``[B, T, F]``.
        memory: h before the first row, ``[B, H]``.
        begins: Where h_t−1 is 0, because an episode begins, ``[B, T]``.
    """
    after = []
    for x, begin in zip(features.unbind(1), begins.unbind(1), strict=True):
        memory = cell(x, memory.masked_fill(begin[:, None], 0.0))
        after.append(memory)
    return torch.stack(after, 1)
