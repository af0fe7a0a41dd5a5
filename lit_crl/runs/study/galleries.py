"""Generated levels of every arm of a study over training, in one figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lit_crl.envs.factory import GivenEnv, env_factory
from lit_crl.runs.cli import yaml_strings
from lit_crl.runs.cli.parser import RunParser
from lit_crl.runs.pictures.figures import draw_task, label_edges
from lit_crl.runs.pictures.style import P_HAT, styled

#: Moments of training that are shown at most, and levels of each where they are pictures.
MOMENTS, PICTURES = 5, 4


@styled
def level_galleries(runs: Mapping[str, Path], title: str) -> Figure | None:
    """A row for each arm's run, a column for each moment; None where no levels were generated.

    Args:
        runs: The run folder that stands for each arm; one without ``levels.npz`` is left out.
        title: Title of the figure.
    """
    found = {arm: run for arm, run in runs.items() if (run / "levels.npz").is_file()}
    if not found:
        return None
    env = env_of(next(iter(found.values())))
    draw = _draw_pictures if hasattr(env, "render_levels") else _draw_points
    size = (2.2 * MOMENTS + 1, 2.0 * len(found) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(found), MOMENTS, squeeze=False)
    for row, (arm, run) in zip(grid, found.items(), strict=True):
        with np.load(run / "levels.npz") as levels:
            moments = np.unique(np.linspace(0, len(levels["env_steps"]) - 1, MOMENTS).round())
            for axes, moment in zip(row, moments.astype(int), strict=False):
                draw(axes, env, levels["levels"][moment], levels["p_hat"][moment])
                axes.set_title(f"{levels['env_steps'][moment]:,} env steps", fontsize=8)
        for axes in row[len(moments) :]:
            axes.set_visible(False)
        row[0].set_ylabel(arm, fontsize=9)
    points = ScalarMappable(Normalize(0, 1), P_HAT)
    if draw is _draw_points:
        figure.colorbar(points, ax=grid, label="p̂: predicted success", shrink=0.8)
    figure.suptitle(title)
    return figure


def env_of(run: Path) -> Any:
    """One environment like those of a run, as its ``config.yaml`` has it."""
    config = yaml_strings.load((run / "config.yaml").read_text(encoding="utf-8"))
    parser = RunParser(parser_mode=yaml_strings.MODE, exit_on_error=False)
    parser.add_argument("--env", type=GivenEnv)
    made = parser.instantiate(parser.parse_object({"env": config["data"]["env"]}))
    return env_factory(made.env)(1, torch.device("cpu"))


def _draw_points(axes: Axes, env: Any, levels: NDArray[Any], p_hat: NDArray[Any]) -> None:
    draw_task(axes, env)
    across, up = env.level_plane
    axes.scatter(
        levels[:, across],
        levels[:, up],
        c=p_hat,
        cmap=P_HAT,
        vmin=0,
        vmax=1,
        s=6,
        linewidths=0,
        zorder=3,
    )
    axes.set(xlabel="", ylabel="", xticks=[], yticks=[])
    label_edges(axes)


def _draw_pictures(axes: Axes, env: Any, levels: NDArray[Any], p_hat: NDArray[Any]) -> None:
    """Four levels from hard to easy, two by two."""
    spread = np.linspace(0, len(p_hat) - 1, PICTURES).round().astype(int)
    images = env.render_levels(torch.from_numpy(levels[p_hat.argsort()[spread]]))
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    upper, lower = (np.concatenate(list(pair), axis=1) for pair in (framed[:2], framed[2:]))
    axes.imshow(np.concatenate([upper, lower]))
    axes.set(xticks=[], yticks=[])
