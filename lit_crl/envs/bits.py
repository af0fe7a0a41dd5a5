"""Observations that are bits: 0 and 1, and nothing between them."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box


class BitSpace(Box):
    """A space of vectors of bits that are kept as float32, as networks take them.

    Bounds do not tell it: numbers between 0 and 1 have the same ones.
    """

    def __init__(self, count: int) -> None:
        """Make the space of vectors of ``count`` bits."""
        super().__init__(0.0, 1.0, (count,), np.float32)


def is_bits(space: Box) -> bool:
    """Whether observations in a space are vectors of bits.

    They are if it is a ``BitSpace``, and if its numbers are truth values, or whole and from 0 to 1.

    >>> is_bits(BitSpace(4)), is_bits(Box(0, 1, (4,), np.uint8)), is_bits(Box(0, 1, (4,)))
    (True, True, False)
    """
    return isinstance(space, BitSpace) or _are_bits(space, space.dtype)


def with_bits(kept: Box, declared: np.dtype[Any] | None) -> Box:
    """A ``BitSpace`` in the place of ``kept``, a space of float32, if it holds bits.

    Args:
        kept: Space in which observations are kept; bytes stay bytes, because their type tells it.
        declared: Type of the observations before they were converted.

    >>> with_bits(Box(0, 1, (4,)), np.dtype(np.int64)).__class__.__name__
    'BitSpace'
    """
    if kept.dtype == np.float32 and _are_bits(kept, declared):
        return BitSpace(kept.shape[0])
    return kept


def _are_bits(space: Box, dtype: np.dtype[Any] | None) -> bool:
    is_whole = dtype is not None and dtype.kind in "biu"
    is_vector = len(space.shape) == 1
    return is_whole and is_vector and bool((space.low == 0).all() and (space.high == 1).all())
