"""Mountain car in batched torch, equal to Gymnasium's ``MountainCar-v0``.

An underpowered car must swing out of a valley. From the valley's floor almost every random
episode fails; from most other places the task is easy. The level is the start state.
Source: Moore (1990), PhD thesis, Cambridge; Gymnasium ``classic_control/mountain_car.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.envs.batched import BatchedEnv
from lit_crl.envs.interface import draw_box, uniform_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_POSITION, MAX_POSITION, GOAL_POSITION = -1.2, 0.6, 0.5
MAX_SPEED = 0.07  # position per env step
FORCE, GRAVITY = 0.001, 0.0025  # position per env step squared
TARGET_POSITIONS = (-0.6, -0.4)


def mountain_car_step(
    state: Tensor, actions: Tensor, force: float = FORCE
) -> tuple[Tensor, Tensor]:
    """Advance mountain cars by one env step.

    Args:
        state: Position and velocity per env step [N, 2].
        actions: 0 pushes left, 1 does nothing, 2 pushes right [N].
        force: Change of velocity by one push.

    Returns:
        Next states [N, 2], and whether the goal is reached [N].
    """
    position, velocity = state.unbind(-1)
    velocity = torch.add(velocity, actions - 1, alpha=force)
    velocity = torch.sub(velocity, torch.cos(3 * position), alpha=GRAVITY)
    velocity = velocity.clamp(-MAX_SPEED, MAX_SPEED)
    position = (position + velocity).clamp(MIN_POSITION, MAX_POSITION)
    # The left wall is inelastic; the right one is behind the goal.
    velocity = torch.where(position <= MIN_POSITION, velocity.clamp_min(0), velocity)
    # A car that starts beyond the flag and rolls back has not arrived.
    reached = (position >= GOAL_POSITION) & (velocity >= 0)
    return torch.stack((position, velocity), -1), reached


class MountainCar(BatchedEnv):
    """``MountainCar-v0``: reward -1 for each env step until the flag, at most 200 steps.

    With a weaker engine, a sparse reward (1 at the flag, 0 elsewhere) or another time limit it is
    another task, which Gymnasium does not have. Below a force of 0.00027 the flag is out of reach.

    Level: start (position, velocity). Target: position U[-0.6, -0.4], velocity 0. Reference:
    uniform over the level box left of the flag. Observation: the state.
    """

    single_observation_space = Box(
        np.array([MIN_POSITION, -MAX_SPEED], np.float32),
        np.array([MAX_POSITION, MAX_SPEED], np.float32),
    )
    single_action_space = Discrete(3)
    level_space = single_observation_space
    level_names = ("position", "velocity (position per step)")
    max_episode_steps = 200
    gymnasium_id: str | None = "MountainCar-v0"

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        force: float = FORCE,
        sparse: bool = False,
        max_episode_steps: int | None = None,
    ) -> None:
        """Build the environment.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.
            force: Force of the engine, in position per env step squared.
            sparse: Reward 1 at the flag and 0 before it, instead of -1 for each step.
            max_episode_steps: Env steps after which an episode is truncated; None: 200.

        Raises:
            ValueError: If ``force`` is not positive.
        """
        if not force > 0:
            raise ValueError(f"force is {force}, but must be positive.")
        self.force, self.sparse = force, sparse
        if max_episode_steps is not None:
            self.max_episode_steps = max_episode_steps
        if (force, sparse, max_episode_steps) != (FORCE, False, None):
            self.gymnasium_id = None
        super().__init__(num_envs, device)

    def initial_state(self, levels: Tensor) -> Tensor:
        """The level is the state."""
        return levels.clone()

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advance by ``mountain_car_step``; every step costs 1, or, if sparse, the flag earns 1."""
        state, terminated = mountain_car_step(state, actions, self.force)
        if self.sparse:
            return state, terminated.to(state.dtype), terminated
        return state, torch.full_like(state[:, 0], -1.0), terminated

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return a copy of the state [n, 2]."""
        return state.clone()

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """A visited state is a level."""
        return state.clone()

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 2]: position U[-0.6, -0.4], velocity 0."""
        low, high = (self.level_low.new_tensor([bound, 0.0]) for bound in TARGET_POSITIONS)
        return uniform_levels(n, low, high, rng)

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 2] uniformly over positions left of the flag and all velocities."""
        high = self.level_high.new_tensor([GOAL_POSITION - 1e-6, MAX_SPEED])
        return uniform_levels(n, self.level_low, high.minimum(self.level_high), rng)

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the levels inside the box and left of the flag."""
        return self.in_bounds(levels) & (levels[..., 0] < GOAL_POSITION)

    def heldout(self) -> dict[str, Tensor]:
        """Return ``grid`` [400, 2]: 20 positions in [-1.2, 0.45] by 20 velocities."""
        positions = torch.linspace(MIN_POSITION, 0.45, 20)
        velocities = torch.linspace(-MAX_SPEED, MAX_SPEED, 20)
        return {"grid": torch.cartesian_prod(positions, velocities).to(self.device)}

    def draw_level_plane(self, axes: Axes) -> None:
        """Label the axes, and draw the target start region and the goal line."""
        draw_box(axes, self.level_space, self.level_names, self.level_plane)
        axes.plot(TARGET_POSITIONS, (0, 0), linewidth=5, color="0.6", label="target", zorder=0)
        axes.axvline(GOAL_POSITION, color="0.3", linestyle="--", label="goal", zorder=0)
