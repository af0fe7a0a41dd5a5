"""Minibatches of the replay, drawn by one launch."""

from collections.abc import Callable
from functools import partial

import torch

from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.memory import Sequences
from lit_crl.training.graphs.capture import Capture

#: Draws transitions, each field ``[*shape, ...]``.
Sample = Callable[[tuple[int, int]], Transitions]
#: Draws sequences, for a Q-network with memory.
SampleSequences = Callable[[tuple[int, int]], Sequences]


class GraphedDraws:
    """Draws from the replay as a graph, one for each shape; the next draw overwrites the last."""

    def __init__(self, sample: Sample, rng: torch.Generator, capture: Capture) -> None:
        """Record nothing yet.

        Args:
            sample: Draws.
            rng: What it draws with.
            capture: Records.
        """
        self._sample, self._rng, self._capture = sample, rng, capture
        self._graphs: dict[tuple[int, int], Callable[[], Transitions]] = {}

    def __call__(self, shape: tuple[int, int]) -> Transitions:
        """Transitions, each field ``[*shape, ...]``."""
        if shape not in self._graphs:
            work = partial(self._sample, shape)
            name = "draws from the replay"
            self._graphs[shape] = self._capture(work, [], [self._rng], name)
        return self._graphs[shape]()
