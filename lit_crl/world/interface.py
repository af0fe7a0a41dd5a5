"""What an imagined environment asks of a world."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Imagined(NamedTuple):
    """One imagined step of N environments."""

    next_obs: Tensor
    reward: Tensor
    #: Whether the task ends with this step, ``[N]`` bool.
    terminated: Tensor
    #: How far the world's members are apart, in units of its mean on real data, ``[N]``.
    disagreement: Tensor


class World(Protocol):
    """Imagines what follows an observation and an action."""

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        """One step from ``obs [N, ...]`` with ``action [N]``."""
