"""Making one Gymnasium environment that a DQN can act in, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled, UnregisteredEnv
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import FlattenObservation

Env = gymnasium.Env[Any, Any]


def make_env(id: str, **kwargs: Any) -> Env:
    """Make one Gymnasium environment with discrete actions and ``Box`` observations.

    Args:
        id: Gymnasium id. Discrete, ``Dict`` and ``Tuple`` observations are flattened.
        **kwargs: For ``gymnasium.make``.

    Returns:
        The environment.

    Raises:
        ValueError: If the id is unknown, a dependency is missing or the actions are not discrete.
    """
    try:
        env: Env = gymnasium.make(id, disable_env_checker=True, **kwargs)
    except (DependencyNotInstalled, ImportError) as error:
        raise ValueError(
            f"{id!r} needs a package that is missing; `pip install` it, usually as an extra "
            f'like `pip install "gymnasium[box2d]"` ({error})'
        ) from error
    except UnregisteredEnv as error:
        raise ValueError(
            f"Gymnasium knows no environment {id!r}; check the id, or `pip install` and import "
            f"the package that registers it ({error})"
        ) from error
    if not isinstance(env.action_space, Discrete):
        raise ValueError(
            f"{id!r} has the action space {env.action_space}, but a DQN needs Discrete actions; "
            "choose another id or register a discretized version of it."
        )
    return env if isinstance(env.observation_space, Box) else FlattenObservation(env)


def wrapped_observation(env: Env, raw: Any) -> Any:
    """Return an observation of ``env.unwrapped`` as the observation wrappers around it show it."""
    if not isinstance(env, gymnasium.Wrapper):
        return raw
    inner = wrapped_observation(env.env, raw)
    return env.observation(inner) if isinstance(env, gymnasium.ObservationWrapper) else inner


def named_space(
    level_space: Box | Mapping[str, Sequence[float]] | None, set_level: object
) -> tuple[tuple[str, ...], Box | None]:
    """Return the names of the coordinates, as far as given, and the space of levels.

    Raises:
        ValueError: If it cannot be a space of levels, or lacks its function.
    """
    if (level_space is None) != (set_level is None):
        raise ValueError("level_space and set_level belong together: give both or neither.")
    names: tuple[str, ...] = ()
    if isinstance(level_space, Mapping):
        names, level_space = tuple(level_space), named_box(level_space)
    if level_space is not None and not (level_space.is_bounded() and len(level_space.shape) == 1):
        raise ValueError(f"level_space is {level_space}, but needs finite bounds, shape (d,).")
    return names, level_space


def named_box(bounds: Mapping[str, Sequence[float]]) -> Box:
    """Return the box whose coordinates have these low and high bounds, in this order.

    Raises:
        ValueError: If a coordinate does not have a low bound below a high one.
    """
    for name, pair in bounds.items():
        if len(pair) != 2 or not pair[0] < pair[1]:
            raise ValueError(
                f"level_space.{name} is {list(pair)}, but must be a low and a high bound."
            )
    low, high = np.array(list(bounds.values()), np.float32).T
    return Box(low, high)
