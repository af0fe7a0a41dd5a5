"""Where a run lives, ``<root>/<experiment>/<name>``, and where configurations are found."""

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
    """``conf/``: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def experiments() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))


def find_config(given: str) -> Path:
    """The file that ``--config`` means: as given, or the package's own ``conf/...``.

    Raises:
        ConfigError: If neither exists.
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
        ConfigError: If it holds none.
    """
    try:
        read = yaml_strings.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--config {path} cannot be read: {reason}") from error
    if not isinstance(read, dict):
        raise ConfigError(f"--config {path} holds no settings: give a YAML file with keys")
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
    """The package's configuration of an experiment.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in experiments():
        raise ConfigError(
            f"--experiment {name} is unknown: use one of {', '.join(experiments())}, give a "
            "Gymnasium id with --data.env, or describe your own task with --config FILE"
        )
    return conf_folder() / "experiment" / f"{name}.yaml"


def check_folder_name(key: str, name: str | None) -> None:
    """A run stays inside its root.

    Raises:
        ConfigError: If ``name`` is not the name of one folder.
    """
    if not name or name in (".", "..") or Path(name).name != name or not name.isprintable():
        raise ConfigError(f"{key} is {name!r}: give the name of one folder, without slashes")


def is_run(folder: Path) -> bool:
    """Whether a run was started in ``folder``."""
    return folder.is_dir() and any(folder.iterdir())


def newest_run(parent: Path, name: str | None, seed: int) -> Path:
    """The run that is meant where it is not a new one: the named one, else the seed's newest."""
    if name is not None:
        return parent / name
    return parent / _numbered(seed, max((n for n, _ in _runs_of(parent, seed)), default=1))


def claim_run(parent: Path, name: str | None, seed: int, resume: bool) -> "Claim":
    """A folder that this process alone writes to; none that holds another run is ever written to.

    Without a name, runs are called ``seed0``, ``seed0-2``, ``seed0-3`` … . A resumed run takes
    the newest of these, or exactly the one that is named, where it exists.

    Raises:
        ConfigError: If the named run exists and is not to be resumed, if another process is
            writing to the run that is, or if nothing can be written there.
    """
    if resume and is_run(found := newest_run(parent, name, seed)):
        check_writable(found)
        lock = _lock(found)
        if lock is TAKEN:
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
    """A run folder that belongs to this process until it ends, or gives it up."""

    def __init__(self, path: Path, lock: int | None, made: Sequence[Path]) -> None:
        """``made`` are the folders that were made for it, the deepest first."""
        self.path, self._lock, self.made = path, lock, made

    @property
    def is_new(self) -> bool:
        """Whether there was no such folder before."""
        return self.path in self.made

    def close(self) -> None:
        """Let other processes go on with the run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def abandon(self) -> None:
        """Remove what was made: nothing was learnt, and the name is free again."""
        if self.is_new:
            shutil.rmtree(self.path)
        for folder in self.made[1:]:
            with contextlib.suppress(OSError):  # another run has come into it
                folder.rmdir()
        self.close()


#: What ``_lock`` gives where another process has the lock.
TAKEN = -1


def _claim(folder: Path) -> Claim | None:
    """Make a folder, or take an empty one that nobody has; None if another run has it."""
    parents = [path for path in folder.parents if not path.is_dir()]
    while True:
        made = [folder, *parents]
        try:
            folder.mkdir()
        except FileNotFoundError:  # also if another process has just given the parent up
            folder.parent.mkdir(parents=True, exist_ok=True)
            continue
        except FileExistsError:
            made = []
        try:
            lock = _lock(folder)
        except FileNotFoundError:
            continue  # it was given up in between
        if lock is TAKEN:
            return None
        if lock is not None and not _is_at(lock, folder):
            os.close(lock)
            continue
        if not made and (lock is None or any(folder.iterdir())):
            if lock is not None:
                os.close(lock)
            return None
        return Claim(folder, lock, made)


def _lock(folder: Path) -> int | None:
    """Lock a folder until the process ends: its descriptor, ``TAKEN``, or None where none can."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return TAKEN
    except OSError:  # some network file systems lock no folders
        os.close(descriptor)
        return None
    return descriptor


def _is_at(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def _runs_of(parent: Path, seed: int) -> Iterator[tuple[int, Path]]:
    """The number and the folder of every run that was not named."""
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
    """See that ``folder`` can be written to, before an hour is spent; it is not created.

    Raises:
        ConfigError: If it cannot.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(
            f"cannot write to the run folder {folder} ({os.strerror(error.errno or 0)}): choose "
            "another with --trainer.default_root_dir"
        ) from error
