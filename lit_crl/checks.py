"""Checks of what users give: each raises one sentence that names the key, value and remedy."""

import math
from collections.abc import Sequence

import torch


class ConfigError(ValueError):
    """A mistake in what the user asked for; its message is one sentence they can act on."""


class RunError(RuntimeError):
    """Something that stopped a run on its way; its message is one sentence."""


def positive(**numbers: float) -> None:
    """Every number is finite and > 0; keywords are the keys with ``__`` for the dot."""
    for key, number in numbers.items():
        if not (math.isfinite(number) and number > 0):
            _refuse(key, number, "a number above 0")


def non_negative(**numbers: float) -> None:
    """Every number is finite and ≥ 0."""
    for key, number in numbers.items():
        if not (math.isfinite(number) and number >= 0):
            _refuse(key, number, "0 or a number above it")


def unit_interval(**numbers: float) -> None:
    """Every number lies in [0, 1]."""
    for key, number in numbers.items():
        if not 0 <= number <= 1:
            _refuse(key, number, "a number from 0 to 1")


def positive_unit_interval(**numbers: float) -> None:
    """Every number lies in (0, 1]."""
    for key, number in numbers.items():
        if not 0 < number <= 1:
            _refuse(key, number, "a number above 0 and at most 1")


def widths(**layers: Sequence[int]) -> None:
    """Every list names at least one layer, and every layer has a width above 0."""
    for key, sizes in layers.items():
        if not sizes:
            raise ConfigError(f"{key.replace('__', '.')} is empty: give the width of a layer")
        positive(**{f"{key}__{i}": width for i, width in enumerate(sizes)})


def device(key: str, name: str) -> torch.device:
    """The device of that name."""
    try:
        return torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{key} is {name!r}: give auto, cpu or cuda") from error


def callables(**functions: object) -> None:
    """Every setting is something that can be called, a class of optimizers, say."""
    for key, function in functions.items():
        if not callable(function):
            name = key.replace("__", ".")
            raise ConfigError(
                f"{name} is {function!r}: give a class, for instance torch.optim.Adam"
            )


def _refuse(key: str, number: float, remedy: str) -> None:
    raise ConfigError(f"{key.replace('__', '.')} is {number}: give {remedy}")
