"""Acrobot in batched torch, equal to Gymnasium's ``Acrobot-v1`` (book dynamics, RK4, 0.2 s).

Two links hang from a pivot and only the joint between them is driven; the tip must swing above
the bar. The level is the full physical state at the start.
Source: Sutton & Barto (2018), section 11.3 of the first edition; Gymnasium
``classic_control/acrobot.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.envs.batched import BatchedEnv
from lit_crl.envs.interface import draw_box, uniform_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DT = 0.2  # s per env step
GRAVITY = 9.8  # m/s²; both links: 1 m, 1 kg, moment of inertia 1 kg m², centre of mass at 0.5 m
MAX_SPEED_1, MAX_SPEED_2 = 4 * math.pi, 9 * math.pi  # rad/s
REFERENCE_SPEED = math.pi  # rad/s: what a swinging arm reaches, far below the hard limits
START = 0.1  # half width of the target start box, rad and rad/s
TURN = 2 * math.pi


def acrobot_acceleration(state: Tensor, torque: Tensor) -> Tensor:
    """Return the time derivative of the state.

    The book's equations with the unit masses and lengths put in: d1 = 3.5 + cos θ2,
    d2 = 1.25 + 0.5 cos θ2, phi2 = 0.5 g sin(θ1 + θ2).

    Args:
        state: Angles θ1, θ2 (rad) and their speeds (rad/s) [N, 4].
        torque: Torque on the joint between the links (N m) [N].

    Returns:
        Derivatives [N, 4].
    """
    angle1, angle2, speed1, speed2 = state.unbind(-1)
    cos2, sin2 = torch.cos(angle2), torch.sin(angle2)
    d1 = cos2 + 3.5
    d2 = 0.5 * cos2 + 1.25
    phi2 = torch.sin(angle1 + angle2) * (0.5 * GRAVITY)
    coriolis = torch.add(speed1, speed2, alpha=0.5)
    phi1 = torch.addcmul(phi2, sin2 * speed2, coriolis, value=-1)
    phi1 = torch.add(phi1, torch.sin(angle1), alpha=1.5 * GRAVITY)
    ratio = d2 / d1
    drive = torch.addcmul(torque - phi2, sin2 * speed1, speed1, value=-0.5)
    acceleration2 = torch.addcmul(drive, ratio, phi1) / (1.25 - ratio * d2)
    acceleration1 = -torch.addcmul(phi1, d2, acceleration2) / d1
    return torch.stack((speed1, speed2, acceleration1, acceleration2), -1)


def height(state: Tensor) -> Tensor:
    """Return the tip's height above the pivot (m) [n] in states [n, >=2]; the bar is at 1."""
    return -torch.cos(state[..., 0]) - torch.cos(state[..., 0] + state[..., 1])


def acrobot_step(state: Tensor, actions: Tensor, max_speed: Tensor) -> tuple[Tensor, Tensor]:
    """Advance acrobots by one Runge-Kutta step of 0.2 s.

    Args:
        state: Angles (rad) and speeds (rad/s) [N, 4].
        actions: Torque -1, 0 or 1 N m for 0, 1 or 2 [N].
        max_speed: Speed limits (rad/s) [2].

    Returns:
        Next states [N, 4], angles wrapped to ±π, and whether the tip is above the bar [N].
    """
    torque = (actions - 1).to(state.dtype)
    k1 = acrobot_acceleration(state, torque)
    k2 = acrobot_acceleration(torch.add(state, k1, alpha=DT / 2), torque)
    k3 = acrobot_acceleration(torch.add(state, k2, alpha=DT / 2), torque)
    k4 = acrobot_acceleration(torch.add(state, k3, alpha=DT), torque)
    state = torch.add(state, torch.add(k1 + k4, k2 + k3, alpha=2), alpha=DT / 6)
    angles, speeds = state[:, :2], state[:, 2:]
    angles = torch.sub(angles, torch.round(angles / TURN), alpha=TURN)
    state = torch.cat((angles, speeds.clamp(-max_speed, max_speed)), -1)
    return state, height(state) > 1


