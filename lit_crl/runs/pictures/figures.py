"""The figures of a run: learning curve, and generated levels over training.

They are made without pyplot, which would choose a backend, and in notebooks show each figure twice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lit_crl.envs import LevelEnv
from lit_crl.envs.interface import draw_box
from lit_crl.runs.pictures.style import (
    BLUE,
    GREY,
    ORANGE,
    P_HAT,
    styled,
)

Rows = Sequence[Mapping[str, Any]]


def series(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    """Env steps and values of one column, without the rows that lack it."""
    points = [(float(row["env_steps"]), float(row[name])) for row in rows if name in row]
    return [x for x, _ in points], [y for _, y in points]


@styled
def learning_curve(rows: Rows, title: str) -> Figure:
    """Return and success rates over env steps, from the rows of ``metrics.csv``."""
    figure = Figure(figsize=(7, 5.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    top.plot(*series(rows, "behaviour/return_mean"), color=GREY, label="training episodes")
    top.plot(
        *series(rows, "evaluation/target_return_mean"),
        color=BLUE,
        marker="o",
        label="evaluation: greedy, target levels",
    )
    top.set_ylabel("return")
    top.set_title(title)
    for name, colour, marker, label in (
        ("evaluation/target_success_rate", BLUE, "o", "target levels"),
        ("evaluation/heldout_success_rate", ORANGE, "s", "held-out levels"),
    ):
        if any(name in row for row in rows):
            bottom.plot(*series(rows, name), color=colour, marker=marker, label=label)
    bottom.set(ylabel="success rate", xlabel="env steps", ylim=(-0.04, 1.04))
    for axes in (top, bottom):
        if axes.lines:  # where success is not known there is none to show
            axes.legend()
    bottom.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


@styled
def generated_levels(
    snapshots: Sequence[Mapping[str, Any]], env: LevelEnv, panels: int = 6
) -> Figure:
    """Generated levels at several moments of training, coloured by p̂, over the task's picture.

    Args:
        snapshots: ``env_steps``, ``levels [n, d]`` and ``p_hat [n]`` of each moment.
        env: The environment, which draws its picture and says which two axes to show.
        panels: How many moments to show at most, evenly spread.
    """
    chosen = np.unique(np.linspace(0, len(snapshots) - 1, panels).round().astype(int))
    columns = min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    size = (3.6 * columns + 0.9, 3.0 * lines + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    across, up = env.level_plane
    points = None
    for axes, index in zip(grid.flat, chosen, strict=False):
        snapshot = snapshots[index]
        draw_task(axes, env)
        points = axes.scatter(
            snapshot["levels"][:, across],
            snapshot["levels"][:, up],
            c=snapshot["p_hat"],
            vmin=0,
            vmax=1,
            cmap=P_HAT,
            s=9,
            linewidths=0,
            zorder=3,
        )
        axes.set_title(f"{snapshot['env_steps']:,} env steps", fontsize=10)
        label_edges(axes)
    for axes in list(grid.flat)[len(chosen) :]:
        axes.set_visible(False)
    assert points is not None, "generated_levels needs at least one snapshot"
    figure.colorbar(points, ax=grid, label="p̂: predicted success", shrink=0.8)
    figure.suptitle("Levels that the GAN generates, over training")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


@styled
def level_gallery(
    snapshots: Sequence[Mapping[str, Any]], env: Any, moments: int = 5, each: int = 8
) -> Figure:
    """Pictures of generated levels at several moments of training, from hard to easy.

    Args:
        snapshots: ``env_steps``, ``levels [n, d]`` and ``p_hat [n]`` of each moment.
        env: The environment, whose ``render_levels`` makes the pictures.
        moments: How many moments to show at most, a row each.
        each: How many levels of each, evenly spread over the ranking by p̂.
    """
    chosen = np.unique(np.linspace(0, len(snapshots) - 1, moments).round().astype(int))
    size = (1.15 * each + 0.6, 1.45 * len(chosen) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(chosen), each, squeeze=False)
    for row, index in zip(grid, chosen, strict=True):
        levels, p_hat = snapshots[index]["levels"], snapshots[index]["p_hat"]
        ranked = p_hat.argsort()[np.linspace(0, len(p_hat) - 1, each).round().astype(int)]
        for axes, image, p in zip(
            row, env.render_levels(levels[ranked]), p_hat[ranked], strict=True
        ):
            axes.imshow(image)
            axes.set_title(f"p̂ = {float(p):.2f}", fontsize=8)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{snapshots[index]['env_steps']:,}\nenv steps", fontsize=8)
    figure.suptitle("Levels that the GAN generates, from hard to easy: start blue, goal orange")
    return figure


def draw_task(axes: Axes, env: LevelEnv) -> None:
    """The task's own picture, or the bounds of its level space if it has none."""
    draw = getattr(env, "draw_level_plane", None)
    if draw is not None:
        draw(axes)
    elif env.level_space is not None:
        draw_box(axes, env.level_space, env.level_names, env.level_plane)


def label_edges(axes: Axes) -> None:
    """Axis labels on the outer panels only; one legend serves the whole figure."""
    axes.label_outer()
    if (legend := axes.get_legend()) is not None:
        legend.remove()


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
