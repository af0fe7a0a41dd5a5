"""What a command line leaves unsaid: the configuration files that its arguments imply."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_crl import run_folder
from lit_crl.checkpoint_files import read_checkpoint
from lit_crl.checks import ConfigError
from lit_crl.usage import SUBCOMMANDS


def complete(args: Sequence[str]) -> list[str]:
    """Add the configuration files that the given arguments imply.

    ``--config`` finds the package's own files from anywhere. Without one, a checkpoint brings
    the configuration of its run, ``--experiment`` that of the experiment, and nothing the
    default experiment's.
    """
    if not args or args[0] not in SUBCOMMANDS:
        return list(args)
    subcommand, rest = args[0], list(args[1:])
    configs = _values(rest, "--config", "-c")
    if configs:
        return [subcommand, *_with_found_configs(rest)]
    checkpoint = next(iter(_values(rest, "--ckpt_path")), None)
    if checkpoint not in (None, "last"):
        saved = run_folder.run_of(Path(str(checkpoint))) / "config.yaml"
        if not saved.is_file():
            read_checkpoint(Path(str(checkpoint)))
            raise ConfigError(
                f"{saved}, the configuration of the checkpoint's run, is missing: give --config"
            )
        return [subcommand, "--config", str(saved), *rest]
    experiment = next(iter(_values(rest, "--experiment")), "mountain_car")
    return [subcommand, "--config", str(run_folder.experiment_config(experiment)), *rest]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as arguments; values in YAML's flow style, in which the command line reads them."""
    return [
        f"--{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6).split(chr(10))[0]}"
        for key, value in settings.items()
    ]


def _values(args: Sequence[str], *flags: str) -> list[str]:
    found = []
    for position, argument in enumerate(args):
        flag, equals, value = argument.partition("=")
        if flag in flags:
            found.append(value if equals else "".join(args[position + 1 : position + 2]))
    return found


def _with_found_configs(args: Sequence[str]) -> list[str]:
    completed: list[str] = []
    for argument in args:
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-c") and equals:
            completed += [flag, str(run_folder.find_config(value))]
        elif completed and completed[-1] in ("--config", "-c"):
            completed.append(str(run_folder.find_config(argument)))
        else:
            completed.append(argument)
    return completed
