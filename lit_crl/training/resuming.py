"""What a fit takes from a checkpoint for its optimizers, and what it keeps of its own."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from lit_crl.core.checks import ConfigError
from lit_crl.training.optimizers import Trained, refresh_settings


def give_own_settings(
    checkpoint: dict[str, Any], trained: Sequence[list[Trained]], mine: Sequence[Optimizer]
) -> None:
    """Give the saved optimizers the settings of those that will load them.

    Only the learning rates of the Q-networks stay as they were when saved, because each DQN phase
    sets them.

    Args:
        checkpoint: Its ``optimizer_states`` are changed.
        trained: What each optimizer trains.
        mine: The optimizers of this run, which have made no step.

    Raises:
        ConfigError: If there are none, or if they keep other numbers than those of this run.
    """
    states = checkpoint.get("optimizer_states")
    if not states:
        raise ConfigError(
            "the checkpoint has weights alone, and no fit can go on from it: give one that "
            "RunCheckpoint wrote, or start a new run with these weights"
        )
    falling = [group["lr"] for group in states[0]["param_groups"]]
    for (first, *_), optimizer, state in zip(trained, mine, states, strict=False):
        refresh_settings(f"model.{first.key}", optimizer, state)
    for group, rate in zip(states[0]["param_groups"], falling, strict=True):
        group["lr"] = rate
