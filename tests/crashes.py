"""Runs that end in a crash, for tests of what comes after."""

import shutil
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


class CopyAt(Callback):
    """Copies the checkpoints after so many batches: a crash would leave these."""

    def __init__(self, batches: int, checkpoints: Path, copies: Path) -> None:
        self.batches, self.checkpoints, self.copies = batches, checkpoints, copies

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.datamodule.batches_done == self.batches:
            shutil.copytree(self.checkpoints, self.copies)


def uninterrupted(
    make_run: Callable[..., Any], folder: Path, batches: int, **settings: Any
) -> tuple[Any, Path]:
    """A whole run, and the checkpoint that it would have left if it had been killed."""
    checkpoints, copies = folder / "whole", folder / "killed"
    callbacks = [RunCheckpoint(checkpoints), CopyAt(batches, checkpoints, copies)]
    callbacks += settings.pop("callbacks", [])
    run = make_run(callbacks=callbacks, **settings).fit()
    saved = torch.load(copies / "last.ckpt", weights_only=True)["lit_crl"]["env_steps"]
    assert 0 < saved < run.data.env_steps
    return run, copies / "last.ckpt"
