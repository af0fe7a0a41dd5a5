"""How each built-in environment looks: a picture of its state and of the path so far.

A *scene* is a function ``draw(path, level)`` of the states [t, s] so far, the present one last, and
of the level [d] of the episode, both as NumPy arrays. Its background is drawn once.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from lit_crl.envs import Acrobot, BatchedEnv, CartPole, Maze, MountainCar, PointMass, Spiral
from lit_crl.envs.cartpole import MAX_ANGLE, MAX_POSITION
from lit_crl.envs.mazes.layouts import MOVES
from lit_crl.envs.mountain_car import GOAL_POSITION
from lit_crl.envs.mountain_car import MAX_POSITION as RIGHT
from lit_crl.envs.mountain_car import MIN_POSITION as LEFT
from lit_crl.envs.spiral import RADIUS
from lit_crl.runs.pictures.canvas import (
    FINE,
    Array,
    Canvas,
    Pen,
    Picture,
    enlarged,
    on_axes,
    on_tiles,
    with_note,
)
from lit_crl.runs.pictures.style import AGENT, DARK, GOAL, GREY, LIGHT, PALE, SKY, TRAIL

Draw = Callable[[Array, Array], Picture]

#: Width and height of most pictures, in pixels.
SQUARE = (340, 340)


def scene(env: BatchedEnv) -> Draw:
    """The scene of an environment; by default its states in the level plane."""
    match env:
        case MountainCar():
            return mountain_car(env)
        case CartPole():
            return cart_pole()
        case Acrobot():
            return acrobot(env)
        case Maze():
            return maze(env)
        case PointMass():
            return goal_plane(env, env.radius)
        case Spiral():
            return goal_plane(env, RADIUS)
    return rendered_levels(env) if hasattr(env, "render_levels") else level_plane(env)


def rendered_levels(env: Any) -> Draw:
    """The state, drawn as a level by the environment's ``render_levels``."""
    return lambda path, level: enlarged(env.render_levels(as_levels(env, path[-1:], level))[0])


def as_levels(env: BatchedEnv, states: Array, level: Array) -> Tensor:
    """The levels [n, d] that stand for states [n, s] of an episode at ``level``."""
    given = torch.from_numpy(level).to(env.device).expand(len(states), -1)
    return env.visited_level(torch.from_numpy(states).to(env.device), given)


def hill(position: Array) -> Array:
    """Points [..., 2] of the ground under the mountain car at positions [...]."""
    return np.stack((position, np.sin(3 * position)), axis=-1)


def mountain_car(env: MountainCar) -> Draw:
    """The car on its hill, and beside it the phase plane with the path so far."""

    def draw_hill(axes: Axes) -> None:
        across, height = hill(np.linspace(LEFT, RIGHT, 201)).T
        axes.fill_between(across, height, -1.3, color=LIGHT)
        axes.plot(across, height, color=DARK, linewidth=1.2)
        axes.set(xlim=(LEFT, RIGHT), ylim=(-1.3, 1.8), xlabel="position")
        axes.set_ylabel("height: sin(3 · position)")

    landscape = on_axes(draw_hill, 250, 230)
    plane = on_axes(env.draw_level_plane, 230, 230)

    def draw(path: Array, level: Array) -> Picture:
        pen = Pen(landscape)
        draw_car(pen, float(path[-1, 0]))
        foot = hill(np.array(GOAL_POSITION))
        pen.line(foot + np.array([(0, 0), (0, 0.7)]), DARK, 1.5)
        pen.polygon(foot + np.array([(0, 0.7), (0, 0.5), (0.09, 0.6)]), GOAL)
        return np.concatenate((pen.picture(), draw_trail(Pen(plane), path)), axis=1)

    return draw


def draw_car(pen: Pen, position: float) -> None:
    """A car on the ground at its position, tilted like the ground."""
    unit = pen.canvas.unit
    tangent = np.array([1.0, 3 * np.cos(3 * position)]) * unit
    pixel = tangent * FINE / np.linalg.norm(tangent)
    # One pixel along the ground and one upwards, in the task's units; pixels count from the top.
    along, up = pixel / unit, np.array([pixel[1], -pixel[0]]) / unit
    foot = hill(np.array(position))
    body = [(-20, 5), (-20, 12), (-13, 13), (-8, 20), (6, 20), (11, 13), (20, 11), (20, 5)]
    pen.polygon([foot + x * along + y * up for x, y in body], AGENT)
    for wheel in (-12, 12):
        pen.disc(foot + wheel * along + 5 * up, 5, DARK, DARK)


