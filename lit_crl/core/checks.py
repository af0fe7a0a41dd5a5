"""Checks of what users give: each raises one sentence that names the key, value and remedy.

Environments in processes of their own make use of them, and do without torch.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

if TYPE_CHECKING:
    import torch

Settings = TypeVar("Settings")


class ConfigError(ValueError):
    """A mistake of the user's; the message is one sentence that says how to correct it."""


class RunError(RuntimeError):
    """An error that stopped a running run; the message is one sentence."""


def positive(**numbers: float) -> None:
    """Every number is finite and > 0. A keyword is a setting's key, with ``__`` for each dot.

    >>> positive(data__replay__batch_size=0)
    Traceback (most recent call last):
    lit_crl.core.checks.ConfigError: data.replay.batch_size is 0: give a number above 0
    """
    _check(numbers, lambda number: 0 < number < math.inf, "a number above 0")


def non_negative(**numbers: float) -> None:
    """Every number is finite and ≥ 0."""
    _check(numbers, lambda number: 0 <= number < math.inf, "0 or a number above 0")


def unit_interval(**numbers: float) -> None:
    """Every number lies in [0, 1]."""
    _check(numbers, lambda number: 0 <= number <= 1, "a number from 0 to 1")


def positive_unit_interval(**numbers: float) -> None:
    """Every number lies in (0, 1]."""
    _check(numbers, lambda number: 0 < number <= 1, "a number above 0 and at most 1")


def _check(numbers: Mapping[str, float], holds: Callable[[float], bool], remedy: str) -> None:
    for key, number in numbers.items():
        if not holds(number):
            raise ConfigError(f"{key.replace('__', '.')} is {number}: give {remedy}")


def default_dtype() -> None:
    """New tensors are float32: everything here is computed in float32."""
    import torch

    if (found := torch.get_default_dtype()) != torch.float32:
        raise ConfigError(
            f"torch's default dtype is {found}, but everything here is computed in torch.float32: "
            "call torch.set_default_dtype(torch.float32) first"
        )


def widths(**layers: Sequence[int]) -> None:
    """Every list names at least one layer, and every layer has a width above 0."""
    for key, sizes in layers.items():
        if not sizes:
            raise ConfigError(f"{key.replace('__', '.')} is empty: give the width of a layer")
        positive(**{f"{key}__{i}": width for i, width in enumerate(sizes)})


def difficulty(wanted: float, n_or_z: object) -> None:
    """A difficulty is a success probability, and goes with a number of levels, not with noise."""
    unit_interval(difficulty=wanted)
    if not isinstance(n_or_z, int):
        raise ConfigError(
            f"difficulty is {wanted}, but the noise z already determines the levels: give the "
            "number of levels instead of z"
        )


def device(key: str, name: str) -> "torch.device":
    """The device called ``name``."""
    import torch

    try:
        return torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{key} is {name!r}: give auto, cpu or cuda") from error


def writable(path: str | os.PathLike[str]) -> Path:
    """The path of a file whose folder exists."""
    if not Path(path).parent.is_dir():
        raise ConfigError(f"cannot write {path}: make the folder {Path(path).parent} first")
    return Path(path)


class Fields:
    """Checks of the fields of a group of settings, which names them as configurations do."""

    def __init__(self, group: str, settings: object) -> None:
        """Check ``settings``, whose keys begin with ``group``, for instance ``data.replay``."""
        self.group, self.settings = group, settings

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {f"{self.group}.{name}": getattr(self.settings, name) for name in names}

    def positive(self, *names: str) -> None:
        """See ``positive``."""
        positive(**self._given(names))

    def non_negative(self, *names: str) -> None:
        """See ``non_negative``."""
        non_negative(**self._given(names))

    def unit_interval(self, *names: str) -> None:
        """See ``unit_interval``."""
        unit_interval(**self._given(names))

    def positive_unit_interval(self, *names: str) -> None:
        """See ``positive_unit_interval``."""
        positive_unit_interval(**self._given(names))

    def widths(self, *names: str) -> None:
        """See ``widths``."""
        widths(**self._given(names))

    def one_of(self, name: str, values: object) -> None:
        """The field is one of the values of a ``Literal`` type."""
        ((key, given),) = self._given((name,)).items()
        if given not in get_args(values):
            raise ConfigError(f"{key} is {given!r}: use one of {', '.join(get_args(values))}")

    def optimizers(self, *names: str) -> None:
        """Every field makes an optimizer of parameters: a class, or a function."""
        for key, given in self._given(names).items():
            if not callable(given):
                raise ConfigError(
                    f"{key} is {given!r}: give a class, for instance torch.optim.Adam"
                )


def group(key: str, kind: type[Settings], given: object) -> Settings:
    """A group of settings, from an object of its class or from a mapping of its fields.

    Raises:
        ConfigError: If it is neither, or the mapping has a field that the group does not have.
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{key} is {given!r}: give lit_crl.{kind.__name__}(...), or a mapping of its fields"
        )
    names = {field.name for field in dataclasses.fields(cast(Any, kind))}
    if unknown := sorted(set(given) - names):
        raise ConfigError(
            f"{key} has no setting {', '.join(unknown)}: use {', '.join(sorted(names))}"
        )
    return kind(**given)
