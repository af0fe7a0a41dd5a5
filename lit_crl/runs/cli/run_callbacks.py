"""The callbacks and loggers that a run has beside those that its user gave."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from lit_crl.runs.callbacks import (
    MetricsCsv,
    RecordMetrics,
    RunCheckpoint,
    RunReport,
    StopOnSignal,
)
from lit_crl.runs.checkpoints.signals import Signals
from lit_crl.runs.cli import trainer_settings
from lit_crl.runs.dashboard.callback import Dashboard, display
from lit_crl.training.learner import CreativeLearner


class RunCallbacks:
    """What logs, shows, saves and stops a run.

    Attributes:
        loggers: For the Trainer.
        callbacks: For the Trainer.
        checkpoints: The folder of the run's checkpoints.
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
        """Make the callbacks and loggers.

        Args:
            folder: The run folder.
            config: The configuration of the subcommand.
            text: The content of ``config.yaml``.
            given: The Trainer's settings as objects.
            signals: What stops the run.
            has_dashboard: Whether the run uses the dashboard that ``config`` may name.
        """
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self._csv, self._report = MetricsCsv(folder), RunReport(folder, config.experiment, text)
        checkpoint = RunCheckpoint(self.checkpoints, **vars(config.checkpoint))
        self.loggers: list[Logger] = [self._csv]
        self.callbacks: list[Callback] = [
            *trainer_settings.progress_bars(given),
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
        self.callbacks += [checkpoint, StopOnSignal(checkpoint, signals)]

    def resume(self, env_steps: int) -> None:
        """Continue the metrics of a run that was saved at ``env_steps``."""
        self._csv.resume(env_steps)
        if self._dashboard is not None:
            self._dashboard.display.resume(env_steps)

    def summarise(self, trainer: Trainer, learner: CreativeLearner) -> None:
        """Write and show the report."""
        self._report.summarise(trainer, learner)
        if self._dashboard is not None:
            self._dashboard.conclude(self.folder / "figures")
