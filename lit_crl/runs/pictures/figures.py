"""The figures of a run: learning curve, and generated levels.

They are made without pyplot, which would choose a backend and show each figure twice in notebooks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lit_crl.core.checks import ConfigError
from lit_crl.envs import LevelEnv
from lit_crl.envs.interface import draw_box
from lit_crl.runs.pictures.canvas import Array, spread
from lit_crl.runs.pictures.recording import picture_env, render_levels
from lit_crl.runs.pictures.style import BLUE, GREY, ORANGE, P_HAT, styled
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner

Rows = Sequence[Mapping[str, Any]]

#: The p̂ that predicted levels are asked for, a row each, and the levels in a row.
DIFFICULTIES, IN_A_ROW = (0.1, 0.3, 0.5, 0.7, 0.9), 4


def axis_of(rows: Rows) -> str:
    """The column that is the axis: env steps, but updates of a run from a log.

    >>> axis_of([{"env_steps": 10}]), axis_of([{"updates": 5, "env_steps": 10}])
    ('env_steps', 'updates')
    """
    return "updates" if any("updates" in row for row in rows) else "env_steps"


def series(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    """Env steps and values of one column, without the rows that lack it.

    >>> series([{"env_steps": 10}, {"env_steps": "20", "dqn/loss": "0.5"}], "dqn/loss")
    ([20.0], [0.5])
    """
    axis = axis_of(rows)
    points = [(float(row[axis]), float(row[name])) for row in rows if name in row]
    return [x for x, _ in points], [y for _, y in points]


@styled
def learning_curve(rows: Rows, title: str, frames: int = 1) -> Figure:
    """Return and success rates over env steps (from a log, updates), from ``metrics.csv``.

    Args:
        rows: The rows of ``metrics.csv``.
        title: Text above it.
        frames: Frames of the game in an env step.
    """
    figure = Figure(figsize=(7, 5.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    top.plot(*series(rows, "behaviour/return_mean"), color=GREY, label="training episodes")
    top.plot(
        *series(rows, "evaluation/target_return_mean"),
        color=BLUE,
        marker="o",
        label="evaluation: greedy, target levels",
    )
    top.set(ylabel="return", title=title)
    for name, colour, marker, label in (
        ("evaluation/target_success_rate", BLUE, "o", "target levels"),
        ("evaluation/heldout_success_rate", ORANGE, "s", "held-out levels"),
    ):
        if any(name in row for row in rows):
            bottom.plot(*series(rows, name), color=colour, marker=marker, label=label)
    axis = axis_of(rows).replace("_", " ")
    axis = axis if frames == 1 else f"{axis} (agent steps of {frames} frames each)"
    bottom.set(ylabel="success rate", xlabel=axis, ylim=(-0.04, 1.04))
    for axes in (top, bottom):
        if axes.lines:  # where success is unknown there are none
            axes.legend()
    bottom.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


@styled
def generated_levels(
    snapshots: Sequence[Mapping[str, Any]], env: LevelEnv, panels: int = 6
) -> Figure:
    """Generated levels at several moments of training, coloured by p̂, over the task's picture.

    Args:
        snapshots: ``env_steps``, ``levels [n, d]`` and ``p_hat [n]`` of each moment, at least one.
        env: The environment, which draws its picture and says which two axes to show.
        panels: How many moments to show at most, evenly spread.
    """
    chosen = spread(len(snapshots), panels)
    columns = min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    size = (3.6 * columns + 0.9, 3.0 * lines + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, index in zip(grid.flat, chosen, strict=False):
        points = draw_levels(axes, env, snapshots[index]["levels"], snapshots[index]["p_hat"], 9)
        axes.set_title(f"{snapshots[index]['env_steps']:,} env steps", fontsize=10)
    for axes in grid.flat[len(chosen) :]:
        axes.set_visible(False)
    figure.colorbar(points, ax=grid, label="p̂: predicted success", shrink=0.8)
    figure.suptitle("Levels that the GAN generates, over training")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


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
    rows = []
    for index in spread(len(snapshots), moments):
        levels, p_hat = snapshots[index]["levels"], snapshots[index]["p_hat"]
        ranked = p_hat.argsort()[spread(len(p_hat), each)]
        titles = [f"p̂ = {p:.2f}" for p in p_hat[ranked].tolist()]
        label = f"{snapshots[index]['env_steps']:,}"
        rows.append((label, env.render_levels(levels[ranked]), titles))
    title = "Levels that the GAN generates, from hard to easy: start blue, goal orange"
    return picture_grid(rows, title, "env steps")


def predicted_levels(learner: CreativeLearner, data: ReplayDataModule) -> Figure:
    """Pictures of levels that the generator makes at several difficulties.

    Raises:
        ConfigError: If the environment cannot be drawn, or has no levels here.
    """
    if not getattr(data.env, "has_levels", True):
        raise ConfigError("they are states that training has visited, which only training has.")
    rows = []
    env = picture_env(data.make_env, IN_A_ROW, data.env.device)
    for wanted in DIFFICULTIES:
        levels = learner.generate_levels(IN_A_ROW, difficulty=wanted)
        p_hat, order = learner.success_probability(levels).sort()
        legal = env.valid(levels[order]).tolist()
        titles = [
            f"p̂ = {p:.2f}" + ("" if is_legal else ", illegal")
            for p, is_legal in zip(p_hat.tolist(), legal, strict=True)
        ]
        rows.append((f"{wanted:.1f}", render_levels(env, levels[order]), titles))
    env.close()
    return picture_grid(rows, "Levels that the GAN generates", "p̂ asked for")


@styled
def picture_grid(
    rows: Sequence[tuple[str, Array, Sequence[str]]], title: str, label: str
) -> Figure:
    """Pictures in rows.

    Args:
        rows: The label of each row, its pictures [n, H, W, 3], and their titles.
        title: Title of the figure.
        label: Label of the column of row labels.
    """
    _, tall, wide, _ = rows[0][1].shape
    columns = len(rows[0][2])
    width = 10.4 if wide > 1.3 * tall else 8.0
    size = (width + 0.8, len(rows) * (width / columns * tall / wide + 0.28) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (row_label, pictures, titles) in zip(grid, rows, strict=True):
        for axes, picture, words in zip(line, pictures, titles, strict=True):
            axes.imshow(picture, interpolation="antialiased")
            axes.set_title(words, fontsize=8)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(row_label, rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.supylabel(label, fontsize=10)
    return figure


def draw_levels(axes: Axes, env: LevelEnv, levels: Any, p_hat: Any, size: float) -> PathCollection:
    """Levels [n, d] in the level plane as dots coloured by p̂ [n], over the task's picture."""
    draw_task(axes, env)
    across, up = env.level_plane
    points = axes.scatter(
        levels[:, across],
        levels[:, up],
        c=p_hat,
        vmin=0,
        vmax=1,
        cmap=P_HAT,
        s=size,
        linewidths=0,
        zorder=3,
    )
    axes.label_outer()
    if (legend := axes.get_legend()) is not None:
        legend.remove()  # one legend serves the whole figure
    return points


def draw_task(axes: Axes, env: LevelEnv) -> None:
    """The task's own picture, or the bounds of its level space if it has none."""
    draw = getattr(env, "draw_level_plane", None)
    if draw is not None:
        draw(axes)
    elif env.level_space is not None:
        draw_box(axes, env.level_space, env.level_names, env.level_plane)


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
