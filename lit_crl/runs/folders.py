"""The folder of a run, ``<root>/<experiment>/<name>``, and the files of configurations."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

import yaml

from lit_crl.core.checks import ConfigError
from lit_crl.runs.cli import yaml_strings
from lit_crl.training.renamed import refuse_flat


def conf_folder() -> Path:
    """``conf/``: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def experiments() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))


def find_config(given: str) -> Path:
    """The file that ``--config`` means: the given path, or that path in the package's ``conf/``.

    Raises:
        ConfigError: If neither file exists.
    """
    path = Path(given)
    if path.is_file():
        return path
    if path.parts[:1] == ("conf",):
        packaged = conf_folder().joinpath(*path.parts[1:])
        if packaged.is_file():
            return packaged
    raise ConfigError(
        f"--config {given} does not exist: give a YAML file, or one of "
        + ", ".join(f"conf/experiment/{name}.yaml" for name in experiments())
    )


def read_config(path: Path) -> dict[str, Any]:
    """A configuration file's settings.

    Raises:
        ConfigError: If the file cannot be read or has no settings.
    """
    try:
        read = yaml_strings.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--config {path} cannot be read: {reason}") from error
    if not isinstance(read, dict):
        raise ConfigError(f"--config {path} has no settings: give a YAML file with keys")
    sections = {name: read.get(name) for name in ("data", "model")}
    keys = (
        f"{n}.{key}"
        for n, section in sections.items()
        if isinstance(section, dict)
        for key in section
    )
    refuse_flat(keys, f"{path}: ")
    return read


def experiment_config(name: str) -> Path:
    """The package's configuration of an experiment; another name is refused."""
    if name not in experiments():
        raise ConfigError(
            f"--experiment {name} is unknown: use one of {', '.join(experiments())}, give a "
            "Gymnasium id with --data.env, or describe your own task with --config FILE"
        )
    return conf_folder() / "experiment" / f"{name}.yaml"


def check_folder_name(key: str, name: str | None) -> None:
    """Refuse a ``name`` that is not one folder's: a run stays inside its root."""
    if not name or name in (".", "..") or Path(name).name != name or not name.isprintable():
        raise ConfigError(f"{key} is {name!r}: give the name of one folder, without slashes")


def is_run(folder: Path) -> bool:
    """Whether a run was started in ``folder``."""
    return folder.is_dir() and any(folder.iterdir())


def newest_run(parent: Path, name: str | None, seed: int) -> Path:
    """The existing run that a command means: the one called ``name``, or the seed's newest."""
    if name is not None:
        return parent / name
    return parent / _numbered(seed, max((n for n, _ in _runs_of(parent, seed)), default=1))


def claim_run(parent: Path, name: str | None, seed: int, resume: bool) -> "Claim":
    """A folder that only this process writes to, and that holds no other run.

    Without a name, runs are called ``seed0``, ``seed0-2``, ``seed0-3`` … . A resumed run takes
    the newest of these folders, or the named one, if it exists.

    Raises:
        ConfigError: If a run of that name exists and should not be resumed, if another process
            writes to the run that should be resumed, or if the folder is not writable.
    """
    if resume and is_run(found := newest_run(parent, name, seed)):
        check_writable(found)
        lock = _lock(found)
        if lock == TAKEN:
            raise ConfigError(
                f"another process is training the run {found}: wait for it, or choose another "
                "--name"
            )
        return Claim(found, lock, made=())
    names = [name] if name is not None else (_numbered(seed, n) for n in itertools.count(1))
    for folder in names:
        check_writable(parent / folder)
        if (claim := _claim(parent / folder)) is not None:
            return claim
    raise ConfigError(
        f"{parent / str(name)} already holds a run: choose another --name, or continue it with "
        "--ckpt_path last"
    )


class Claim:
    """A run folder that belongs to this process until ``close`` or ``abandon``."""

    def __init__(self, path: Path, lock: int | None, made: Sequence[Path]) -> None:
        """``made`` are the folders that were created for the run, the deepest first."""
        self.path, self._lock, self._made = path, lock, made

    def close(self) -> None:
        """Let other processes continue the run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def abandon(self) -> None:
        """Remove the created folders, so that the name is free again."""
        if self.path in self._made:
            shutil.rmtree(self.path)
        for folder in self._made[1:]:
            with contextlib.suppress(OSError):  # the folder of another run is in it now
                folder.rmdir()
        self.close()


#: Returned by ``_lock`` if another process has the lock.
TAKEN = -1


def _claim(folder: Path) -> Claim | None:
    """Create a folder, or take an empty unlocked one; None if another run has it."""
    parents = [path for path in folder.parents if not path.is_dir()]
    while True:
        made = [folder, *parents]
        try:
            folder.mkdir()
        except FileNotFoundError:  # also if another process has just removed the parent
            folder.parent.mkdir(parents=True, exist_ok=True)
            continue
        except FileExistsError:
            made = []
        try:
            lock = _lock(folder)
        except FileNotFoundError:
            continue  # its process has abandoned it in between
        if lock == TAKEN:
            return None
        # The folder may be another one by now: removed by its process, and created again.
        if lock is not None and not _is_at(lock, folder):
            os.close(lock)
            continue
        if not made and (lock is None or any(folder.iterdir())):
            if lock is not None:
                os.close(lock)
            return None
        return Claim(folder, lock, made)


def _lock(folder: Path) -> int | None:
    """Lock a folder: its open descriptor; ``TAKEN``; or None if the system cannot lock it."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # some network file systems cannot lock folders
        os.close(descriptor)
        return TAKEN if isinstance(error, BlockingIOError) else None
    return descriptor


def _is_at(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def _runs_of(parent: Path, seed: int) -> Iterator[tuple[int, Path]]:
    """The number and the folder of every run of a seed that has no name."""
    for folder in parent.glob(f"seed{seed}*"):
        first, _, number = folder.name.partition("-")
        if first == f"seed{seed}" and (number.isdigit() or not number) and is_run(folder):
            yield int(number or 1), folder


def _numbered(seed: int, number: int) -> str:
    return f"seed{seed}" if number == 1 else f"seed{seed}-{number}"


def run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in."""
    for folder in checkpoint.parents:  # a ModelCheckpoint's files lie deeper
        if (folder / "config.yaml").is_file():
            return folder
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder


def check_writable(folder: Path) -> None:
    """Refuse a folder that is not writable before an hour is spent; it is not created."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(
            f"cannot write to the run folder {folder} ({os.strerror(error.errno or 0)}): choose "
            "another with --trainer.default_root_dir"
        ) from error
