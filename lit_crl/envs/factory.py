"""What users give as environment, as one kind of thing: a function of how many and where."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

import gymnasium
import torch
from gymnasium.vector import VectorEnv

from lit_crl.core.checks import ConfigError
from lit_crl.envs.gym.adapter import GymnasiumEnv
from lit_crl.envs.gym.returned import described
from lit_crl.envs.interface import LevelEnv

#: Makes ``num_envs`` environments that step together, on a device.
EnvFactory = Callable[[int, torch.device], VectorEnv]
#: What ``env_factory`` takes beside ids: classes and functions of both kinds.
GivenEnv = (
    Callable[[int, torch.device], VectorEnv] | Callable[[], gymnasium.Env] | Callable[..., Any]
)


def env_factory(given: Any) -> EnvFactory:
    """Return what makes batches of the environment that was given.

    Args:
        given: One of these, with ``functools.partial`` around it where it needs arguments:

            - a Gymnasium id, or ``module:id``;
            - a ``gymnasium.Env`` class: ``GymnasiumEnv`` makes the copies;
            - another class: a ``LevelEnv``, made as ``given(num_envs, device)``;
            - a function with an argument ``num_envs``, or whose first two arguments it needs or
              takes as ``*args``: it is called as ``given(num_envs, device)`` and gives a
              ``LevelEnv``;
            - a function that can be called without arguments: it gives one ``gymnasium.Env`` at
              every call.

    Returns:
        The factory.

    Raises:
        ConfigError: If it is none of these.
    """
    if isinstance(given, str):
        return cast(EnvFactory, functools.partial(GymnasiumEnv, id=given))
    if isinstance(given, gymnasium.Env | VectorEnv):
        raise ConfigError(
            f"data.env is {described(given)}, made already, but several are needed: give its "
            "class, its id or a function that makes it"
        )
    if _makes_single(given):
        return cast(EnvFactory, functools.partial(GymnasiumEnv, make=given))
    if not callable(given) or not (isinstance(_made_class(given), type) or _takes_batch(given)):
        raise ConfigError(
            f"data.env is {given!r}: give a Gymnasium id, a class of environments, a function "
            "without arguments that makes a gymnasium.Env, or one that takes num_envs and device "
            "and makes a lit_crl.envs.LevelEnv"
        )
    return cast(EnvFactory, given)


def level_env(made: Any) -> LevelEnv:
    """Return what a factory made, if it is a ``LevelEnv``.

    Raises:
        ConfigError: If it is something else.
    """
    if isinstance(made, LevelEnv):
        return made
    if isinstance(made, gymnasium.Env):
        raise ConfigError(
            f"a function of num_envs and device made {described(made)}, which is one environment: "
            "let it take no arguments, and it is called once for each copy"
        )
    if isinstance(made, VectorEnv):
        raise ConfigError(
            f"a function of num_envs and device made {described(made)}, which is no "
            "lit_crl.envs.LevelEnv: give a function without arguments that makes one "
            "gymnasium.Env, and copies of it are made and reset"
        )
    members = [name for name in _members() if not hasattr(made, name)]
    raise ConfigError(
        f"a function of num_envs and device made {described(made)}, which is no "
        f"lit_crl.envs.LevelEnv, because it lacks {', '.join(members)}"
    )


def _members() -> list[str]:
    names = {*vars(LevelEnv), *LevelEnv.__annotations__}
    return sorted(name for name in names if not name.startswith("_"))


def _made_class(given: Any) -> Any:
    """The class that calling ``given`` makes an instance of, where that can be seen."""
    while isinstance(given, functools.partial):
        if getattr(given.func, "__module__", "").startswith("jsonargparse"):
            # jsonargparse gives the class that YAML names to a function of its own.
            return next((part for part in given.args if _is_environment_class(part)), None)
        given = given.func
    return given if isinstance(given, type) else None


def _is_environment_class(part: Any) -> bool:
    return isinstance(part, type) and not part.__module__.startswith("jsonargparse")


def _makes_single(given: Any) -> bool:
    made = _made_class(given)
    if isinstance(made, type):
        return issubclass(made, gymnasium.Env)
    if not callable(given):
        return False
    try:
        inspect.signature(given).bind()
    except (TypeError, ValueError):
        return False
    return not _takes_batch(given)


def _takes_batch(given: Any) -> bool:
    """Whether a function is to be called with how many environments and where."""
    try:
        signature = inspect.signature(given)
        signature.bind(1, torch.device("cpu"))
    except (TypeError, ValueError):
        return False
    first = next(iter(signature.parameters.values()))
    is_needed = first.default is inspect.Parameter.empty
    return first.name == "num_envs" or is_needed
