"""A game with lives, points beyond 1 and a time limit, and one that fails.

Nothing here imports torch, so that a process which makes such a game starts as quickly as a user's.
"""

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

#: Points of a step by action, and steps that a life lasts.
POINTS, LIFE = (7.0, -3.0), 5


class ThreeLives(gymnasium.Env[Any, Any]):
    """Costs a life every five steps, and pays 7 or −3; shows the number of its steps as a byte."""

    observation_space = Box(0, 255, (8, 9), np.uint8)
    action_space = Discrete(2)
    resets = 0

    def __init__(self, lives: int = 3, tells_lives: bool = True) -> None:
        self.first_lives, self.tells_lives = lives, tells_lives

    def picture(self) -> Any:
        return np.full((8, 9), self.steps, np.uint8)

    def infos(self) -> dict[str, Any]:
        return {"lives": self.lives} if self.tells_lives else {}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.lives = 0, self.first_lives
        self.resets += 1
        return self.picture(), self.infos()

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.lives -= self.steps % LIFE == 0
        return self.picture(), POINTS[int(action)], self.lives == 0, False, self.infos()


class Faulty(ThreeLives):
    """Fails in its third step, or when it is made."""

    def __init__(self, makes: bool = True, dies: bool = False) -> None:
        if not makes:
            raise RuntimeError("no licence")
        super().__init__()
        self.dies = dies

    def step(self, action: Any) -> Any:
        if self.steps == 2:
            if self.dies:
                os._exit(3)
            raise ValueError("out of fuel")
        return super().step(action)

    def close(self) -> None:
        Path(os.environ["LIT_CRL_CLOSED"]).write_text("closed")
