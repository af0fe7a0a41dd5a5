"""Metrics over env steps: collected from learner and data, written to every logger."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lit_crl.core import distributed
from lit_crl.core.seeding import random_stream
from lit_crl.core.tensor_files import replace_text, writing

#: Generated levels kept from each validation, for the figure of levels over training.
SNAPSHOT_LEVELS = 256


class EnvStepAxis:
    """A logger whose axis is env steps, also for what Lightning or a callback logs by batches."""

    #: Env steps taken so far, once a run has begun.
    env_steps_now: Callable[[], int] | None = None

    #: Whether training goes on: what a test finds is reported elsewhere.
    is_training = True

    def at(self, step: int | None) -> int:
        """The env steps at which to log; ``step`` counts only where no run has begun."""
        return (step or 0) if self.env_steps_now is None else self.env_steps_now()


def is_time_to_log(trainer: Trainer, batches_done: int) -> bool:
    """Whether training is logged after this batch: every ``log_every_n_steps``; 0: never."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and batches_done % every == 0


class MetricsCsv(EnvStepAxis, Logger):
    """``metrics.csv``: one row for each time something was logged, ``env_steps`` first.

    Rows are appended to the file; only where one brings a new column, the file is replaced as a
    whole. A resumed run first drops a last line that was cut off, and the rows that come after its
    checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        """Write into ``folder``."""
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, float | str]] = []
        self._saved = 0
        #: Columns of the file; empty: it is still to be written, or was another run's.
        self._columns: dict[str, None] = {}

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """A run has one."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """Nothing: the run's ``config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        if not self.is_training:
            return
        row: dict[str, float | str] = {"env_steps": self.at(step), **metrics}
        self.rows.append(row)
        if len(self.rows) - self._saved >= 20:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that are not in the file yet.

        Raises:
            RunError: If the disk is full, say.
        """
        new = self.rows[self._saved :]
        if not new:
            return
        columns = self._columns | dict.fromkeys(name for row in new for name in row)
        has_new_column = columns != self._columns
        self._columns = {}  # should this fail, the next time writes the whole file
        if has_new_column:
            columns = dict.fromkeys(name for row in self.rows for name in row)
            header = [{name: name for name in columns}]
            replace_text(_lines([*header, *self.rows], columns), self.path)
        else:
            with writing(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines(new, columns))
                file.flush()
                os.fsync(file.fileno())
        self._columns, self._saved = columns, len(self.rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()

    def resume(self, env_steps: int) -> None:
        """Take up the file's rows up to ``env_steps``."""
        if self.path.exists():
            text = self.path.read_bytes().decode("utf-8", errors="replace")
            lines = text.split("\r\n")
            rows = csv.DictReader(lines[:-1])  # after the last whole line comes nothing, or a half
            self.rows = [
                {name: value for name, value in row.items() if value != ""}
                for row in rows
                if int(float(row["env_steps"])) <= env_steps
            ]
            self._columns, self._saved = {}, len(self.rows)


def _lines(rows: Sequence[Mapping[str, float | str]], columns: Iterable[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, fieldnames=list(columns), restval="").writerows(rows)
    return text.getvalue()


class RecordMetrics(Callback):
    """Hands losses, behaviour and evaluations to the loggers, with ``env_steps`` as the axis."""

    def __init__(self) -> None:
        """Start with no snapshots."""
        self.snapshots: list[dict[str, Any]] = []
        self._last: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the loggers where to look up the env steps."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if isinstance(logger, EnvStepAxis):
                logger.env_steps_now, logger.is_training = lambda: data.env_steps, stage == "fit"

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log the means since the last time, every ``log_every_n_steps`` batches."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if is_time_to_log(trainer, data.batches_done):
            with pl_module.clock("saving"):  # type: ignore[operator]
                self._log_means(trainer, pl_module)

    def _log_means(self, trainer: Trainer, learner: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        losses = learner.losses.pop_means()
        numbers = distributed.reduce_metrics(losses | data.metrics())
        # The GAN's losses are new only after a GAN phase: until the next one they are repeated.
        self._last |= {name: numbers[name] for name in losses}
        self._log(trainer, numbers | self._last)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Log the evaluation, and keep some generated levels."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._log(trainer, {f"evaluation/{name}": float(v) for name, v in outputs.items()})
        self._snapshot(trainer, pl_module)

    def _log(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        env_steps = trainer.datamodule.env_steps  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.log_metrics(metrics, step=env_steps)
            else:
                logger.log_metrics({**metrics, "env_steps": env_steps}, step=env_steps)

    def _snapshot(self, trainer: Trainer, learner: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not learner.gan_updates:
            return
        # The same noise every time, from a stream of its own: what moves is the generator.
        rng = random_stream(data.seed, "snapshot", device=learner.device)
        levels: Tensor = learner.generate_levels(learner.draw_noise(SNAPSHOT_LEVELS, rng))
        p_hat: Tensor = learner.success_probability(levels)
        self.snapshots.append(
            {"env_steps": data.env_steps, "levels": levels.cpu(), "p_hat": p_hat.cpu()}
        )

    def state_dict(self) -> dict[str, Any]:
        """Snapshots and last losses."""
        return {"snapshots": self.snapshots, "last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.snapshots, self._last = list(state_dict["snapshots"]), dict(state_dict["last"])
