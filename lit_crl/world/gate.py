"""Where a dream is cut, because the world knows too little there: pure functions."""

import math

from torch import Tensor


def gate(real: Tensor, quantile: float) -> Tensor:
    """The disagreement above which dreams are cut, from ``real [n]``: that of held-back real rows.

    It is the k-th smallest of them, k = ⌈quantile · (n + 1)⌉. So a further real row would be cut
    with a probability of at most 1 − ``quantile``, whatever its distribution (split conformal
    prediction, Lei et al. 2018, §2.2). n rows cannot tell that if k > n, which is so below
    ``quantile / (1 − quantile)`` rows (19 for .95): then the gate is infinite and cuts nothing.
    It also is for the quantile 1. NaN counts as the largest.

    Args:
        real: Disagreement on real rows that the world was not trained on ``[n]``; n may be 0.
        quantile: Share of real rows that pass, in [0, 1].

    Returns:
        The gate, 0-dimensional, on the device of ``real``.

    >>> import torch
    >>> gate(torch.arange(1.0, 20.0), 0.95), gate(torch.arange(1.0, 19.0), 0.95)
    (tensor(19.), tensor(inf))
    """
    # The product of decimals is rounded: 0.95 · 20 must be 19, not a little more.
    rank = max(1, math.ceil(round(quantile * (len(real) + 1), 9)))
    if rank > len(real):
        return real.new_tensor(math.inf)
    return real.sort().values[rank - 1]


def unknown(disagreement: Tensor, gate: Tensor) -> Tensor:
    """Which steps lead where the world knows too little, ``[N]``: above the gate, or not finite.

    >>> import torch
    >>> unknown(torch.tensor([3.0, 3.1, torch.nan]), torch.tensor(3.0))
    tensor([False,  True,  True])
    """
    return (disagreement > gate) | ~disagreement.isfinite()
