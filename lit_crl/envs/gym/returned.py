"""Checks of what a user's environment returns: each mistake becomes one sentence.

The sentence is a ``RunError``, and ``where`` is its beginning, for instance
``"CartPole-v1: step()"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from lit_crl.core.checks import RunError

Array = npt.NDArray[Any]

#: Keys under which infos report success; the first one with a value counts.
SUCCESS_KEYS = ("is_success", "success")

#: The usual types of rewards and flags: to look these up is quicker than any other check.
_USUAL_NUMBERS = frozenset({float, int, bool, np.float64, np.float32, np.int64, np.bool_})


def raise_named(
    error: Exception,
    where: str,
    remedy: str = "",
    kind: type[Exception] = RunError,
) -> NoReturn:
    """Raise an error of a user's code as the sentence "``where`` raised ...``remedy``".

    A ``RunError`` is a sentence already, and a ``MemoryError`` is nobody's mistake: both pass.
    """
    if isinstance(error, RunError | MemoryError):
        raise error
    raise kind(f"{where} raised {told(error)}{remedy}") from error


def reset_result(result: Any, where: str) -> tuple[Any, dict[str, Any]]:
    """Return the observation and the infos of a ``reset``; None stands for empty infos."""
    if isinstance(result, tuple | list) and len(result) == 2:
        observation, info = result
        if info is None or isinstance(info, Mapping):
            return observation, infos(info, where)
    raise RunError(
        f"{where} returned {described(result)}, but must return a pair, the observation and a "
        "dict: `return observation, {}`"
    )


def step_result(result: Any, where: str) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """Return the observation, reward, terminated, truncated and infos of a ``step``."""
    if not isinstance(result, tuple | list) or len(result) != 5:
        raise RunError(
            f"{where} returned {described(result)}, but must return five values: observation, "
            "reward, terminated, truncated and a dict (older interfaces had one `done` in place "
            "of terminated and truncated)"
        )
    obs, reward, terminated, truncated, info = result
    if type(reward) not in _USUAL_NUMBERS:
        reward = number(reward, f"{where} returned a reward that")
    if type(terminated) not in _USUAL_NUMBERS:
        terminated = number(terminated, f"{where} returned a terminated that")
    if type(truncated) not in _USUAL_NUMBERS:
        truncated = number(truncated, f"{where} returned a truncated that")
    return obs, reward, terminated, truncated, info if type(info) is dict else infos(info, where)


def infos(info: Any, where: str) -> dict[str, Any]:
    """Return infos as a dict; None stands for an empty one."""
    if info is None or isinstance(info, Mapping):
        return dict(info or {})
    raise RunError(f"{where} returned infos that are {described(info)}, but must be a dict")


def number(value: Any, what: str) -> Any:
    """Return a number or truth value; an array of one number counts as one."""
    if isinstance(value, float | int | np.number | np.bool_):
        return value
    array = as_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "biuf":
        raise RunError(f"{what} is {described(value)}, but must be one number")
    return array.item()


def observation(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> Array:
    """Return an observation as an array of the shape that its space declares.

    Lists, tensors and other types of numbers are accepted; only a space of bytes needs whole
    numbers from 0 to 255.
    """
    if type(value) is np.ndarray and value.dtype is dtype and value.shape == shape:
        return value
    array = as_array(value)
    if array is None or array.dtype.kind not in "biuf":
        raise RunError(
            f"{where} returned {described(value)} as the observation, but its observation space "
            f"declares numbers of shape {shape}"
        )
    if array.shape != shape:
        raise RunError(
            f"{where} returned an observation of shape {array.shape}, but its observation space "
            f"declares {shape}: change one of the two"
        )
    if dtype == np.uint8 and array.dtype != np.uint8:
        check_bytes(array, where)
    return array


def check_bytes(array: Array, where: str) -> None:
    """Check that numbers are whole numbers from 0 to 255, which can be kept as bytes."""
    if array.dtype.kind == "f":
        raise RunError(
            f"{where} returned an observation of {array.dtype}, but its observation space declares "
            "uint8: declare float32, or return `observation.astype(numpy.uint8)`"
        )
    if array.size and not (array.min() >= 0 and array.max() <= 255):
        raise RunError(
            f"{where} returned an observation with values from {array.min()} to {array.max()}, but "
            "its observation space declares numbers from 0 to 255: declare what it returns"
        )


def level_observation(value: Any, where: str) -> Any:
    """Return the first observation, which ``set_level`` returns alone or in a pair with infos."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping):
        return value[0]
    if value is None:
        raise RunError(
            f"{where} returned None, but must return the first observation at the level, as "
            "reset() does: end it with `return observation`"
        )
    return value


def success(info: Mapping[str, Any], where: str) -> bool | None:
    """Return the success that infos report; None if they report nothing.

    >>> success({"is_success": None, "success": 1.0}, "MyEnv: step()"), success({}, "MyEnv: step()")
    (True, None)
    """
    for key in SUCCESS_KEYS:
        if (value := info.get(key)) is not None:
            what = f"{where} returned an info[{key!r}] that"
            if math.isnan(reported := number(value, what)):
                raise RunError(f"{what} is nan: give True or False")
            return bool(reported)
    return None


def lives(info: Mapping[str, Any], where: str) -> int | None:
    """Return the lives that infos report; None if they report nothing.

    >>> lives({"lives": 3}, "MyGame: step()"), lives({}, "MyGame: step()")
    (3, None)
    """
    value = info.get("lives")
    return None if value is None else int(number(value, f"{where} returned an info['lives'] that"))


def without_lives(where: str) -> str:
    """What to say of infos without the lives that a rule needs."""
    return (
        f"{where} returned infos without lives, but terminal_on_life_loss is true: set it to "
        "false, or report info['lives'] at each reset and step"
    )


def as_array(value: Any) -> Array | None:
    """Return ``value`` as an array, or None if it cannot be one."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # ragged lists; tensors with gradients
        return None


def described(value: Any) -> str:
    """Describe a value in a few words.

    >>> described(np.zeros(3)), described("level"), described(None)
    ('an array of shape (3,) and type float64', "the string 'level'", 'None')
    """
    if value is None or isinstance(value, bool | int | float | np.number | np.bool_):
        return repr(value)
    if isinstance(value, str):
        return f"the string {value[:40]!r}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def told(error: BaseException) -> str:
    """Return the kind of an error and its message, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
