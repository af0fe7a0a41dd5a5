"""Checkpoint files: written whole or not at all, and read without running anything in them.

A run keeps two checkpoints, ``last.ckpt`` and ``previous.ckpt``. Each has *companions*, one for
each process, with what that process collected: large, and worthless to whoever only wants the
policy. Companions are written first, under names that the checkpoint then records and that are
never used again. So whatever moment a run is killed at, a checkpoint and its companions match.
"""

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError, RunError

#: Rises when an older version of lit_crl could no longer read what is written.
FORMAT = 3
#: Formats whose policies this version reads. A fit goes on from the newest format alone.
READABLE = (1, 2, FORMAT)
#: Newest first.
NAMES = ("last.ckpt", "previous.ckpt")


def companion_name(saved: dict[str, Any], rank: int) -> str:
    """The file beside a checkpoint with what process ``rank`` had collected."""
    return f"collected-{saved['env_steps']:012d}-{saved['token']}-rank{rank}.pt"


def companion_rank(name: str) -> int | None:
    """The process whose companion has that file name, whole or half written; None: another file."""
    found = re.fullmatch(r"collected-\d+-[0-9a-f]+-rank(\d+)\.pt(\.partial)?", name)
    return int(found[1]) if found else None


def companions(checkpoint: Path, saved: dict[str, Any]) -> Iterator[Path]:
    """The files that a resume needs beside ``checkpoint``, whose content is ``saved``."""
    for rank in range(saved["lit_crl"]["world_size"]):
        yield checkpoint.parent / companion_name(saved["lit_crl"], rank)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load tensors and plain values, and nothing else, from a file.

    Raises:
        ConfigError: If there is no such file, it is damaged, or it holds anything that could
            run code.
    """
    if not path.is_file():
        raise ConfigError(f"--ckpt_path {path} does not exist: give a .ckpt file, or 'last'")
    loaded = read_plain(path)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("lit_crl"), dict):
        raise ConfigError(f"{path} was not written by lit_crl: give one of its checkpoints")
    check_format(path, loaded)
    return loaded


def check_format(path: Path, loaded: dict[str, Any]) -> None:
    """See that this version reads what lit_crl itself wrote.

    Raises:
        ConfigError: If not.
    """
    if (found := loaded["lit_crl"].get("format")) not in READABLE:
        raise ConfigError(
            f"{path} has checkpoint format {found}, this version reads formats up to {FORMAT}: use "
            "the version of lit_crl that wrote it"
        )


def read_plain(path: Path) -> Any:
    """Tensors and plain values of a file that ``torch.save`` wrote.

    Raises:
        ConfigError: If it is damaged, or holds anything that could run code.
    """
    try:
        check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise many kinds here, all meaning the same to the user
        raise ConfigError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): it is truncated, "
            "damaged or from another program; give one that lit_crl wrote"
        ) from error


def read_run(path: Path) -> dict[str, Any]:
    """``read_checkpoint``, of a file that holds a whole learner.

    Raises:
        ConfigError: As ``read_checkpoint``, or if a part of it is missing.
    """
    saved = read_checkpoint(path)
    parts = ("state_dict", "optimizer_states", "loops", "callbacks", "learner")
    about = ("env_steps", "world_size", "token")
    missing = [part for part in parts if part not in saved]
    missing += [part for part in about if part not in saved["lit_crl"]]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}: give a checkpoint of a run")
    return saved


def check_fit(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """See that saved weights are those of the same networks.

    Raises:
        ConfigError: If not; names the first that differs.
    """
    for name in {**mine, **theirs}:
        here, there = (
            tuple(side[name].shape) if name in side else "nothing" for side in (mine, theirs)
        )
        if here != there:
            raise ConfigError(
                f"the checkpoint does not fit: {name} is {there} there and {here} here; use the "
                "environment and the model.* settings that it was saved with"
            )


def check_sums(path: Path) -> None:
    """Compare every record with its checksum, which torch itself writes but does not read.

    Raises:
        zipfile.BadZipFile: If one differs, or this is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint in ``folder`` that can be resumed, and what is wrong with newer ones.

    Raises:
        ConfigError: If there are checkpoints, but none is whole.
    """
    problems = []
    present = [folder / name for name in NAMES if (folder / name).is_file()]
    for path in present:
        try:
            for companion in companions(path, read_run(path)):
                read_checkpoint(companion)
        except ConfigError as error:
            problems.append(str(error))
        else:
            return path, problems
    if present:
        raise ConfigError(f"no checkpoint in {folder} is whole: {'; '.join(problems)}")
    return None, []


def write_atomically(content: Any, path: Path, keep_as: Path | None = None) -> None:
    """Save ``content`` so that ``path`` is either the old file or the whole new one.

    The old file becomes ``keep_as``, where that is given.

    Raises:
        RunError: If it cannot be written; the old file is as it was.
    """
    with writing(path), partial_of(path).open("wb") as file:
        torch.save(without_the_rest(content), file)
        _put_in_place(file, path, keep_as)


def replace_text(text: str, path: Path) -> None:
    """Write ``text`` so that ``path`` is either the old file or the whole new one.

    Raises:
        RunError: If it cannot be written; the old file is as it was.
    """
    with writing(path), partial_of(path).open("wb") as file:
        file.write(text.encode())
        _put_in_place(file, path)


def partial_of(path: Path) -> Path:
    """Where the content of ``path`` is written first."""
    return path.with_name(path.name + ".partial")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do where ``path`` cannot be written, and leave no half of it.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch raises the second on a full disk
        partial_of(path).unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError(
            f"cannot write {path} ({reason}): free some space or make it writable, and continue "
            "with --ckpt_path last"
        ) from error


def _put_in_place(file: BinaryIO, path: Path, keep_as: Path | None = None) -> None:
    """Give the written ``file`` its name, so that it has it after a power cut, too."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    if keep_as is not None and path.is_file():
        os.replace(path, keep_as)
    os.replace(partial_of(path), path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in ``folder`` last through a power cut, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def without_the_rest(content: Any) -> Any:
    """``content`` with every tensor that is a part of a larger one as a tensor by itself.

    ``torch.save`` writes the whole of the larger one. Nothing is copied: memory stays shared.
    """
    if isinstance(content, Mapping):
        return {key: without_the_rest(value) for key, value in content.items()}
    if type(content) in (list, tuple):
        return type(content)(without_the_rest(value) for value in content)
    if not isinstance(content, Tensor) or not content.is_contiguous():
        return content
    held = content.untyped_storage()
    if held.nbytes() == content.nbytes:
        return content
    start = content.storage_offset() * content.element_size()
    part = held[start : start + content.nbytes]
    return content.new_empty(0).set_(part, 0, content.shape)  # type: ignore[call-overload]


def plain(value: Any) -> Any:
    """Settings as files hold them: Python's numbers, not NumPy's, and lists, not tuples."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def contiguous(states: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """An optimizer's state, by parameter, with tensors laid out as usual; ``states`` stays.

    Compiled phases keep some of them transposed, and fused optimizers take the usual for granted.
    """
    return {
        index: {k: v.contiguous() if isinstance(v, Tensor) else v for k, v in state.items()}
        for index, state in states.items()
    }
