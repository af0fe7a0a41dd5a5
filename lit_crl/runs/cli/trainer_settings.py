"""The Trainer's settings: what a user may give, and what a run adds to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger

from lit_crl.core.checks import ConfigError
from lit_crl.runs.callbacks import EnvStepProgress
from lit_crl.training.ddp import PhaseDDP


def check_accelerator(name: object) -> None:
    """See that a GPU that was asked for exists.

    Raises:
        ConfigError: If it does not.
    """
    if name in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"trainer.accelerator is {name}, but this machine has no CUDA device: use "
            "--trainer.accelerator cpu"
        )


def merged(given: Mapping[str, Any], loggers: Sequence[Logger]) -> dict[str, Any]:
    """The Trainer's settings that a run changes.

    Args:
        given: The user's settings of the Trainer, as objects.
        loggers: The run's loggers; the user's come after them.

    Raises:
        ConfigError: If a setting would switch metrics or checkpoints off.
    """
    if given["barebones"]:
        raise ConfigError(
            "trainer.barebones is true, but it forbids the metrics and checkpoints of a run: set "
            "it to false, or train from Python with Trainer(barebones=True)"
        )
    settings: dict[str, Any] = {"logger": [*loggers, *_loggers(given["logger"])]}
    if any(isinstance(callback, Checkpoint) for callback in _callbacks(given)):
        settings["enable_checkpointing"] = True
    if given["strategy"] == "auto" and _is_several(given["devices"], given["num_nodes"]):
        settings["strategy"] = PhaseDDP()
    return settings


def progress_bars(given: Mapping[str, Any]) -> list[Callback]:
    """The run's progress bar, unless the user gives another one or wants none."""
    has_another = any(isinstance(callback, ProgressBar) for callback in _callbacks(given))
    if given["enable_progress_bar"] is False or has_another:
        return []
    return [EnvStepProgress()]


def _callbacks(given: Mapping[str, Any]) -> Sequence[Callback]:
    callbacks = given["callbacks"] or []
    return callbacks if isinstance(callbacks, list) else [callbacks]


def _loggers(given: Any) -> Sequence[Logger]:
    if given is False:
        raise ConfigError(
            "trainer.logger is false, but the report needs metrics.csv: leave it out, and use "
            "--logger csv for that file alone"
        )
    if given is None or given is True:  # Lightning's default; here it is the run's logger
        return []
    return given if isinstance(given, list) else [given]


def _is_several(devices: int | str | Sequence[int], num_nodes: int) -> bool:
    """Whether the user asks for more than one process; ``auto`` does not count as several."""
    if isinstance(devices, str):
        numbers = [number for number in devices.split(",") if number.strip()]
        count = int(devices) if devices.isdecimal() else len(numbers)
    else:
        count = devices if isinstance(devices, int) else len(devices)
    return count > 1 or num_nodes > 1
