"""Ctrl-C, and the signals of schedulers: what can be saved is saved, and the run ends."""

import os
import shlex
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_crl.runs.checkpoints.callback import RunCheckpoint, ends_epoch

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: What a stop means as long as nothing was learnt or written.
NOTHING_SAVED = "before anything was learnt; the same command starts again"


class RunStopped(BaseException):
    """A signal ended the run.

    Like ``KeyboardInterrupt`` it is no ``Exception``: it may come at any moment, and nothing that
    deals with failures is meant to hold it up.

    Attributes:
        signum: The signal.
        run: The folder of the run that was saved; None if nothing was.
    """

    def __init__(self, signum: int, words: str, run: Path | None = None) -> None:
        """``words`` say what is saved, and how to go on."""
        super().__init__(signum, words, run)
        self.signum, self.words, self.run = signum, words, run

    def __str__(self) -> str:
        """What happened, and how to go on."""
        return f"Stopped by {signal.Signals(self.signum).name} {self.words}"


def resume_command(run: Path) -> str:
    """What to type, in any folder, to go on with a run."""
    folder = run.absolute()
    words = (
        *("python", "-m", "lit_crl", "fit", "--config", str(folder / "config.yaml")),
        *("--trainer.default_root_dir", str(folder.parent.parent)),
        *("--name", run.name, "--ckpt_path", "last"),
    )
    return shlex.join(words)


class Signals:
    """Hears SIGINT and SIGTERM from the beginning of a command to its end.

    A signal ends the command at once, unless it is held back: then it is noted, for whoever holds
    it back to act on soon. A second signal kills.

    Attributes:
        received: The signal that came.
        held: Those that are held back now.
        words: What to say if one came now.
        run: The folder that everything up to now is saved in; None: nothing is.
    """

    def __init__(self) -> None:
        """Hear nothing yet."""
        self.received: int | None = None
        self.held: tuple[int, ...] = ()
        self.words = NOTHING_SAVED
        self.run: Path | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Begin to listen; signals come to the main thread alone."""
        self.listen(*SIGNALS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def listen(self, *signums: int) -> None:
        """Hear these, whoever has taken them over in between."""
        if threading.current_thread() is threading.main_thread():
            for signum in signums:
                before = signal.signal(signum, self._hear)
                self._before.setdefault(signum, before)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.received = signum
        if signum not in self.held:
            raise self.stopped()

    def release(self, *still_held: int) -> None:
        """Hold back no others any more, and act on one that came meanwhile."""
        self.held = still_held
        if self.received is not None and self.received not in still_held:
            raise self.stopped()

    def saved(self, env_steps: int, run: Path) -> None:
        """Everything up to now is saved."""
        self.run = run
        done = f"after {env_steps:,} env steps; all is saved"
        self.words = f"{done}. Go on with: {resume_command(run)}"

    def stopped(self) -> RunStopped:
        """How the run ends; without a signal of its own, another process was told."""
        return RunStopped(self.received or signal.SIGTERM, self.words, self.run)


class StopOnSignal(Callback):
    """Ends training where it can be taken up again, after everything was saved.

    The running batch is finished. A validation is not: a resumed run begins with it. While the
    replay warms up nothing is learnt, so nothing is saved. Several processes stop together, at
    the end of a batch. Under SLURM the requeue signal always waits for the end of a batch, and
    the requeueing itself is left to Lightning.
    """

    def __init__(self, checkpoint: RunCheckpoint, signals: Signals) -> None:
        """``checkpoint`` saves, ``signals`` hears."""
        self.checkpoint, self.signals = checkpoint, signals
        self._requeue: tuple[int, ...] = ()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over from Lightning's handlers, which stop in the middle of an update."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            assert environment.requeue_signal is not None
            self._requeue = (environment.requeue_signal,)
        self.signals.listen(*SIGNALS, *self._requeue)
        self.signals.held = self._requeue if trainer.world_size == 1 else self._all
        if trainer.ckpt_path is not None:
            self._say_saved(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """From the first batch on there is something to save."""
        self.signals.held = self._all

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save and stop, if any process was told to."""
        if not ends_epoch(trainer) and self._told(trainer):
            self.checkpoint.save_within_epoch(trainer)
            self._stop(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any
    ) -> None:
        """An evaluation changes nothing that is saved: it can be broken off."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.world_size == 1:
            self._say_saved(trainer)
            self.signals.release(*self._requeue)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any
    ) -> None:
        """What it found is about to be written down."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.signals.held = self._all

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, if any process was told to; the epoch's checkpoint has just been saved."""
        if self._told(trainer):
            self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What comes now can be broken off, and done again by the resumed run."""
        self._say_saved(trainer)
        self.signals.release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save, if a validation was broken off."""
        self.signals.held = ()
        if isinstance(exception, RunStopped) and trainer.validating and trainer.state.fn == "fit":
            self.checkpoint.save_within_validation(trainer)

    @property
    def _all(self) -> tuple[int, ...]:
        return (*SIGNALS, *self._requeue)

    def _told(self, trainer: Trainer) -> bool:
        told = self.signals.received is not None
        if trainer.world_size > 1:
            told = trainer.strategy.reduce_boolean_decision(told, all=False)
        return told

    def _say_saved(self, trainer: Trainer) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.signals.saved(data.env_steps, self.checkpoint.folder.parent)

    def _stop(self, trainer: Trainer) -> None:
        if self.signals.received in self._requeue:
            signum = self.signals.received
            trainer._signal_connector._slurm_sigusr_handler_fn(signum, None)  # type: ignore[arg-type]
            # Lightning would load its own checkpoint ever after, also into the test of a later fit.
            for path in self.checkpoint.folder.glob("hpc_ckpt_*.ckpt"):
                path.unlink(missing_ok=True)
        self._say_saved(trainer)
        raise self.signals.stopped()
