"""How many env steps an evaluation may take, and how its parts share them."""

import torch
from torch import Tensor

#: So many of its episodes (or levels) a part plays at least, shorter than their time limit if need
#: be.
FEWEST = 2


class Allowance:
    """Env steps for an evaluation whose parts come one after another.

    Each part may take half of what is left, and the last one all of it. So the first part, the
    target episodes, has half of the whole, and what a part leaves serves those after it.
    """

    def __init__(self, env_steps: int, parts: int) -> None:
        """``env_steps`` for so many ``parts``."""
        self.left, self.parts = env_steps, parts
        #: Env steps taken, and episodes cut off, by all parts so far.
        self.spent = self.cut_off = 0

    def next_part(self) -> int:
        """Env steps that the next part may take."""
        self.parts -= 1
        return self.left // 2 if self.parts > 0 else self.left

    def forgo_rest(self) -> None:
        """Leave nothing to the parts that follow: what they could measure is not known."""
        self.left = 0

    def spend(self, env_steps: int, cut_off: int) -> None:
        """Note what a part took."""
        self.left, self.spent = self.left - env_steps, self.spent + env_steps
        self.cut_off += cut_off


def longest_episode(limit: int | None, groups: int, size: int, env_steps: int) -> int:
    """Env steps after which an episode is cut off, in a part that may take ``env_steps``.

    This is the time limit, where there is one and ``FEWEST`` groups of whole episodes fit. Else
    these share what there is.

    Args:
        limit: The environment's time limit; None: it has none.
        groups: Groups of episodes that are wanted, for instance levels.
        size: Episodes of a group.
        env_steps: Env steps of the part.
    """
    affordable = max(1, env_steps // (size * max(1, min(groups, FEWEST))))
    return affordable if limit is None else min(limit, affordable)


def evenly(n: int) -> Tensor:
    """The numbers 0 … n − 1 in an order of which every beginning is spread evenly, ``[n]``.

    The multiples of the golden ratio are: whatever number of them is taken, modulo 1 they have
    gaps of at most three lengths (Sós 1958).
    """
    golden = (5**0.5 - 1) / 2
    return (torch.arange(n, dtype=torch.float64) * golden).remainder(1).argsort()
