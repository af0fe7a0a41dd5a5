"""Ctrl-C, and the signals of schedulers: save first, then stop."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_crl.callbacks.checkpoint import RunCheckpoint, ends_epoch

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunStopped(Exception):
    """A signal ended the run after everything was saved."""

    def __init__(self, signum: int, env_steps: int, run: Path) -> None:
        """``signum`` is the signal that was received, ``run`` the run folder."""
        super().__init__(signum, env_steps, run)
        self.signum, self.env_steps, self.run = signum, env_steps, run
        self.go_on = (
            f"python -m lit_crl fit --config {run / 'config.yaml'} --name {run.name} "
            "--ckpt_path last"
        )

    def __str__(self) -> str:
        """What happened, and how to go on."""
        name = signal.Signals(self.signum).name
        done = f"Stopped by {name} after {self.env_steps:,} env steps; all is saved."
        return f"{done} Go on with: {self.go_on}"


class StopOnSignal(Callback):
    """On SIGINT or SIGTERM the running batch is finished, everything is saved, the run ends.

    Under SLURM the requeue signal is handled the same way, and the requeueing itself is left to
    Lightning. A second signal kills at once.
    """

    def __init__(self, checkpoint: RunCheckpoint) -> None:
        """``checkpoint`` saves."""
        self.checkpoint = checkpoint
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._requeue: signal.Signals | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over from Lightning's handlers, which stop in the middle of an update."""
        if threading.current_thread() is not threading.main_thread():
            return  # signals come to the main thread alone
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._requeue = environment.requeue_signal
        for signum in (*SIGNALS, *([self._requeue] if self._requeue else [])):
            self._before[signum] = signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        signal.signal(signum, signal.SIG_DFL)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save and stop, if any process was told to."""
        if self._told(trainer) and not ends_epoch(trainer):
            self.checkpoint.save_within_epoch(trainer)
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, if any process was told to; the epoch's checkpoint has just been saved."""
        if self._told(trainer):
            self._stop(trainer)

    def _told(self, trainer: Trainer) -> bool:
        told = self.received is not None
        if trainer.world_size > 1:
            told = trainer.strategy.reduce_boolean_decision(told, all=False)
        return told

    def _stop(self, trainer: Trainer) -> None:
        signum = self.received or signal.SIGTERM  # another process was told
        if self._requeue is not None and signum == self._requeue:
            trainer._signal_connector._slurm_sigusr_handler_fn(signum, None)  # type: ignore[arg-type]
            # Lightning would load its own checkpoint ever after, also into the test of a later fit.
            for path in self.checkpoint.folder.glob("hpc_ckpt_*.ckpt"):
                path.unlink(missing_ok=True)
        env_steps: int = trainer.datamodule.env_steps  # type: ignore[attr-defined]
        raise RunStopped(signum, env_steps, self.checkpoint.folder.parent)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back, before Lightning does so."""
        self._give_back()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back, before Lightning does so."""
        self._give_back()

    def _give_back(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()
