"""Turns whatever users give as environment into a function that makes batches of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from gymnasium.vector import VectorEnv

from lit_crl.core.checks import ConfigError
from lit_crl.envs.gym.adapter import GymnasiumEnv
from lit_crl.envs.gym.returned import described
from lit_crl.envs.interface import LevelEnv

#: Makes ``num_envs`` environments that step together, on a device.
EnvFactory = Callable[[int, torch.device], VectorEnv]
#: What ``env_factory`` takes besides ids: classes, and functions of both kinds.
GivenEnv = (
    Callable[[int, torch.device], VectorEnv] | Callable[[], gymnasium.Env] | Callable[..., Any]
)


def env_factory(given: Any) -> EnvFactory:
    """Return a function that makes batches of the environment that was given.

    Args:
        given: One of the following; ``functools.partial`` adds arguments to it:

            - a Gymnasium id, or ``module:id``;
            - a ``gymnasium.Env`` class, of which ``GymnasiumEnv`` makes copies;
            - another class, which is a ``LevelEnv`` and is called as ``given(num_envs, device)``;
            - a function that can be called as ``given(num_envs, device)`` and makes a ``LevelEnv``;
              its first argument is called ``num_envs`` or has no default;
            - a function that can be called without arguments and makes one ``gymnasium.Env``.

    Raises:
        ConfigError: If it is none of them.
    """
    if isinstance(given, str):
        return functools.partial(GymnasiumEnv, id=given)
    if isinstance(given, gymnasium.Env | VectorEnv):
        raise ConfigError(
            f"data.env is {described(given)}, made already, but several are needed: give its "
            "class, its id or a function that makes it"
        )
    if _makes_single(given):
        return functools.partial(GymnasiumEnv, make=given)
    if not callable(given) or not (_made_class(given) or _takes_batch(given)):
        raise ConfigError(
            f"data.env is {given!r}: give a Gymnasium id, a class of environments, a function "
            "without arguments that makes a gymnasium.Env, or one that takes num_envs and device "
            "and makes a lit_crl.envs.LevelEnv"
        )
    factory: EnvFactory = given
    return factory


def level_env(made: object) -> LevelEnv:
    """Return the environments that a factory made, if they are a ``LevelEnv``.

    Raises:
        ConfigError: If they are something else.
    """
    if isinstance(made, LevelEnv):
        return made
    which = f"a function of num_envs and device made {described(made)}, which is"
    if isinstance(made, gymnasium.Env):
        raise ConfigError(
            f"{which} one environment: let it take no arguments, then it is called once for each "
            "copy"
        )
    if isinstance(made, VectorEnv):
        raise ConfigError(
            f"{which} no lit_crl.envs.LevelEnv: give a function without arguments that makes one "
            "gymnasium.Env, then copies of it are made and reset"
        )
    members = {*vars(LevelEnv), *LevelEnv.__annotations__}
    lacking = [name for name in sorted(members) if name[0] != "_" and not hasattr(made, name)]
    raise ConfigError(f"{which} no lit_crl.envs.LevelEnv, because it lacks {', '.join(lacking)}")


def _made_class(given: object) -> type | None:
    """The class of what calling ``given`` returns; None: only a call would tell."""
    while isinstance(given, functools.partial):
        if getattr(given.func, "__module__", "").startswith("jsonargparse"):
            # jsonargparse passes the class that YAML names to a function of its own.
            classes = [part for part in given.args if isinstance(part, type)]
            named = [part for part in classes if not part.__module__.startswith("jsonargparse")]
            return named[0] if named else None
        given = given.func
    return given if isinstance(given, type) else None


def _makes_single(given: Any) -> bool:
    """Whether calling ``given`` without arguments makes one ``gymnasium.Env``."""
    made = _made_class(given)
    if made is not None:
        return issubclass(made, gymnasium.Env)
    return _can_be_called(given) and not _takes_batch(given)


def _takes_batch(given: Any) -> bool:
    """Whether ``given`` is called with the number of environments and their device."""
    if not _can_be_called(given, 1, torch.device("cpu")):
        return False
    first = next(iter(inspect.signature(given).parameters.values()))
    return first.name == "num_envs" or first.default is inspect.Parameter.empty


def _can_be_called(given: Any, *args: Any) -> bool:
    try:
        inspect.signature(given).bind(*args)
    except (TypeError, ValueError):
        return False
    return True
