"""What a Trainer does between a gradient and its step, which no graph of an update can do."""

from typing import NamedTuple

from lightning.pytorch import LightningModule

from lit_crl.core.checks import ConfigError
from lit_crl.training.eager import BACKWARD_HOOKS, STEP_HOOKS, listeners


class Obstacle(NamedTuple):
    """Why updates cannot be graphs, and what would have to change."""

    reason: str
    remedy: str


def obstacle(learner: LightningModule) -> Obstacle | None:
    """What keeps updates from being graphs: hooks, processes, a loss scaler, or sequences."""
    if hooks := listeners(learner, BACKWARD_HOOKS + STEP_HOOKS):
        return Obstacle(
            f"a compiled update cannot call {', '.join(hooks)}", "leave out the callback"
        )
    if learner.trainer.world_size > 1:
        reason = "several processes average their gradients before each step"
        return Obstacle(reason, "use --trainer.devices 1")
    if getattr(learner.trainer.precision_plugin, "scaler", None) is not None:
        reason = "16-mixed skips steps that overflow"
        return Obstacle(reason, "use --trainer.precision bf16-mixed or 32-true")
    if getattr(learner, "memory_size", 0):
        reason = "minibatches of sequences (model.network.memory) differ in how many steps count"
        return Obstacle(reason, "set model.network.memory to 0")
    return None


def check_can_compile(learner: LightningModule) -> None:
    """Refuse a Trainer that stands in the way of compiled updates.

    Raises:
        ConfigError: If there is an obstacle.
    """
    if (found := obstacle(learner)) is not None:
        raise ConfigError(
            f"model.compile is on, but {found.reason}: {found.remedy}, or set model.compile to "
            "false"
        )
