"""How many env steps an evaluation may take, and how its parts share them."""

import torch
from torch import Tensor

#: A part plays at least this many of its episodes (or levels), cut off early if necessary.
MIN_GROUPS = 2


class Allowance:
    """Env steps for an evaluation whose parts are played one after another.

    Each part may take half of the rest, and the last part all of it. So the first part, the target
    episodes, has half of the whole, and later parts can use what an earlier one leaves.
    """

    def __init__(self, env_steps: int, parts: int) -> None:
        """Share ``env_steps`` between ``parts``."""
        self.left, self.parts = env_steps, parts
        #: Env steps taken, and episodes cut off, by all parts so far.
        self.spent = self.cut_off = 0

    def next_part(self) -> int:
        """Env steps that the next part may take."""
        self.parts -= 1
        return self.left // 2 if self.parts > 0 else self.left

    def forgo_rest(self) -> None:
        """Leave nothing to the later parts: success is unknown, and they could not measure it."""
        self.left = 0

    def spend(self, env_steps: int, cut_off: int) -> None:
        """Subtract the env steps that a part took, and count its episodes that were cut off."""
        self.left, self.spent = self.left - env_steps, self.spent + env_steps
        self.cut_off += cut_off


def longest_episode(limit: int | None, groups: int, size: int, env_steps: int) -> int:
    """Env steps after which an episode is cut off, in a part that may take ``env_steps``.

    This is the time limit, if there is one and ``MIN_GROUPS`` groups of whole episodes fit.
    Otherwise those groups share the env steps.

    >>> longest_episode(limit=200, groups=20, size=1, env_steps=10_000)
    200
    >>> longest_episode(limit=200, groups=20, size=1, env_steps=100)
    50

    Args:
        limit: The environment's time limit; None: it has none.
        groups: Desired groups of episodes, for instance levels.
        size: Episodes of a group.
        env_steps: Env steps of the part.
    """
    affordable = max(1, env_steps // (size * max(1, min(groups, MIN_GROUPS))))
    return affordable if limit is None else min(limit, affordable)


def evenly(n: int) -> Tensor:
    """The numbers 0 … n − 1, ordered so that the first k of them are spread evenly, ``[n]``.

    Multiples of the golden ratio have this property for every k: modulo 1 the gaps between them
    have at most three lengths (Sós 1958).

    >>> evenly(8)
    tensor([0, 5, 2, 7, 4, 1, 6, 3])
    """
    golden = (5**0.5 - 1) / 2
    return (torch.arange(n, dtype=torch.float64) * golden).remainder(1).argsort()
