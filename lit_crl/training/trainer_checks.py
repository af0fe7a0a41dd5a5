"""Settings of a Trainer that cannot be kept here, each refused in one sentence."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.strategies import SingleDeviceStrategy

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.training.ddp import PhaseDDP

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
#: Callbacks that would break their promise here: what they do, and what to use instead.
UNFIT: dict[tuple[type[Callback], ...], str] = {
    (StochasticWeightAveraging, WeightAveraging): "averages all networks alike: set "
    "model.dqn.target_rate for the Q-network's average, and model.gan.ema_rate for the generator's",
    (GradientAccumulationScheduler,): "adds up gradients, but each minibatch is an update: set a "
    "larger data.replay.batch_size instead",
    (LearningRateFinder, BatchSizeFinder): "tries settings out on batches that training would then "
    "lack: compare whole runs instead",
    (BaseFinetuning, ModelPruning): "changes which weights are trained, but each phase trains all "
    "weights of its networks: leave it out",
}


def check(trainer: Trainer) -> None:
    """A learner can be fitted by this Trainer, which then does what its settings promise.

    Raises:
        ConfigError: If not; names the setting, and what to do.
    """
    for sentence in problems(trainer):
        raise ConfigError(sentence)


def problems(trainer: Trainer) -> Iterator[str]:
    """One sentence for each setting that cannot be kept."""
    if not isinstance(trainer.strategy, SingleDeviceStrategy | PhaseDDP):
        yield (
            f"trainer.strategy is {type(trainer.strategy).__name__}, which cannot average the "
            "gradients of phases that alternate: use --config conf/trainer/ddp.yaml, or from "
            "Python Trainer(strategy=lit_crl.training.PhaseDDP())"
        )
    if trainer.precision not in PRECISIONS:
        yield (
            f"trainer.precision is {trainer.precision}, but weights, targets and the GAN's losses "
            f"need float32: use one of {', '.join(PRECISIONS)}"
        )
    if trainer.gradient_clip_val:
        yield (
            f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, but each phase clips its "
            "own gradients: set model.dqn.max_grad_norm instead"
        )
    if trainer.accumulate_grad_batches != 1:
        yield (
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}, but each "
            "minibatch is an update: set a larger data.replay.batch_size instead"
        )
    if trainer.overfit_batches:  # type: ignore[attr-defined]
        yield (
            f"trainer.overfit_batches is {trainer.overfit_batches}, but no two batches are alike "  # type: ignore[attr-defined]
            "while the environments go on: use trainer.limit_train_batches for short epochs"
        )
    yield from _limits(trainer)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kinds, does in UNFIT.items():
            if isinstance(callback, kinds):
                yield f"trainer.callbacks has {type(callback).__name__}, which {does}"


def check_interval(trainer: Trainer, batches: int) -> None:
    """Validations within an epoch are no further apart than the epoch is long.

    Args:
        trainer: Its settings say how often to validate.
        batches: Length of an epoch.

    Raises:
        ConfigError: If they are.
    """
    every, limit = trainer.val_check_interval, trainer.limit_train_batches
    length = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    is_within_epoch = isinstance(every, int) and trainer.check_val_every_n_epoch is not None
    if is_within_epoch and every > length:
        raise ConfigError(
            f"trainer.val_check_interval is {every}, but an epoch has {length} batches: give at "
            "most that many, or a larger data.evaluation.every instead"
        )


def check_minimum(trainer: Trainer) -> None:
    """A run whose budget is spent, and which gets no more batches, has done what was asked.

    Raises:
        RunError: If the Trainer would wait for more batches for ever.
    """
    loop: Any = trainer.fit_loop
    done = {
        "min_epochs": (loop.min_epochs or 0, loop.epoch_progress.current.processed + 1),
        "min_steps": (loop.min_steps or 0, trainer.global_step),
    }
    for key, (least, found) in done.items():
        if found < least:
            raise RunError(
                f"trainer.{key} is {least}, but the budget is spent after {found}: raise "
                f"data.collect.env_steps, or lower trainer.{key}"
            )


def _limits(trainer: Trainer) -> Iterator[str]:
    """Limits under which nothing would be trained, or half an evaluation played."""
    nothing = "so nothing would be trained: give a number above 0"
    if trainer.max_epochs == 0:
        yield f"trainer.max_epochs is 0, {nothing}"
    if trainer.max_steps == 0:
        yield f"trainer.max_steps is 0, {nothing}"
    if trainer.limit_train_batches == 0:
        yield f"trainer.limit_train_batches is 0, {nothing}"
    timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
    if any(timer._duration is not None and timer._duration <= 0 for timer in timers):
        yield f"trainer.max_time is 0, {nothing}"
    for stage in ("val", "test"):
        limit = getattr(trainer, f"limit_{stage}_batches")
        if isinstance(limit, float) and 0 < limit < 1:
            yield (
                f"trainer.limit_{stage}_batches is {limit}, but an evaluation is one batch: give "
                "1, or 0 for none"
            )
