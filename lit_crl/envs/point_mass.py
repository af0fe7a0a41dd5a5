"""Goal-GAN's n-dimensional point mass with discrete moves.

The point moves in a thin slab inside a far bigger box of goals. Most goals can never be reached,
and the share of those that can falls with each dimension, so goals drawn blindly teach nothing.
Source: Florensa, Held, Geng & Abbeel (2018), *Automatic Goal Generation for Reinforcement
Learning Agents*, arXiv:1705.06366, section 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.envs.batched import BatchedEnv
from lit_crl.envs.interface import draw_box, uniform_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def goal_reached(position: Tensor, goal: Tensor, radius: float) -> Tensor:
    """Return whether positions [..., n] lie within ``radius`` of goals [..., n].

    >>> goal_reached(torch.tensor([[0.0, 0.0], [0.3, 0.4]]), torch.tensor([0.3, 0.0]), 0.35)
    tensor([ True, False])
    """
    distance: Tensor = torch.linalg.vector_norm(position - goal, dim=-1)
    return distance <= radius


class PointMass(BatchedEnv):
    """Move a point from the origin to a goal; reward 1 on arrival, else 0; at most 200 steps.

    Level: the goal (n coordinates). Action 2k moves by ``move`` along axis k, and action 2k + 1
    moves back; the position is clipped to ± ``state_bounds``. An episode succeeds within
    0.3·sqrt(n / 2) of the goal. Observation: position, then goal. Reference: uniform over the goal
    box, mostly unreachable. Target: uniform over the state box. A curriculum must discover which
    goals are feasible, so the ``target`` arm is an oracle in this task.
    """

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        dim: int = 6,
        state_bounds: Sequence[float] | None = None,
        goal_bound: float = 5.0,
        move: float = 0.3,
        max_episode_steps: int = 200,
    ) -> None:
        """Build the environment.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.
            dim: Number of dimensions n.
            state_bounds: Half widths of the slab the point can move in, one per dimension;
                None: 1, 5, then 0.3 for each further dimension.
            goal_bound: Half width of the box of goals.
            move: Length of one move.
            max_episode_steps: Env steps after which an episode is truncated.

        Raises:
            ValueError: If ``dim``, ``state_bounds``, ``goal_bound`` or ``move`` is out of range.
        """
        if dim < 1:
            raise ValueError(f"dim is {dim}, but must be at least 1.")
        bounds = [1.0, 5.0, *[0.3] * dim][:dim] if state_bounds is None else list(state_bounds)
        if len(bounds) != dim:
            raise ValueError(f"state_bounds has {len(bounds)} numbers, but dim is {dim}.")
        if min(*bounds, goal_bound, move) <= 0:
            raise ValueError("state_bounds, goal_bound and move must all be positive.")
        self.dim = dim
        self.radius = 0.3 * math.sqrt(dim / 2)
        self.max_episode_steps = max_episode_steps
        reach = max(goal_bound, *bounds)
        self.single_observation_space = Box(-reach, reach, (2 * dim,), np.float32)
        self.single_action_space = Discrete(2 * dim)
        self.level_space = Box(-goal_bound, goal_bound, (dim,), np.float32)
        self.level_names = tuple(f"goal coordinate {axis + 1}" for axis in range(dim))
        self.level_plane = (0, min(1, dim - 1))
        self.bounds = torch.tensor(bounds, dtype=torch.float32, device=device)
        axes = torch.eye(dim, device=device)
        self.moves = move * torch.stack((axes, -axes), 1).flatten(0, 1)
        super().__init__(num_envs, device)

    def initial_state(self, levels: Tensor) -> Tensor:
        """Every episode starts at the origin [n, dim]."""
        return torch.zeros_like(levels)

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Move, stop at the slab's walls, and reward arrival."""
        state = (state + self.moves[actions]).clamp(-self.bounds, self.bounds)
        terminated = goal_reached(state, levels, self.radius)
        return state, terminated.to(state.dtype), terminated

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return position, then goal [n, 2 dim]."""
        return torch.cat((state, levels), -1)

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """A visited position is a goal [n, dim] that can be reached; it is not a start."""
        return state.clone()

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, dim] goals uniformly over the reachable part of the goal box: an oracle."""
        corner = self.bounds.minimum(self.level_high)
        return uniform_levels(n, -corner, corner, rng)

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the goals inside the goal box, feasible or not.

        No curriculum may know in advance which goals are feasible; for analysis see ``feasible``.
        """
        return self.in_bounds(levels)

    def feasible(self, levels: Tensor) -> Tensor:
        """Mask [n] of the goals [n, dim] inside the state box: an oracle, for analysis only."""
        return (levels.abs() <= self.bounds).all(-1)

    def heldout(self) -> dict[str, Tensor]:
        """Return ``feasible`` [256, dim]: fixed goals, uniform over the reachable ones."""
        # Drawn on the CPU, so that the held-out set is the same on every device.
        return {"feasible": self.target_levels(256, torch.Generator().manual_seed(0))}

    def achieved_goal(self, obs: Tensor) -> Tensor:
        """Return the goal [..., dim] that the position in ``obs`` [..., 2 dim] achieves."""
        return obs[..., : self.dim]

    def relabel(self, obs: Tensor, goal: Tensor) -> Tensor:
        """Return ``obs`` [..., 2 dim] as it would look with another ``goal`` [..., dim]."""
        return torch.cat((obs[..., : self.dim], goal), -1)

    def goal_reward(self, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return reward and terminated [...] of arriving in ``next_obs`` [..., 2 dim]."""
        reached = goal_reached(next_obs[..., : self.dim], next_obs[..., self.dim :], self.radius)
        return reached.to(next_obs.dtype), reached

    def draw_level_plane(self, axes: Axes) -> None:
        """Draw the feasible box and the start at the origin inside the goal box."""
        draw_box(axes, self.level_space, self.level_names, self.level_plane)
        across, up = self.level_plane
        width, tall = float(self.bounds[across]), float(self.bounds[up])
        corners = ((-width, width, width, -width, -width), (-tall, -tall, tall, tall, -tall))
        axes.plot(*corners, color="0.4", linewidth=1, label="feasible", zorder=0)
        axes.plot(0, 0, marker="+", color="0.2", linestyle="", label="start", zorder=1)
