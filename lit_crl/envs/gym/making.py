"""Making one Gymnasium environment that a DQN can act in, with errors that say what to do."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import gymnasium
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple
from gymnasium.wrappers import FlattenObservation, TimeLimit

from lit_crl.core.checks import ConfigError
from lit_crl.envs.gym.guard import Env
from lit_crl.envs.gym.returned import described, raise_named, told
from lit_crl.envs.gym.wrapping import Wrapper, check_layers, wrapped

#: The extra that brings a package of environments.
_EXTRAS = {"ale_py": "atari", "minatar": "minatar", "minigrid": "minigrid", "Box2D": "box2d"}
#: The module that registers the ids which begin like this.
_MODULES = {"ALE/": "ale_py", "MinAtar/": "minatar", "MiniGrid-": "minigrid", "BabyAI-": "minigrid"}


def maker(
    id: str | None,
    make: Callable[..., Env] | None,
    max_episode_steps: int | None,
    env_kwargs: Mapping[str, Any],
    wrappers: Sequence[Wrapper] = (),
) -> tuple[str, Callable[[], Env]]:
    """Return what messages call the environment, and a function that makes one.

    The function raises a ``ConfigError`` if the id is unknown, a package is missing, the
    environment cannot be made, or a DQN cannot act in it. Observations are flattened unless they
    are a ``Box``. For the arguments see ``GymnasiumEnv``. The time limit counts the steps of the
    outermost wrapper, whatever wrappers skip.

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
        return id, partial(_make_by_id, id, limit, kwargs, tuple(wrappers))
    assert make is not None
    name = _name_of(make)
    return name, partial(_make_by_call, make, name, limit, kwargs, tuple(wrappers))


def _name_of(make: Any) -> str:
    """The name of a class or function, inside any ``functools.partial``."""
    while hasattr(make, "func"):
        make = make.func
    return str(getattr(make, "__qualname__", type(make).__name__))


def _make_by_id(
    id: str, limit: int | None, kwargs: Mapping[str, Any], wrappers: Sequence[Wrapper]
) -> Env:
    import_module_of(id)
    # The given limit replaces the id's own, which would lie below the wrappers.
    inner_limit = -1 if wrappers and limit is not None else limit
    settings = {"disable_env_checker": True, "max_episode_steps": inner_limit, **kwargs}
    try:
        env: Env = gymnasium.make(id, **settings)
    except (DependencyNotInstalled, ImportError) as error:
        raise ConfigError(
            f"{id!r} needs a package that is missing; {_install_for(error)} ({told(error)})"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise ConfigError(why_not_made(id, error)) from error
    return _for_dqn(env, repr(id), limit if wrappers else None, wrappers)


def _make_by_call(
    make: Callable[..., Env],
    name: str,
    limit: int | None,
    kwargs: Mapping[str, Any],
    wrappers: Sequence[Wrapper],
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
    return _for_dqn(env, name, limit, wrappers)


def _for_dqn(env: Env, name: str, limit: int | None, wrappers: Sequence[Wrapper]) -> Env:
    """Return the environment, wrapped, with observations that are one array.

    Args:
        env: The environment.
        name: What messages call it.
        limit: Time limit in steps of the outermost wrapper; None: its own.
        wrappers: Those that the user asks for.

    Raises:
        ConfigError: If a DQN cannot act in it, because its actions are not numbered or its
            observations are not numbers, or if a wrapper does not fit.
    """
    env = wrapped(env, wrappers, name)
    check_layers(env, name)
    env = env if limit is None else TimeLimit(env, limit)
    actions, space = (getattr(env, key, None) for key in ("action_space", "observation_space"))
    if not isinstance(actions, Discrete):
        raise ConfigError(
            f"{name} has the action space {actions}, but a DQN needs Discrete actions; choose "
            "another environment, or add a wrapper that numbers its actions "
            "(gymnasium.wrappers.TransformAction) to wrappers"
        )
    if not isinstance(space, Space):
        raise ConfigError(f"{name} has the observation space {space}: give it a gymnasium Space")
    for path, part in _unreadable_parts(space):
        raise ConfigError(_wrapper_needed(env, name, path, part))
    if isinstance(space, Box) and 0 in space.shape:
        raise ConfigError(f"{name} has observations of shape {space.shape}, which hold no numbers")
    return env if isinstance(space, Box) and space.shape else FlattenObservation(env)


def import_module_of(id: str) -> None:
    """Import the module that an id like ``module:id`` names, and let it register its ids.

    Raises:
        ConfigError: If the module is missing, or cannot be imported.
    """
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
                f"{id!r} needs a package that is missing; {_install_of(module)}"
            ) from error
        where = f"{id!r} cannot be used, because importing {module}"
        raise_named(error, where, kind=ConfigError)
    if rest not in gymnasium.registry:
        _register_by_entry_point(module)


def _register_by_entry_point(module: str) -> None:
    """Call the functions by which the package of ``module`` says that it registers its ids."""
    package = module.partition(".")[0]
    for point in entry_points(group="gymnasium.envs"):
        if point.module.partition(".")[0] == package:
            point.load()()


def _install_of(module: str) -> str:
    """What to type where the package of a module is missing."""
    extra = _EXTRAS.get(module.partition(".")[0])
    if extra is not None:
        return f'`pip install "lit_crl[{extra}]"`'
    return f"`pip install` the one that has the module {module}, or run where {module}.py lies"


def _install_for(error: Exception) -> str:
    """What to type where making an environment failed because a package is missing."""
    named = [extra for extra in _EXTRAS.values() if extra in str(error).lower()]
    missing = getattr(error, "name", None)
    extra = _EXTRAS.get(str(missing).partition(".")[0], named[0] if named else None)
    if extra is not None:
        return f'`pip install "lit_crl[{extra}]"`'
    return '`pip install` it, usually as an extra like `pip install "gymnasium[mujoco]"`'


def why_not_made(id: str, error: Exception) -> str:
    """Why Gymnasium could not make an id, with a remedy."""
    name = id.rpartition(":")[2]
    spec = gymnasium.registry.get(name)
    if spec is not None and spec.entry_point is None:
        return (
            f"{id!r} is registered as a vector environment alone, but single environments are "
            "needed: set vectorization to vector_entry_point, register it with an entry_point, or "
            "choose another id"
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
    for beginning, module in _MODULES.items():
        if name.lower().startswith(beginning.lower()):
            return (
                f"write its module before the id, {module}:{name}, and "
                f'`pip install "lit_crl[{_EXTRAS[module]}]"` if it is missing'
            )
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
    wrapper, why = "gymnasium.wrappers.TransformObservation", ""
    if type(env.unwrapped).__module__.startswith("minigrid."):
        wrapper = "minigrid.wrappers.ImgObsWrapper"
        why = (
            ", which leaves the mission out (minigrid.wrappers.OneHotPartialObsWrapper before it "
            "makes one plane of each kind of thing; minigrid.wrappers.FlatObsWrapper in its place "
            "keeps the mission as numbers)"
        )
    elif path:
        wrapper, why = "gymnasium.wrappers.FilterObservation", ", which leaves parts out"
    what = f"observations whose part {path!r} is" if path else "observations that are"
    return (
        f"{name} has {what} a {type(part).__name__}, but a network needs a fixed count of numbers: "
        f"add {{class_path: {wrapper}}} to wrappers (data.env.init_args.wrappers in YAML){why}"
    )
