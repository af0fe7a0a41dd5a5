"""Metrics over env steps: collected from learner and data, logged to every logger."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lit_crl.core import distributed
from lit_crl.core.seeding import random_stream
from lit_crl.core.tensor_files import replace_text, writing
from lit_crl.runs.parts import data_of, learner_of

#: Generated levels kept from each validation, for the figure of levels over training.
SNAPSHOT_LEVELS = 256


class EnvStepAxis:
    """A logger whose axis is env steps, even if Lightning or a callback logs by batches.

    Of a run from a log it is updates of the DQN: its env steps do not change.
    """

    #: Tells the env steps (or updates) taken so far; None before a run begins.
    env_steps_now: Callable[[], int] | None = None
    #: The name of the axis.
    axis: Literal["env_steps", "updates"] = "env_steps"
    #: Whether training goes on: the results of a test are reported elsewhere.
    is_training = True

    def at(self, step: int | None) -> int:
        """The env steps (or updates) to log at; ``step`` counts only before a run begins."""
        return (step or 0) if self.env_steps_now is None else self.env_steps_now()


def is_time_to_log(trainer: Trainer, batches_done: int) -> bool:
    """Whether to log after this batch: every ``log_every_n_steps`` batches; 0: never."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and batches_done % every == 0


class MetricsCsv(EnvStepAxis, Logger):
    """``metrics.csv``: a row each time something is logged, ``env_steps`` first.

    Rows are appended, so that time is linear in them; only a new column replaces the file as a
    whole. A resumed run drops a last line that was cut off, and the rows after its checkpoint.
    """

    name = "csv"
    version = ""

    def __init__(self, folder: Path) -> None:
        """Write into ``folder``."""
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, float | str]] = []
        self._saved = 0
        #: Columns of the file; empty if the next save writes the whole file.
        self._columns: dict[str, None] = {}

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """Do nothing: ``config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        if not self.is_training:
            return
        self.rows.append({self.axis: self.at(step), **metrics})
        if len(self.rows) - self._saved >= 20:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that are not in the file yet.

        Raises:
            RunError: If the file cannot be written, for instance on a full disk.
        """
        new = self.rows[self._saved :]
        if not new:
            return
        columns = self._columns | dict.fromkeys(name for row in new for name in row)
        has_new_column = columns != self._columns
        self._columns = {}  # if this fails, the next time writes the whole file
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
        """Write the remaining rows."""
        self.save()

    def resume(self, env_steps: int) -> None:
        """Keep the file's rows up to ``env_steps``, or as many updates of a run from a log."""
        if self.path.exists():
            text = self.path.read_bytes().decode("utf-8", errors="replace")
            whole_lines = text.split("\r\n")[:-1]
            rows = csv.DictReader(whole_lines)
            self.rows = [
                {name: value for name, value in row.items() if value != ""}
                for row in rows
                if int(float(row.get("updates") or row["env_steps"])) <= env_steps
            ]
            self._columns, self._saved = {}, len(self.rows)


def column(name: str) -> str:
    """The column of a number from a validation; a world's numbers have names of their own.

    >>> column("target_return_mean"), column("world/error_1")
    ('evaluation/target_return_mean', 'world/error_1')
    """
    return name if "/" in name else f"evaluation/{name}"


def _lines(rows: Sequence[Mapping[str, float | str]], columns: Iterable[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, fieldnames=list(columns), restval="").writerows(rows)
    return text.getvalue()


class RecordMetrics(Callback):
    """Logs losses, behaviour and evaluations, with ``env_steps`` as the axis."""

    def __init__(self) -> None:
        """Start without snapshots."""
        self.snapshots: list[dict[str, Any]] = []
        self._last: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the loggers where to look up the env steps."""
        data = data_of(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, EnvStepAxis):
                logger.env_steps_now, logger.is_training = lambda: data.spent, stage == "fit"
                logger.axis = "env_steps" if data.transitions is None else "updates"

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Log the means since the last time, every ``log_every_n_steps`` batches."""
        learner, data = learner_of(trainer), data_of(trainer)
        if is_time_to_log(trainer, data.batches_done):
            with learner.clock("saving"):
                losses = learner.losses.pop_means()
                numbers = distributed.reduce_metrics(losses | data.metrics())
                # The GAN's losses are new after a GAN phase alone, and repeated until the next.
                self._last |= {name: numbers[name] for name in losses}
                self._log(trainer, numbers | self._last)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: object
    ) -> None:
        """Log the evaluation, and keep some generated levels."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not outputs:
            return
        self._log(trainer, {column(name): float(v) for name, v in outputs.items()})
        learner, data = learner_of(trainer), data_of(trainer)
        if not learner.gan_updates:
            return
        # The noise is the same every time, so that only the generator changes the levels.
        rng = random_stream(data.seed, "snapshot", device=learner.device)
        levels = learner.generate_levels(learner.draw_noise(SNAPSHOT_LEVELS, rng))
        p_hat = learner.success_probability(levels)
        self.snapshots.append(
            {"env_steps": data.env_steps, "levels": levels.cpu(), "p_hat": p_hat.cpu()}
        )

    def _log(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        data = data_of(trainer)
        axis = {"env_steps": data.env_steps}
        if data.transitions is not None:
            axis["updates"] = data.spent
        for logger in trainer.loggers:
            logger.log_metrics({**metrics, **axis}, step=data.spent)

    def state_dict(self) -> dict[str, Any]:
        """Snapshots and last losses."""
        return {"snapshots": self.snapshots, "last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore snapshots and last losses."""
        self.snapshots, self._last = list(state_dict["snapshots"]), dict(state_dict["last"])
