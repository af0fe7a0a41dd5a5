"""Logs of a random policy in an environment of Gymnasium."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np


def random_log(path: Path, gymnasium_id: str, steps: int = 300) -> Path:
    """A log of so many steps, written to ``path``."""
    env: gymnasium.Env[Any, Any] = gymnasium.make(gymnasium_id)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    rows = []
    for _ in range(steps):
        action = env.action_space.sample()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        rows.append((obs, action, reward, terminated, truncated, next_obs))
        obs = env.reset()[0] if terminated or truncated else next_obs
    names = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True)))
    return path
