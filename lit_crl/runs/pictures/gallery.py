"""What the generator makes at several difficulties, as pictures."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lit_crl.envs.factory import EnvFactory
from lit_crl.runs.pictures.canvas import Array
from lit_crl.runs.pictures.recording import picture_env, render_levels
from lit_crl.runs.pictures.style import styled

#: p̂ that are asked for, a row each, and levels in a row.
DIFFICULTIES, COLUMNS = (0.1, 0.3, 0.5, 0.7, 0.9), 4


class Row(NamedTuple):
    """Generated levels of about one difficulty, from hard to easy."""

    pictures: Array  # [n, H, W, 3]
    p_hat: Array  # [n]
    legal: Array  # [n]


def generated_gallery(learner: Any, make_env: EnvFactory, device: torch.device) -> Figure:
    """Pictures of what a learner's generator makes at several difficulties.

    Raises:
        ConfigError: If the environment cannot be drawn.
    """
    levels = torch.cat([learner.generate_levels(COLUMNS, difficulty=p) for p in DIFFICULTIES])
    env = picture_env(make_env, len(levels), device)
    p_hat = learner.success_probability(levels).view(-1, COLUMNS)
    order = p_hat.argsort(dim=1) + COLUMNS * torch.arange(len(p_hat), device=device)[:, None]
    levels = levels[order.flatten()]
    columns = (render_levels(env, levels), p_hat.sort(dim=1).values.flatten(), env.valid(levels))
    split = [np.split(np.asarray(column), len(DIFFICULTIES)) for column in columns]
    rows = (Row(*parts) for parts in zip(*split, strict=True))
    return gallery(dict(zip(DIFFICULTIES, rows, strict=True)))


@styled
def gallery(rows: Mapping[float, Row]) -> Figure:
    """Pictures of levels with their p̂, a row for each p̂ that was asked for."""
    _, tall, wide, _ = next(iter(rows.values())).pictures.shape
    width = 2.6 if wide > 1.3 * tall else 1.9
    size = (COLUMNS * width + 0.6, len(rows) * (width * tall / wide + 0.25) + 0.4)
    close = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=size, layout=close)
    grid = figure.subplots(len(rows), COLUMNS, squeeze=False)
    for line, (wanted, row) in zip(grid, rows.items(), strict=True):
        for axes, image, p, legal in zip(line, *row, strict=True):
            axes.imshow(image, interpolation="antialiased")
            axes.set_title(f"p̂ = {p:.2f}" + ("" if legal else ", illegal"), fontsize=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(f"{wanted:.1f}", rotation=0, labelpad=12, va="center")
    figure.suptitle("Levels that the GAN generates", fontsize=11)
    figure.supylabel("p̂ asked for", fontsize=10)
    return figure
