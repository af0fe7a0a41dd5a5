"""Levels in files: a ``.npz`` with an array ``levels``, or a ``.csv`` with a level in each row."""

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lit_crl.core.checks import ConfigError


class GivenError(ConfigError):
    """Levels that a user gave, but that cannot be played; the message is one sentence."""


#: The array of a ``.npz`` file that holds the levels.
ARRAY = "levels"


def read_levels(path: Path, names: Sequence[str], key: str) -> npt.NDArray[Any]:
    """The numbers in a file of levels, a level in each row. Nothing in it is unpickled.

    Args:
        path: A ``.npz`` or a ``.csv`` file.
        names: What the environment calls the coordinates of a level, in their order.
        key: What messages call the file.

    Returns:
        An array of numbers; of a ``.csv`` file float64 [K, d].

    Raises:
        GivenError: If there is no such file, or it holds no numbers.
    """
    if not path.is_file():
        raise GivenError(f"{key}: there is no such file: give a .npz or a .csv file of levels")
    if path.suffix == ".npz":
        return _npz(path, key)
    if path.suffix == ".csv":
        return _csv(path, names, key)
    raise GivenError(
        f"{key} is neither a .npz nor a .csv file: write it by np.savez(FILE, levels=...), or as a "
        ".csv with a level in each row"
    )


def _npz(path: Path, key: str) -> npt.NDArray[Any]:
    remedy = f"write it by np.savez({path.name!r}, {ARRAY}=...) with an array of numbers"
    if not zipfile.is_zipfile(path):  # np.load would take it for something else
        raise GivenError(f"{key} cannot be read (it is no .npz file, or not whole): {remedy}")
    try:
        with np.load(path, allow_pickle=False) as file:
            if ARRAY not in file:
                has = ", ".join(file.files) or "nothing"
                raise GivenError(f"{key} has {has}, but no array {ARRAY!r}: {remedy}")
            levels: npt.NDArray[Any] = file[ARRAY]
    except GivenError:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise GivenError(f"{key} cannot be read ({error}): {remedy}") from error
    if levels.dtype.kind not in "biuf":
        raise GivenError(f"{key} holds {levels.dtype}, but levels are numbers: {remedy}")
    return levels


def _csv(path: Path, names: Sequence[str], key: str) -> npt.NDArray[Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise GivenError(f"{key} is no text of comma-separated values ({error})") from error
    order = list(range(len(names)))
    if rows and not all(map(_is_number, rows[0][1])):
        order = _columns([name.strip() for name in rows.pop(0)[1]], names, key)
    levels = np.empty((len(rows), len(names)))
    for level, (number, row) in zip(levels, rows, strict=True):
        if len(row) != len(names):
            raise GivenError(
                f"{key}, line {number}, has {len(row)} numbers, but a level of this environment "
                f"has {len(names)} ({_few(names)}): give one of each in every line"
            )
        if wrong := [cell for cell in row if not _is_number(cell)]:
            raise GivenError(f"{key}, line {number}: {wrong[0]!r} is no number: write numbers")
        level[:] = [float(row[column]) for column in order]
    return levels


def _columns(header: list[str], names: Sequence[str], key: str) -> list[int]:
    """The column of each coordinate, from the names in a file's first line."""
    if sorted(header) != sorted(names):
        raise GivenError(
            f"{key} has the columns {_few(header)}, but a level of this environment has "
            f"{_few(names)}: give these names in the first line, or no names"
        )
    return [header.index(name) for name in names]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _few(names: Sequence[str]) -> str:
    """Names, or the first of many.

    >>> _few(["position", "velocity"]), _few([f"x{i}" for i in range(20)])
    ('position, velocity', 'x0, x1, x2, … (20)')
    """
    return ", ".join(names) if len(names) <= 9 else f"{', '.join(names[:3])}, … ({len(names)})"
