"""Ctrl-C, and the signals of schedulers: what can be saved is saved, and the run ends."""

import os
import shlex
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Self

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_crl.runs.checkpoints.callback import RunCheckpoint, ends_epoch
from lit_crl.runs.parts import data_of

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: What a stop means until something is learnt or written.
NOTHING_SAVED = "before anything was learnt; the same command starts again"


class RunStopped(BaseException):
    """A signal ended the run.

    Like ``KeyboardInterrupt`` it is no ``Exception``: it may come at any moment, and code that
    handles failures must let it through.

    Attributes:
        signum: The signal.
        run: The folder of the run that was saved; None if nothing was saved.
    """

    def __init__(self, signum: int, message: str, run: Path | None = None) -> None:
        """``message`` says what is saved, and how to continue."""
        super().__init__(f"Stopped by {signal.Signals(signum).name} {message}")
        self.signum, self.run = signum, run


def resume_command(run: Path) -> str:
    """The command that continues a run, from any folder."""
    folder = run.absolute()
    words = (
        *("python", "-m", "lit_crl", "fit", "--config", str(folder / "config.yaml")),
        *("--trainer.default_root_dir", str(folder.parent.parent)),
        *("--name", run.name, "--ckpt_path", "last"),
    )
    return shlex.join(words)


class Signals:
    """Handles SIGINT and SIGTERM from the beginning of a command to its end.

    A signal ends the command at once, unless it is held: then it is only noted, and the code that
    holds it must act on it soon. A second signal kills.

    Attributes:
        received: The signal that came.
        held: The signals that are held now.
        message: What to tell the user if a signal came now.
        run: The folder that everything up to now is saved in; None if nothing is saved.
    """

    def __init__(self) -> None:
        """Handle nothing yet."""
        self.received: int | None = None
        self.held: tuple[int, ...] = ()
        self.message = NOTHING_SAVED
        self.run: Path | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Begin to handle signals."""
        self.handle(*SIGNALS)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers from before."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def handle(self, *signums: int) -> None:
        """Handle these signals, also if another library has installed handlers since."""
        # Python delivers signals to the main thread, and lets only that one install handlers.
        if threading.current_thread() is threading.main_thread():
            for signum in signums:
                before = signal.signal(signum, self._receive)
                self._before.setdefault(signum, before)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.received = signum
        if signum not in self.held:
            raise self.stopped()

    def release(self, *still_held: int) -> None:
        """Hold only ``still_held`` from now on, and act on any other signal that came meanwhile."""
        self.held = still_held
        if self.received is not None and self.received not in still_held:
            raise self.stopped()

    def note_saved(self, spent: str, run: Path) -> None:
        """Everything up to now, ``spent`` in words, is saved in ``run``."""
        self.run = run
        self.message = f"after {spent}; all is saved. Go on with: {resume_command(run)}"

    def stopped(self) -> RunStopped:
        """The exception that ends the run; SIGTERM if only another process received a signal."""
        return RunStopped(self.received or signal.SIGTERM, self.message, self.run)


class StopOnSignal(Callback):
    """Saves everything and ends training, at a point where a resumed run can continue.

    The running batch is finished. A validation is not finished: a resumed run begins with it. While
    the replay warms up nothing is learnt, so nothing is saved. Several processes stop together, at
    the end of a batch. Under SLURM the requeue signal always waits for the end of a batch, and
    Lightning requeues the job.
    """

    def __init__(self, checkpoint: RunCheckpoint, signals: Signals) -> None:
        """``checkpoint`` saves; ``signals`` receives the signals."""
        self.checkpoint, self.signals = checkpoint, signals
        self._requeue: tuple[int, ...] = ()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's handlers, which stop in the middle of an update."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            assert environment.requeue_signal is not None
            self._requeue = (environment.requeue_signal,)
        self.signals.handle(*SIGNALS, *self._requeue)
        self.signals.held = self._requeue if trainer.world_size == 1 else self._all
        if trainer.ckpt_path is not None:
            self._note_saved(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Hold all signals: from the first batch on there is something to save."""
        self.signals.held = self._all

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save and stop, if any process received a signal."""
        if not ends_epoch(trainer) and self._any_received(trainer):
            self.checkpoint.save_within_epoch(trainer)
            self._stop(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any
    ) -> None:
        """Release signals: an evaluation changes nothing that is saved."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.world_size == 1:
            self._note_saved(trainer)
            self.signals.release(*self._requeue)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any
    ) -> None:
        """Hold all signals: the results are about to be written."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.signals.held = self._all

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, if any process received a signal; the epoch's checkpoint has just been saved."""
        if self._any_received(trainer):
            self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release signals: a resumed run can repeat everything that follows."""
        self._note_saved(trainer)
        self.signals.release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save, if a signal interrupted a validation."""
        self.signals.held = ()
        if isinstance(exception, RunStopped) and trainer.validating and trainer.state.fn == "fit":
            self.checkpoint.save_within_validation(trainer)

    @property
    def _all(self) -> tuple[int, ...]:
        return (*SIGNALS, *self._requeue)

    def _any_received(self, trainer: Trainer) -> bool:
        received = self.signals.received is not None
        if trainer.world_size > 1:
            received = trainer.strategy.reduce_boolean_decision(received, all=False)
        return received

    def _note_saved(self, trainer: Trainer) -> None:
        data = data_of(trainer)
        spent = f"{data.spent:,} {data.schedule.unit}"
        self.signals.note_saved(spent, self.checkpoint.folder.parent)

    def _stop(self, trainer: Trainer) -> None:
        if (received := self.signals.received) is not None and received in self._requeue:
            trainer._signal_connector._slurm_sigusr_handler_fn(received, None)  # type: ignore[arg-type]
            # Lightning would load its own checkpoint ever after, also into the test of a later fit.
            for path in self.checkpoint.folder.glob("hpc_ckpt_*.ckpt"):
                path.unlink(missing_ok=True)
        self._note_saved(trainer)
        raise self.signals.stopped()
