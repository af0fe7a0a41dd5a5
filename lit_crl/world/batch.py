"""The real steps that a world learns from."""

from typing import NamedTuple

from torch import Tensor


class RealSteps(NamedTuple):
    """Rows of each member, ``[E, B, ...]``; those of a stack are ``[K, E, B, ...]``."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    #: Whether the task ended with the step. A cut, for instance by a time limit, is no end.
    terminated: Tensor
    #: What followed; at the end of an episode its last observation, not the next episode's first.
    next_obs: Tensor
    #: Whether the task goes on. Only such rows are learnt by generators and discriminators, but for
    #: those of maps, which learn every row, as the heads do.
    learns_next: Tensor
