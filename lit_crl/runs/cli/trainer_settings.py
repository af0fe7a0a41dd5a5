"""What a run adds to the Trainer that a user configured: callbacks, loggers, a strategy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger

from lit_crl.core.checks import ConfigError
from lit_crl.runs.callbacks import (
    BestCheckpoint,
    EnvStepProgress,
    KeepTransitions,
    MetricsCsv,
    RecordMetrics,
    RunCheckpoint,
    RunReport,
    StopOnSignal,
)
from lit_crl.runs.checkpoints.signals import Signals
from lit_crl.runs.dashboard.callback import Dashboard, display
from lit_crl.training.ddp import PhaseDDP
from lit_crl.training.learner import CreativeLearner


class RunCallbacks:
    """What logs, shows, saves and stops a run.

    ``loggers`` and ``callbacks`` are for the Trainer, beside those that the user gave.
    """

    def __init__(
        self,
        folder: Path,
        config: Namespace,
        text: str,
        given: Mapping[str, Any],
        signals: Signals,
        has_dashboard: bool,
    ) -> None:
        """Make them, for a ``config`` that ``config.yaml`` holds as ``text``.

        Args:
            folder: The run folder.
            config: The configuration of the subcommand.
            text: The same, as YAML.
            given: The user's settings of the Trainer, as objects.
            signals: What stops the run.
            has_dashboard: Whether the run uses the dashboard that ``config`` may name.
        """
        self.folder = folder
        self._csv, self._report = MetricsCsv(folder), RunReport(folder, config.experiment, text)
        checkpoint = RunCheckpoint(folder / "checkpoints", **vars(config.checkpoint))
        self.loggers: list[Logger] = [self._csv]
        self.callbacks: list[Callback] = [
            *progress_bars(given),
            RecordMetrics(),
            self._report,
        ]
        self._dashboard: Dashboard | None = None
        if has_dashboard and config.logger != "csv":
            group = config.group or config.experiment
            shown = display(config.logger, folder, group, config.tags)
            self._dashboard = Dashboard(shown, self._report)
            self.loggers.append(shown)
            self.callbacks.append(self._dashboard)
        # Before the checkpoint: what it counts must have reached the disk.
        self.callbacks += [
            KeepTransitions(folder),
            BestCheckpoint(folder / "checkpoints"),
            checkpoint,
            StopOnSignal(checkpoint, signals),
        ]

    def resume(self, env_steps: int) -> None:
        """Continue the metrics of a run that was saved at ``env_steps``."""
        self._csv.resume(env_steps)
        if self._dashboard is not None:
            self._dashboard.display.resume(env_steps)

    def summarise(self, trainer: Trainer, learner: CreativeLearner) -> None:
        """Write and show the report."""
        self._report.summarise(trainer, learner)
        if self._dashboard is not None:
            self._dashboard.conclude(self.folder)


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
    return [] if given["enable_progress_bar"] is False or has_another else [EnvStepProgress()]


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
