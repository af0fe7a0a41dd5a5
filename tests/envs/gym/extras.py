"""Environments of the extras, as their experiments make them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_crl.envs import GymnasiumEnv

Settings = dict[str, Any]

STACK = {"class_path": "gymnasium.wrappers.FrameStackObservation", "init_args": {"stack_size": 4}}
STICKY = {
    "class_path": "gymnasium.wrappers.StickyAction",
    "init_args": {"repeat_action_probability": 0.25},
}


def preprocessing(**init_args: Any) -> Settings:
    return {"class_path": "gymnasium.wrappers.AtariPreprocessing", "init_args": init_args}


def atari(game: str = "Breakout", sticky: bool = True, **changes: Any) -> Settings:
    kwargs = {"frameskip": 1, "repeat_action_probability": 0.0, "obs_type": "grayscale"}
    wrappers = [*([STICKY] if sticky else []), preprocessing(noop_max=30), STACK]
    id = f"ale_py:ALE/{game}-v5"
    return {"id": id, "env_kwargs": kwargs, "wrappers": wrappers, **changes}


def minatar(id: str = "Breakout-v1") -> Settings:
    return {"id": f"minatar:MinAtar/{id}"}


def minigrid(id: str = "MiniGrid-DoorKey-6x6-v0", *wrappers: str) -> Settings:
    names = wrappers or ("OneHotPartialObsWrapper", "ImgObsWrapper")
    return {
        "id": f"minigrid:{id}",
        "wrappers": [{"class_path": f"minigrid.wrappers.{name}"} for name in names],
    }


def made(num_envs: int, settings: Settings, **changes: Any) -> GymnasiumEnv:
    """The environments; the test is skipped where the extra is not installed."""
    pytest.importorskip(settings["id"].partition(":")[0], reason="needs an extra")
    return GymnasiumEnv(num_envs, **settings, **changes)


class Player:
    """Plays at random, and resets what has ended; remembers everything that it saw."""

    def __init__(self, env: GymnasiumEnv, seed: int = 0) -> None:
        self.env, self.rng = env, torch.Generator().manual_seed(seed)
        self.done = torch.zeros(env.num_envs, dtype=torch.bool)

    def play(self, steps: int, watch: Callable[[], None] = lambda: None) -> list[Tensor]:
        seen: list[Tensor] = []
        for _ in range(steps):
            if self.done.any():
                seen.append(self.env.reset(options={"reset_mask": self.done})[0])
            actions = int(self.env.single_action_space.n)
            action = torch.randint(actions, (self.env.num_envs,), generator=self.rng)
            *result, info = self.env.step(action)
            self.done = result[2] | result[3]
            seen += [*result, *info.values()]
            watch()
        return seen


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))
