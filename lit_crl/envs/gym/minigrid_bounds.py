"""The bounds of MiniGrid's observations, which declare bytes up to 255 for a few categories.

Networks scale observations by their bounds: bits declared as bytes would reach them as 1/255.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from lit_crl.envs.gym.guard import Env, layers
from lit_crl.envs.gym.returned import Array

#: Wrappers that leave categories as they are, or put several frames into one observation.
_TRANSPARENT = ("TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "FrameStackObservation",
                "ImgObsWrapper", "FullyObsWrapper", "ViewSizeWrapper", "ActionBonus",
                "PositionBonus", "ReseedWrapper", "NoDeath", "StochasticActionWrapper",
                "StickyAction")  # fmt: skip
#: The four ways that an agent faces are states of its cell; doors have three.
_MOST_STATES = 4


def with_true_bounds(env: Env, space: Box) -> Box:
    """Return ``space``, of an environment's observations, with upper bounds that they reach.

    It stays as it is if the environment is not of MiniGrid, or shows colours, or is in wrappers of
    which nothing is known.
    """
    if not type(env.unwrapped).__module__.startswith("minigrid."):
        return space
    wrappers: list[Any] = layers(env)[:-1]
    kinds = {type(wrapper).__name__ for wrapper in wrappers}
    encodings = kinds - {*_TRANSPARENT}
    high: Any
    if encodings == {"OneHotPartialObsWrapper"}:
        high = 1
    elif not encodings:
        high = _categories()
    elif encodings == {"FlatObsWrapper"}:
        flat = next(w for w in wrappers if type(w).__name__ == "FlatObsWrapper")
        cells = np.resize(_categories(), int(np.prod(flat.env.observation_space["image"].shape)))
        high = np.concatenate([cells, np.ones(space.shape[-1] - len(cells), np.uint8)])
    else:
        return space
    bounds = np.broadcast_to(np.asarray(high, np.uint8), space.shape)
    return Box(space.low, np.minimum(space.high, bounds), dtype=space.low.dtype.type)


def _categories() -> Array:
    """The largest number of a kind of thing, of a colour and of a state."""
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

    largest = max(OBJECT_TO_IDX.values()), max(COLOR_TO_IDX.values()), _MOST_STATES - 1
    return np.array(largest, np.uint8)
