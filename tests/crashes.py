"""Runs that end in a crash, for tests of what comes after."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lit_crl.runs.callbacks import RunCheckpoint


class Killed(Exception):
    """Stands for a crash."""


class KillAt(Callback):
    """Crashes after so many batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.datamodule.batches_done == self.batches:
            raise Killed


def interrupted(make_run: Callable[..., Any], folder: Path, batches: int, **settings: Any) -> Path:
    """Run until it is killed, and return the checkpoint that it leaves."""
    run = make_run(callbacks=[RunCheckpoint(folder), KillAt(batches)], **settings)
    with pytest.raises(Killed):
        run.fit()
    saved = torch.load(folder / "last.ckpt", weights_only=True)["lit_crl"]["env_steps"]
    assert 0 < saved < run.data.env_steps  # it was killed between two checkpoints
    return folder / "last.ckpt"
