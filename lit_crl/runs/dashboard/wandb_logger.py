"""Weights & Biases: ``env_steps`` is the axis of everything, with or without an account."""

import os
import re
import tempfile
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
    from lit_crl.runs.dashboard.overview import Overview

PROJECT = "lit_crl"
#: Columns of the table of levels.
COLUMNS = ("env_steps", "source", "level", "p_hat", "success", "steps", "return", "path_length")
#: Folders in which W&B keeps a run each: ``run-DATE_TIME-ID`` or ``offline-run-DATE_TIME-ID``.
RUN_FOLDER = re.compile(r"(?P<offline>offline-)?run-\d+_\d+-(?P<id>.+)")


def wandb_display(folder: Path, group: str, tags: list[str]) -> "WandbDisplay":
    """The W&B logger of the run in ``folder``; offline where no account is known.

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
    """Ids of the W&B runs of the run in ``folder``: online ones, and offline ones."""
    online, offline = list[str](), list[str]()
    for path in sorted((folder / "wandb").glob("*run-*")):
        if found := RUN_FOLDER.fullmatch(path.name):
            (offline if found["offline"] else online).append(found["id"])
    return online, offline


class WandbDisplay(EnvStepAxis, WandbLogger):
    """Lightning's logger, whose W&B run starts when training does.

    Online, a resumed run appends to its W&B run. Offline it cannot (a second upload would replace
    the first): each segment becomes a W&B run of the same name and group, and its job type says
    which segment it is.
    """

    def __init__(self, folder: Path, group: str, tags: list[str], offline: bool) -> None:
        """Name the run; nothing is written before ``begin``."""
        super().__init__(
            name=folder.name,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            # Absolute: the process that writes may have been started in another folder.
            save_dir=folder.absolute(),
            group=group,
            tags=tags or None,
            # Notebooks train several times: the active run there may be an earlier one.
            reinit="create_new",
        )
        self.folder, self.offline = folder, offline
        # Lightning's own `offline` comes too late after a login: W&B would ask.
        self._wandb_init["mode"] = "offline" if offline else None
        # W&B warns about both, about the second when offline.
        del self._wandb_init["anonymous"], self._wandb_init["resume"]

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``wandb.Run``; the first call starts it."""
        if self._experiment is None:
            import wandb

            self.folder.mkdir(parents=True, exist_ok=True)
            number = 1 + sum(map(len, earlier_segments(self.folder)))
            self._wandb_init["job_type"] = f"segment {number}"
            self._experiment = wandb.init(**self._wandb_init)
            self._experiment.define_metric(self.axis)
            self._experiment.define_metric("*", step_metric=self.axis)
        return self._experiment

    def resume(self, env_steps: int) -> None:
        """Append to the earlier W&B run, if there is one online."""
        online, _ = earlier_segments(self.folder)
        if online and not self.offline and "WANDB_RUN_ID" not in os.environ:
            self._wandb_init |= {"id": online[-1], "resume": "allow"}

    @rank_zero_only
    def begin(self, config: Mapping[str, Any]) -> None:
        """Start the run; W&B can filter and group runs by ``config``."""
        self.experiment.config.update(dict(config), allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers over env steps, and no other step."""
        if self.is_training:
            self.experiment.log({**metrics, self.axis: self.at(step)})

    @rank_zero_only
    def show(self, shown: "Overview", env_steps: int) -> None:
        """Log galleries, a table, histograms and films of levels."""
        import wandb

        from lit_crl.runs.dashboard.overview import FILMED, FPS, film_of
        from lit_crl.runs.pictures import write_gif

        media: dict[str, Any] = {self.axis: env_steps}
        table = wandb.Table([*COLUMNS])
        for source, views in shown.views.items():
            media[f"levels/{source}"] = [wandb.Image(v.picture, caption=v.caption) for v in views]
            for view in views:
                end = view.recording
                outcome = (None,) * 3 if end is None else (end.success, end.steps, end.reward)
                picture = wandb.Image(view.picture)
                table.add_data(env_steps, source, picture, view.p_hat, *outcome, view.path_length)
        media["levels/table"] = table
        for source, p_hat in shown.p_hat.items():
            media[f"p_hat/{source}"] = wandb.Histogram(p_hat.tolist(), num_bins=20)
        with tempfile.TemporaryDirectory() as folder:
            for source in FILMED:
                views = shown.views.get(source, [])
                played = [(view, view.recording) for view in views if view.recording]
                if not played:
                    continue
                view, episode = played[len(played) // 2]
                path = write_gif(film_of(episode), Path(folder) / f"{source}.gif", FPS)
                caption = f"{env_steps:,} env steps: {view.caption}"
                media[f"episodes/{source}"] = wandb.Video(str(path), caption=caption, format="gif")
            self.experiment.log(media)

    @rank_zero_only
    def conclude(self, summary: Mapping[str, Any], figures: Mapping[str, Path]) -> None:
        """Add the figures, films among them, and the numbers of ``summary.json``; end the run."""
        import wandb

        def medium(path: Path) -> Any:
            is_film = path.suffix == ".gif"
            return wandb.Video(str(path), format="gif") if is_film else wandb.Image(str(path))

        pictures = {f"figures/{name}": medium(path) for name, path in figures.items()}
        self.experiment.log({**pictures, "env_steps": summary["env_steps"]})
        self.experiment.summary.update(dict(summary))
        self.experiment.finish()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End a run that failed or was stopped; one that succeeded goes on with its test."""
        if status != "success" and self._experiment is not None:
            self._experiment.finish(exit_code=1)
