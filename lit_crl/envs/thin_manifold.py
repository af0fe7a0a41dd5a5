"""Start states on a thin curved surface: a simulator whose legal states nobody can sample.

A point walks in two dimensions, but its state has more coordinates, which depend on its position,
like the joints of a mechanism that must fit together. Nearly the whole box of states is illegal.
The level is the full state at the start: levels drawn blindly are useless, and states that the
policy visits are legal.
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

#: Walls as (u from, v from, u to, v to), thicker than a move, so that no move jumps over them.
WALLS = ((-0.4, -1.0, -0.28, 0.6), (0.28, -0.6, 0.4, 1.0))
MOVE = 0.1
GOAL, RADIUS = (0.8, 0.8), 0.15
START = (-1.0, -0.6)  # bounds of both u and v
FREQUENCY = 2.0  # rad per unit of length
SURFACE_SEED = 3


def free(position: Tensor) -> Tensor:
    """Whether positions [..., 2] are outside every wall.

    >>> free(torch.tensor([[-0.3, 0.0], [-0.3, 0.8]]))  # in the first wall, in its gap
    tensor([False,  True])
    """
    u, v = position.unbind(-1)
    inside = [
        (u > west) & (v > south) & (u < east) & (v < north) for west, south, east, north in WALLS
    ]
    return ~torch.stack(inside).any(0)


def surface(position: Tensor, waves: Tensor, phases: Tensor, amplitude: float) -> Tensor:
    """Return the full states x = (u, v, a·sin(W (u, v) + φ)) of positions.

    Args:
        position: (u, v), [..., 2].
        waves: W, [m, 2].
        phases: φ, [m].
        amplitude: a.

    Returns:
        States [..., 2 + m].
    """
    return torch.cat((position, amplitude * torch.sin(position @ waves.T + phases)), -1)


class ThinManifold(BatchedEnv):
    """Walk through gaps in two walls to the goal; reward 1 on arrival, else 0; at most 100 steps.

    Level: a start state x in [-1, 1]^dim. It is legal if its position (x₁, x₂) is outside the walls
    and every other coordinate is within ``tolerance`` of the surface over that position. Actions:
    move by 0.1 along u, back, along v, back; walls and the border stop the point. Observation: the
    state. Reference: uniform over the box, of which the share 0.904 · tolerance^(dim - 2) is legal.
    Target: the corner that is farthest from the goal.

    An episode at an illegal level ends unsolved after its first step, as in simulators that refuse
    the state or whose solver diverges.
    """

    single_action_space = Discrete(4)

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        dim: int = 6,
        tolerance: float = 0.08,
        max_episode_steps: int = 100,
    ) -> None:
        """Build the environment.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.
            dim: Number of coordinates of a state, at least 2.
            tolerance: Largest distance of a legal state's coordinates from the surface.
            max_episode_steps: Env steps after which an episode is truncated.

        Raises:
            ValueError: If ``dim`` or ``tolerance`` is out of range.
        """
        if dim < 2:
            raise ValueError(f"dim is {dim}, but must be at least 2.")
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance is {tolerance}, but must be between 0 and 1.")
        self.dim, self.tolerance = dim, tolerance
        self.max_episode_steps = max_episode_steps
        self.level_space = self.single_observation_space = Box(-1.0, 1.0, (dim,), np.float32)
        self.level_names = ("u", "v", *(f"coordinate {axis + 1}" for axis in range(2, dim)))
        # Drawn on the CPU, so that the surface is the same on every device.
        rng = torch.Generator().manual_seed(SURFACE_SEED)
        angle, phases = 2 * torch.pi * torch.rand(2, dim - 2, generator=rng)
        waves = FREQUENCY * torch.stack((torch.cos(angle), torch.sin(angle)), 1)
        self.waves, self.phases = waves.to(device), phases.to(device)
        steps = [[MOVE, 0.0], [-MOVE, 0.0], [0.0, MOVE], [0.0, -MOVE]]
        self.moves = torch.tensor(steps, device=device)
        self.goal = torch.tensor(GOAL, device=device)
        super().__init__(num_envs, device)

    def on_surface(self, position: Tensor) -> Tensor:
        """Return the states [..., dim] on the surface at positions [..., 2], all inside the box."""
        return surface(position, self.waves, self.phases, 1 - self.tolerance)

    def initial_state(self, levels: Tensor) -> Tensor:
        """The level is the state."""
        return levels.clone()

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Move over the surface and reward arrival; an illegal state ends the episode."""
        legal = self.valid(state)
        here = state[:, :2]
        ahead = (here + self.moves[actions]).clamp(-1, 1)
        position = torch.where(free(ahead).unsqueeze(-1), ahead, here)
        arrived = legal & (torch.linalg.vector_norm(position - self.goal, dim=-1) <= RADIUS)
        state = torch.where(legal.unsqueeze(-1), self.on_surface(position), state)
        return state, arrived.to(state.dtype), arrived | ~legal

    def advanced(
        self, state: Tensor, levels: Tensor, elapsed: Tensor, actions: Tensor
    ) -> tuple[Tensor, ...]:
        """As in ``BatchedEnv``, but only episodes that end with a reward are won."""
        *rest, reward, terminated, truncated, _ = super().advanced(state, levels, elapsed, actions)
        return *rest, reward, terminated, truncated, reward > 0

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return a copy of the state [n, dim]."""
        return state.clone()

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """A visited state is a level."""
        return state.clone()

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, dim] on the surface, over the corner u, v in U[-1, -0.6]²."""
        low, high = (self.goal.new_full((2,), bound) for bound in START)
        return self.on_surface(uniform_levels(n, low, high, rng))

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the legal states: near the surface, outside the walls."""
        near = (levels - self.on_surface(levels[..., :2])).abs() <= self.tolerance
        return self.in_bounds(levels) & near.all(-1) & free(levels[..., :2])

    def heldout(self) -> dict[str, Tensor]:
        """Return ``surface`` [m, dim]: a grid of 16 by 16 positions without those in walls."""
        cells = (torch.arange(16) + 0.5) / 8 - 1
        grid = torch.cartesian_prod(cells, cells)
        return {"surface": self.on_surface(grid[free(grid)].to(self.device))}

    def draw_level_plane(self, axes: Axes) -> None:
        """Draw the walls, the goal and the target start region."""
        draw_box(axes, self.level_space, self.level_names, self.level_plane)
        axes.set_aspect("equal")
        for u, v, u_end, v_end in WALLS:
            axes.fill((u, u_end, u_end, u), (v, v, v_end, v_end), color="0.75", zorder=0)
        low, high = START
        corners = ((low, high, high, low, low), (low, low, high, high, low))
        axes.plot(*corners, color="0.4", linewidth=1, label="target", zorder=1, clip_on=False)
        angle = torch.linspace(0, 2 * torch.pi, 60)
        circle = (GOAL[0] + RADIUS * torch.cos(angle), GOAL[1] + RADIUS * torch.sin(angle))
        axes.plot(*circle, color="0.3", linestyle="--", linewidth=1, label="goal", zorder=1)
