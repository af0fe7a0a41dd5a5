"""Weights & Biases: ``env_steps`` is the axis of everything, with or without an account."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import print_once
from lit_crl.runs.callbacks.metrics import EnvStepAxis

if TYPE_CHECKING:
    from lit_crl.runs.dashboard.sheet import Sheet

PROJECT = "lit_crl"
#: Folders of W&B's that hold a run each: ``run-DATE_TIME-ID``, with ``offline-`` before it or not.
RUN_FOLDER = re.compile(r"(?P<offline>offline-)?run-\d+_\d+-(?P<id>.+)")


def wandb_display(folder: Path, group: str, tags: list[str]) -> "WandbDisplay":
    """A run of W&B's for the run in ``folder``; offline where no account is known.

    Raises:
        ConfigError: If ``WANDB_MODE=online`` is set and no key is known.
    """
    import wandb  # slow to import, and few runs need it

    mode = os.environ.get("WANDB_MODE")
    has_key = wandb.login(prompt=False) if mode not in ("offline", "disabled") else False
    if mode == "online" and not has_key:
        raise ConfigError(
            "WANDB_MODE is online, but W&B knows no key: run `wandb login`, or unset WANDB_MODE "
            "to log offline"
        )
    offline = mode == "offline" or (mode is None and not has_key)
    if offline:
        print_once("W&B logs offline (no account is set): `wandb sync` uploads the run later.")
    return WandbDisplay(folder, group, tags, offline)


def earlier_segments(folder: Path) -> tuple[list[str], list[str]]:
    """Ids of the runs that W&B made of the run in ``folder``: online ones, and offline ones."""
    online, offline = list[str](), list[str]()
    for path in sorted((folder / "wandb").glob("*run-*")):
        if found := RUN_FOLDER.fullmatch(path.name):
            (offline if found["offline"] else online).append(found["id"])
    return online, offline


class WandbDisplay(EnvStepAxis, WandbLogger):
    """Lightning's logger, with a run of its own that starts when training does.

    A run that goes on after an interruption is appended to where W&B can: online. What was logged
    offline cannot be appended to (a second upload would replace the first), so there each segment
    is a run of the same name and group, and its job type says which segment it is.
    """

    def __init__(self, folder: Path, group: str, tags: list[str], offline: bool) -> None:
        """Say how the run is called; nothing is written before ``begin``."""
        super().__init__(
            name=folder.name,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            # Absolute: the process that writes may have been started in another folder.
            save_dir=folder.absolute(),
            group=group,
            tags=tags or None,
            # Notebooks train several times: the run that is active there is not this one.
            reinit="create_new",
        )
        self.folder, self.offline = folder, offline
        # Lightning's own way of saying offline comes too late after a login: W&B would ask.
        self._wandb_init["mode"] = "offline" if offline else None
        # W&B warns of both, the second offline.
        del self._wandb_init["anonymous"], self._wandb_init["resume"]

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``wandb.Run``, which the first call starts."""
        if self._experiment is None:
            import wandb

            self.folder.mkdir(parents=True, exist_ok=True)
            number = 1 + sum(map(len, earlier_segments(self.folder)))
            self._wandb_init["job_type"] = f"segment {number}"
            self._experiment = wandb.init(**self._wandb_init)
            self._experiment.define_metric("env_steps")
            self._experiment.define_metric("*", step_metric="env_steps")
        return self._experiment

    def resume(self, env_steps: int) -> None:
        """Append to the run that was there before, if there is one online."""
        online, _ = earlier_segments(self.folder)
        if online and not self.offline and "WANDB_RUN_ID" not in os.environ:
            self._wandb_init |= {"id": online[-1], "resume": "allow"}

    @rank_zero_only
    def begin(self, config: Mapping[str, Any]) -> None:
        """Start the run; ``config`` is what it can be filtered and grouped by."""
        self.experiment.config.update(dict(config), allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers over env steps; no other step is logged beside them."""
        if self.is_training:
            self.experiment.log({**metrics, "env_steps": self.at(step)})

    @rank_zero_only
    def show(self, sheet: "Sheet", env_steps: int) -> None:
        """Log galleries, a table, histograms and films of levels."""
        from lit_crl.runs.dashboard.wandb_media import media_of

        with media_of(sheet) as media:
            self.experiment.log({**media, "env_steps": env_steps})

    @rank_zero_only
    def conclude(self, summary: Mapping[str, Any], figures: Mapping[str, Path]) -> None:
        """Add the numbers of ``summary.json`` and the figures, and end the run."""
        import wandb

        pictures = {f"figures/{name}": wandb.Image(str(path)) for name, path in figures.items()}
        self.experiment.log({**pictures, "env_steps": summary["env_steps"]})
        self.experiment.summary.update(dict(summary))
        self.experiment.finish()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End a run that failed or was stopped; one that succeeded waits for its test."""
        if status != "success" and self._experiment is not None:
            self._experiment.finish(exit_code=1)
