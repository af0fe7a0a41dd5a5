"""Figures of a world: dreams laid over real paths, and its error over the training."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import random_stream
from lit_crl.dqn.logs.task import LoggedTask
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import LevelEnv
from lit_crl.runs.pictures.canvas import Array, spread
from lit_crl.runs.pictures.figures import Rows, series
from lit_crl.runs.pictures.observed import RIM, Plane, plane_of
from lit_crl.runs.pictures.played import play_episodes
from lit_crl.runs.pictures.style import BLACK, BLUE, DARK, GREY, ORANGE, PALE, WHITE, styled
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.interface import World
from lit_crl.world.open_loop import follow_actions
from lit_crl.world.real_episodes import held_back_episodes

#: Real episodes, dreams of the explorer, and visited states that are drawn at most.
EPISODES, FREE, VISITED = 3, 8, 3_000
#: Columns of ``metrics.csv`` with open-loop errors, and how they are drawn.
ERRORS = (
    ("world/error_1", BLUE, "o", "after 1 step"),
    ("world/error_20", ORANGE, "s", "after 20 steps"),
)
#: Room for the mark of a point at the border, as a share of the axis.
MARK = 0.02
#: The column with the share of imagined steps that were stopped at a bound.
BEYOND = "world/beyond_bounds"


class Pair(NamedTuple):
    """What really followed on actions, and what a world imagines to follow on them."""

    #: Observations ``[T + 1, ...]``.
    real: Tensor
    #: Observations ``[T + 1, ...]``, the first of which is real.
    dream: Tensor
    #: The first step with which the world would have ended the task; None: it never would.
    ended: int | None


class Dream(NamedTuple):
    """A dream in which somebody acted freely."""

    #: Observations ``[t + 1, ...]``.
    obs: Tensor
    #: Whether the world ended the task; if not, the dream was cut.
    ended: bool


def pair(world: World, real: Tensor, action: Tensor, rng: torch.Generator) -> Pair:
    """A real path ``[T + 1, ...]``, and the world's dream under its actions ``[T]``."""
    dream = follow_actions(world, real[:1], action[None], rng)
    ends = dream.ended[0].nonzero().flatten()
    return Pair(real, dream.obs[0], int(ends[0]) + 1 if len(ends) else None)


def held_back_paths(replay: ReplayBuffer, share: float) -> list[tuple[Tensor, Tensor]]:
    """Observations and actions of the episodes in a log that no member of a world learnt from.

    Raises:
        ConfigError: If there is none.
    """
    episodes = held_back_episodes(replay, share)
    if not episodes:
        raise ConfigError(
            "no episode that ended was held back from the world: raise data.world.held_back"
        )
    chosen = [episodes[index] for index in spread(len(episodes), EPISODES)]
    return [(torch.cat((each.obs, each.next_obs[-1:])), each.action) for each in chosen]


@torch.no_grad()
def free_dreams(env: ImaginedEnv, act: Callable[[Tensor], Tensor], starts: Tensor) -> list[Dream]:
    """Dream from each of ``starts [N, ...]`` until the dream is over.

    Args:
        env: N dreams.
        act: Actions ``[N]`` for observations ``[N, ...]``.
        starts: Observations, none of them a final one.
    """
    obs, _ = env.reset(options={"observations": starts})
    seen, lasts = [obs], torch.ones(len(obs), dtype=torch.int64, device=obs.device)
    running = torch.ones_like(lasts, dtype=torch.bool)
    ended = torch.zeros_like(running)
    while running.any():
        obs, _, terminated, truncated, _ = env.step(act(obs))
        seen.append(obs)
        lasts += running
        ended |= running & terminated
        running &= ~(terminated | truncated)
    paths = torch.stack(seen, 1)
    return [
        Dream(path[:last], is_end)
        for path, last, is_end in zip(paths, lasts.tolist(), ended.tolist(), strict=True)
    ]


def dreams_of_run(learner: CreativeLearner, data: ReplayDataModule) -> Figure:
    """The figure of a run that has a world: new episodes of its policy, and its explorer's dreams.

    The world has learnt from none of these episodes. Where there is a log alone, they are those
    that were held back. Random streams are made for it, and nothing of the run changes.

    Raises:
        ConfigError: If no episode of a log was held back, or observations are no vectors.
    """
    dreaming = data.dreaming
    assert dreaming is not None  # there is a world
    rng = random_stream(data.seed, "figure of dreams", device=data.replay.obs.device)
    world, horizon = dreaming.env.world, data.settings.world.horizon
    if isinstance(data.evaluation_envs.example, LoggedTask):
        paths, whose = held_back_paths(data.replay, data.settings.world.held_back), "Held-back"
    else:
        played = play_episodes(learner, data, EPISODES)
        paths, whose = [(each.obs, each.action) for each in played], "New"
    pairs = [pair(world, *path, rng) for path in paths]
    first = dreaming.starts.first
    of_first = FREE // 2 if len(first) else 0  # a log may not say where episodes begin
    starts = data.replay.sample((FREE - of_first,), rng).obs
    if of_first:
        starts = torch.cat((first.draw(of_first, rng), starts))
    imagined = ImaginedEnv(
        len(starts),
        world,
        dreaming.starts,
        observation_space=data.env.single_observation_space,
        action_space=data.env.single_action_space,
        horizon=horizon,
        device=starts.device,
    )
    imagined.gate, imagined.rng = dreaming.env.gate, rng
    network, name = learner.q_network, "policy"
    if dreaming.settings.has_explorer and learner.explorer is not None:
        network, name = learner.explorer, "explorer"
    free = free_dreams(imagined, lambda obs: network(obs).argmax(1), starts)
    rows = data.replay.startable.nonzero().squeeze(1)
    visited = data.replay.observations(rows[spread(len(rows), VISITED)])
    return dreams(data.env, pairs, free, visited, whose, name)


