"""Logs as ``.npz`` files: six arrays of one length, and what the task is."""

import hashlib
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast, get_args

import numpy as np

from lit_crl.dqn.logs.log import Array, Columns, Declared, Fingerprint, refused
from lit_crl.dqn.logs.sound import NUMBERS, check_type
from lit_crl.envs.images import ImageLayout

#: The arrays that every file has, a row for each step.
ARRAYS = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
#: Bytes of observations that are read at a time.
PART = 2**24
#: Only these are read: others would be unpickled, or have fields.
PLAIN = NUMBERS + "U"


class NpzLog:
    """The log in a ``.npz`` file. Nothing in it is unpickled.

    It has the six ``ARRAYS``, a row for each step. What the task is, the file says in
    ``num_actions``, ``obs_low`` and ``obs_high`` and, if it matters, in ``first_action`` (the
    task's own number of action 0) and ``image_layout``.
    """

    def __init__(self, path: Path) -> None:
        """Read everything but the observations, which may be large.

        Raises:
            ConfigError: If the file is no log; says why, and what to do.
        """
        self.path, self.key = path, f"data.transitions {path}"
        if not path.is_file():
            raise refused(self.key, "there is no such file", "give a .npz file or a Minari dataset")
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
                headers = {name: self._header(archive, name) for name in sorted(names)}
                self._check(headers)
                self.columns = self._columns(archive)
                self.declared = self._declared(archive, names)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise refused(
                self.key, f"it cannot be read ({error})", "give a whole file that np.savez wrote"
            ) from error
        (_, *shape), _, self.obs_dtype = headers["obs"]
        self.obs_shape = tuple(shape)

    def _header(self, archive: zipfile.ZipFile, name: str) -> "Header":
        """Shape, order and type of an array.

        Raises:
            ConfigError: If it is none, or holds objects.
        """
        try:
            with archive.open(f"{name}.npy") as file:
                found = _read_header(file)
        except (ValueError, KeyError) as error:
            raise refused(self.key, f"{name} is no array", "write the file by np.savez") from error
        if found[2].kind == "O":
            raise refused(
                self.key,
                f"{name} holds Python objects, which only unpickling would read",
                "give arrays of numbers of one shape",
            )
        return found

    def _check(self, headers: dict[str, "Header"]) -> None:
        """There are six arrays of the right types and of one length."""
        missing = [name for name in ARRAYS if name not in headers]
        if "done" in headers and {"terminated", "truncated"} & set(missing):
            raise refused(
                self.key,
                "it has done in the place of terminated and truncated",
                "say which it is, the end of the task (terminated) or a cut as by a time limit "
                "(truncated), in two arrays",
            )
        if missing:
            others = ", ".join(headers) or "nothing"
            raise refused(
                self.key, f"it lacks {', '.join(missing)}, and has {others}", "give all six arrays"
            )
        rows = {name: (headers[name][0] or (0,))[0] for name in ARRAYS}
        if len(set(rows.values())) > 1:
            told = ", ".join(f"{name} {n}" for name, n in rows.items())
            raise refused(
                self.key,
                f"its arrays have different lengths ({told})",
                "give a row of each for every step; next_obs is what followed, so that obs has no "
                "row for an episode's last observation",
            )
        if not rows["obs"]:
            raise refused(self.key, "it has no rows", "record some steps first")
        for name in ("action", "reward", "terminated", "truncated"):
            if len(headers[name][0]) != 1:
                raise refused(
                    self.key,
                    f"{name} has shape {headers[name][0]}",
                    "give one number a row, for instance by reshape(-1)",
                )
        for name in ("obs", "next_obs"):
            check_type(self.key, name, headers[name][2], NUMBERS, "real numbers")
        obs, next_obs = headers["obs"], headers["next_obs"]
        if len(obs[0]) < 2:
            raise refused(
                self.key, f"obs has shape {obs[0]}", "give rows of numbers, as by reshape(-1, 1)"
            )
        if obs[0] != next_obs[0] or obs[2] != next_obs[2]:
            raise refused(
                self.key,
                f"obs is {obs[2]} {obs[0]}, but next_obs is {next_obs[2]} {next_obs[0]}",
                "give both in one shape and type",
            )
        whole = "whole numbers from 0, one of a discrete set (of continuous actions none can learn)"
        check_type(self.key, "action", headers["action"][2], "iu", whole)
        check_type(self.key, "reward", headers["reward"][2], "iuf", "real numbers")
        for name in ("terminated", "truncated"):
            check_type(self.key, name, headers[name][2], "b", "truth values, as by astype(bool)")

    def _columns(self, archive: zipfile.ZipFile) -> Columns:
        action, reward, terminated, truncated = (_whole(archive, name) for name in ARRAYS[1:5])
        return Columns(action, reward, terminated, truncated)

    def _declared(self, archive: zipfile.ZipFile, names: set[str]) -> Declared:
        """What the file says about its task.

        Raises:
            ConfigError: If that makes no sense.
        """
        given = {
            name: _whole(archive, name)
            for name in ("num_actions", "obs_low", "obs_high", "first_action", "image_layout")
            if name in names
        }
        for name in ("num_actions", "first_action"):
            if name in given and (given[name].shape != () or given[name].dtype.kind not in "iu"):
                raise refused(self.key, f"{name} is {given[name]}", "give one whole number")
        count = int(given["num_actions"]) if "num_actions" in given else None
        if count is not None and count < 1:
            raise refused(self.key, f"num_actions is {count}", "give how many actions there are")
        if ("obs_low" in given) != ("obs_high" in given):
            raise refused(self.key, "it has one of obs_low and obs_high", "give both or none")
        layout = str(given["image_layout"]) if "image_layout" in given else None
        if layout is not None and layout not in get_args(ImageLayout):
            raise refused(self.key, f"image_layout is {layout!r}", "give HW, HWC or CHW")
        return Declared(
            count,
            (given["obs_low"], given["obs_high"]) if "obs_low" in given else None,
            int(given["first_action"]) if "first_action" in given else 0,
            cast(ImageLayout | None, layout),
        )

    def observations(self) -> Iterator[tuple[Array, Array]]:
        """See ``Log``."""
        size = int(np.prod(self.obs_shape)) * self.obs_dtype.itemsize
        with zipfile.ZipFile(self.path) as archive:
            yield from zip(
                _parts(archive, "obs", max(1, PART // size)),
                _parts(archive, "next_obs", max(1, PART // size)),
                strict=True,
            )

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See ``Log``."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Fingerprint(self.path.stat().st_size, digest)


#: Shape of an array, whether its first axis varies fastest, and its type.
Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


def _read_header(file: IO[bytes]) -> Header:
    major, minor = np.lib.format.read_magic(file)
    if (major, minor) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _whole(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(f"{name}.npy") as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _parts(archive: zipfile.ZipFile, name: str, rows: int) -> Iterator[Array]:
    """An array, at most ``rows`` rows at a time."""
    with archive.open(f"{name}.npy") as file:
        shape, is_fortran, dtype = _read_header(file)
        if is_fortran:  # its rows do not lie one after another
            whole = _whole(archive, name)
            yield from (whole[i : i + rows] for i in range(0, len(whole), rows))
            return
        row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        for start in range(0, shape[0], rows):
            n = min(rows, shape[0] - start)
            yield np.frombuffer(_read(file, n * row_bytes), dtype).reshape(n, *shape[1:])


def _read(file: IO[bytes], count: int) -> bytearray:
    content = bytearray(count)
    view, done = memoryview(content), 0
    while done < count:
        read = file.read(count - done)
        if not read:
            raise EOFError("it stops inside an array")
        view[done : done + len(read)] = read
        done += len(read)
    return content
