"""Figures: drawn data equals given data, and files are pictures of the right size.

The lines and points are read back from matplotlib's own objects, the size from the PNG header.
"""

import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lit_crl.envs import (
    CartPole,
    Maze,
    MountainCar,
    PointMass,
)
from lit_crl.runs.pictures import figures, render_levels

ROWS: list[dict[str, Any]] = [
    {"env_steps": 100, "behaviour/return_mean": -200.0},
    {"env_steps": 200, "evaluation/target_return_mean": -190.0,
     "evaluation/target_success_rate": 0.25, "evaluation/heldout_success_rate": 0.5},
    {"env_steps": "300", "behaviour/return_mean": "-150.0"},  # as read back from metrics.csv
    {"env_steps": 400, "evaluation/target_return_mean": -120.0,
     "evaluation/target_success_rate": 0.75, "evaluation/heldout_success_rate": 1.0},
]  # fmt: skip


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def curves(axes: Axes) -> list[tuple[list[float], list[float]]]:
    return [
        (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
        for line in axes.get_lines()
    ]


def snapshots(count: int, dim: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = torch.Generator().manual_seed(seed)
    return [
        {
            "env_steps": 1_000 * (i + 1),
            "levels": torch.rand(50, dim, generator=rng),
            "p_hat": torch.rand(50, generator=rng),
        }
        for i in range(count)
    ]


def size_of_png(path: Path) -> tuple[int, int]:
    """Width and height from the header; every chunk's checksum is checked on the way."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    size, position, kind = (0, 0), 8, b""
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind = content[position + 4 : position + 8]
        body = content[position + 8 : position + 8 + length]
        end = position + 12 + length
        assert struct.unpack(">I", content[end - 4 : end]) == (zlib.crc32(kind + body),)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        position = end
    assert kind == b"IEND"
    return size


def test_a_series_skips_the_rows_that_lack_it() -> None:
    assert figures.series(ROWS, "behaviour/return_mean") == ([100.0, 300.0], [-200.0, -150.0])
    assert figures.series(ROWS, "nothing") == ([], [])


def test_the_learning_curve_shows_training_and_evaluation_over_env_steps() -> None:
    top, bottom = figures.learning_curve(ROWS, "a title").axes
    assert curves(top) == [
        ([100.0, 300.0], [-200.0, -150.0]),
        ([200.0, 400.0], [-190.0, -120.0]),
    ]
    assert curves(bottom) == [([200.0, 400.0], [0.25, 0.75]), ([200.0, 400.0], [0.5, 1.0])]
    assert top.get_title() == "a title" and bottom.get_xlabel() == "env steps"
    assert top.get_ylabel() == "return" and bottom.get_ylabel() == "success rate"
    labels = [text.get_text() for text in bottom.get_legend().get_texts()]
    assert labels == ["target levels", "held-out levels"]


def test_a_task_without_heldout_levels_has_no_curve_for_them() -> None:
    rows = [{k: v for k, v in row.items() if "heldout" not in k} for row in ROWS]
    _, bottom = figures.learning_curve(rows, "").axes
    assert curves(bottom) == [([200.0, 400.0], [0.25, 0.75])]


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]


@pytest.mark.parametrize(
    ("count", "moments"),
    [
        (1, [0]),
        (2, [0, 1]),
        (4, [0, 1, 2, 3]),
        (6, [0, 1, 2, 3, 4, 5]),
        (21, [0, 4, 8, 12, 16, 20]),
    ],
)
def test_generated_levels_are_shown_at_evenly_spread_moments(
    count: int, moments: list[int]
) -> None:
    env = MountainCar(1)
    given = snapshots(count, 2)
    figure = figures.generated_levels(given, env)
    shown = panels(figure)
    assert len(shown) == len(moments)
    for axes, moment in zip(shown, moments, strict=True):
        (points,) = axes.collections
        assert np.allclose(points.get_offsets(), given[moment]["levels"].numpy())
        assert np.allclose(points.get_array(), given[moment]["p_hat"].numpy())
        assert points.get_clim() == (0, 1)  # one scale for all panels
        assert axes.get_title() == f"{1_000 * (moment + 1):,} env steps"


def test_a_gallery_shows_levels_from_hard_to_easy() -> None:
    env = Maze(1, size=5)
    rng = torch.Generator().manual_seed(0)
    given = [
        {"env_steps": 100 * step, "levels": env.reference_levels(30, rng),
         "p_hat": torch.rand(30, generator=rng)}
        for step in (1, 2, 3)
    ]  # fmt: skip
    shown = panels(figures.level_gallery(given, env, moments=2, each=4))
    assert len(shown) == 8
    for row, snapshot in zip((shown[:4], shown[4:]), (given[0], given[2]), strict=True):
        ranked = sorted(range(30), key=lambda level: float(snapshot["p_hat"][level]))
        assert row[0].get_ylabel().startswith(f"{snapshot['env_steps']:,}")
        for axes, level in zip(row, [ranked[i] for i in (0, 10, 19, 29)], strict=True):
            (image,) = axes.images
            expected = env.render_levels(snapshot["levels"][level][None])[0]
            assert np.array_equal(image.get_array(), expected)
            assert axes.get_title() == f"p̂ = {float(snapshot['p_hat'][level]):.2f}"


@pytest.mark.parametrize("env", [MountainCar(1), CartPole(1), PointMass(1, dim=1), PointMass(1)])
def test_levels_are_drawn_on_the_environments_plane(env: Any) -> None:
    dim = len(env.level_names)
    (given,) = snapshots(1, dim)
    (axes,) = panels(figures.generated_levels([given], env))
    across, up = env.level_plane
    (points,) = axes.collections
    expected = torch.stack([given["levels"][:, across], given["levels"][:, up]], dim=1)
    assert np.allclose(points.get_offsets(), expected.numpy())
    assert axes.get_xlabel() == env.level_names[across]
    low, high = float(env.level_space.low[across]), float(env.level_space.high[across])
    assert axes.get_xlim() == pytest.approx((low, high))


def test_an_environment_that_draws_nothing_of_its_own_gets_its_bounds() -> None:
    class Plain:
        level_space = MountainCar.level_space
        level_names = MountainCar.level_names
        level_plane = (1, 0)

    (given,) = snapshots(1, 2)
    (axes,) = panels(figures.generated_levels([given], Plain()))
    assert axes.get_xlim() == pytest.approx((-0.07, 0.07))
    assert axes.get_ylim() == pytest.approx((-1.2, 0.6))
    assert axes.get_xlabel() == "velocity (position per step)"


def test_predicted_levels_say_what_was_asked_for_and_what_came() -> None:
    def made(n: int, difficulty: float) -> Tensor:
        return (torch.linspace(-0.6, 0.9, n) - difficulty)[:, None] * torch.tensor([1.0, 0.01])

    env = MountainCar(1)  # positions up to 0.6 are legal
    learner: Any = SimpleNamespace(
        generate_levels=lambda n, difficulty: made(n, difficulty).flip(0),
        success_probability=lambda levels: levels[:, 0].add(2) / 4,
    )
    data: Any = SimpleNamespace(env=env, make_env=MountainCar)
    shown = panels(figures.predicted_levels(learner, data))
    assert [axes.get_ylabel() for axes in shown[::4]] == ["0.1", "0.3", "0.5", "0.7", "0.9"]
    for axes, level in zip(shown[:4], made(4, 0.1), strict=True):
        legal = "" if env.valid(level[None]).item() else ", illegal"
        assert axes.get_title() == f"p̂ = {(level[0] + 2) / 4:.2f}{legal}"
        assert np.array_equal(axes.images[0].get_array(), render_levels(env, level[None])[0])
    assert "illegal" in shown[3].get_title() and "illegal" not in shown[2].get_title()


def test_saved_figures_are_whole_pngs_of_the_figures_size(tmp_path: Path) -> None:
    curve = figures.learning_curve(ROWS, "a title")
    levels = figures.generated_levels(snapshots(4, 2), MountainCar(1))
    for figure, name in ((curve, "curve"), (levels, "levels")):
        path = figures.save(figure, tmp_path / "new" / f"{name}.png")
        width, height = figure.get_size_inches() * 130
        assert size_of_png(path) == pytest.approx((width, height), abs=1)
        assert plt.imread(path)[..., :3].std() > 0.02  # not blank
    assert not plt.get_fignums()  # saved figures are forgotten


DRAWS_ALL = """
import os
os.environ["MPLBACKEND"] = "svg"
import matplotlib, numpy, torch
assert matplotlib.get_backend() == "svg"
import lit_crl, lit_crl.runs.study.study
from lit_crl.envs import MountainCar
from lit_crl.runs.pictures import figures
row = ("a row", numpy.zeros((4, 20, 30, 3), numpy.uint8), ["a title"] * 4)
made = [figures.picture_grid([row], "", "")]
made.append(figures.learning_curve([{"env_steps": 1, "behaviour/return_mean": 0.0}], ""))
snapshot = {"env_steps": 1, "levels": torch.rand(5, 2), "p_hat": torch.rand(5)}
made.append(figures.generated_levels([snapshot], MountainCar(1)))
for number, figure in enumerate(made):
    figures.save(figure, __import__("pathlib").Path(f"{number}.png"))
import matplotlib.pyplot as plt
assert plt.get_fignums() == [] and matplotlib.get_backend() == "svg"
"""


def test_drawing_leaves_the_users_backend_alone_and_no_figure_open(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DRAWS_ALL], cwd=tmp_path, check=True)


def test_environments_are_there_once_the_package_is_imported() -> None:
    code = "import lit_crl; lit_crl.envs.MountainCar; print('found'); lit_crl.nothing"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stdout == "found\n"
    assert "module 'lit_crl' has no attribute 'nothing'" in told.stderr
