"""Keeps all real steps of a run as ``transitions.npz``, from which another run can learn."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.logs.recording import StepRecorder
from lit_crl.envs.images import space_of
from lit_crl.runs.checkpoints.signals import RunStopped
from lit_crl.runs.parts import data_of
from lit_crl.training.datamodule import ReplayDataModule

#: Steps as they come, beside the checkpoints: a resumed run needs them.
RECORDS = "transitions.bin"


class KeepTransitions(Callback):
    """With ``data.keep_transitions``: records each step, and writes the log when training ends."""

    def __init__(self, folder: Path) -> None:
        """Write ``transitions.npz`` into the run ``folder``."""
        self.folder = folder
        self._recorder: StepRecorder | None = None
        #: Records that the loaded checkpoint knows; None: no checkpoint was loaded.
        self._saved: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the rollout tell its steps.

        Raises:
            ConfigError: If several processes would record.
        """
        data = data_of(trainer)
        if stage != "fit" or not data.keep_transitions:
            return
        if trainer.world_size > 1:
            raise ConfigError(
                f"data.keep_transitions is true, but there are {trainer.world_size} processes: "
                "use --trainer.devices 1"
            )
        if self._recorder is None:
            path = self.folder / "checkpoints" / RECORDS
            self._recorder = StepRecorder(path, data.num_envs, space_of(data.env))
        data.rollout.tell_step = self._recorder.add

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, at the place where the loaded checkpoint was.

        Raises:
            ConfigError: If the checkpoint's run did not record, or its records are missing.
        """
        if (recorder := self._recorder) is None:
            return
        data, saved = data_of(trainer), self._saved
        if trainer.ckpt_path is not None:
            if saved is None:
                raise ConfigError(
                    "data.keep_transitions is true, but the checkpoint's run did not keep its "
                    "first steps: set it to false, or start a new run"
                )
            recorder.start(saved, Path(str(trainer.ckpt_path)).parent / RECORDS)
        else:
            recorder.start(recorder.records)
        if not data.env.resumable:
            recorder.cut()  # the episodes that were running have been started anew

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the log."""
        self._write(data_of(trainer))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the log of a run that a signal stopped."""
        if isinstance(exception, RunStopped):
            self._write(data_of(trainer))
        elif self._recorder is not None:
            self._recorder.close()

    def _write(self, data: ReplayDataModule) -> None:
        if (recorder := self._recorder) is not None and recorder.records:
            first = int(getattr(data.env, "first_action", 0))
            actions = int(data.env.single_action_space.n)
            recorder.write_log(self.folder / "transitions.npz", actions, first)
            recorder.close()

    def state_dict(self) -> dict[str, Any]:
        """How many records there are; they are on the disk then."""
        if self._recorder is None:
            return {}
        self._recorder.flush()
        return {"records": self._recorder.records}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember how many there were."""
        self._saved = state_dict.get("records")
