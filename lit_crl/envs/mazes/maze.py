"""Mazes: find the goal among walls, seen from above with the agent in the middle.

The task of the public benchmark for unsupervised environment design (Dennis et al. 2020, PAIRED,
arXiv:2012.02096; Jiang et al. 2021, PLR⊥), on grids of any size, with moves in four directions and
the whole maze in view, so that a policy needs no memory.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor
from torch.nn import functional as F

from lit_crl.envs.batched import BatchedEnv
from lit_crl.envs.mazes import layouts as maze_layouts
from lit_crl.envs.mazes.layouts import GOAL, MOVES, START, WALL
from lit_crl.envs.mazes.symmetries import turned_and_mirrored

Target = Literal["random", "long", "perfect"]
DRAW = {
    "random": maze_layouts.solvable_layouts,
    "long": maze_layouts.long_layouts,
    "perfect": maze_layouts.perfect_layouts,
}
#: Held-out mazes of each random kind.
HELD_OUT = 128


def views(maps: Tensor, position: Tensor) -> Tensor:
    """Views of maps with the agent in the middle, ``[n, C, 2s − 1, 2s − 1]``.

    Args:
        maps: Maps ``[n, C, s, s]``; outside the grid the first is 1, and the others are 0.
        position: Row and column of each agent, ``[n, 2]``.

    >>> views(torch.zeros(1, 1, 2, 2), torch.tensor([[0, 0]]))  # the agent is in a corner
    tensor([[[[1., 1., 1.],
              [1., 0., 0.],
              [1., 0., 0.]]]])
    """
    size = maps.shape[-1]
    margin = size - 1
    padded = F.pad(maps[:, 1:], (margin,) * 4)
    walls = F.pad(maps[:, :1], (margin,) * 4, value=1.0)
    reach = torch.arange(2 * size - 1, device=maps.device)
    row, column = (position[:, axis, None] + reach for axis in (0, 1))
    each = torch.arange(len(maps), device=maps.device)
    seen = torch.cat([walls, padded], dim=1)[
        each[:, None, None], :, row[:, :, None], column[:, None]
    ]
    return seen.movedim(-1, 1)


class Maze(BatchedEnv):
    """Walk to the goal; reward 1 on arrival, else 0; at most 2·size² steps.

    Level: three maps of size × size numbers in [0, 1], one after the other: walls, the start and
    the goal. A cell above 0.5 is a wall; the largest number marks the start or goal. Actions:
    right, down, left, up; walls and the border stop a move. Observation: walls and goal around the
    agent as bytes [2, 2·size − 1, 2·size − 1]. Valid: start and goal are marked in one free cell
    each, and a path joins them. Reference: solvable mazes with 0 to 36 % of walls.
    """

    single_action_space = Discrete(4)
    level_plane = (0, 1)
    image_layout = "CHW"
    #: The maps of a level.
    kinds: ClassVar[tuple[str, ...]] = ("wall", "start", "goal")

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        size: int = 7,
        target: Target = "random",
        max_episode_steps: int | None = None,
    ) -> None:
        """Build the environments.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.
            size: Rows and columns of the grid, without a border.
            target: Kind of target levels: ``random`` solvable mazes, the tenth of them with the
                ``long`` paths, or ``perfect`` mazes (depth-first search).
            max_episode_steps: Env steps after which an episode is truncated; None: 2·size².

        Raises:
            ValueError: If ``size`` is below 3 or ``target`` is unknown.
        """
        if size < 3:
            raise ValueError(f"size is {size}, but must be at least 3.")
        if target not in DRAW:
            raise ValueError(f"target is {target!r}; use one of {', '.join(DRAW)}.")
        self.size, self.target = size, target
        self.max_episode_steps = 2 * size * size if max_episode_steps is None else max_episode_steps
        self.single_observation_space = Box(0, 1, self.view_shape(size), np.uint8)
        self.level_shape: tuple[int, int, int] = (len(self.kinds), size, size)
        self.level_space = Box(0.0, 1.0, (len(self.kinds) * size * size,), np.float32)
        self.level_names = tuple(
            f"{kind} ({row}, {column})"
            for kind in self.kinds
            for row in range(size)
            for column in range(size)
        )
        self.moves = torch.tensor(MOVES, device=device)
        super().__init__(num_envs, device)

    @staticmethod
    def view_shape(size: int) -> tuple[int, int, int]:
        """Shape of an observation."""
        return (2, 2 * size - 1, 2 * size - 1)

    def maps(self, levels: Tensor) -> Tensor:
        """The maps [n, kinds, size, size] of levels [n, d]."""
        return levels.view(-1, len(self.kinds), self.size, self.size)

    def layouts(self, levels: Tensor) -> Tensor:
        """Walls, start and goal of levels [n, d], as in ``layouts.py``."""
        return self.maps(levels)

    def levels_of(self, layouts: Tensor, rng: torch.Generator) -> Tensor:
        """Levels [n, d] of layouts [n, 3, size, size]; the rest of a level is drawn by ``rng``."""
        return layouts.flatten(1).to(self.device)

    def _marked(self, levels: Tensor, kind: int) -> Tensor:
        """Row and column [n, 2] of the start or the goal."""
        cell = self.layouts(levels)[:, kind].flatten(1).argmax(dim=1)
        return torch.stack([cell // self.size, cell % self.size], dim=1)

    def initial_state(self, levels: Tensor) -> Tensor:
        """Return the row and column [n, 2] of the start."""
        return self._marked(levels, START).float()

    def walk(self, position: Tensor, levels: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
        """Position [n, 2] after a move [n, 2], and whether it is the goal [n]; walls stop moves."""
        ahead = position.long() + move
        inside = ((ahead >= 0) & (ahead < self.size)).all(dim=1)
        row, column = ahead.clamp(0, self.size - 1).unbind(1)
        walls = self.maps(levels)[:, WALL].flatten(1)
        wall = walls.gather(1, (row * self.size + column)[:, None])[:, 0] > 0.5
        position = torch.where((inside & ~wall)[:, None], ahead.float(), position)
        return position, (position.long() == self._marked(levels, GOAL)).all(dim=1)

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Move by one cell, unless it is a wall or outside; reward 1 at the goal."""
        state, arrived = self.walk(state, levels, self.moves[actions])
        return state, arrived.float(), arrived

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return views of the walls and the goal [n, 2, 2·size − 1, 2·size − 1]."""
        maps = self.maps(levels)
        seen = torch.stack((maps[:, WALL], maps[:, GOAL]), 1)
        return views((seen > 0.5).to(torch.uint8), state.long())

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """The same maze with the start in the agent's cell."""
        cell = state.long()[:, 0] * self.size + state.long()[:, 1]
        maps = self.maps(levels).clone()
        maps[:, START] = maze_layouts.one_hot(cell, self.size)
        return maps.flatten(1)

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of levels with one start and one goal, on free cells that a path joins."""
        maps = self.layouts(levels) > 0.5
        ends = maps[:, START:].flatten(2)
        single = (ends.sum(dim=2) == 1).all(dim=1)
        apart = ~(ends[:, 0] & ends[:, 1]).any(dim=1)
        walled = (ends & maps[:, :1].flatten(2)).flatten(1).any(dim=1)
        moves = maze_layouts.path_length(self.layouts(levels))
        return self.in_bounds(levels) & single & apart & ~walled & moves.isfinite()

    def optimal_steps(self, levels: Tensor) -> Tensor:
        """Fewest steps [n] from start to goal; infinite if there is no path."""
        return maze_layouts.path_length(self.layouts(levels))

    def symmetries(self, levels: Tensor) -> Tensor:
        """The levels turned and mirrored, [8, n, d]: the same tasks for other moves."""
        return turned_and_mirrored(self.maps(levels)).flatten(2)

    def benchmark_return(self, success: Tensor, steps: Tensor) -> Tensor:
        """The score of the public benchmark: 1 − 0.9 t / T after t of T steps, 0 for a failure.

        Args:
            success: Which episodes reached the goal [n].
            steps: Their env steps t [n].
        """
        return success * (1 - 0.9 * steps / self.max_episode_steps)

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] levels of the kind ``target``."""
        return self.levels_of(DRAW[self.target](n, self.size, rng), rng)

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] random solvable mazes."""
        return self.levels_of(maze_layouts.solvable_layouts(n, self.size, rng), rng)

    def heldout(self) -> dict[str, Tensor]:
        """Return mazes [m, d] by kind, and the public ones of this size."""
        rng = torch.Generator().manual_seed(201_202_096)  # on the CPU: equal on every device
        found = {
            "random": maze_layouts.solvable_layouts(HELD_OUT, self.size, rng),
            "long": maze_layouts.long_layouts(HELD_OUT, self.size, rng),
            "perfect": maze_layouts.perfect_layouts(HELD_OUT, self.size, rng),
            "rooms": maze_layouts.room_layouts(HELD_OUT, self.size, rng),
            "spiral": maze_layouts.spiral_layout(self.size),
        }
        if self.size % 2 and self.size > 3:  # smaller grids have no room for dead ends
            found["corridors"] = maze_layouts.corridor_layouts(self.size)
        named = maze_layouts.named_mazes(self.size)
        found |= {name: layout for name, (layout, _) in named.items()}
        return {name: self.levels_of(layouts, rng) for name, layouts in found.items()}

    def render_levels(self, levels: Tensor) -> npt.NDArray[np.uint8]:
        """Images [n, size, size, 3] of levels: dark walls, a blue start and an orange goal."""
        maps = self.layouts(levels).cpu() > 0.5
        image = np.full((*maps[:, 0].shape, 3), 240, np.uint8)
        for kind, colour in ((WALL, (60, 60, 60)), (START, (0, 114, 178)), (GOAL, (230, 159, 0))):
            image[maps[:, kind].numpy()] = colour
        return image
