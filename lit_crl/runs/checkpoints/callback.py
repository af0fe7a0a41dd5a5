"""When checkpoints are saved, and how a resumed run takes one up."""

import secrets
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError, RunError
from lit_crl.core.tensor_files import (
    FORMAT,
    NAMES,
    companion_name,
    companion_rank,
    read_checkpoint,
    write_atomically,
)
from lit_crl.runs.checkpoints.experience import collected_state, load_collected_state
from lit_crl.runs.checkpoints.resharding import load_resharded

#: What Lightning counts of the batches of a loop.
BATCH_COUNTS = ("ready", "started", "processed", "completed")


def ends_epoch(trainer: Trainer) -> bool:
    """Whether the epoch ends, with a validation, after the batch just trained on.

    A checkpoint from before the validation of a run's last epoch could not make up for it.
    """
    return trainer.should_stop or trainer.fit_loop.epoch_loop._num_ready_batches_reached()


class RunCheckpoint(Callback):
    """Saves learner and experience; restores the latter when a run is resumed."""

    def __init__(self, folder: Path, every_env_steps: int = 0, every_minutes: float = 10.0) -> None:
        """Keep the last two checkpoints in ``folder``; one is made after every validation.

        Args:
            folder: Where they are.
            every_env_steps: Also save whenever so many env steps have passed; 0: do not.
            every_minutes: Also save whenever so many minutes have passed.
        """
        checks.non_negative(checkpoint__every_env_steps=every_env_steps)
        checks.positive(checkpoint__every_minutes=every_minutes)
        self.folder = folder
        self.every_env_steps = every_env_steps
        self.every_minutes = every_minutes
        self._saved_at = time.monotonic()
        self._saved_env_steps = 0
        #: Tokens of the checkpoints on disk whose companions are kept, oldest first.
        self._tokens: list[str] = []
        self._last_is_whole = True
        self._validated = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """All processes write into the folder that the first one has chosen.

        Raises:
            ConfigError: If not all of them found the checkpoint that the first one did.
        """
        folder, given = trainer.strategy.broadcast((str(self.folder), str(trainer.ckpt_path)))
        self.folder = Path(folder)
        if str(trainer.ckpt_path) != given:
            raise ConfigError(
                f"process {trainer.global_rank} found the checkpoint {trainer.ckpt_path}, the "
                f"first process {given}: keep the run folder where all nodes see it"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here."""
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save if it is time. After an epoch's last batch, the validation comes first."""
        if ends_epoch(trainer):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        steps = data.env_steps - self._saved_env_steps
        is_late = time.monotonic() - self._saved_at > 60 * self.every_minutes
        if trainer.world_size > 1:  # the processes' clocks differ
            is_late = trainer.strategy.reduce_boolean_decision(is_late, all=False)
        if is_late or 0 < self.every_env_steps <= steps:
            self.save_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save: an epoch is the stretch from one validation to the next."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if data.env_steps == self._saved_env_steps and not self._validated:
            return  # a finished run was resumed: the epoch was empty
        self._validated = False
        # False here says what to dump, all of it; whatever loads it loads tensors and no code.
        self._save(trainer, trainer._checkpoint_connector.dump_checkpoint(weights_only=False))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that the checkpoint on disk is from before the validation."""
        self._validated = trainer.state.fn == "fit" and not trainer.sanity_checking

    def save_within_validation(self, trainer: Trainer) -> None:
        """Save in the middle of a validation that is broken off; a resumed run begins with it."""
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        loop = checkpoint["loops"]["fit_loop"]
        # By these numbers Lightning knows that the epoch's batches are done (also if the budget
        # was spent sooner), and that the validation's only one was begun and not finished.
        whole = trainer.num_training_batches
        loop["epoch_loop.batch_progress"]["current"] |= dict.fromkeys(BATCH_COUNTS, whole)
        for progress in ("total", "current"):
            counts = dict(zip(BATCH_COUNTS, (1, 1, 0, 0), strict=True))
            loop["epoch_loop.val_loop.batch_progress"][progress] |= counts
        self._save(trainer, checkpoint)

    def save_within_epoch(self, trainer: Trainer) -> None:
        """Save in ``on_train_batch_end``, where Lightning has not yet counted the batch."""
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        loop = checkpoint["loops"]["fit_loop"]
        for progress in ("total", "current"):
            loop["epoch_loop.batch_progress"][progress]["completed"] += 1
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
        self._save(trainer, checkpoint)

    def _save(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        with trainer.lightning_module.clock("saving"):  # type: ignore[operator]
            self._write(trainer, checkpoint)

    def _write(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.folder.mkdir(parents=True, exist_ok=True)
        for logger in trainer.loggers:
            logger.save()
        saved = checkpoint["lit_crl"]
        saved["token"] = trainer.strategy.broadcast(secrets.token_hex(4))
        self._tokens = [*self._tokens, saved["token"]][-len(NAMES) :]
        learner: Any = trainer.lightning_module
        collected = {"lit_crl": {"format": FORMAT}, **collected_state(data, learner)}
        name = companion_name(saved, trainer.global_rank)
        write_atomically(collected, self.folder / name)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            last, previous = (self.folder / name for name in NAMES)
            write_atomically(checkpoint, last, keep_as=previous if self._last_is_whole else None)
        trainer.strategy.barrier()
        self._remove_stale(trainer)
        self._last_is_whole = True
        self._saved_at, self._saved_env_steps = time.monotonic(), data.env_steps

    def _remove_stale(self, trainer: Trainer) -> None:
        """Remove companions that belong to no checkpoint, also halves left behind by a kill.

        Every process removes its own, and those of processes that there are no more.
        """
        for path in self.folder.glob("collected-*"):
            rank = companion_rank(path.name)
            is_kept = any(f"-{token}-" in path.name for token in self._tokens)
            is_mine = rank is not None and rank % trainer.world_size == trainer.global_rank
            if is_mine and (not is_kept or path.suffix == ".partial"):
                path.unlink()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say which companions belong to it, also when Lightning's SLURM plugin saves."""
        checkpoint["lit_crl"] = {
            "format": FORMAT,
            "env_steps": trainer.datamodule.env_steps,  # type: ignore[attr-defined]
            "world_size": trainer.world_size,
            "token": self._tokens[-1] if self._tokens else "",
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Bring back what was collected.

        Raises:
            ConfigError: If there is no companion file, or it does not fit.
        """
        if trainer.state.fn != "fit":
            return
        source = Path(str(trainer.ckpt_path))
        if "lit_crl" not in checkpoint:
            raise ConfigError(
                f"{source} can be tested but not resumed: it was saved by a Trainer without "
                "lit_crl.runs.callbacks.RunCheckpoint; give one that RunCheckpoint wrote"
            )
        saved = checkpoint["lit_crl"]
        if saved["format"] != FORMAT:
            raise ConfigError(
                f"{source} can be tested but not resumed: an earlier version of lit_crl has "
                "collected its experience; go on with that version, or start a new run"
            )
        path = source.parent / companion_name(saved, trainer.global_rank)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if saved["world_size"] != trainer.world_size:
            load_resharded(data, source, checkpoint)
            pl_module.streams.begin_anew(saved["env_steps"])  # type: ignore[operator, union-attr]
        elif not path.is_file():
            raise ConfigError(
                f"{source} can be tested but not resumed: its companion {path.name} is "
                "missing; copy it back beside the checkpoint, or give one that RunCheckpoint wrote"
            )
        else:
            learner: Any = pl_module
            load_collected_state(data, learner, read_checkpoint(path))
        self._saved_env_steps = saved["env_steps"]
        if source.parent == self.folder:
            self._tokens, self._last_is_whole = [saved["token"]], source.name == NAMES[0]

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Tell whoever reads about a failed run what there is to go on from."""
        if isinstance(exception, RunError):
            last = self.folder / NAMES[0]
            at = f"{self._saved_env_steps:,} env steps: {last}"
            exception.add_note(
                f"the last good checkpoint is from {at}" if last.is_file() else "nothing was saved"
            )
