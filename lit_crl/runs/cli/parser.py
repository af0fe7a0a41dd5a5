"""The parser of the command line and of configuration files, which reads 1e5 as a whole number."""

import contextlib
import os
import typing
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Union

from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from lit_crl.runs.cli import arguments, yaml_strings


class WholeNumber(int):
    """The type for ``int``: it reads ``100000``, ``1e5``, ``100_000`` and ``100000.0`` alike."""


def read_whole_number(value: Any) -> int:
    """The whole number that ``value`` says.

    >>> read_whole_number("1e5"), read_whole_number("100_000"), read_whole_number(3.0)
    (100000, 100000, 3)

    Raises:
        ValueError: If ``value`` is no whole number.
    """
    try:
        number = float(value) if isinstance(value, str | float) else None
        if isinstance(value, str) and "e" not in value.lower() and "." not in value:
            return int(value)  # also numbers that a float cannot hold
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
        if number is not None and number.is_integer():
            return int(number)
    except ValueError:
        pass
    raise ValueError(f"{value} is no whole number: give one such as 100000, 100_000 or 1e5")


register_type(
    WholeNumber,
    serializer=int,
    deserializer=read_whole_number,
    type_check=lambda value, _: type(value) is int,
)


def with_whole_numbers(hint: Any) -> Any:
    """A type hint with ``WholeNumber`` instead of ``int``.

    Unions with floats or strings stay: in ``limit_val_batches``, for example, 1.0 and 1 differ.
    """
    if hint is int:
        return WholeNumber
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (Union, UnionType):
        if float in parts or str in parts:
            return hint
        return Union[tuple(map(with_whole_numbers, parts))]  # noqa: UP007
    if origin is not None and int in parts and origin is not typing.Literal:
        return origin[tuple(map(with_whole_numbers, parts))]
    return hint


def count_in_whole_numbers(action: Any) -> None:
    """Let an argument take ``WholeNumber`` instead of ``int``."""
    if hasattr(action, "_typehint"):
        action._typehint = with_whole_numbers(action._typehint)


class RunParser(LightningArgumentParser):
    """Lightning's parser, which reads 1e5 as a whole number and keeps quoted strings."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As ``LightningArgumentParser``."""
        super().__init__(*args, **kwargs)
        self.add_instantiator(_make, object, subclasses=True)

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """As ``LightningArgumentParser``; groups of arguments call this method, too."""
        action = super().add_argument(*args, **kwargs)
        count_in_whole_numbers(action)
        return action

    def parse_path(
        self,
        path: str | os.PathLike[str],
        ext_vars: Any = None,
        env: bool | None = None,
        defaults: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Read a file as UTF-8 in every locale; its relative paths start at its folder."""
        file = Path(path).absolute()
        text = file.read_text(encoding="utf-8")
        with contextlib.chdir(file.parent):
            return self.parse_string(text, file.name, ext_vars, env, defaults, **kwargs)

    def _apply_actions(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep the strings of a mapping that comes alone: it has no interpolations left."""
        is_resolved = type(cfg) is dict and not args and not kwargs
        given = yaml_strings.quoted(cfg) if is_resolved else cfg
        return super()._apply_actions(_with_id(given), *args, **kwargs)


def _with_id(given: Any) -> Any:
    """A file's settings, with the adapter if ``data.env`` is a Gymnasium id."""
    data = given.get("data") if isinstance(given, dict) else None
    env = data.get("env") if isinstance(data, dict) else None
    if not (isinstance(data, dict) and isinstance(env, str) and arguments.is_id(env)):
        return given
    return {**given, "data": {**data, "env": arguments.with_id(env)}}


def _make(kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return kind(*args, **{name: yaml_strings.plain(value) for name, value in kwargs.items()})
