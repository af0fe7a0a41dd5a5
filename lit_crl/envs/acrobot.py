"""Acrobot in batched torch, equal to Gymnasium's ``Acrobot-v1`` (book dynamics, RK4, 0.2 s).

Two links hang from a pivot, and only the joint between them is driven; the tip must swing above
a bar. The level is the full physical state at the start. With ``physics_spread`` it also holds the
arm's physics, which the observation does not show.
Source: Sutton & Barto (2018), section 11.3 of the first edition; Gymnasium
``classic_control/acrobot.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
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
REFERENCE_SPEED = math.pi  # rad/s: a swinging arm reaches it; the hard limits are far higher
START = 0.1  # half width of the target start box, rad and rad/s
TURN = 2 * math.pi
#: Mass (kg) of either link, length (m) of either link, torque (N m).
PHYSICS = (1.0, 1.0, 1.0, 1.0, 1.0)
PHYSICS_NAMES = (
    "mass of link 1 (kg)",
    "mass of link 2 (kg)",
    "length of link 1 (m)",
    "length of link 2 (m)",
    "torque (N m)",
)


def acrobot_acceleration(state: Tensor, torque: Tensor) -> Tensor:
    """Return the time derivative of the state of the default arm.

    The book's equations with masses and lengths of 1: d1 = 3.5 + cos θ2,
    d2 = 1.25 + 0.5 cos θ2, phi2 = 0.5 g sin(θ1 + θ2). They take fewer operations than
    ``physical_acceleration``.

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


def physical_acceleration(state: Tensor, torque: Tensor, physics: Tensor) -> Tensor:
    """Return the time derivative of the state of arms with any masses, lengths and torques.

    The book's equations, with each centre of mass in the middle of its link. Moments of inertia
    are 1 kg m², as in Gymnasium.

    Args:
        state: Angles θ1, θ2 (rad) and their speeds (rad/s) [N, 4].
        torque: Torque as a share of the arm's full torque [N].
        physics: Masses m1, m2 (kg), lengths l1, l2 (m), torque (N m) [N, 5].

    Returns:
        Derivatives [N, 4].
    """
    angle1, angle2, speed1, speed2 = state.unbind(-1)
    mass1, mass2, length1, length2, strength = physics.unbind(-1)
    middle1, middle2 = length1 / 2, length2 / 2
    cos2, sin2 = torch.cos(angle2), torch.sin(angle2)
    coupling = mass2 * length1 * middle2  # written once: it appears in all four equations
    inertia2 = mass2 * middle2**2 + 1
    d1 = mass1 * middle1**2 + mass2 * length1**2 + inertia2 + 2 * coupling * cos2 + 1
    d2 = inertia2 + coupling * cos2
    phi2 = mass2 * middle2 * GRAVITY * torch.sin(angle1 + angle2)
    weight1 = (mass1 * middle1 + mass2 * length1) * GRAVITY * torch.sin(angle1)
    phi1 = weight1 + phi2 - coupling * sin2 * speed2 * (speed2 + 2 * speed1)
    drive = torque * strength - phi2 - coupling * sin2 * speed1**2
    acceleration2 = (drive + d2 / d1 * phi1) / (inertia2 - d2**2 / d1)
    acceleration1 = -(phi1 + d2 * acceleration2) / d1
    return torch.stack((speed1, speed2, acceleration1, acceleration2), -1)


def height(state: Tensor) -> Tensor:
    """Return the tip's height above the pivot [n] in states [n, >=2]; the bar is at 1.

    As in Gymnasium it depends only on the angles, as if both links were 1 m long.

    >>> height(torch.tensor([[0.0, 0.0], [math.pi, 0.0]]))  # hanging, upright
    tensor([-2.,  2.])
    """
    return -torch.cos(state[..., 0]) - torch.cos(state[..., 0] + state[..., 1])


def acrobot_step(
    state: Tensor,
    actions: Tensor,
    max_speed: Tensor,
    acceleration: Callable[[Tensor, Tensor], Tensor] = acrobot_acceleration,
) -> tuple[Tensor, Tensor]:
    """Advance acrobots by one Runge-Kutta step of 0.2 s.

    Args:
        state: Angles (rad) and speeds (rad/s) [N, 4].
        actions: Torque -1, 0 or 1 (times N m) for 0, 1 or 2 [N].
        max_speed: Speed limits (rad/s) [2].
        acceleration: The equations of motion: derivatives of states under torques.

    Returns:
        Next states [N, 4], angles wrapped to ±π, and whether the tip is above the bar [N].
    """
    torque = (actions - 1).to(state.dtype)
    k1 = acceleration(state, torque)
    k2 = acceleration(torch.add(state, k1, alpha=DT / 2), torque)
    k3 = acceleration(torch.add(state, k2, alpha=DT / 2), torque)
    k4 = acceleration(torch.add(state, k3, alpha=DT), torque)
    state = torch.add(state, torch.add(k1 + k4, k2 + k3, alpha=2), alpha=DT / 6)
    angles, speeds = state[:, :2], state[:, 2:]
    angles = torch.sub(angles, torch.round(angles / TURN), alpha=TURN)
    state = torch.cat((angles, speeds.clamp(-max_speed, max_speed)), -1)
    return state, height(state) > 1


