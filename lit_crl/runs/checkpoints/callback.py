"""When checkpoints are saved, and how a resumed run loads one."""

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
    read_checkpoint,
    write_atomically,
)
from lit_crl.runs.checkpoints.experience import collected_state, load_collected_state
from lit_crl.runs.parts import data_of, learner_of

#: Lightning's counters of a loop's batches.
BATCH_COUNTS = ("ready", "started", "processed", "completed")


def ends_epoch(trainer: Trainer) -> bool:
    """Whether the epoch ends, with a validation, after the batch just trained on.

    Then nothing is saved before the validation: a resumed run would skip the last validation.
    """
    return trainer.should_stop or trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def whole_state(trainer: Trainer) -> dict[str, Any]:
    """The checkpoint that Lightning makes, with optimizers, loops and callbacks."""
    # With weights_only=True it would hold nothing else; the one of torch.load is another option.
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


class RunCheckpoint(Callback):
    """Saves the learner and its experience, and restores the experience on resume."""

    def __init__(self, folder: Path, every_env_steps: int = 0, every_minutes: float = 10.0) -> None:
        """Keep the last two checkpoints in ``folder``; every validation is followed by one.

        Args:
            folder: The folder of the checkpoints.
            every_env_steps: Also save each time this number of env steps has passed (from a log,
                of updates); 0: do not.
            every_minutes: Also save each time this number of minutes has passed.
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
        """Make all processes write into the folder that the first one has chosen.

        Raises:
            ConfigError: If a process found another checkpoint than the first one did.
        """
        folder, given = trainer.strategy.broadcast((str(self.folder), str(trainer.ckpt_path)))
        self.folder = Path(folder)
        if str(trainer.ckpt_path) != given:
            raise ConfigError(
                f"process {trainer.global_rank} found the checkpoint {trainer.ckpt_path}, but the "
                f"first process found {given}: keep the run folder where all nodes see it"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the minutes until the next checkpoint from here."""
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save if it is time. After an epoch's last batch, the validation comes first."""
        if ends_epoch(trainer):
            return
        steps = data_of(trainer).spent - self._saved_env_steps
        is_late = time.monotonic() - self._saved_at > 60 * self.every_minutes
        if trainer.world_size > 1:  # clocks differ, and all processes must save together
            is_late = trainer.strategy.reduce_boolean_decision(is_late, all=False)
        if is_late or 0 < self.every_env_steps <= steps:
            self.save_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save: an epoch lasts from one validation to the next."""
        if data_of(trainer).spent == self._saved_env_steps and not self._validated:
            return  # a finished run was resumed: the epoch was empty
        self._validated = False
        self._save(trainer, whole_state(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that the checkpoint on disk is from before the validation."""
        self._validated = trainer.state.fn == "fit" and not trainer.sanity_checking

    def save_within_validation(self, trainer: Trainer) -> None:
        """Save in an interrupted validation; a resumed run begins with this validation."""
        checkpoint = whole_state(trainer)
        loop = checkpoint["loops"]["fit_loop"]
        # These numbers tell Lightning that the epoch's batches are done (also if the budget was
        # spent sooner), and that the validation's only batch was started and not completed.
        whole = trainer.num_training_batches
        loop["epoch_loop.batch_progress"]["current"] |= dict.fromkeys(BATCH_COUNTS, whole)
        for progress in ("total", "current"):
            counts = dict(zip(BATCH_COUNTS, (1, 1, 0, 0), strict=True))
            loop["epoch_loop.val_loop.batch_progress"][progress] |= counts
        self._save(trainer, checkpoint)

    def save_within_epoch(self, trainer: Trainer) -> None:
        """Save in ``on_train_batch_end``, where Lightning has not yet counted the batch."""
        checkpoint = whole_state(trainer)
        loop = checkpoint["loops"]["fit_loop"]
        for progress in ("total", "current"):
            loop["epoch_loop.batch_progress"][progress]["completed"] += 1
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
        self._save(trainer, checkpoint)

    def _save(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        with learner_of(trainer).clock("saving"):
            self._write(trainer, checkpoint)

    def _write(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        data, learner = data_of(trainer), learner_of(trainer)
        self.folder.mkdir(parents=True, exist_ok=True)
        for logger in trainer.loggers:
            logger.save()
        saved = checkpoint["lit_crl"]
        saved["token"] = trainer.strategy.broadcast(secrets.token_hex(4))
        self._tokens = [*self._tokens, saved["token"]][-len(NAMES) :]
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
        self._saved_at, self._saved_env_steps = time.monotonic(), data.spent

    def _remove_stale(self, trainer: Trainer) -> None:
        """Remove this process's companions without a checkpoint, also half-written ones."""
        for path in self.folder.glob(f"collected-[0-9]*-rank{trainer.global_rank}.pt*"):
            is_kept = any(f"-{token}-" in path.name for token in self._tokens)
            if not is_kept or path.suffix == ".partial":
                path.unlink()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Name the checkpoint's companions, also when Lightning's SLURM plugin saves."""
        checkpoint["lit_crl"] = {
            "format": FORMAT,
            # Of a run from a log: its updates.
            "env_steps": data_of(trainer).spent,
            "world_size": trainer.world_size,
            "token": self._tokens[-1] if self._tokens else "",
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore this process's experience.

        Raises:
            ConfigError: If the checkpoint was saved by another number of processes, or if the
                companion file is missing or does not fit.
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
                "collected its experience; continue with that version, or start a new run"
            )
        if (processes := saved["world_size"]) != trainer.world_size:
            raise ConfigError(
                f"{source} was saved by {processes} processes, but this run has "
                f"{trainer.world_size}, and experience stays with the process that collected it: "
                f"resume with --trainer.devices {max(1, processes // trainer.num_nodes)}"
            )
        path = source.parent / companion_name(saved, trainer.global_rank)
        if not path.is_file():
            raise ConfigError(
                f"{source} can be tested but not resumed: its companion {path.name} is "
                "missing; copy it back beside the checkpoint, or give one that RunCheckpoint wrote"
            )
        load_collected_state(data_of(trainer), learner_of(trainer), read_checkpoint(path))
        self._saved_env_steps = saved["env_steps"]
        if source.parent == self.folder:
            self._tokens, self._last_is_whole = [saved["token"]], source.name == NAMES[0]

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Name the last good checkpoint in the message about a run that failed."""
        if isinstance(exception, RunError):
            last = self.folder / NAMES[0]
            unit = data_of(trainer).schedule.unit
            at = f"{self._saved_env_steps:,} {unit}: {last}"
            exception.add_note(
                f"the last good checkpoint is from {at}" if last.is_file() else "nothing was saved"
            )
