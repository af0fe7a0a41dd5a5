"""What a run adds to the Trainer's settings that a user gave: callbacks, loggers, a strategy."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger

from lit_crl.core.checks import ConfigError
from lit_crl.runs.callbacks import EnvStepProgress
from lit_crl.training.ddp import PhaseDDP


def merged(given: Mapping[str, Any], loggers: Sequence[Logger]) -> dict[str, Any]:
    """The Trainer's settings that a run sets beside those that are ``given``.

    Args:
        given: The Trainer's settings as objects.
        loggers: The run's own; the user's come after them.

    Raises:
        ConfigError: If a setting takes away what a run consists of.
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
    """The run's own progress bar, unless the user has another or wants none."""
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
            "trainer.logger is false, but the report is made of metrics.csv: leave it out, and use "
            "--logger csv for that file alone"
        )
    if given is None or given is True:  # Lightning's default logger, which here is the run's own
        return []
    return given if isinstance(given, list) else [given]


def _is_several(devices: int | str | Sequence[int], num_nodes: int) -> bool:
    """Whether more than one process is asked for; how many ``auto`` means shows only later."""
    if isinstance(devices, str):
        numbers = [number for number in devices.split(",") if number.strip()]
        count = int(devices) if devices.isdecimal() else len(numbers)
    else:
        count = devices if isinstance(devices, int) else len(devices)
    return count > 1 or num_nodes > 1
