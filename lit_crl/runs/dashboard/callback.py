"""The callback that feeds a dashboard; training does not change."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import print_once
from lit_crl.runs.callbacks.metrics import is_time_to_log
from lit_crl.runs.callbacks.report import FILM, RunReport, git_commit, versions
from lit_crl.runs.dashboard.tensorboard_logger import TensorBoardDisplay
from lit_crl.runs.dashboard.wandb_logger import WandbDisplay, wandb_display
from lit_crl.runs.parts import data_of, learner_of
from lit_crl.training.datamodule import ReplayDataModule

Display = WandbDisplay | TensorBoardDisplay

#: The part of a dashboard that needs environments with pictures.
PICTURES = "levels and episodes"
#: The most validations of a run whose levels and episodes are shown.
MOMENTS = 20


def display(
    kind: Literal["wandb", "tensorboard"], folder: Path, group: str, tags: list[str]
) -> Display:
    """The logger of a run that is shown in a dashboard.

    Args:
        kind: Which dashboard.
        folder: The run folder; its name becomes the name of the run.
        group: Group of the run in W&B.
        tags: Tags of the run in W&B.

    Raises:
        ConfigError: If it cannot be used here.
    """
    if kind == "wandb":
        return wandb_display(folder, group, tags)
    return TensorBoardDisplay(folder)


class Dashboard(Callback):
    """Gives a display what ``metrics.csv`` lacks: speed, RAM, levels and episodes."""

    def __init__(self, display: Display, report: RunReport) -> None:
        """``report`` knows the configuration and where the time goes."""
        self.display, self.report = display, report
        self._mark: tuple[float, int] | None = None
        self._failed: set[str] = set()

    @contextmanager
    def _attempt(self, what: str) -> Iterator[None]:
        """Leave out what cannot be shown, with a sentence the first time.

        Environments draw with their users' code, and pictures go to disks and networks: if one of
        them fails, the run goes on.
        """
        try:
            yield
        except Exception as error:  # RunStopped is no Exception, and passes
            if what not in self._failed:
                kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
                print_once(f"The dashboard shows no {what}: {kind}{' '.join(str(error).split())}.")
            self._failed.add(what)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the run, now that nothing can be wrong with its configuration."""
        if trainer.is_global_zero:
            about = {
                "run": f"{self.report.experiment}/{self.report.folder.name}",
                "arm": data_of(trainer).arm,
                "git_commit": git_commit(),
                "versions": versions(),
            }
            with self._attempt("configuration"):
                self.display.begin(yaml.safe_load(self.report.config) | about)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Log speed, RAM and the replay's fill, every ``log_every_n_steps`` batches."""
        data = data_of(trainer)
        if trainer.is_global_zero and is_time_to_log(trainer, data.batches_done):
            with learner_of(trainer).clock("saving"), self._attempt("speed and RAM"):
                self.display.log_metrics(self._system(data), step=data.spent)

    def _system(self, data: ReplayDataModule) -> dict[str, float]:
        parts = self.report.seconds_by_part()
        numbers = {f"system/seconds_{part}": seconds for part, seconds in parts.items()}
        numbers["system/seconds"] = self.report.seconds_of_training()
        replay = data.replay
        numbers["system/replay_fill"] = replay.num_startable / len(replay.boundary)
        numbers |= {f"system/{name}_gib": size / 2**30 for name, size in peak_ram().items()}
        now = (time.monotonic(), data.spent)
        if self._mark is not None:
            seconds, env_steps = (new - old for new, old in zip(now, self._mark, strict=True))
            numbers["system/env_steps_per_second"] = env_steps / seconds
        self._mark = now
        return numbers

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show levels and episodes, of at most ``MOMENTS`` validations."""
        from lit_crl.runs.dashboard.overview import overview  # slow to import

        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        learner, data = learner_of(trainer), data_of(trainer)
        if self._is_shown(data):
            with learner.clock("saving"), self._attempt(PICTURES):
                self.display.show(overview(learner, data), data.spent)
        self._mark = None  # the time this took says nothing about the speed of training

    def _is_shown(self, data: ReplayDataModule) -> bool:
        schedule = data.schedule
        each = schedule.batches_per_epoch
        validations = -(-schedule.budget // (each * schedule.steps_of_a_batch))
        due = data.batches_done // each % -(-validations // MOMENTS) == 0
        return PICTURES not in self._failed and (due or schedule.is_spent(data.spent))

    def conclude(self, folder: Path) -> None:
        """Hand over the report's summary, and the run's figures and its film of a dream."""
        found = {path.stem: path for path in sorted((folder / "figures").glob("*.png"))}
        if (film := folder / FILM).is_file():
            found[film.stem] = film
        if self.report.summary:
            with self._attempt("summary"):
                self.display.conclude(self.report.summary, found)


def peak_ram() -> dict[str, int]:
    """The most RAM that this process has held, and of a GPU, in bytes, where the system tells."""
    found = {}
    if sys.platform != "win32":
        import resource

        # macOS counts bytes, everybody else kibibytes.
        unit = 1 if sys.platform == "darwin" else 1024
        found["ram"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available():
        found["gpu_ram"] = torch.cuda.max_memory_allocated()
    return found
