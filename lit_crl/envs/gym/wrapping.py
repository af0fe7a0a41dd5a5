"""Wrappers around one environment, from a list, and those that would spoil what is measured.

YAML names a wrapper by ``class_path`` and its arguments by ``init_args``; Python may also give a
function that takes an environment and returns a wrapped one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium

from lit_crl.core.checks import ConfigError
from lit_crl.envs.gym.guard import Env, layers
from lit_crl.envs.gym.returned import described, told

#: One wrapper: ``{"class_path": ..., "init_args": {...}}``, or a function from environment to
#: environment.
Wrapper = Mapping[str, Any] | Callable[..., Any]

#: What a wrapper would spoil, and what to do instead, by the name of its class.
_SPOILS = {
    "ClipReward": (
        "clips the rewards that evaluation reports, too",
        "leave it out and set clip_rewards to 1.0, which clips for the replay alone",
    ),
    "NormalizeReward": (
        "changes the rewards that evaluation reports, too, by statistics of each copy's own",
        "leave it out and set clip_rewards to a bound, which clips for the replay alone",
    ),
    "NormalizeObservation": (
        "keeps statistics of each copy's own, so that evaluation would see other observations",
        "leave it out: observations are scaled by the bounds of their space, and networks have "
        "layer_norm",
    ),
    "EpisodicLife": (
        "ends episodes at lost lives in evaluation, too",
        "leave it out and set terminal_on_life_loss to true, which ends transitions alone",
    ),
    "Autoreset": (
        "resets by itself, but the curriculum chooses how each episode starts",
        "leave it out",
    ),
}
#: Other packages' names of these (Stable-Baselines3's, and Gymnasium's older ones).
_ALIASES = {
    "ClipRewardEnv": "ClipReward",
    "EpisodicLifeEnv": "EpisodicLife",
    "AutoResetWrapper": "Autoreset",
}


def wrapped(env: Env, wrappers: Sequence[Wrapper], name: str) -> Env:
    """Return the environment inside its wrappers, of which the last one is the outermost.

    Args:
        env: The environment.
        wrappers: See the module.
        name: What messages call the environment.

    Raises:
        ConfigError: If a wrapper cannot be found, or cannot be put around the environment.
    """
    for index, given in enumerate(wrappers):
        where = f"wrappers[{index}]"
        wrap, arguments = _read(given, where)
        what = f"{where}, {getattr(wrap, '__qualname__', type(wrap).__name__)},"
        try:
            outer = wrap(env, **arguments)
        except MemoryError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{what} cannot be put around {name} with the arguments {arguments}: it raised "
                f"{told(error)}{_remedy(error)}"
            ) from error
        if not isinstance(outer, gymnasium.Env):
            raise ConfigError(f"{what} gave {described(outer)}, but must give a gymnasium.Env")
        env = outer
    return env


def check_layers(env: Env, name: str) -> None:
    """Refuse wrappers that would spoil what evaluation measures, wherever they come from.

    Raises:
        ConfigError: If an environment is in one of them.
    """
    for layer in layers(env)[:-1]:
        kind = type(layer).__name__
        if spoilt := _SPOILS.get(_ALIASES.get(kind, kind)):
            spoils, remedy = spoilt
            raise ConfigError(f"{name} is in the wrapper {kind}, which {spoils}: {remedy}")
        if getattr(layer, "terminal_on_life_loss", False):
            raise ConfigError(
                f"{name} is in the wrapper {kind} with terminal_on_life_loss, which starts a new "
                "game at each lost life, in evaluation, too: set it to false there, and set "
                "terminal_on_life_loss of the environment (data.env.terminal_on_life_loss in "
                "YAML) to true, which ends transitions alone"
            )


def _read(given: Wrapper, where: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return what makes a wrapper, and its arguments.

    Raises:
        ConfigError: If nothing can be read from what was given.
    """
    if callable(given):
        return given, {}
    if not isinstance(given, Mapping) or "class_path" not in given:
        raise ConfigError(
            f"{where} is {described(given)}: give class_path, and init_args if it takes any, as in "
            "{class_path: gymnasium.wrappers.AtariPreprocessing, init_args: {noop_max: 30}}"
        )
    if unknown := set(given) - {"class_path", "init_args"}:
        raise ConfigError(
            f"{where} has the key {sorted(unknown)[0]!r}, but takes class_path and init_args: put "
            "the wrapper's arguments into init_args"
        )
    return _named(str(given["class_path"]), where), dict(given.get("init_args") or {})


def _named(path: str, where: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{where}.class_path is {path!r}, which cannot be imported ({told(error)}): give "
            "module.Class, as in gymnasium.wrappers.AtariPreprocessing, and `pip install` its "
            "package if it is missing"
        ) from error
    if not callable(found):
        raise ConfigError(f"{where}.class_path is {path!r}, which is {described(found)}, no class")
    wrap: Callable[..., Any] = found
    return wrap


def _remedy(error: Exception) -> str:
    """What to do about an error of Gymnasium's own wrappers that does not say it."""
    if "frame-skipping in the original env" in str(error):
        return "; frames would be skipped twice: set env_kwargs.frameskip to 1"
    if isinstance(error, gymnasium.error.DependencyNotInstalled) and "opencv" in str(error):
        return '; `pip install "lit_crl[atari]"`, which brings it'
    return ""
