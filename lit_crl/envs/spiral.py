"""A point in a spiral corridor: the goals that matter are at its end, some twenty moves away.

Random moves find near goals, but reach the end of the corridor at best once in thousands of
episodes. The straight line there leads through walls, so distance says nothing about difficulty.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.envs.batched import BatchedEnv
from lit_crl.envs.interface import draw_box
from lit_crl.envs.point_mass import goal_reached

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PITCH = 0.4  # from one turn of the corridor's middle line to the next
HALF_WIDTH = 0.34  # half width of the corridor, as a share of the pitch; the rest is wall
MOVE, RADIUS = 0.12, 0.12
TARGET = 0.15  # target goals are in this many turns before the end
MARGIN = 1e-3  # turns, and share of the pitch


def at(turn: Tensor, offset: Tensor) -> Tensor:
    """Positions [..., 2] on the spiral r = pitch · (turn + offset).

    Args:
        turn: Turns along the corridor's middle line, [...].
        offset: Distance outwards from that line, as a share of the pitch, [...].
    """
    angle, radius = 2 * math.pi * turn, PITCH * (turn + offset)
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), -1)


def in_corridor(position: Tensor, turns: float) -> Tensor:
    """Whether positions [..., 2] are inside the corridor, which begins with a disc.

    >>> in_corridor(at(torch.tensor([1.0, 2.0]), torch.zeros(2)), turns=1.5)
    tensor([ True, False])
    """
    radius: Tensor = torch.linalg.vector_norm(position, dim=-1) / PITCH
    part = torch.atan2(position[..., 1], position[..., 0]) / (2 * math.pi) % 1.0
    # Several turns of the spiral pass in this direction: take the one with the nearest middle line.
    turn = part + torch.round(radius - part).clamp_min(0)
    between: Tensor = ((radius - turn).abs() <= HALF_WIDTH) & (turn <= turns)
    return between | (radius <= HALF_WIDTH)


class Spiral(BatchedEnv):
    """Move from the middle of a spiral corridor to a goal; reward 1 on arrival, else 0.

    Level: the goal. Actions: move by 0.12 along x, back, along y, back; walls stop the point. An
    episode succeeds within 0.12 of the goal, and lasts at most 60 steps. Observation: position,
    then goal. Target: goals in the last 0.15 turns of the corridor. Reference: goals everywhere in
    the corridor.
    """

    single_action_space = Discrete(4)
    level_names = ("goal x", "goal y")

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        turns: float = 1.625,
        max_episode_steps: int = 60,
    ) -> None:
        """Build the environment.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.
            turns: Number of turns of the corridor around the middle.
            max_episode_steps: Env steps after which an episode is truncated.

        Raises:
            ValueError: If ``turns`` makes no corridor.
        """
        if not turns >= 0.5:
            raise ValueError(f"turns is {turns}, but must be at least 0.5.")
        self.turns, self.max_episode_steps = turns, max_episode_steps
        reach = PITCH * (turns + HALF_WIDTH)
        self.level_space = Box(-reach, reach, (2,), np.float32)
        self.single_observation_space = Box(-reach, reach, (4,), np.float32)
        steps = [[MOVE, 0.0], [-MOVE, 0.0], [0.0, MOVE], [0.0, -MOVE]]
        self.moves = torch.tensor(steps, device=device)
        super().__init__(num_envs, device)

    def initial_state(self, levels: Tensor) -> Tensor:
        """Every episode starts in the middle [n, 2]."""
        return torch.zeros_like(levels)

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Move, except into walls, and reward arrival."""
        ahead = state + self.moves[actions]
        state = torch.where(in_corridor(ahead, self.turns).unsqueeze(-1), ahead, state)
        terminated = goal_reached(state, levels, RADIUS)
        return state, terminated.to(state.dtype), terminated

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return position, then goal [n, 4]."""
        return torch.cat((state, levels), -1)

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """A visited position is a goal that can be reached [n, 2]."""
        return state.clone()

    def _goals(self, first: float, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 2] goals beyond turn ``first``, almost uniformly over the corridor's area."""
        along, across = torch.rand(2, n, generator=rng, device=rng.device).to(self.device)
        # A margin keeps goals off the end and the walls, into which rounding could move them.
        last = self.turns - MARGIN
        turn = torch.sqrt(first**2 + along * (last**2 - first**2))
        return at(turn, (2 * across - 1) * (HALF_WIDTH - MARGIN))

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 2] goals at the end of the corridor."""
        return self._goals(self.turns - TARGET, n, rng)

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 2] goals everywhere in the corridor."""
        return self._goals(0.0, n, rng)

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the goals inside the corridor."""
        return self.in_bounds(levels) & in_corridor(levels, self.turns)

    def heldout(self) -> dict[str, Tensor]:
        """Return ``corridor`` [256, 2]: fixed goals everywhere in the corridor."""
        # Drawn on the CPU, so that the held-out set is the same on every device. One goal in
        # thousands is so close to a wall that no move ends near it; this seed draws none of them.
        return {"corridor": self.reference_levels(256, torch.Generator().manual_seed(1))}

    def draw_level_plane(self, axes: Axes) -> None:
        """Shade the walls, and mark the start and the region of target goals."""
        draw_box(axes, self.level_space, self.level_names, self.level_plane)
        axes.set_aspect("equal")
        reach = float(self.level_high[0])
        line = torch.linspace(-reach, reach, 301)
        walls = ~in_corridor(torch.cartesian_prod(line, line), self.turns).reshape(301, 301)
        grid = line.numpy()
        shade = walls.T.float().numpy()
        axes.contourf(grid, grid, shade, levels=[0.5, 1.5], colors=["0.85"], zorder=0)
        turn = torch.linspace(self.turns - TARGET, self.turns, 20)
        edge = torch.full_like(turn, HALF_WIDTH)
        rim = torch.cat((at(turn, edge), at(turn, -edge).flip(0), at(turn, edge)[:1]))
        axes.plot(*rim.T, color="0.3", linewidth=1, label="target", zorder=1)
        axes.plot(0, 0, marker="+", color="0.2", linestyle="", label="start", zorder=1)
