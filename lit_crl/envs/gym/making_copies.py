"""Making the copies of an environment, in the way that the setting ``vectorization`` asks for."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs.gym.copies import Copies
from lit_crl.envs.gym.guard import Env, SetLevel
from lit_crl.envs.gym.vector_entry import VectorEntry
from lit_crl.envs.gym.vectorized import Vectorization, Vectorized
from lit_crl.envs.gym.workers import Workers
from lit_crl.envs.images import DeclaredLayout, gymnasium_space, vector_entry_space


def new_copies(
    how: Vectorization,
    make_one: Callable[[], Env],
    count: int,
    name: str,
    *,
    env_kwargs: Mapping[str, Any],
    layout: DeclaredLayout | None,
    set_level: SetLevel | None,
    counts_lives: bool,
) -> Vectorized:
    """Make the copies; ``adapter_checks`` has seen that the arguments fit together.

    Args:
        how: How copies are stepped.
        make_one: Makes one environment, where they are stepped one by one.
        count: Number of copies N.
        name: What messages call the environment: its id, if there is one.
        env_kwargs: Settings of the id's own vector environment, where that steps them.
        layout: How the axes of images lie, if the user says so.
        set_level: Puts an environment at a level, and returns the first observation there.
        counts_lives: Read from the infos of each step whether a life was lost.

    Raises:
        ConfigError: If they cannot be made.
    """
    if how == "vector_entry_point":
        space = partial(vector_entry_space, declared=layout)
        return VectorEntry(name, count, env_kwargs, space, counts_lives)
    copies = Workers if how == "async" else Copies
    kept_space = partial(gymnasium_space, declared=layout)
    return copies(make_one, count, name, kept_space, set_level, counts_lives)


def try_out(copies: Vectorized, level_space: Box | None) -> None:
    """Reset and step the first environment once: most mistakes show before anything trains.

    Args:
        copies: All of them.
        level_space: The levels, of which the middle one is tried; None: there are none.

    Raises:
        ConfigError: If it fails or returns something that it should not.
    """
    levels = None
    if level_space is not None:
        middle = (level_space.low + level_space.high) / 2
        levels = np.tile(middle.astype(np.float32), (len(copies.running), 1))
    try:
        copies.try_out(levels)
    except RunError as error:
        raise ConfigError(str(error)) from error
