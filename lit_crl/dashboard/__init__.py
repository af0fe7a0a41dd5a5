"""Dashboards: Weights & Biases and TensorBoard, which show a run while it trains."""

from pathlib import Path
from typing import Literal

from lit_crl.dashboard.callback import Dashboard, Display
from lit_crl.dashboard.tensorboard_logger import TensorBoardDisplay
from lit_crl.dashboard.wandb_logger import WandbDisplay, wandb_display

__all__ = ["Dashboard", "Display", "TensorBoardDisplay", "WandbDisplay", "display"]


def display(
    kind: Literal["wandb", "tensorboard"],
    folder: Path,
    group: str,
    tags: list[str],
) -> Display:
    """The logger of a run that is shown in a dashboard.

    Args:
        kind: Which dashboard.
        folder: The run folder, whose name is the run's.
        group: What W&B calls the group: runs that belong together.
        tags: Words to find the run by, in W&B.

    Raises:
        ConfigError: If it cannot be used here.
    """
    if kind == "wandb":
        return wandb_display(folder, group, tags)
    return TensorBoardDisplay(folder)
