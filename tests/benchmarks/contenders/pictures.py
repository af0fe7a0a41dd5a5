"""A task for eyes: one quarter of each picture is bright, and its number is the right action.

The pictures are a pool that is drawn once, so that a step costs next to nothing, and what is
measured is the network.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

POOL, CHANNELS, QUARTERS, STEPS = 256, 4, 4, 32


def pool(side: int) -> np.ndarray:
    """Pictures ``[POOL, CHANNELS, side, side]``; in number i, quarter i % 4 is bright."""
    rng = np.random.default_rng(side)
    pictures = rng.integers(0, 128, (POOL, CHANNELS, side, side), np.uint8)
    half = side // 2
    for i, picture in enumerate(pictures):
        row, column = divmod(i % QUARTERS, 2)
        picture[:, row * half : (row + 1) * half, column * half : (column + 1) * half] += 100
    return pictures


class Pictures(gym.Env[np.ndarray, np.int64]):
    """A picture at each step, drawn uniformly; 1 for the right action; over after 32 steps."""

    def __init__(self, side: int) -> None:
        self.pool, self.now, self.steps = pool(side), 0, 0
        self.observation_space = Box(0, 255, (CHANNELS, side, side), np.uint8)
        self.action_space = Discrete(QUARTERS)

    def _next(self) -> np.ndarray:
        self.now = int(self.np_random.integers(POOL))
        picture: np.ndarray = self.pool[self.now]
        return picture

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start anew."""
        super().reset(seed=seed)
        self.steps = 0
        return self._next(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Judge the action by the picture that was shown, and show another one."""
        reward = float(action == self.now % QUARTERS)
        self.steps += 1
        return self._next(), reward, False, self.steps >= STEPS, {}


for _side in (10, 84):
    gym.register(f"Pictures{_side}-v0", entry_point=Pictures, kwargs={"side": _side})
