"""What a dashboard is told, and when; training does not notice."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import print_once
from lit_crl.runs.callbacks.metrics import is_time_to_log
from lit_crl.runs.callbacks.report import RunReport, git_commit, versions
from lit_crl.runs.dashboard.sheet import draw_sheet
from lit_crl.runs.dashboard.tensorboard_logger import TensorBoardDisplay
from lit_crl.runs.dashboard.wandb_logger import WandbDisplay, wandb_display

Display = WandbDisplay | TensorBoardDisplay

#: What environments that cannot be drawn have none of.
PICTURES = "levels and episodes"
#: Validations of a run that levels and episodes are shown of, at most.
MOMENTS = 20


def display(
    kind: Literal["wandb", "tensorboard"],
    folder: Path,
    group: str,
    tags: list[str],
) -> Display:
    """The logger of a run that is shown in a dashboard.

    Args:
        kind: Which dashboard.
        folder: The run folder, whose name is the run's.
        group: What W&B calls the group: runs that belong together.
        tags: Words to find the run by, in W&B.

    Raises:
        ConfigError: If it cannot be used here.
    """
    if kind == "wandb":
        return wandb_display(folder, group, tags)
    return TensorBoardDisplay(folder)


class Dashboard(Callback):
    """Tells a display what ``metrics.csv`` does not have: speed and memory, levels, episodes."""

    def __init__(self, display: Display, report: RunReport) -> None:
        """``report`` knows the configuration, and where the time goes."""
        self.display, self.report = display, report
        self._mark: tuple[float, int] | None = None
        self._failed: set[str] = set()

    @contextmanager
    def _attempt(self, what: str) -> Iterator[None]:
        """What cannot be shown is left out, with a sentence the first time.

        Environments draw with code of their users', and what is drawn goes to disks and networks:
        none of this is a reason to end a run.
        """
        try:
            yield
        except Exception as error:  # of any kind; a signal's RunStopped is none
            if what not in self._failed:
                kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
                print_once(f"The dashboard shows no {what}: {kind}{' '.join(str(error).split())}.")
            self._failed.add(what)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the run, now that nothing can be wrong with its configuration."""
        if trainer.is_global_zero:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            about: dict[str, Any] = {
                "run": f"{self.report.experiment}/{self.report.folder.name}",
                "arm": data.arm,
            }
            about |= {"git_commit": git_commit(), "versions": versions()}
            with self._attempt("configuration"):
                self.display.begin(yaml.safe_load(self.report.config) | about)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log how fast and how full everything is, every ``log_every_n_steps`` batches."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and is_time_to_log(trainer, data.batches_done):
            with pl_module.clock("saving"), self._attempt("speed and memory"):  # type: ignore[operator]
                self.display.log_metrics(self._system(data), step=data.env_steps)

    def _system(self, data: Any) -> dict[str, float]:
        parts = self.report.seconds_by_part()
        numbers = {f"system/seconds_{part}": seconds for part, seconds in parts.items()}
        numbers["system/seconds"] = self.report.seconds_of_training()
        replay = data.replay
        numbers["system/replay_fill"] = replay.num_startable / len(replay.boundary)
        numbers |= {f"system/{name}_gib": size / 2**30 for name, size in peak_memory().items()}
        now = (time.monotonic(), data.env_steps)
        if self._mark is not None:
            seconds, env_steps = (new - old for new, old in zip(now, self._mark, strict=True))
            numbers["system/env_steps_per_second"] = env_steps / seconds
        self._mark = now
        return numbers

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show levels and episodes, of at most ``MOMENTS`` validations."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        if self._is_shown(data):
            with pl_module.clock("saving"), self._attempt(PICTURES):  # type: ignore[operator]
                self.display.show(draw_sheet(pl_module, data), data.env_steps)
        self._mark = None  # the time that this took says nothing about training

    def _is_shown(self, data: Any) -> bool:
        schedule = data.schedule
        each = schedule.batches_per_epoch
        validations = -(-schedule.budget // (each * schedule.steps_of_a_batch))
        due = data.batches_done // each % -(-validations // MOMENTS) == 0
        return PICTURES not in self._failed and (due or schedule.is_spent(data.env_steps))

    def conclude(self, figures: Path) -> None:
        """Hand over the report's summary and the pictures in the folder ``figures``."""
        found = {path.stem: path for path in sorted(figures.glob("*.png"))}
        if self.report.summary:
            with self._attempt("summary"):
                self.display.conclude(self.report.summary, found)


def peak_memory() -> dict[str, int]:
    """The most memory that this process has held, in bytes; where the system tells."""
    found = {}
    if sys.platform != "win32":
        import resource

        # macOS counts bytes, everybody else kibibytes.
        unit = 1 if sys.platform == "darwin" else 1024
        found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available():
        found["gpu_memory"] = torch.cuda.max_memory_allocated()
    return found
