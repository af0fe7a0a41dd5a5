"""Shortest paths in mazes, for many mazes at once."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def distances(walls: Tensor, goal: Tensor, rounds: int | None = None) -> Tensor:
    """Moves from every cell to the nearest goal, ``[N, H, W]`` float32; infinite where none leads.

    Args:
        walls: Where walls are, bool ``[N, H, W]``.
        goal: Where the goals are, bool ``[N, H, W]``.
        rounds: Longest path that is looked for; every maze then takes the same operations, so that
            they can be compiled. None: the search ends when no path gets shorter.

    >>> walls = torch.tensor([[[False, True], [False, False]]])
    >>> goal = torch.tensor([[[True, False], [False, False]]])
    >>> distances(walls, goal)
    tensor([[[0., inf],
             [1., 2.]]])
    """
    return _search(walls, goal, _beside, rounds)


def facing_distances(walls: Tensor, goal: Tensor) -> Tensor:
    """Fewest quarter turns and steps ahead to a goal, ``[N, 4, H, W]``; like ``distances``.

    The four maps are for facing right, down, left and up.

    Args:
        walls: Where walls are, bool ``[N, H, W]``.
        goal: Where the goals are, bool ``[N, H, W]``.
    """
    walls, goal = (maps[:, None].expand(-1, 4, -1, -1) for maps in (walls, goal))
    return _search(walls, goal, _ahead_or_turned, None)


def _search(
    walls: Tensor, goal: Tensor, nearest: Callable[[Tensor], Tensor], rounds: int | None
) -> Tensor:
    """Spread distances from the goals: each round finds the paths that are one step longer.

    ``nearest`` gives the shortest distance among the places that one step leads to.
    """
    barrier = torch.where(walls, torch.inf, 0.0)
    found = torch.where(goal, 0.0, torch.inf).maximum(barrier)
    for _ in range(walls.shape[1:].numel() if rounds is None else rounds):
        shorter = torch.minimum(found, nearest(found) + 1).maximum(barrier)
        if rounds is None and torch.equal(shorter, found):
            break
        found = shorter
    return found


def _beside(found: Tensor) -> Tensor:
    padded = F.pad(found, (1, 1, 1, 1), value=torch.inf)
    vertical = torch.minimum(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1])
    return torch.minimum(vertical, torch.minimum(padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]))


def _ahead_or_turned(found: Tensor) -> Tensor:
    padded = F.pad(found, (1, 1, 1, 1), value=torch.inf)
    right, left = padded[:, 0, 1:-1, 2:], padded[:, 2, 1:-1, :-2]
    down, up = padded[:, 1, 2:, 1:-1], padded[:, 3, :-2, 1:-1]
    turned = torch.minimum(found.roll(1, dims=1), found.roll(-1, dims=1))
    return torch.minimum(torch.stack([right, down, left, up], dim=1), turned)