class Acrobot(BatchedEnv):
    """``Acrobot-v1``: reward -1 for each env step until the tip is above the bar, at most 500.

    Level: start (θ1, θ2, speed 1, speed 2). Target: U[-0.1, 0.1]⁴, hanging. Reference: angles
    uniform in ±π and speeds in ±π rad/s, without the already solved. Observation: cosine and
    sine of each angle, then the speeds.
    """

    single_observation_space = Box(
        -np.array([1, 1, 1, 1, MAX_SPEED_1, MAX_SPEED_2], np.float32),
        np.array([1, 1, 1, 1, MAX_SPEED_1, MAX_SPEED_2], np.float32),
    )
    single_action_space = Discrete(3)
    level_space = Box(
        -np.array([math.pi, math.pi, MAX_SPEED_1, MAX_SPEED_2], np.float32),
        np.array([math.pi, math.pi, MAX_SPEED_1, MAX_SPEED_2], np.float32),
    )
    level_names = ("θ1 (rad)", "θ2 (rad)", "speed of θ1 (rad/s)", "speed of θ2 (rad/s)")
    max_episode_steps = 500
    gymnasium_id = "Acrobot-v1"

    def initial_state(self, levels: Tensor) -> Tensor:
        """The level is the state."""
        return levels.clone()

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advance by ``acrobot_step``; every step but the last one costs 1."""
        state, terminated = acrobot_step(state, actions, self.level_high[2:])
        return state, terminated.to(state.dtype) - 1, terminated

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return (cos θ1, sin θ1, cos θ2, sin θ2, speeds) [n, 6]."""
        angles = state[:, :2]
        turns = torch.stack((torch.cos(angles), torch.sin(angles)), -1).flatten(1)
        return torch.cat((turns, state[:, 2:]), -1)

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """A visited state is a level."""
        return state.clone()

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 4], each coordinate U[-0.1, 0.1]."""
        corner = self.level_low.new_full((4,), START)
        return uniform_levels(n, -corner, corner, rng)

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 4] uniformly over angles ±π and speeds ±π rad/s that are not solved yet."""
        speed = self.level_high.new_full((4,), REFERENCE_SPEED)
        corner = speed.minimum(self.level_high)
        levels = uniform_levels(n, -corner, corner, rng)
        # A fixed number of redraws needs no read-back; 1 level in 5 is solved, so 1 in 3000
        # is left, and turning such an arm upside down always puts its tip below the bar.
        for _ in range(4):
            redrawn = uniform_levels(n, -corner, corner, rng)
            levels = torch.where((height(levels) > 1).unsqueeze(-1), redrawn, levels)
        flipped = levels.clone()
        flipped[:, 0] -= math.pi * torch.sign(flipped[:, 0])
        return torch.where((height(levels) > 1).unsqueeze(-1), flipped, levels)

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the levels inside the box whose tip is not above the bar already."""
        return self.in_bounds(levels) & (height(levels) <= 1)

    def heldout(self) -> dict[str, Tensor]:
        """Return ``grid`` [m, 4]: the valid ones of 16 times 16 angles, at rest."""
        # Cell centres, because -π and π are the same angle.
        angles = (torch.arange(16) + 0.5) * (TURN / 16) - math.pi
        grid = torch.nn.functional.pad(torch.cartesian_prod(angles, angles), (0, 2))
        return {"grid": grid[height(grid) <= 1].to(self.device)}

    def draw_level_plane(self, axes: Axes) -> None:
        """Shade the angles that are solved already, and mark the target start."""
        draw_box(axes, self.level_space, self.level_names, self.level_plane)
        angles = torch.linspace(-math.pi, math.pi, 101)
        tips = height(torch.cartesian_prod(angles, angles)).reshape(101, 101)
        grid = angles.numpy()
        axes.contourf(grid, grid, tips.T.numpy(), levels=[1, 2.1], colors=["0.85"], zorder=0)
        axes.plot(0, 0, marker="s", color="0.4", linestyle="", label="target", zorder=1)
