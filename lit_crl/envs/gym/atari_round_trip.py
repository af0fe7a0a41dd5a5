"""A program that restores states of one Atari game 3,000 times: does it go on as before?

``python atari_round_trip.py GAME MODE DIFFICULTY`` ends with 0 if it does, and otherwise with a
sentence. It runs in a process of its own, because a game that corrupts memory ends its process.
"""

from __future__ import annotations

import hashlib
import random
import sys
from typing import Any, NamedTuple

#: States that are stored, frames between two of them, and restores.
STATES, APART, RESTORES = 50, 40, 3_000
#: Frames that are compared after the first restores of each state, and after all others.
LONG, SHORT = 30, 1
#: Probability that an action repeats the one before: the emulator's random state matters.
STICKY = 0.0


class Frame(NamedTuple):
    """What one frame of a game shows."""

    reward: int
    over: bool
    lives: int
    number: int
    memory: bytes
    screen: bytes


class Stored(NamedTuple):
    """A state, the actions that followed, and what they led to."""

    state: bytes
    actions: list[Any]
    frames: list[Frame]


def main(game: str, mode: int, difficulty: int) -> str | None:
    """Try a game out; return what is wrong with it, or None."""
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 1)
    ale.setFloat("repeat_action_probability", STICKY)
    rom = roms.get_rom_path(game)
    if rom is None:
        return f"{game} is no game of ale-py"
    ale.loadROM(rom)
    if mode:
        ale.setMode(mode)
    if difficulty:
        ale.setDifficulty(difficulty)
    ale.reset_game()
    draw = random.Random(0)
    stored = [store(ale, draw) for _ in range(STATES)]
    for trial in range(RESTORES):
        one = stored[trial % STATES]
        frames = LONG if trial < 2 * STATES else SHORT
        ale.restoreState(ale_py.ALEState(one.state))
        seen = [act(ale, action) for action in one.actions[:frames]]
        if seen != one.frames[:frames]:
            return f"{game} went on differently after {trial + 1} of {RESTORES:,} restored states"
    return None


def store(ale: Any, draw: random.Random) -> Stored:
    """Play on at random, and store the state at which that began."""
    state = ale.cloneState(include_rng=True).serialize()
    actions = draw.choices(ale.getMinimalActionSet(), k=max(LONG, APART))
    frames = []
    for action in actions:
        if ale.game_over():
            break
        frames.append(act(ale, action))
    if ale.game_over():
        ale.reset_game()
    return Stored(state, actions[: len(frames)], frames)


def act(ale: Any, action: Any) -> Frame:
    """Play one frame."""
    reward = ale.act(action)
    memory, screen = ale.getRAM().tobytes(), ale.getScreen().tobytes()
    ended = (int(reward), ale.game_over(), ale.lives(), ale.getEpisodeFrameNumber())
    return Frame(*ended, memory, hashlib.sha1(screen, usedforsecurity=False).digest())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
