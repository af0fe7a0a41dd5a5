"""Logs with known answers: a counter whose observation is (episode, step), as arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from lit_crl.dqn.logs.filled import replay_of
from lit_crl.dqn.logs.log import Log
from lit_crl.dqn.replay.buffer import ReplayBuffer

Arrays = dict[str, npt.NDArray[Any]]
#: Steps of each episode, and whether it ended or was cut.
EPISODES = ((3, True), (1, True), (4, False), (1, False), (2, True))


def counter(episodes: tuple[tuple[int, bool], ...] = EPISODES) -> Arrays:
    """Step s of episode e leads from (e, s) to (e, s + 1); action and reward follow from both."""
    rows = [
        (e, s, s + 1 == length, is_end)
        for e, (length, is_end) in enumerate(episodes)
        for s in range(length)
    ]
    return {
        "obs": np.array([(e, s) for e, s, _, _ in rows], np.float32),
        "action": np.array([(e + s) % 3 for e, s, _, _ in rows]),
        "reward": np.array([10 * e + s for e, s, _, _ in rows], np.float32),
        "terminated": np.array([last and is_end for _, _, last, is_end in rows]),
        "truncated": np.array([last and not is_end for _, _, last, is_end in rows]),
        "next_obs": np.array([(e, s + 1) for e, s, _, _ in rows], np.float32),
        "num_actions": np.array(3),
        "obs_low": np.zeros(2, np.float32),
        "obs_high": np.full(2, 9, np.float32),
    }


def saved(arrays: Arrays, folder: Path, **changed: Any) -> Path:
    """The arrays as a file; those that are changed to None are left out."""
    path = folder / "log.npz"
    content = {name: array for name, array in (arrays | changed).items() if array is not None}
    np.savez(path, **content)
    return path


def replay_from(log: Log, n_steps: int = 1) -> ReplayBuffer:
    """The log in a replay, with what it declares."""
    assert log.declared.bounds is not None and log.declared.num_actions is not None
    low, high = log.declared.bounds
    space = Box(low, high, dtype=low.dtype.type)
    return replay_of(log, space, log.declared.num_actions, gamma=0.5, n_steps=n_steps)
