"""How observations look, real or imagined: in a plane of two axes, and as pictures.

A built-in task whose observations determine its state is drawn as everywhere else. Maps of bits
are pictures themselves. Of any other task, the two dimensions in which the observations spread most
are drawn.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeGuard

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import Acrobot, BatchedEnv, LevelEnv
from lit_crl.envs.acrobot import TURN
from lit_crl.envs.images import ImageSpace, are_maps_of_bits, space_of
from lit_crl.runs.pictures.canvas import Array, Pen, on_axes
from lit_crl.runs.pictures.maps_of_bits import picture_of
from lit_crl.runs.pictures.scenes import SQUARE, Draw, draw_trail, scene
from lit_crl.world.perfect import states_of

#: Target levels that are drawn to see whether observations determine the state.
COMPARED = 64
#: Rim around the real points of a plain plane, as a share of their range. Worlds keep dreams within
#: a quarter of the range of what they have seen.
RIM = 0.3


class Plane(NamedTuple):
    """Two axes in which the observations of a task are drawn."""

    #: Points ``[n, 2]`` of observations ``[n, d]``.
    points: Callable[[Tensor], Array]
    #: Sets limits and labels, and draws what does not move.
    draw: Callable[[Axes], None]
    #: After how much a coordinate comes back to itself; infinite where it never does.
    period: float = np.inf

    def path(self, obs: Tensor) -> Array:
        """Points ``[m, 2]`` of a path, with NaN in between where it jumps to the other side."""
        points = self.points(obs)
        jumps = (np.abs(np.diff(points, axis=0)) > self.period / 2).any(axis=1)
        return np.insert(points, np.flatnonzero(jumps) + 1, np.nan, axis=0)


class Look(NamedTuple):
    """Pictures of observations."""

    #: What ``draw`` takes of observations ``[n, ...]``: an array ``[n, ...]``.
    seen: Callable[[Tensor], Array]
    #: Makes a picture of the last row of such an array, with the path so far; needs no level.
    draw: Draw


def shows_state(env: LevelEnv) -> TypeGuard[BatchedEnv]:
    """Whether ``env`` is a built-in task whose observations determine the state."""
    if not isinstance(env, BatchedEnv):
        return False
    levels = env.target_levels(COMPARED, torch.Generator(env.device))
    state = env.initial_state(levels)
    try:
        found, _ = states_of(env, env.observe(state, levels))
    except ConfigError:
        return False
    return found.shape == state.shape and torch.allclose(found, state, atol=1e-5)


def plane_of(env: LevelEnv, seen: Tensor) -> Plane:
    """The plane in which a task's observations are drawn.

    Args:
        env: The task.
        seen: Real observations ``[n, d]``. If the task has no plane for them, two of their
            dimensions make one. Dreams have no say in it: they may be far off.

    Raises:
        ConfigError: If observations are no vectors.
    """
    if seen.dim() != 2:
        raise ConfigError(
            f"observations of shape {list(seen.shape[1:])} have no plane: only vectors are drawn"
        )
    return task_plane(env) if shows_state(env) else plain_plane(seen)


def task_plane(env: BatchedEnv) -> Plane:
    """The plane of a task's levels; a state is drawn where a level would start in it."""

    def points(obs: Tensor) -> Array:
        as_levels = env.visited_level(*states_of(env, obs.to(env.device)))
        found: Array = as_levels[:, list(env.level_plane)].cpu().numpy()
        return found

    def draw(axes: Axes) -> None:
        env.draw_level_plane(axes)
        # Where a level is a goal, its axes are called so; a path is no goal.
        axes.set_xlabel(axes.get_xlabel().removeprefix("goal "))
        axes.set_ylabel(axes.get_ylabel().removeprefix("goal "))

    return Plane(points, draw, TURN if isinstance(env, Acrobot) else np.inf)


def plain_plane(seen: Tensor) -> Plane:
    """The plane of the two dimensions in which ``seen [n, d]`` spread most."""
    values = seen.double().cpu().numpy()
    widest = sorted(np.argsort(-values.std(axis=0), kind="stable")[:2].tolist())
    across, up = widest[0], widest[-1]  # the same one, if there is only one

    def points(obs: Tensor) -> Array:
        found: Array = obs[:, [across, up]].cpu().numpy()
        return found

    def draw(axes: Axes) -> None:
        for axis, limit, label in (
            (across, axes.set_xlim, axes.set_xlabel),
            (up, axes.set_ylim, axes.set_ylabel),
        ):
            low, high = values[:, axis].min(), values[:, axis].max()
            rim = RIM * (high - low) or 1.0
            limit(low - rim, high + rim)
            label(f"obs[{axis}]")

    return Plane(points, draw)


def limits(plane: Plane) -> tuple[Array, Array]:
    """The lower and the upper corner ``[2]`` of a plane."""
    axes = Figure().add_subplot()
    plane.draw(axes)
    low, high = np.transpose([axes.get_xlim(), axes.get_ylim()])
    return low, high


def look_of(env: LevelEnv, seen: Tensor) -> Look:
    """How pictures show observations of a task.

    Args:
        env: The task.
        seen: Real observations ``[n, ...]``; only a plain plane depends on them. What lies beyond
            it is drawn at its border.

    Raises:
        ConfigError: If observations are neither vectors nor maps of bits.
    """
    space = space_of(env)
    if isinstance(space, ImageSpace) and are_maps_of_bits(space):
        return Look(
            lambda obs: obs.cpu().numpy(),
            lambda path, level: picture_of(path[-1], space, SQUARE[0]),
        )
    if not shows_state(env):
        plane = plane_of(env, seen)
        canvas = on_axes(plane.draw, *SQUARE)
        low, high = limits(plane)

        def clipped(obs: Tensor) -> Array:
            found: Array = plane.points(obs).clip(low, high)
            return found

        return Look(clipped, lambda path, level: draw_trail(Pen(canvas), path))
    task, of_task, size = env, scene(env), env.state.shape[1]

    def states_and_levels(obs: Tensor) -> Array:
        found: Array = torch.cat(states_of(task, obs.to(task.device)), 1).cpu().numpy()
        return found

    return Look(states_and_levels, lambda path, level: of_task(path[:, :size], path[-1, size:]))
