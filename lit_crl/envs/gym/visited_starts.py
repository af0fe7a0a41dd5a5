"""Episodes of copies that start in visited states, and which states become levels."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.free_ram import check_fits
from lit_crl.envs.gym.returned import Array
from lit_crl.envs.gym.vectorized import Vectorized
from lit_crl.envs.gym.visited_states import VisitedStates, can_be_coded


class VisitedStarts:
    """Keeps states of copies as levels, and starts their episodes there.

    Attributes:
        states: The states that are levels; other copies may share them.
    """

    def __init__(
        self, copies: Vectorized, capacity: int, name: str, why_not_restored: str | None
    ) -> None:
        """Keep the first start of the first copy.

        Args:
            copies: Have been tried out.
            capacity: Most states that are kept.
            name: What messages call the environment.
            why_not_restored: Why states cannot be restored, in words; None: they can.

        Raises:
            ConfigError: If states cannot be restored, observations have no code, or so many states
                do not fit into the free RAM.
        """
        problem, space = None, copies.kind.space
        if why_not_restored:
            problem = f"states of {name} cannot be restored, because {why_not_restored}"
        elif not can_be_coded(space):
            problem = (
                f"{name} observes numbers, of which nothing says how far apart two of them are: "
                "give level_space and set_level in its place"
            )
        if problem:
            raise ConfigError(f"visited_levels is {capacity:,}, but {problem}")
        self._copies, self.states = copies, VisitedStates(capacity, space)
        #: States asked for so far: of each copy in turn.
        self._turns = 0
        copies.reset(np.arange(len(copies.running)) == 0, seed=0)
        self._keep(0)
        needed = capacity * self.states.num_bytes
        check_fits("visited_levels", capacity, needed, torch.device("cpu"))

    def _keep(self, i: int) -> Tensor:
        observation = torch.from_numpy(self._copies.observations[i])
        return self.states.keep(observation, self._copies.kept_state(i))

    def keep_next(self) -> Tensor:
        """Keep the state of one copy, of each in turn; return its level, ``[N, d]``.

        Rows of all other copies are NaN, and so is its own if it waits for a reset.
        """
        count = len(self._copies.running)
        levels = torch.full((count, *self.states.level_space.shape), torch.nan)
        i = self._turns % count
        self._turns += 1
        if self._copies.running[i]:
            levels[i] = self._keep(i)
        return levels

    def reset(self, chosen: Array, levels: Tensor, seed: int, options: dict[str, Any]) -> Tensor:
        """Start episodes in the states that are nearest to levels; a NaN row is the task's own.

        Args:
            chosen: Which copies are reset, bool ``[N]``.
            levels: Levels ``[N, d]``.
            seed: Copy i is seeded with ``seed + i``. A state brings its random stream with it,
                which other copies may have had, too: the task's own resets must not repeat theirs.
            options: Passed on to every copy.

        Returns:
            The levels of those states ``[N, d]``.
        """
        self._copies.reset(chosen, seed=seed, options=options)
        nearest = self.states.nearest(levels)
        for i in np.flatnonzero(chosen & nearest.isfinite().all(1).numpy()).tolist():
            self._copies.start_from(i, self.states.state_at(nearest[i]))
        return nearest

    def state_dict(self) -> dict[str, Any]:
        """The states, and whose turn it is."""
        return {"visited": self.states.state_dict(), "visits": self._turns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.states.load_state_dict(state["visited"])
        self._turns = state["visits"]