@styled
def dreams(
    env: LevelEnv,
    pairs: Sequence[Pair],
    free: Sequence[Dream],
    visited: Tensor,
    whose: str = "New",
    dreamer: str = "explorer",
) -> Figure:
    """Dreams under real actions over what really followed, and free dreams over visited states.

    Args:
        env: The task, which may have a plane to draw in.
        pairs: Real paths and dreams, at least one.
        free: Dreams in which somebody acted freely.
        visited: Observations ``[n, ...]`` that the run has visited.
        whose: Which episodes the real paths are.
        dreamer: Who acted in them.

    Raises:
        ConfigError: If observations are no vectors.
    """
    real = torch.cat((visited, *(each.real for each in pairs)))
    dreamt = [*(each.dream for each in pairs), *(each.obs for each in free)]
    plane = plane_of(env, real)
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    draw_pairs(left, plane, pairs)
    draw_free(right, plane, free, visited)
    left.set_title(f"{whose} episodes, and dreams under the same actions")
    right.set_title(f"Where the {dreamer} goes in its dreams")
    widen(left, plane.points(real), plane.points(torch.cat(dreamt)))
    handles: dict[str, Artist] = {}
    for axes in (left, right):
        handles |= {
            label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if (legend := axes.get_legend()) is not None:
            legend.remove()
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=-(-len(handles) // 2),
    )
    return figure


def widen(axes: Axes, real: Array, dreamt: Array) -> None:
    """Widen the limits until they hold real points [n, 2], and dreams that are not far beyond."""
    low, high = real.min(axis=0), real.max(axis=0)
    beyond = RIM * (high - low)
    near = dreamt.clip(low - beyond, high + beyond)
    held = np.concatenate((real, near))
    now = np.transpose([axes.get_xlim(), axes.get_ylim()])
    rim = MARK * (now[1] - now[0])
    start = np.minimum(now[0], held.min(axis=0) - rim)
    stop = np.maximum(now[1], held.max(axis=0) + rim)
    axes.set_xlim(start[0], stop[0])
    axes.set_ylim(start[1], stop[1])


def draw_pairs(axes: Axes, plane: Plane, pairs: Sequence[Pair]) -> None:
    """Real paths and dreams in two colours, with their ends."""
    plane.draw(axes)
    for real, whole, ended in pairs:
        dream = whole if ended is None else whole[: ended + 1]
        # The dream is thinner and above, so that both are seen where they agree.
        axes.plot(*plane.path(real).T, color=BLUE, linewidth=2.4, label="really happened")
        axes.plot(*plane.path(dream).T, color=ORANGE, linewidth=1.2, label="dream")
        start, end, dreamt = plane.points(torch.stack((real[0], real[-1], dream[-1])))
        axes.plot(*start, "o", mfc=WHITE, mec=DARK, markersize=6, label="start of a path")
        axes.plot(*end, "o", color=BLUE, markersize=7, label="real path's last step")
        if ended is None:
            axes.plot(*dreamt, "s", color=ORANGE, mec=DARK, markersize=6, label="dream's last step")
        else:
            where = plane.points(dream[-1][None])[0]
            axes.plot(
                *where, "X", color=BLACK, mec=WHITE, markersize=9, label="the world ends the task"
            )


def draw_free(axes: Axes, plane: Plane, free: Sequence[Dream], visited: Tensor) -> None:
    """Where somebody goes in dreams, over the states that were really visited."""
    plane.draw(axes)
    axes.plot(*plane.points(visited).T, ".", color=PALE, markersize=2, zorder=0.5)
    axes.plot([], [], ".", color=GREY, markersize=7, label="visited states")
    for obs, ended in free:
        axes.plot(*plane.path(obs).T, color=ORANGE, linewidth=0.9, alpha=0.8)
        start, end = plane.points(torch.stack((obs[0], obs[-1])))
        axes.plot(*start, "o", mfc=WHITE, mec=DARK, markersize=6, label="start of a path")
        if ended:
            axes.plot(
                *end, "X", color=BLACK, mec=WHITE, markersize=9, label="the world ends the task"
            )
        else:
            axes.plot(*end, "s", color=ORANGE, mec=DARK, markersize=6, label="dream's last step")
    axes.label_outer()


@styled
def world_error(rows: Rows, title: str) -> Figure | None:
    """Open-loop error on held-back episodes over env steps; None if it was never measured.

    Args:
        rows: Rows of ``metrics.csv``.
        title: Title of the figure.
    """
    found = {name: points for name, *_ in ERRORS if (points := series(rows, name))[0]}
    if not found:
        return None
    beyond = series(rows, BEYOND)
    figure = Figure(figsize=(7, 5.4 if beyond[0] else 3.8), layout="constrained")
    heights = [3, 1] if beyond[0] else [1]
    top, *below = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
    for name, colour, marker, label in ERRORS:
        if name in found:
            top.plot(*found[name], color=colour, marker=marker, label=label)
    if all(min(values) > 0 for _, values in found.values()):
        top.set_yscale("log")
    top.axhline(1, color=GREY, linestyle="--", linewidth=1, label="as if it always said the mean")
    top.set(ylabel="error on held-back episodes\n(spread of observations)", title=title)
    figure.legend(loc="outside lower center", ncols=3)
    for axes in below:
        axes.plot(*beyond, color=DARK)
        axes.set(ylabel="share of steps\nat a bound", ylim=(-0.04, 1.04))
    last = below[-1] if below else top
    last.set_xlabel("env steps")
    last.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure
