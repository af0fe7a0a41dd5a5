"""Where a run lives, ``<root>/<experiment>/<name>``, and where configurations are found."""

import os
import tempfile
from pathlib import Path

from lit_crl.checks import ConfigError


def conf_folder() -> Path:
    """``conf/``: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
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


def experiment_config(name: str) -> Path:
    """The package's configuration of an experiment.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in experiments():
        raise ConfigError(
            f"--experiment {name} is unknown: use one of {', '.join(experiments())}, or describe "
            "your own with --config FILE"
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


def choose_run_folder(
    root: Path, experiment: str, name: str | None, seed: int, resume: bool
) -> Path:
    """The folder of this run; none that holds another run is ever written to.

    Without a name, runs are called ``seed0``, ``seed0-2``, ``seed0-3`` … . A resumed run takes
    the newest of these, or exactly the one that is named.

    Raises:
        ConfigError: If the named run exists and is not to be resumed.
    """
    parent = root / experiment
    if name is not None:
        if is_run(parent / name) and not resume:
            raise ConfigError(
                f"{parent / name} already holds a run: choose another --name, or continue it with "
                "--ckpt_path last"
            )
        return parent / name
    number = 1
    while is_run(parent / _numbered(seed, number)):
        number += 1
    return parent / _numbered(seed, max(number - 1, 1) if resume else number)


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
    new = [path for path in (folder, *folder.parents) if not path.is_dir()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for path in new:
            path.rmdir()
    except OSError as error:
        raise ConfigError(
            f"cannot write to the run folder {folder} ({os.strerror(error.errno or 0)}): choose "
            "another with --trainer.default_root_dir"
        ) from error