class Acrobot(BatchedEnv):
    """``Acrobot-v1``: reward -1 for each env step until the tip is above the bar, at most 500.

    Level: start (θ1, θ2, speed 1, speed 2), with ``physics_spread`` also the arm's physics (masses
    and lengths of both links, torque). Target: U[-0.1, 0.1]⁴, hanging, default physics. Reference:
    angles uniform in ±π and speeds in ±π rad/s, none of them solved yet, and uniform physics.
    Observation: cosine and sine of each angle, then the speeds; the physics stay hidden.
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
    level_names: tuple[str, ...] = (
        "θ1 (rad)", "θ2 (rad)", "speed of θ1 (rad/s)", "speed of θ2 (rad/s)"
    )  # fmt: skip
    max_episode_steps = 500
    gymnasium_id = "Acrobot-v1"

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        physics_spread: float | None = None,
    ) -> None:
        """Build the environment.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.
            physics_spread: Factor above 1: each physics parameter of a level lies between its
                default divided by the factor and its default times the factor. None: levels have
                no physics parameters.

        Raises:
            ValueError: If ``physics_spread`` is not above 1.
        """
        if physics_spread is not None:
            if not physics_spread > 1:
                raise ValueError(f"physics_spread is {physics_spread}, but must be above 1.")
            low, high = self.level_space.low, self.level_space.high
            physics = np.array(PHYSICS, np.float32)
            self.level_space = Box(
                np.concatenate((low, physics / np.float32(physics_spread))),
                np.concatenate((high, physics * np.float32(physics_spread))),
            )
            self.level_names += PHYSICS_NAMES
        self.physics_spread = physics_spread
        super().__init__(num_envs, device)

    def initial_state(self, levels: Tensor) -> Tensor:
        """Return the start state [n, 4], the level's first four numbers."""
        return levels[:, :4].clone()

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advance by ``acrobot_step``; every step except the last one costs 1."""
        equations: Callable[[Tensor, Tensor], Tensor] = acrobot_acceleration
        if self.physics_spread is not None:
            equations = partial(physical_acceleration, physics=levels[:, 4:])
        state, terminated = acrobot_step(state, actions, self.level_high[2:4], equations)
        return state, terminated.to(state.dtype) - 1, terminated

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return (cos θ1, sin θ1, cos θ2, sin θ2, speeds) [n, 6]."""
        angles = state[:, :2]
        turns = torch.stack((torch.cos(angles), torch.sin(angles)), -1).flatten(1)
        return torch.cat((turns, state[:, 2:]), -1)

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """A visited state with the episode's physics is a level [n, d]."""
        return torch.cat((state, levels[:, 4:]), -1)

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d], each coordinate of the start U[-0.1, 0.1], default physics."""
        corner = self.level_low.new_full((4,), START)
        start = uniform_levels(n, -corner, corner, rng)
        physics = start.new_tensor(PHYSICS[: len(self.level_names) - 4])
        return torch.cat((start, physics.expand(n, -1)), -1)

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d]: angles in ±π and speeds in ±π rad/s, not solved yet, and any physics."""
        start = self._unsolved_starts(n, rng)
        if self.physics_spread is None:
            return start
        physics = uniform_levels(n, self.level_low[4:], self.level_high[4:], rng)
        return torch.cat((start, physics), -1)

    def _unsolved_starts(self, n: int, rng: torch.Generator) -> Tensor:
        speed = self.level_high.new_full((4,), REFERENCE_SPEED)
        corner = speed.minimum(self.level_high[:4])
        levels = uniform_levels(n, -corner, corner, rng)
        # The number of redraws is fixed, because to ask whether any level is still solved would
        # stall an accelerator. 1 level in 5 is solved, so 1 in 3000 remains after the redraws; to
        # turn the arm upside down always puts its tip below the bar.
        for _ in range(4):
            redrawn = uniform_levels(n, -corner, corner, rng)
            levels = torch.where((height(levels) > 1).unsqueeze(-1), redrawn, levels)
        flipped = levels.clone()
        flipped[:, 0] -= math.pi * torch.sign(flipped[:, 0])
        return torch.where((height(levels) > 1).unsqueeze(-1), flipped, levels)

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the levels inside the box whose tip is not yet above the bar."""
        return self.in_bounds(levels) & (height(levels) <= 1)

    def heldout(self) -> dict[str, Tensor]:
        """Return ``grid`` [m, 4]: 16 by 16 angles at rest, without those already solved.

        With physics in the level, return ``physics`` [256, 9]: 4 masses of the second link by 4
        lengths of each link by 4 torques; small starts, and a first link of 1 kg.
        """
        if self.physics_spread is not None:
            return {"physics": self._physics_grid(self.physics_spread)}
        # Cell centres, because -π and π are the same angle.
        angles = (torch.arange(16) + 0.5) * (TURN / 16) - math.pi
        grid = torch.nn.functional.pad(torch.cartesian_prod(angles, angles), (0, 2))
        return {"grid": grid[height(grid) <= 1].to(self.device)}

    def _physics_grid(self, spread: float) -> Tensor:
        factors = spread ** torch.tensor([-0.75, -0.25, 0.25, 0.75])
        physics = torch.cartesian_prod(*(factors * PHYSICS[axis] for axis in (1, 2, 3, 4)))
        # Drawn on the CPU, so that the held-out set is the same on every device.
        start = torch.rand(len(physics), 4, generator=torch.Generator().manual_seed(0))
        mass1 = torch.full((len(physics), 1), PHYSICS[0])
        return torch.cat(((2 * start - 1) * START, mass1, physics), -1).to(self.device)

    def draw_level_plane(self, axes: Axes) -> None:
        """Shade the angles that are already solved, and mark the target start."""
        draw_box(axes, self.level_space, self.level_names, self.level_plane)
        angles = torch.linspace(-math.pi, math.pi, 101)
        tips = height(torch.cartesian_prod(angles, angles)).reshape(101, 101)
        grid = angles.numpy()
        axes.contourf(grid, grid, tips.T.numpy(), levels=[1, 2.1], colors=["0.85"], zorder=0)
        axes.plot(0, 0, marker="s", color="0.4", linestyle="", label="target", zorder=1)
