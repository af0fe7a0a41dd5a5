"""Checkpoints: the learner in ``last.ckpt``, what was collected in a file beside it.

The collected part (replay, archive, environments, random streams) is large, belongs to one
process and is worthless to whoever only wants the policy, so it has a file of its own. It is
written first, under a new name that the checkpoint then records; the previous one is removed
last. So whatever moment a run is killed at, the checkpoint on disk and its companion match.
"""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_crl.checks import ConfigError
from lit_crl.collected import collected_state, load_collected_state

#: Rises when an older file could no longer be read rightly.
FORMAT = 1


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load tensors and plain values, and nothing else, from a file.

    Raises:
        ConfigError: If there is no such file, it is damaged, or it holds anything that could
            run code.
    """
    if not path.is_file():
        raise ConfigError(f"--ckpt_path {path} does not exist: give a .ckpt file, or 'last'")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, all meaning the same to the user
        raise ConfigError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): it is truncated, "
            "damaged or from another program; give one that lit_crl wrote"
        ) from error
    if not isinstance(loaded, dict) or "lit_crl" not in loaded:
        raise ConfigError(f"{path} was not written by lit_crl: give one of its checkpoints")
    if loaded["lit_crl"].get("format") != FORMAT:
        raise ConfigError(
            f"{path} has checkpoint format {loaded['lit_crl'].get('format')}, this version reads "
            f"format {FORMAT}: use the version of lit_crl that wrote it"
        )
    return loaded


def write_atomically(content: Any, path: Path) -> None:
    """Save ``content`` so that ``path`` is either the old file or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


class RunCheckpoint(Callback):
    """Saves after every validation; restores what was collected when a run is resumed."""

    def __init__(self, folder: Path) -> None:
        """Keep checkpoints in ``folder``."""
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save: an epoch is the stretch from one validation to the next."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write checkpoint and companion."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.folder.mkdir(parents=True, exist_ok=True)
        for logger in trainer.loggers:
            logger.save()
        name = f"collected-{data.env_steps:012d}-rank{trainer.global_rank}.pt"
        collected = {"lit_crl": {"format": FORMAT}, **collected_state(data)}
        write_atomically(collected, self.folder / name)
        if trainer.is_global_zero:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            checkpoint["lit_crl"] |= {
                "format": FORMAT,
                "collected": name,
                "env_steps": data.env_steps,
            }
            write_atomically(checkpoint, self.folder / "last.ckpt")
        for stale in self.folder.glob(f"collected-*-rank{trainer.global_rank}.pt"):
            if stale.name != name:
                stale.unlink()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Bring back what was collected, and keep this run's hyperparameters.

        Raises:
            ConfigError: If the companion file is missing.
        """
        if trainer.state.fn != "fit":
            return
        name = checkpoint["lit_crl"]["collected"]
        path = Path(str(trainer.ckpt_path)).parent / name
        if not path.is_file():
            raise ConfigError(
                f"{trainer.ckpt_path} can be tested but not resumed: its companion {name} is "
                "missing; copy it back beside the checkpoint"
            )
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        load_collected_state(data, read_checkpoint(path))
