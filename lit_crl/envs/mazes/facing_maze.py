"""Mazes as in the public benchmark: the agent turns, steps ahead and sees five by five cells.

Dennis et al. 2020 (PAIRED, arXiv:2012.02096); Jiang et al. 2021 (PLR⊥, arXiv:2110.02439); the rules
are those of Minigrid (Chevalier-Boisvert et al. 2023).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from gymnasium.spaces import Discrete
from torch import Tensor
from torch.nn import functional as F

from lit_crl.envs.mazes import layouts as maze_layouts
from lit_crl.envs.mazes.layouts import GOAL, MOVES, START, WALL
from lit_crl.envs.mazes.maze import Maze
from lit_crl.envs.mazes.shortest_paths import facing_distances
from lit_crl.envs.mazes.symmetries import headings_before, turned_and_mirrored

#: Rows and columns of the agent's view; the agent is in the middle of the last row.
VIEW = 5
LEFT, RIGHT, AHEAD = range(3)


class FacingMaze(Maze):
    """Walk to the goal with a part of the maze in view; the rest is as in ``Maze``.

    Level: six maps, [6 · size²]: walls, four maps of the start (for facing right, down, left and
    up), and the goal. Actions: turn left, turn right, step ahead. Observation: bytes [6, 5, 5]:
    walls and goal in the agent's view, which looks ahead and through walls, and four maps, of which
    the one for the agent's heading is all 1. Cells outside the grid look like walls. The public
    benchmark has 13×13 cells and 250 steps.
    """

    single_action_space = Discrete(3)
    kinds: ClassVar[tuple[str, ...]] = (
        "wall", "start facing right", "start facing down", "start facing left", "start facing up",
        "goal",
    )  # fmt: skip

    @staticmethod
    def view_shape(size: int) -> tuple[int, int, int]:
        """Shape of an observation."""
        return (2 + len(MOVES), VIEW, VIEW)

    def layouts(self, levels: Tensor) -> Tensor:
        """Walls, start and goal of levels [n, d], without the heading."""
        maps = self.maps(levels)
        start = maps[:, START:-1].amax(dim=1)
        return torch.stack([maps[:, WALL], start, maps[:, -1]], dim=1)

    def levels_of(self, layouts: Tensor, rng: torch.Generator) -> Tensor:
        """Levels [n, d] of layouts [n, 3, size, size], with random headings."""
        heading = torch.randint(len(MOVES), (len(layouts),), generator=rng, device=rng.device)
        return self.facing(layouts, heading)

    def facing(self, layouts: Tensor, heading: Tensor) -> Tensor:
        """Levels [n, d] of layouts [n, 3, size, size] with headings [n], indices of ``MOVES``."""
        faced = F.one_hot(heading, len(MOVES)).to(layouts)[:, :, None, None]
        starts = faced * layouts[:, START, None]
        maps = torch.cat([layouts[:, :START], starts, layouts[:, GOAL:]], dim=1)
        return maps.flatten(1).to(self.device)

    def initial_state(self, levels: Tensor) -> Tensor:
        """Return row, column and heading [n, 3] of the start."""
        starts = self.maps(levels)[:, START:-1].flatten(2).amax(dim=2)
        heading = starts.argmax(dim=1)
        return torch.cat([super().initial_state(levels), heading[:, None].float()], dim=1)

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Turn, or move by one cell, unless it is a wall or outside; reward 1 at the goal."""
        turn = (actions == RIGHT).long() - (actions == LEFT).long()
        heading = (state[:, 2].long() + turn) % len(MOVES)
        move = self.moves[heading] * (actions == AHEAD)[:, None]
        position, arrived = self.walk(state[:, :2], levels, move)
        return torch.cat([position, heading[:, None].float()], dim=1), arrived.float(), arrived

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return the agents' views and headings [n, 6, 5, 5]."""
        row, column, heading = state.long().unbind(dim=1)
        ahead, right = self.moves[heading], self.moves[(heading + 1) % len(MOVES)]
        cells = torch.arange(VIEW, device=state.device)
        far, aside = VIEW - 1 - cells, cells - VIEW // 2
        # The maps get a margin as wide as the view, so that no view leaves them.
        at = torch.stack([row, column], dim=1)[:, None, None] + VIEW
        at = at + far[:, None, None] * ahead[:, None, None] + aside[:, None] * right[:, None, None]
        layouts = self.layouts(levels) > 0.5
        walls = F.pad(layouts[:, WALL], (VIEW,) * 4, value=True)
        goal = F.pad(layouts[:, GOAL], (VIEW,) * 4)
        each = torch.arange(len(state), device=state.device)[:, None, None]
        seen = torch.stack([maps[each, at[..., 0], at[..., 1]] for maps in (walls, goal)], dim=1)
        faced = heading[:, None] == torch.arange(len(MOVES), device=heading.device)
        faced = faced[:, :, None, None]
        return torch.cat([seen, faced.expand(-1, -1, VIEW, VIEW)], dim=1).to(torch.uint8)

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """The same maze with the start in the agent's cell, facing as the agent does."""
        row, column, heading = state.long().unbind(dim=1)
        maps = self.maps(levels).clone()
        faced = heading[:, None] == torch.arange(len(MOVES), device=heading.device)
        here = maze_layouts.one_hot(row * self.size + column, self.size)
        maps[:, START:-1] = faced[:, :, None, None] * here[:, None]
        return maps.flatten(1)

    def heldout(self) -> dict[str, Tensor]:
        """Return mazes [m, d] by kind; the public ones start with their published heading."""
        found = super().heldout()
        headings = {name: at for name, (_, at) in maze_layouts.named_mazes(self.size).items()}
        for name, heading in {"corridors": 0, **headings}.items():
            if name in found:
                layouts = self.layouts(found[name])
                found[name] = self.facing(layouts, torch.full((len(layouts),), heading))
        return found

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of levels with one start and one goal, on free cells that a path joins."""
        starts = (self.maps(levels)[:, START:-1] > 0.5).flatten(1).sum(dim=1)
        return super().valid(levels) & (starts == 1)

    def symmetries(self, levels: Tensor) -> Tensor:
        """The levels turned and mirrored, with the headings, [8, n, d]."""
        found = turned_and_mirrored(self.maps(levels))
        before = (
            headings_before()
            .to(levels.device)[:, None, :, None, None]
            .expand_as(found[:, :, START:-1])
        )
        starts = found[:, :, START:-1].gather(2, before)
        return torch.cat([found[:, :, :START], starts, found[:, :, -1:]], dim=2).flatten(2)

    def optimal_steps(self, levels: Tensor) -> Tensor:
        """Fewest actions [n] from start to goal, turns included; infinite if there is no path."""
        maps = self.maps(levels) > 0.5
        actions = facing_distances(maps[:, WALL], maps[:, -1])
        return actions.masked_fill(~maps[:, START:-1], 0).flatten(1).sum(dim=1)
