"""How a run ends before its budget of env steps is spent."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from lit_crl.runs.parts import data_of


def early_end(trainer: Trainer) -> str | None:
    """A sentence about a run that ended early; None if the budget was spent."""
    data = data_of(trainer)
    if data.schedule.is_spent(data.spent):
        return None
    return (
        f"Training ended after {data.spent:,} of {data.schedule.budget:,} {data.schedule.unit}: "
        f"{_reason(trainer)}."
    )


def is_regular_validation(trainer: Trainer) -> bool:
    """Whether the validation that starts now would come in a run that nothing stops, too.

    A run that is stopped early validates once more. That does not count: a resumed run must end
    like one that was not stopped.
    """
    if trainer.sanity_checking:
        return False
    return not trainer.should_stop or data_of(trainer).schedule.is_spent(data_of(trainer).spent)


def _reason(trainer: Trainer) -> str:
    """The limit that was reached, or the callback that stopped the Trainer."""
    max_epochs, max_steps = trainer.max_epochs, trainer.max_steps
    if max_steps != -1 and trainer.global_step >= max_steps:
        return f"trainer.max_steps {max_steps} was reached (optimizer steps)"
    if max_epochs is not None and max_epochs != -1 and trainer.current_epoch >= max_epochs:
        return f"trainer.max_epochs {max_epochs} was reached"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 1.0) <= 0:
            return "trainer.max_time was reached"
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            message = callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")
            return f"EarlyStopping: {message.rstrip('.')}"
    return "a callback told the Trainer to stop"
