"""Shortest paths in mazes, for many mazes at once."""

import torch
from torch import Tensor
from torch.nn import functional as F


def neighbours(cells: Tensor) -> Tensor:
    """Cells ``[N, H, W]`` that touch one of the given ones by an edge, and these themselves."""
    padded = F.pad(cells, (1, 1, 1, 1))
    up, down = padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]
    left, right = padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
    return cells | up | down | left | right


def distances(walls: Tensor, goal: Tensor) -> Tensor:
    """Moves from every cell to the goal, ``[N, H, W]`` float32; infinite where no path leads.

    Breadth-first search from all goals at once: every round adds the cells one move further off.

    Args:
        walls: Where walls are, bool ``[N, H, W]``.
        goal: Where the goal is (or goals are), bool ``[N, H, W]``.
    """
    found = torch.full(walls.shape, torch.inf, device=walls.device)
    reached = goal & ~walls
    found[reached] = 0
    for moves in range(1, walls.shape[1] * walls.shape[2]):
        new = neighbours(reached) & ~walls & ~reached
        if not new.any():
            break
        found[new] = moves
        reached |= new
    return found


def facing_distances(walls: Tensor, goal: Tensor) -> Tensor:
    """Fewest quarter turns and steps ahead to the goal, ``[N, 4, H, W]``; like ``distances``.

    Maps are by the way faced: right, down, left, up.

    Args:
        walls: Where walls are, bool ``[N, H, W]``.
        goal: Where the goal is (or goals are), bool ``[N, H, W]``.
    """
    free = ~walls[:, None]
    found = torch.full((len(walls), 4, *walls.shape[1:]), torch.inf, device=walls.device)
    reached = (goal[:, None] & free).expand_as(found).clone()
    found[reached] = 0
    for actions in range(1, found[0].numel()):
        padded = F.pad(reached, (1, 1, 1, 1))
        right, left = padded[:, 0, 1:-1, 2:], padded[:, 2, 1:-1, :-2]
        down, up = padded[:, 1, 2:, 1:-1], padded[:, 3, :-2, 1:-1]
        ahead = torch.stack([right, down, left, up], dim=1)
        new = (ahead | reached.roll(1, dims=1) | reached.roll(-1, dims=1)) & free & ~reached
        if not new.any():
            break
        found[new] = actions
        reached |= new
    return found
