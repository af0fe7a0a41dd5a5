"""Checkpoint files: written whole or not at all, and read without running anything in them.

A run keeps two checkpoints, ``last.ckpt`` and ``previous.ckpt``. Each has *companions*, one for
each process, with the experience that the process collected. They are large, and only a resume
needs them. Companions are written first, under names that the checkpoint then records and that are
never used again. So a checkpoint and its companions match, whenever a run is killed.

``best.ckpt`` beside them holds the networks of the run's best policy, and has no companions.
"""

import os
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
FORMAT = 4
#: Formats whose policies this version reads. A fit goes on from the newest format alone.
READABLE = (1, 2, 3, FORMAT)
#: Newest first.
NAMES = ("last.ckpt", "previous.ckpt")
#: The best policy by validation.
BEST = "best.ckpt"


def companion_name(saved: dict[str, Any], rank: int) -> str:
    """The file beside a checkpoint with the experience of process ``rank``."""
    return f"collected-{saved['env_steps']:012d}-{saved['token']}-rank{rank}.pt"


def companions(checkpoint: Path, saved: dict[str, Any]) -> Iterator[Path]:
    """The companions of ``checkpoint``, whose content is ``saved``."""
    for rank in range(saved["lit_crl"]["world_size"]):
        yield checkpoint.parent / companion_name(saved["lit_crl"], rank)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load tensors and plain values, and nothing else, from a file.

    Raises:
        ConfigError: If the file is missing or damaged, or holds anything that could run code.
    """
    if not path.is_file():
        raise ConfigError(f"--ckpt_path {path} does not exist: give a .ckpt file, or 'last'")
    loaded = read_plain(path)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("lit_crl"), dict):
        raise ConfigError(f"{path} was not written by lit_crl: give one of its checkpoints")
    check_format(path, loaded)
    return loaded


def check_format(path: Path, loaded: dict[str, Any]) -> None:
    """Refuse a checkpoint of a version of lit_crl that this one cannot read."""
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
        with zipfile.ZipFile(path) as archive:
            # torch writes a checksum of each record, but does not compare it.
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(damaged)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile and torch raise many kinds
        raise ConfigError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): it is truncated, "
            "damaged or from another program; give one that lit_crl wrote"
        ) from error


def read_learner(path: Path) -> dict[str, Any]:
    """Like ``read_checkpoint``, for a file that holds all networks of a learner.

    Raises:
        ConfigError: As ``read_checkpoint``, or if they are missing.
    """
    saved = read_checkpoint(path)
    _refuse_without(path, [part for part in ("state_dict", "learner") if part not in saved])
    return saved


def read_run(path: Path) -> dict[str, Any]:
    """Like ``read_learner``, for a file that a fit can go on from.

    Raises:
        ConfigError: As ``read_learner``, or if something that only a fit needs is missing.
    """
    saved = read_learner(path)
    if "score" in saved["lit_crl"]:
        raise ConfigError(
            f"{path} holds the best policy without optimizers and experience, so no fit can go on "
            "from it: use --ckpt_path last"
        )
    parts = ("optimizer_states", "loops", "callbacks")
    about = ("env_steps", "world_size", "token")
    missing = [part for part in parts if part not in saved]
    _refuse_without(path, missing + [part for part in about if part not in saved["lit_crl"]])
    return saved


def read_best(path: Path) -> dict[str, Any]:
    """Like ``read_learner``, for a run's best policy.

    Raises:
        ConfigError: As ``read_learner``, or if the file does not say what it scored, and when.
    """
    saved = read_learner(path)
    _refuse_without(path, [part for part in ("score", "env_steps") if part not in saved["lit_crl"]])
    return saved


def _refuse_without(path: Path, missing: list[str]) -> None:
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}: give a checkpoint of a run")


def best_of(run: Path) -> Path:
    """The checkpoint of a run's best policy.

    Raises:
        ConfigError: If the run has none.
    """
    path = run / "checkpoints" / BEST
    if not path.is_file():
        raise ConfigError(
            f"{run} has no checkpoints/{BEST}: a run chooses its best policy from its third "
            "validation on (every data.evaluation.every env steps); use last"
        )
    return path


def check_fit(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Refuse saved weights of other networks, and name the first weight that differs."""
    for name in {**mine, **theirs}:
        sides = (mine, theirs)
        here, there = (tuple(s[name].shape) if name in s else "nothing" for s in sides)
        if here != there:
            raise ConfigError(
                f"the checkpoint does not fit: {name} is {there} there and {here} here; use the "
                "environment and the model.* settings that it was saved with"
            )


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint in ``folder`` that can be resumed, and the faults of newer ones.

    Raises:
        ConfigError: If there are checkpoints, but all of them are damaged.
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
    """Save ``content`` as ``path``; the old file becomes ``keep_as``, if that is given.

    Raises:
        RunError: If it cannot be written; the old file is as it was.
    """
    with replacing(path, keep_as) as file:
        torch.save(compact(content), file)


def replace_text(text: str, path: Path) -> None:
    """Write ``text`` as ``path``.

    Raises:
        RunError: If it cannot be written; the old file is as it was.
    """
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error in writing ``path`` into a ``RunError`` that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch raises the second on a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError(
            f"cannot write {path} ({reason}): free some space or make it writable, and continue "
            "with --ckpt_path last"
        ) from error


@contextmanager
def replacing(path: Path, keep_as: Path | None = None) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` at the end of the block, unless that fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        with writing(path):
            with partial.open("wb") as file:
                yield file
                # The content must reach the disk before the name does: there may be a power cut.
                file.flush()
                os.fsync(file.fileno())
            if keep_as is not None and path.is_file():
                os.replace(path, keep_as)
            os.replace(partial, path)
            _sync_folder(path.parent)
    except RunError:
        partial.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make new names in ``folder`` survive a power cut, on systems that can do that."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def compact(content: Any) -> Any:
    """``content``, in which the storage of each part of a larger tensor holds only that part.

    ``torch.save`` would write the larger tensor. Nothing is copied: tensors stay shared.
    """
    if isinstance(content, Mapping):
        return {key: compact(value) for key, value in content.items()}
    if type(content) in (list, tuple):
        return type(content)(compact(value) for value in content)
    if not isinstance(content, Tensor) or not content.is_contiguous():
        return content
    held = content.untyped_storage()
    if held.nbytes() == content.nbytes:
        return content
    start = content.storage_offset() * content.element_size()
    part = held[start : start + content.nbytes]
    return content.new_empty(0).set_(part, 0, content.shape)  # type: ignore[call-overload]


def plain(value: Any) -> Any:
    """Settings in the types that files can hold: Python's numbers and lists, no NumPy or tuples.

    >>> plain({"hidden": (64, np.int64(32))})
    {'hidden': [64, 32]}
    """
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def contiguous(states: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """A copy of an optimizer's state, by parameter, with contiguous tensors.

    Compiled phases transpose some tensors, and fused optimizers expect contiguous ones.
    """
    return {
        index: {k: v.contiguous() if isinstance(v, Tensor) else v for k, v in state.items()}
        for index, state in states.items()
    }
