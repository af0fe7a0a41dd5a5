"""Making one Gymnasium environment that a DQN can act in, with errors that say what to do."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple
from gymnasium.wrappers import FlattenObservation, TimeLimit

from lit_crl.core.checks import ConfigError
from lit_crl.envs.gym.guard import Env, layers
from lit_crl.envs.gym.returned import described, told


def make_env(id: str, **kwargs: Any) -> Env:
    """Make one Gymnasium environment with discrete actions and ``Box`` observations.

    Args:
        id: Gymnasium id, or ``module:id`` of a module that registers it. Discrete, ``Dict`` and
            ``Tuple`` observations are flattened.
        **kwargs: For ``gymnasium.make``.

    Returns:
        The environment.

    Raises:
        ConfigError: If the id is unknown, a package is missing, the environment cannot be made, or
            a DQN cannot act in it.
    """
    import_module_of(id)
    try:
        env: Env = gymnasium.make(id, **{"disable_env_checker": True, **kwargs})
    except (DependencyNotInstalled, ImportError) as error:
        raise ConfigError(
            f"{id!r} needs a package that is missing; `pip install` it, usually as an extra "
            f'like `pip install "gymnasium[box2d]"` ({told(error)})'
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise ConfigError(_why_not_made(id, error)) from error
    return adapted(env, repr(id))


def make_env_with(
    make: Callable[..., Env], name: str, max_episode_steps: int | None, **kwargs: Any
) -> Env:
    """Make one environment by calling a class or a function.

    Args:
        make: A ``gymnasium.Env`` class, or a function that makes an environment.
        name: What sentences call it.
        max_episode_steps: Time limit in env steps; None: its own.
        **kwargs: For ``make``.

    Returns:
        The environment, its observations flattened unless they are a ``Box``.

    Raises:
        ConfigError: If that fails, does not give an environment, or a DQN cannot act in it.
    """
    try:
        env = make(**kwargs)
    except MemoryError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{name} cannot be made: it raised {told(error)}; arguments are given by "
            "env_kwargs or functools.partial"
        ) from error
    if not isinstance(env, gymnasium.Env):
        raise ConfigError(
            f"{name} gave {described(env)}, but must give one environment, a gymnasium.Env"
        )
    if max_episode_steps is not None:
        env = TimeLimit(env, max_episode_steps)
    return adapted(env, name)


def adapted(env: Env, name: str) -> Env:
    """Return the environment with observations that are one array, if a DQN can act in it.

    Raises:
        ConfigError: If its actions are not numbered, or its observations are not numbers.
    """
    actions, space = (getattr(env, key, None) for key in ("action_space", "observation_space"))
    if not isinstance(actions, Discrete):
        raise ConfigError(
            f"{name} has the action space {actions}, but a DQN needs Discrete actions; choose "
            "another environment, or register one with a wrapper that numbers its actions "
            "(gymnasium.wrappers.TransformAction)"
        )
    if not isinstance(space, Space):
        raise ConfigError(f"{name} has the observation space {space}: give it a gymnasium Space")
    for path, part in _unreadable_parts(space):
        raise ConfigError(_wrapper_needed(env, name, path, part))
    if isinstance(space, Box) and 0 in space.shape:
        raise ConfigError(f"{name} has observations of shape {space.shape}, which hold no numbers")
    return env if isinstance(space, Box) and space.shape else FlattenObservation(env)


def time_limit(env: Env) -> int | None:
    """Return the env steps after which a wrapper cuts episodes off; None: no wrapper does."""
    limits = [layer._max_episode_steps for layer in layers(env) if isinstance(layer, TimeLimit)]
    return min(limits, default=None)


def import_module_of(id: str) -> None:
    """Import the module that an id like ``module:id`` names.

    Raises:
        ConfigError: If that fails.
    """
    module, _, rest = id.rpartition(":")
    if not module:
        return
    if module.endswith(".py"):
        raise ConfigError(f"{id!r} names a file: write the module, {module[:-3]}:{rest}")
    try:
        importlib.import_module(module)
    except MemoryError:
        raise
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        if missing and f"{module}.".startswith(f"{missing}."):
            raise ConfigError(
                f"{id!r} needs a package that is missing; `pip install` the one that has the "
                f"module {module}, or run where {module}.py lies"
            ) from error
        raise ConfigError(
            f"{id!r} cannot be used, because importing {module} raised {told(error)}"
        ) from error


def _why_not_made(id: str, error: Exception) -> str:
    name = id.rpartition(":")[2]
    spec = gymnasium.registry.get(name)
    if spec is not None and spec.entry_point is None:
        return (
            f"{id!r} is registered as a vector environment alone, but single environments are "
            "needed: register it with an entry_point, or choose another id"
        )
    if spec is None and isinstance(error, gymnasium.error.Error):
        return f"Gymnasium knows no environment {name!r}; {_likely(name)}"
    return f"{id!r} cannot be made: {told(error)}"


def _likely(name: str) -> str:
    """What somebody who wrote ``name`` may have meant."""
    by_base: dict[str, list[str]] = {}
    for known in gymnasium.registry:
        by_base.setdefault(_base(known), []).append(known)
    for base in difflib.get_close_matches(_base(name), by_base, n=1, cutoff=0.75):
        newest = max(by_base[base], key=lambda known: gymnasium.registry[known].version or 0)
        return f"use {newest!r}"
    return (
        "check the id, or `pip install` the package that registers it and write its module before "
        "the id, as in ale_py:ALE/Pong-v5"
    )


def _base(id: str) -> str:
    """An id without its version, in lower case."""
    return re.sub(r"-v\d+$", "", id).lower()


def _unreadable_parts(space: Space[Any], path: str = "") -> Iterator[tuple[str, Space[Any]]]:
    """The parts of a space that are not numbers of a fixed count, by where they are."""
    if isinstance(space, Dict):
        parts = [(str(key), part) for key, part in space.spaces.items()]
    elif isinstance(space, Tuple | OneOf):
        parts = [(str(index), part) for index, part in enumerate(space.spaces)]
    else:
        if not isinstance(space, Box | Discrete | MultiBinary | MultiDiscrete):
            yield path, space
        return
    for key, part in parts:
        yield from _unreadable_parts(part, f"{path}.{key}" if path else key)


def _wrapper_needed(env: Env, name: str, path: str, part: Space[Any]) -> str:
    wrapper = "gymnasium.wrappers.TransformObservation"
    if type(env.unwrapped).__module__.startswith("minigrid."):
        wrapper = "minigrid.wrappers.ImgObsWrapper or FlatObsWrapper"
    elif path:
        wrapper = "gymnasium.wrappers.FilterObservation, which leaves parts out"
    what = f"observations whose part {path!r} is" if path else "observations that are"
    return (
        f"{name} has {what} a {type(part).__name__}, but a network needs a fixed count of numbers: "
        f"wrap it in {wrapper}, register that in a module of yours by gymnasium.register('My-v0', "
        "lambda **kwargs: Wrapper(gymnasium.make(ID, **kwargs))), and use module:My-v0"
    )


def named_space(
    level_space: Box | Mapping[str, Sequence[float]] | None, set_level: object
) -> tuple[tuple[str, ...], Box | None]:
    """Return the names of the coordinates, as far as given, and the space of levels.

    Raises:
        ConfigError: If it cannot be a space of levels, or lacks its function.
    """
    if (level_space is None) != (set_level is None):
        raise ConfigError("level_space and set_level belong together: give both or neither.")
    names: tuple[str, ...] = ()
    if isinstance(level_space, Mapping):
        names, level_space = tuple(level_space), named_box(level_space)
    if level_space is not None and not (level_space.is_bounded() and len(level_space.shape) == 1):
        raise ConfigError(f"level_space is {level_space}, but needs finite bounds, shape (d,).")
    return names, level_space


def named_box(bounds: Mapping[str, Sequence[float]]) -> Box:
    """Return the box whose coordinates have these low and high bounds, in this order.

    Raises:
        ConfigError: If a coordinate does not have a low bound below a high one.
    """
    for name, pair in bounds.items():
        if len(pair) != 2 or not pair[0] < pair[1]:
            raise ConfigError(
                f"level_space.{name} is {list(pair)}, but must be a low and a high bound."
            )
    low, high = np.array(list(bounds.values()), np.float32).T
    return Box(low, high)
