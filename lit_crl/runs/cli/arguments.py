"""Completes a command line: the experiment's file first, then ``--config`` files, then flags."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_crl.core.checks import ConfigError
from lit_crl.core.tensor_files import read_checkpoint
from lit_crl.runs import folders
from lit_crl.runs.cli import yaml_strings
from lit_crl.runs.cli.moved import present
from lit_crl.runs.cli.usage import SUBCOMMANDS
from lit_crl.runs.naming import MARK
from lit_crl.training.renamed import refuse_flat

#: The default experiment.
DEFAULT = "mountain_car"
#: The experiments whose settings are used where only the data are named: a Gymnasium id, any other
#: environment, which has levels as a rule, or a log of transitions.
ANY_ID, ANY_ENV, ANY_LOG = "gymnasium", "mountain_car_levels", "from_log"
#: The adapter that takes Gymnasium ids, and the package of the environments that take none.
ADAPTER, BUILT_IN = "lit_crl.envs.GymnasiumEnv", "lit_crl.envs."
CONFIG = ("--config", "-c")


class Option(NamedTuple):
    """One option of a command line; the value is None if it has none."""

    flag: str
    value: str | None


def complete(args: Sequence[str]) -> list[str]:
    """Add the files that arguments imply, and sort all arguments: later ones override earlier ones.

    First comes the experiment's file, then the files of ``--config``, then everything else. The
    experiment is the named one. There is none if a file describes an environment or names a log, or
    if a checkpoint brings the configuration of its run. Otherwise it is the default one, or the one
    for logs or Gymnasium ids if one is given.

    Raises:
        ConfigError: If a file or an experiment does not exist, or a checkpoint belongs to another
            experiment.
    """
    if not args or args[0] not in SUBCOMMANDS:
        return list(args)
    subcommand, options = args[0], split([*map(present, args[1:])])
    refuse_flat(option.flag.removeprefix("--") for option in options)
    files = [folders.find_config(str(o.value)) for o in options if o.flag in CONFIG]
    rest = [option for option in options if option.flag not in CONFIG]
    files = [*_base(rest, files), *files]
    rest = [*(Option("--config", str(file)) for file in files), *_with_ids(rest, files)]
    return [subcommand, *(flag if value is None else f"{flag}={value}" for flag, value in rest)]


def split(args: Sequence[str]) -> list[Option]:
    """Arguments as options.

    >>> split(["--name", "a", "--data.collect.gamma=-1", "--print_config"])[1:]
    [Option(flag='--data.collect.gamma', value='-1'), Option(flag='--print_config', value=None)]
    """
    options: list[Option] = []
    for word in args:
        flag, equals, value = word.partition("=")
        if word.startswith("-") and not _is_number(word):
            options.append(Option(flag, value if equals else None))
        elif options and options[-1].value is None:
            options[-1] = Option(options[-1].flag, word)
        else:
            options.append(Option(word, None))
    return options


def without(args: Sequence[str], flag: str) -> list[str]:
    """Completed arguments without one of their flags."""
    return [word for word in args if word.partition("=")[0] != flag]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings by dotted keys as arguments of the command line.

    >>> flags({"name": "NO", "data.collect.env_steps": 1000, "data.curriculum.arm": "NO"})
    ['--name=NO', '--data.collect.env_steps=1000', "--data.curriculum.arm='NO'"]
    """
    return [f"--{key}={_text(key, value)}" for key, value in settings.items()]


def is_id(text: str) -> bool:
    """Whether a text is a Gymnasium id, and not an import path, a file or YAML.

    >>> is_id("CartPole-v1"), is_id("lit_crl.envs.MountainCar")
    (True, False)
    """
    is_path = "." in text and all(part.isidentifier() for part in text.split("."))
    return (
        not is_path
        and text not in ("", "null")
        and MARK not in text
        and text[0] not in "{['\"$"
        and not Path(text).is_file()
    )


def with_id(id: str) -> dict[str, Any]:
    """The setting ``data.env`` for a Gymnasium id."""
    return {"class_path": ADAPTER, "init_args": {"id": id}}


def _base(options: Sequence[Option], files: Sequence[Path]) -> list[Path]:
    """The files that everything else overrides.

    An experiment that names no task goes on top of what would be chosen without it.
    """
    given = {option.flag: option.value for option in options}
    experiment, checkpoint = given.get("--experiment"), given.get("--ckpt_path")
    if checkpoint not in (None, "last", "best") and not files:
        return [_config_of(Path(str(checkpoint)), experiment)]
    on_top: list[Path] = []
    if experiment in folders.experiments():
        chosen = folders.experiment_config(str(experiment))
        if _names_task(chosen):
            return [chosen]
        on_top, experiment = [chosen], None
    if any(map(_names_task, files)):
        return on_top  # the user chose the experiment's name
    if experiment is not None:
        return [folders.experiment_config(experiment)]  # raises: there is no such experiment
    if given.get("--data.transitions") not in (None, "null"):
        return [folders.experiment_config(ANY_LOG), *on_top]
    named = given.get("--data.env")
    by_id = "--data.env.id" in given or "--data.env.init_args.id" in given
    if by_id if named is None else is_id(named):
        return [folders.experiment_config(ANY_ID), *on_top]
    return [folders.experiment_config(DEFAULT if named is None else ANY_ENV), *on_top]


def _config_of(checkpoint: Path, experiment: str | None) -> Path:
    saved = folders.run_of(checkpoint) / "config.yaml"
    if not saved.is_file():
        read_checkpoint(checkpoint)
        raise ConfigError(
            f"{saved}, the configuration of the checkpoint's run, is missing: give --config"
        )
    theirs = folders.read_config(saved).get("experiment", DEFAULT)
    if experiment not in (None, theirs):
        raise ConfigError(
            f"--experiment is {experiment}, but {checkpoint} belongs to the experiment {theirs}: "
            "leave --experiment out, or give another checkpoint"
        )
    return saved


def _names_task(file: Path) -> bool:
    """Whether a configuration file says what is to be learnt."""
    return any(setting_of(file, key) is not None for key in ("env", "transitions"))


def setting_of(file: Path, key: str) -> Any:
    """The setting ``key`` of ``data`` in a configuration file, or None."""
    data = folders.read_config(file).get("data")
    return data.get(key) if isinstance(data, dict) else None


def _with_ids(options: Sequence[Option], files: Sequence[Path]) -> list[Option]:
    """Options in which a Gymnasium id is an argument of the adapter."""
    environments = [found for file in files if (found := setting_of(file, "env")) is not None]
    now = environments[-1] if environments else None
    kind = now.get("class_path") if isinstance(now, dict) else now
    read: list[Option] = []
    for flag, value in options:
        if flag == "--data.env" and value is not None and is_id(value):
            value, kind = yaml_strings.dump(with_id(value), flow=True), ADAPTER
        elif flag in ("--data.env", "--data.env.class_path"):
            kind = value
        elif flag in ("--data.env.id", "--data.env.init_args.id"):
            is_built_in = str(kind).startswith(BUILT_IN) and kind != ADAPTER
            takes_none = kind is None or is_built_in
            read += [Option("--data.env", ADAPTER)] if takes_none else []
            kind = ADAPTER if takes_none else kind
        read.append(Option(flag, value))
    return read


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _text(key: str, value: Any) -> str:
    # The parser takes settings outside of groups as they are: quotes would be part of the text.
    if isinstance(value, str) and ("." not in key or yaml_strings.reads_as_itself(value)):
        return value
    return yaml_strings.dump(value, flow=True)
