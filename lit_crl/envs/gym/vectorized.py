"""What the adapter asks of the copies of an environment, however they are stepped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box

from lit_crl.core.checks import RunError
from lit_crl.envs.gym.game import Game
from lit_crl.envs.gym.returned import Array

#: How copies are stepped: one after another, in processes, or by the id's own vector environment.
#: The words are those of ``gymnasium.make_vec``.
Vectorization = Literal["sync", "async", "vector_entry_point"]


@dataclass(frozen=True)
class Kind:
    """What copies of one environment have in common.

    Attributes:
        space: Space in which observations are kept.
        first_action: The environment's own number of action 0.
        num_actions: Number of actions.
        spec: What Gymnasium knows of its id.
        metadata: The environment's own.
        game: What is played.
        emulated: Game, mode and difficulty of the Atari emulator whose states would be saved; None:
            there is no emulator.
    """

    space: Box
    first_action: int
    num_actions: int
    spec: EnvSpec | None
    metadata: dict[str, Any]
    game: Game
    emulated: tuple[str, int, int] | None = None


class Vectorized(Protocol):
    """Copies of one environment, with what they return in arrays.

    Attributes:
        kind: What they have in common.
        observations: Present observation of each copy [N, ...], bytes or float32; always the same
            array.
        running: Whether each copy's episode is running [N].
        terminated: Whether each copy's episode has terminated [N].
        truncated: Whether each copy's episode was cut off [N].
        lost_life: Whether each copy lost a life in its last step [N], if lives are counted.
        reported: The success that the infos of each copy's episode last reported [N]: 1, 0, or -1
            for none.
        reports_success: Whether infos have ever reported success.
        has_lives: Whether infos have ever reported lives.
    """

    kind: Kind
    observations: Array
    running: Array
    terminated: Array
    truncated: Array
    lost_life: Array
    reported: Array
    reports_success: bool
    has_lives: bool

    def try_out(self, levels: Array | None) -> None:
        """Reset and step a copy once, so that most mistakes show before anything trains."""

    def reset(
        self,
        chosen: Array,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
        levels: Array | None = None,
    ) -> None:
        """Start new episodes of the ``chosen`` copies, at ``levels`` [N, d] or their own starts."""

    def step(self, actions: Array) -> Array:
        """Advance every copy whose episode is running by one env step; return rewards [N]."""

    def why_not_saved(self) -> str | None:
        """Why running episodes cannot be saved, in words; None: they can."""

    def state_dict(self) -> dict[str, Any]:
        """Return the running episodes, if they can be saved."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""

    def kept_state(self, i: int) -> bytes:
        """The running episode of copy ``i``, if it can be saved, to start from it later."""

    def start_from(self, i: int, kept: bytes) -> None:
        """Start an episode of copy ``i`` in a state that ``kept_state`` gave, of any copy."""

    def render(self) -> tuple[Any, ...]:
        """Return an image of every copy."""

    def close(self) -> None:
        """Close every copy."""


def check_finite(array: Array, where: str, what: str) -> None:
    """Every number of an array is finite.

    Raises:
        RunError: If one is not.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = array[~np.isfinite(array)][0]
        raise RunError(
            f"{where} returned {what} that holds {wrong}, which nothing can be learned from: give "
            "finite numbers that fit float32"
        )


def check_in_bounds(observations: Array, space: Box, where: str) -> None:
    """Whole numbers among some observations [n, ...] lie within the bounds of their space.

    The network scales by these bounds, so that wrong ones would spoil what it sees.

    Raises:
        RunError: If one does not.
    """
    if observations.dtype.kind != "u":
        return
    low, high = observations.min(0), observations.max(0)
    if (low < space.low).any() or (high > space.high).any():
        raise RunError(
            f"{where} returned an observation with values from {observations.min()} to "
            f"{observations.max()}, but its observation space has the bounds {space.low.min()} and "
            f"{space.high.max()}: declare what it returns"
        )
