"""Generated levels of every arm of a study over training, in one figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lit_crl.envs import LevelEnv
from lit_crl.envs.factory import GivenEnv, env_factory, level_env
from lit_crl.runs.cli import yaml_strings
from lit_crl.runs.cli.parser import RunParser
from lit_crl.runs.pictures.canvas import Array, Picture, spread, tiled
from lit_crl.runs.pictures.figures import draw_levels
from lit_crl.runs.pictures.style import P_HAT, styled

#: The most moments of training that are shown.
MOMENTS = 5


@styled
def level_galleries(runs: Mapping[str, Path], title: str) -> Figure | None:
    """A row for each arm's run, a column for each moment; None where no levels were generated.

    Args:
        runs: A run folder for each arm; those without ``levels.npz`` are left out.
        title: Title of the figure.
    """
    found = {arm: run for arm, run in runs.items() if (run / "levels.npz").is_file()}
    if not found:
        return None
    env = env_of(next(iter(found.values())))
    has_pictures = hasattr(env, "render_levels")
    size = (2.2 * MOMENTS + 1, 2.0 * len(found) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(found), MOMENTS, squeeze=False)
    for row, (arm, run) in zip(grid, found.items(), strict=True):
        with np.load(run / "levels.npz") as saved:
            moments = spread(len(saved["env_steps"]), MOMENTS)
            for axes, moment in zip(row, moments, strict=False):
                levels, p_hat = saved["levels"][moment], saved["p_hat"][moment]
                if has_pictures:
                    axes.imshow(four_levels(env, levels, p_hat))
                else:
                    draw_levels(axes, env, levels, p_hat, size=6)
                axes.set(xlabel="", ylabel="", xticks=[], yticks=[])
                axes.set_title(f"{saved['env_steps'][moment]:,} env steps", fontsize=8)
        for axes in row[len(moments) :]:
            axes.set_visible(False)
        row[0].set_ylabel(arm, fontsize=9)
    if not has_pictures:
        points = ScalarMappable(Normalize(0, 1), P_HAT)
        figure.colorbar(points, ax=grid, label="p̂: predicted success", shrink=0.8)
    figure.suptitle(title)
    return figure


def env_of(run: Path) -> LevelEnv:
    """One environment like those of a run, by its ``config.yaml``."""
    config = yaml_strings.load((run / "config.yaml").read_text(encoding="utf-8"))
    parser = RunParser(parser_mode=yaml_strings.MODE, exit_on_error=False)
    parser.add_argument("--env", type=GivenEnv)
    made = parser.instantiate(parser.parse_object({"env": config["data"]["env"]}))
    return level_env(env_factory(made.env)(1, torch.device("cpu")))


def four_levels(env: Any, levels: Array, p_hat: Array) -> Picture:
    """Four levels from hard to easy, two by two."""
    chosen = p_hat.argsort()[spread(len(p_hat), 4)]
    return tiled(env.render_levels(torch.from_numpy(levels[chosen])), columns=2, gap=2)
