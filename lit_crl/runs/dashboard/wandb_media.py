"""Levels and episodes as W&B's media."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb

from lit_crl.runs.dashboard.sheet import (
    FPS,
    Sheet,
    Shown,
    film_of,
)
from lit_crl.runs.pictures import write_gif

COLUMNS = ("env_steps", "source", "level", "p_hat", "success", "steps", "return", "path_length")


@contextmanager
def media_of(sheet: Sheet) -> Iterator[dict[str, Any]]:
    """What is to be logged, by key; the files of films last as long as the context."""
    found: dict[str, Any] = {
        f"levels/{source}": [wandb.Image(level.picture, caption=level.caption) for level in levels]
        for source, levels in sheet.by_source().items()
    }
    found["levels/table"] = table(sheet)
    found |= {
        f"p_hat/{source}": wandb.Histogram(p_hat.tolist(), num_bins=20)
        for source, p_hat in sheet.p_hat.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        for level in sheet.filmed():
            assert level.recording is not None
            path = Path(folder) / f"{level.source}.gif"
            write_gif(film_of(level.recording), path, FPS)
            caption = f"{sheet.env_steps:,} env steps: {level.caption}"
            found[f"episodes/{level.source}"] = wandb.Video(
                str(path), caption=caption, format="gif"
            )
        yield found


def table(sheet: Sheet) -> wandb.Table:
    """A row for each level that is shown."""
    return wandb.Table([*COLUMNS], [row(sheet.env_steps, level) for level in sheet.shown])


def row(env_steps: int, level: Shown) -> list[Any]:
    """The cells of ``COLUMNS``; an invalid level has no success, steps and return."""
    episode = level.recording
    outcome = [None] * 3 if episode is None else [episode.success, episode.steps, episode.reward]
    picture = wandb.Image(level.picture)
    return [env_steps, level.source, picture, level.p_hat, *outcome, level.path_length]
