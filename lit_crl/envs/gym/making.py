"""Making one Gymnasium environment that a DQN can act in, with errors that say what to do."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple
from gymnasium.wrappers import FlattenObservation, TimeLimit

from lit_crl.core.checks import ConfigError
from lit_crl.envs.gym.guard import Env, layers
from lit_crl.envs.gym.returned import described, raise_named, told


def maker(
    id: str | None,
    make: Callable[..., Env] | None,
    max_episode_steps: int | None,
    env_kwargs: Mapping[str, Any],
) -> tuple[str, Callable[[], Env]]:
    """Return what messages call the environment, and a function that makes one.

    The function raises a ``ConfigError`` if the id is unknown, a package is missing, the
    environment cannot be made, or a DQN cannot act in it. Observations are flattened unless they
    are a ``Box``. For the arguments see ``GymnasiumEnv``.

    Raises:
        ConfigError: If the arguments do not fit together.
    """
    if (id is None) == (make is None):
        raise ConfigError("give either id or make, to say which environment it is")
    kwargs = dict(env_kwargs)
    limit = kwargs.pop("max_episode_steps", None) if id is not None else None
    if limit is not None and max_episode_steps not in (None, limit):
        raise ConfigError(
            f"max_episode_steps is {max_episode_steps}, but {limit} in env_kwargs: give it once"
        )
    limit = max_episode_steps if limit is None else limit
    if limit is not None and limit < 1:
        raise ConfigError(f"max_episode_steps is {limit}: give at least 1, or null for its own")
    if id is not None:
        return id, lambda: _make_by_id(id, limit, kwargs)
    assert make is not None
    name = _name_of(make)
    return name, lambda: _make_by_call(make, name, limit, kwargs)


def _name_of(make: Any) -> str:
    """The name of a class or function, inside any ``functools.partial``."""
    while hasattr(make, "func"):
        make = make.func
    return str(getattr(make, "__qualname__", type(make).__name__))


def _make_by_id(id: str, limit: int | None, kwargs: Mapping[str, Any]) -> Env:
    _import_module_of(id)
    settings = {"disable_env_checker": True, "max_episode_steps": limit, **kwargs}
    try:
        env: Env = gymnasium.make(id, **settings)
    except (DependencyNotInstalled, ImportError) as error:
        raise ConfigError(
            f"{id!r} needs a package that is missing; `pip install` it, usually as an extra "
            f'like `pip install "gymnasium[box2d]"` ({told(error)})'
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise ConfigError(_why_not_made(id, error)) from error
    return _for_dqn(env, repr(id))


def _make_by_call(
    make: Callable[..., Env], name: str, limit: int | None, kwargs: Mapping[str, Any]
) -> Env:
    try:
        env = make(**kwargs)
    except Exception as error:
        remedy = "; arguments are given by env_kwargs or functools.partial"
        raise_named(error, f"{name} cannot be made: it", remedy, ConfigError)
    if not isinstance(env, gymnasium.Env):
        raise ConfigError(
            f"{name} gave {described(env)}, but must give one environment, a gymnasium.Env"
        )
    return _for_dqn(env if limit is None else TimeLimit(env, limit), name)


def _for_dqn(env: Env, name: str) -> Env:
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
    """Return the env steps after which a wrapper cuts episodes off; None: no wrapper does.

    >>> time_limit(gymnasium.make("MountainCar-v0"))
    200
    """
    limits = [layer._max_episode_steps for layer in layers(env) if isinstance(layer, TimeLimit)]
    return min(limits, default=None)


def _import_module_of(id: str) -> None:
    """Import the module that an id like ``module:id`` names."""
    module, _, rest = id.rpartition(":")
    if not module:
        return
    if module.endswith(".py"):
        raise ConfigError(f"{id!r} names a file: write the module, {module[:-3]}:{rest}")
    try:
        importlib.import_module(module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        if missing and f"{module}.".startswith(f"{missing}."):
            raise ConfigError(
                f"{id!r} needs a package that is missing; `pip install` the one that has the "
                f"module {module}, or run where {module}.py lies"
            ) from error
        where = f"{id!r} cannot be used, because importing {module}"
        raise_named(error, where, kind=ConfigError)


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
    """What to do about an unknown ``name``: use the registered id that looks most like it."""
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
    """The parts of a space that are not a fixed count of numbers, with their paths."""
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
