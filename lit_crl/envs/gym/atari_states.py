"""States of the Arcade Learning Environment's emulator: saved, restored, and tried first.

Some games do not survive it: they go on differently, or corrupt memory after many restores. So a
game is restored here only if ``atari_round_trip.py`` has restored it 3,000 times, in a process of
its own, and it went on each time as it had before.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: The program that tries a game out, and the seconds that it may take.
ROUND_TRIP, SECONDS = Path(__file__).with_name("atari_round_trip.py"), 120


def saved(env: Any) -> Tensor:
    """The emulator's state with its random state, as bytes."""
    state = env.ale.cloneState(include_rng=True).serialize()
    return torch.from_numpy(np.frombuffer(state, np.uint8).copy())


def restore(env: Any, state: Tensor) -> None:
    """Put the emulator into a saved state. Its screen is old until the next frame."""
    import ale_py

    env.ale.restoreState(ale_py.ALEState(state.numpy().tobytes()))


def why_not_saved(env: Any) -> str | None:
    """Why the emulator's state is not the whole state of a game, in words; None: it is."""
    if env.ale.getFloat("repeat_action_probability") > 0:
        return (
            "the emulator does not save which action sticks: set env_kwargs."
            "repeat_action_probability to 0, and put gymnasium.wrappers.StickyAction first in "
            "wrappers for sticky actions"
        )
    return None


@functools.cache
def why_not_restored(game: str, mode: int, difficulty: int) -> str | None:
    """Why a game's states cannot be restored, in words; None: 3,000 of them were."""
    command = [sys.executable, "-P", str(ROUND_TRIP), game, str(mode), str(difficulty)]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"restoring states of {game} took longer than {SECONDS} seconds"
    if result.returncode == 0:
        return None
    if result.returncode < 0:
        return f"restoring states of {game} crashed the emulator"
    return (result.stderr.strip().splitlines() or ["the emulator ended without a word"])[-1]