def cart_pole() -> Draw:
    """Cart and pole on the track; their widths grow with the square roots of their masses."""

    def draw_track(axes: Axes) -> None:
        axes.axhline(0, color=GREY, linewidth=1)
        for end in (-MAX_POSITION, MAX_POSITION):
            axes.axvline(end, color=GREY, linestyle="--", linewidth=1)
        axes.set(xlim=(-2.6, 2.6), ylim=(-0.45, 2.45), xlabel="cart position (m)", yticks=[])
        axes.set_aspect("equal")
        axes.spines["left"].set_visible(False)

    track = on_axes(draw_track, 400, 260)

    def draw(path: Array, level: Array) -> Picture:
        position, _, angle, _ = path[-1]
        gravity, cart_mass, pole_mass, half_length, force = level[4:]
        pen = Pen(track)
        top, half = 0.2, 0.25 * cart_mass**0.5
        pivot = np.array([position, top])
        for limit in (-MAX_ANGLE, MAX_ANGLE):
            pen.line([pivot, pivot + 2 * half_length * heading(limit)], PALE, 1)
        corners = np.array([(-half, -top), (-half, 0), (half, 0), (half, -top)])
        pen.polygon(pivot + corners, DARK)
        width = 7 * (pole_mass / 0.1) ** 0.5
        pen.line([pivot, pivot + 2 * half_length * heading(angle)], AGENT, width)
        pen.disc(pivot, 3, SKY, DARK)
        return with_note(
            pen.picture(),
            f"gravity {gravity:.1f} m/s², push {force:.1f} N, cart {cart_mass:.2f} kg, "
            f"pole {pole_mass:.2f} kg, {2 * half_length:.2f} m",
        )

    return draw


def heading(angles: ArrayLike) -> Array:
    """Directions [..., 2] at angles [...] (rad) from the upward vertical, clockwise."""
    return np.stack((np.sin(angles), np.cos(angles)), axis=-1)


def acrobot(env: Acrobot) -> Draw:
    """Both links and the bar; the links are drawn 1 m long, as the bar's height is defined."""

    def draw_bar(axes: Axes) -> None:
        axes.axhline(1, color=GOAL, linestyle="--", linewidth=1.5, label="bar")
        axes.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3), xlabel="across (m)", ylabel="height (m)")
        axes.set_aspect("equal")

    ground = on_axes(draw_bar, *SQUARE)

    def draw(path: Array, level: Array) -> Picture:
        pen = Pen(ground)
        # Angles are from the downward vertical, and grow anticlockwise.
        elbows = -heading(-path[-25:, 0])
        tips = elbows - heading(-path[-25:, 0] - path[-25:, 1])
        elbow, tip = elbows[-1], tips[-1]
        pen.line(tips, TRAIL, 1.5)
        pen.line([np.zeros(2), elbow], DARK, 7)
        pen.line([elbow, tip], AGENT, 7)
        for joint in (np.zeros(2), elbow):
            pen.disc(joint, 5, SKY, DARK)
        if env.physics_spread is None:
            return pen.picture()
        mass1, mass2, length1, length2, torque = level[4:]
        links = f"links {mass1:.2f} kg, {length1:.2f} m and {mass2:.2f} kg, {length2:.2f} m"
        noted = with_note(pen.picture(), f"{links} (not to scale)")
        return with_note(noted, f"torque {torque:.2f} N m")

    return draw


def maze(env: Maze) -> Draw:
    """The tiles, the path so far and the agent."""
    side = max(SQUARE[0] // env.size // 2 * 2, 4)  # even, because H.264 needs even sides

    @lru_cache(8)
    def tiles_of(level: bytes) -> Canvas:
        levels = torch.from_numpy(np.frombuffer(level, np.float32).copy())[None]
        return on_tiles(env.render_levels(levels)[0], side)

    def draw(path: Array, level: Array) -> Picture:
        pen = Pen(tiles_of(level.astype(np.float32).tobytes()))
        cells = path[:, 1::-1]  # column, row
        pen.line(cells, TRAIL, 4)
        pen.disc(cells[-1], 0.28 * side, AGENT)
        for heading in path[-1, 2:]:  # only agents that face a direction have one
            ahead = np.array(MOVES[int(heading)][::-1])
            pen.line(np.stack((cells[-1], cells[-1] + 0.45 * ahead)), AGENT, 4)
        return pen.picture()

    return draw


def goal_plane(env: PointMass | Spiral, radius: float) -> Draw:
    """The point, its path and its goal in the level plane, and the distance in all dimensions."""

    def draw_plane(axes: Axes) -> None:
        env.draw_level_plane(axes)
        label = f"goal, within {radius:.2g}"
        axes.plot([], [], "o", mfc="none", mec=GOAL, markersize=7, label=label)

    plane = on_axes(draw_plane, *SQUARE)
    axes = list(env.level_plane)

    def draw(path: Array, level: Array) -> Picture:
        pen = Pen(plane)
        pen.ring(level[axes], radius, GOAL)
        picture = draw_trail(pen, path[:, axes])
        if len(level) <= 2:
            return picture
        distance = np.linalg.norm(path[-1] - level)
        words = f"the goal is {distance:.2f} away, in all {len(level)} dimensions"
        return with_note(picture, words)

    return draw


def level_plane(env: BatchedEnv) -> Draw:
    """The state as a level, in the plane of two of its coordinates."""
    plane = on_axes(env.draw_level_plane, *SQUARE)

    def draw(path: Array, level: Array) -> Picture:
        points = as_levels(env, path, level).cpu().numpy()
        return draw_trail(Pen(plane), points[:, list(env.level_plane)])

    return draw


def draw_trail(pen: Pen, points: Array) -> Picture:
    """Finish a picture with a path through points [t, 2] and a disc at the last."""
    pen.line(points, TRAIL, 2)
    pen.disc(points[-1], 5, AGENT)
    return pen.picture()
