"""Metrics over env steps: collected from learner and data, written to every logger."""

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lit_crl import distributed
from lit_crl.gan import joint_loss
from lit_crl.seeding import random_stream

#: Generated levels kept from each validation, for the figure of levels over training.
SNAPSHOT_LEVELS = 256


class MetricsCsv(Logger):
    """``metrics.csv``: one row for each time something was logged, ``env_steps`` first.

    Rows are kept in memory and the file is replaced as a whole, so it is never half written. A
    resumed run first drops the rows that come after its checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        """Write into ``folder``."""
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, float | str]] = []
        self._unsaved = 0

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
        """Add a row at ``step`` env steps."""
        row: dict[str, float | str] = {"env_steps": step or 0, **metrics}
        self.rows.append(row)
        self._unsaved += 1
        if self._unsaved >= 20:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write all rows."""
        if not self._unsaved:
            return
        columns = dict.fromkeys(name for row in self.rows for name in row)
        partial = self.path.with_suffix(".csv.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(columns), restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self.path)
        self._unsaved = 0

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()

    def resume(self, env_steps: int) -> None:
        """Take up the file's rows up to ``env_steps``."""
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [dict(row) for row in csv.DictReader(file)]
            self.rows = [
                {name: value for name, value in row.items() if value != ""}
                for row in rows
                if int(float(row["env_steps"])) <= env_steps
            ]


class RecordMetrics(Callback):
    """Hands losses, behaviour and evaluations to the loggers, with ``env_steps`` as the axis."""

    def __init__(self) -> None:
        """Start with no snapshots."""
        self.snapshots: list[dict[str, Any]] = []
        self._last: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log the means since the last time, every ``log_every_n_steps`` batches."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if data.batches_done % every == 0:
            with pl_module.clock("saving"):  # type: ignore[operator]
                self._log_means(trainer, pl_module)

    def _log_means(self, trainer: Trainer, learner: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        losses = learner.losses.pop_means()
        numbers = distributed.reduce_metrics(losses | data.metrics())
        # The GAN's losses are new only after a GAN phase: the joint loss takes the last ones.
        self._last |= {name: numbers[name] for name in losses}
        self._last["joint/loss"] = joint_loss(
            torch.tensor(self._last["dqn/loss"]),
            torch.tensor(self._last.get("gan/generator_loss", 0.0)),
            learner.lambda_gan,
        ).item()
        self._log(trainer, numbers | self._last)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the evaluation, and keep some generated levels."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        evaluation = {f"evaluation/{k}": float(v) for k, v in trainer.callback_metrics.items()}
        self._log(trainer, evaluation)
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
