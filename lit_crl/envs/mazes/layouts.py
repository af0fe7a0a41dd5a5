"""Mazes: random ones, perfect ones, rooms, corridors and spirals, and the public held-out ones.

A layout is three maps, ``[n, 3, H, W]``: where the walls, the start and the goal are. Random
layouts are drawn for many mazes at once.
"""

from importlib.resources import files

import torch
from torch import Tensor

from lit_crl.envs.mazes.shortest_paths import distances

WALL, START, GOAL = range(3)
#: Random mazes draw at most this share of their cells as walls, with replacement: 60 at 13×13.
WALL_DRAWS = 60 / 169
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))
#: Marks of the start in the file of mazes, for the headings in the order of ``MOVES``.
HEADINGS = ">v<^"


def one_hot(cell: Tensor, size: int) -> Tensor:
    """Maps ``[n, size, size]`` with a 1 at the flat index ``cell [n]``.

    >>> one_hot(torch.tensor([2]), 2)
    tensor([[[0., 0.],
             [1., 0.]]])
    """
    cells = torch.arange(size * size, device=cell.device)
    return (cell[:, None] == cells).float().view(-1, size, size)


def path_length(layouts: Tensor) -> Tensor:
    """Moves from start to goal ``[n]``; infinite if there is no path.

    >>> path_length(spiral_layout(5))
    tensor([16.])
    """
    maps = layouts > 0.5
    moves = distances(maps[:, WALL], maps[:, GOAL])
    return moves.masked_fill(~maps[:, START], 0).flatten(1).sum(dim=1)


def with_ends(walls: Tensor, rng: torch.Generator) -> Tensor:
    """Layouts of ``walls [n, s, s]`` with start and goal on two different free cells, uniformly.

    A maze with fewer than two free cells gets them into its walls.
    """
    size = walls.shape[-1]
    free = 1 - walls.flatten(1)
    # The small weight of walls lets multinomial draw two cells from a full maze; it stays invalid.
    ends = torch.multinomial(free + 1e-9, 2, generator=rng)
    return torch.stack([walls, one_hot(ends[:, 0], size), one_hot(ends[:, 1], size)], dim=1)


def random_walls(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Walls ``[n, size, size]`` on up to 36 % of the cells; the number of draws is uniform."""
    draws = round(WALL_DRAWS * size * size)
    cells = torch.randint(size * size, (n, draws), generator=rng, device=rng.device)
    number = torch.randint(draws + 1, (n, 1), generator=rng, device=rng.device)
    kept = torch.arange(draws, device=rng.device) < number
    walls = torch.zeros(n, size * size, device=rng.device)
    return walls.scatter_reduce_(1, cells, kept.float(), "amax").view(n, size, size)


def random_layouts(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Random walls, start and goal, whether or not a path joins them."""
    return with_ends(random_walls(n, size, rng), rng)


def solvable_layouts(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Random layouts in which a path leads to the goal."""
    found = random_layouts(0, size, rng)
    while len(found) < n:
        drawn = random_layouts(n, size, rng)
        found = torch.cat([found, drawn[path_length(drawn).isfinite()]])
    return found[:n]


def perfect_walls(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Walls of mazes in which one path joins any two cells, by randomized depth-first search.

    The cells of even rows and columns are rooms, which the search joins. If ``size`` is even, the
    last row and column remain walls. All mazes take the same number of rounds, so that they are
    made at once: one round to enter each room, and one to leave it.
    """
    across = (size + 1) // 2
    rooms, each = across * across, torch.arange(n, device=rng.device)
    walls = torch.ones(n, size, size, device=rng.device)
    seen = torch.zeros(n, across, across, dtype=torch.bool, device=rng.device)
    path = torch.zeros(n, rooms, 2, dtype=torch.long, device=rng.device)
    depth = torch.zeros(n, dtype=torch.long, device=rng.device)
    path[:, 0] = torch.randint(across, (n, 2), generator=rng, device=rng.device)
    seen[each, path[:, 0, 0], path[:, 0, 1]] = True
    walls[each, 2 * path[:, 0, 0], 2 * path[:, 0, 1]] = 0
    moves = torch.tensor(MOVES, device=rng.device)
    for _ in range(2 * rooms - 2):
        here = path[each, depth]
        beside = here[:, None] + moves
        inside = ((beside >= 0) & (beside < across)).all(dim=-1)
        row, column = beside.clamp(0, across - 1).unbind(-1)
        open_to = inside & ~seen[each[:, None], row, column]
        advances = open_to.any(dim=1)
        pick = torch.multinomial(open_to + 1e-9, 1, generator=rng)[:, 0]
        there = torch.where(advances[:, None], beside[each, pick], here)
        between = here + there  # in cells: halfway between the rooms at 2 · here and 2 · there
        for passage in (between, 2 * there):
            walls[each, passage[:, 0], passage[:, 1]] = 0
        seen[each, there[:, 0], there[:, 1]] = True
        depth = (depth + torch.where(advances, 1, -1)).clamp(min=0)
        path[each, depth] = torch.where(advances[:, None], there, path[each, depth])
    return walls


def perfect_layouts(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Perfect mazes with random start and goal."""
    return with_ends(perfect_walls(n, size, rng), rng)


def long_layouts(n: int, size: int, rng: torch.Generator) -> Tensor:
    """The tenth of random solvable layouts with the longest shortest paths."""
    drawn = solvable_layouts(10 * n, size, rng)
    return drawn[path_length(drawn).argsort(descending=True, stable=True)[:n]]


def room_layouts(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Four rooms, with one door at a random place in each wall between them."""
    middle = size // 2
    walls = torch.zeros(n, size, size, device=rng.device)
    walls[:, middle, :] = walls[:, :, middle] = 1
    each = torch.arange(n, device=rng.device)
    for first, last in ((0, middle), (middle + 1, size)):
        for axis in range(2):
            door = torch.randint(first, last, (n,), generator=rng, device=rng.device)
            at = (each, middle, door) if axis == 0 else (each, door, middle)
            walls[at] = 0
    return with_ends(walls, rng)


def spiral_layout(size: int) -> Tensor:
    """A spiral from a corner to the middle, ``[1, 3, size, size]``: one of the longest paths."""
    is_open = torch.zeros(size + 2, size + 2, dtype=torch.bool)  # a cell of margin
    row, column, turns, turned = 1, 1, 0, 0
    is_open[row, column] = True
    while turned < 2:
        down, right = MOVES[turns % 4]
        r, c = row + down, column + right
        inside = 1 <= r <= size and 1 <= c <= size
        # The path must not touch itself: of the next cell's neighbours only this one may be open.
        if inside and sum(bool(is_open[r + dr, c + dc]) for dr, dc in MOVES) == 1:
            row, column, turned = r, c, 0
            is_open[row, column] = True
        else:
            turns, turned = turns + 1, turned + 1
    ends = torch.tensor([0, (row - 1) * size + column - 1])
    walls = (~is_open[1:-1, 1:-1]).float()
    return torch.cat([walls[None], one_hot(ends, size)])[None]


def corridor_layouts(size: int) -> Tensor:
    """Dead ends along a loop around a wall, ``[n, 3, size, size]``; each has the goal once.

    For odd sizes; like the public SmallCorridor and LargeCorridor (13×13 and 19×19).
    """
    middle = size // 2
    walls = torch.zeros(size, size)
    walls[middle, 1:] = 1
    walls[1:middle, 1::2] = walls[middle + 1 : -1, 1::2] = 1
    walls[middle, -1] = 0
    goals = [
        row * size + column for row in (middle - 1, middle + 1) for column in range(2, size - 1, 2)
    ]
    start = one_hot(torch.full((len(goals),), middle * size), size)
    return torch.stack(
        [walls.expand(len(goals), -1, -1), start, one_hot(torch.tensor(goals), size)], dim=1
    )


def named_mazes(size: int) -> dict[str, tuple[Tensor, int]]:
    """The public held-out mazes of a size by name: layout ``[1, 3, size, size]`` and heading.

    The heading is the direction that the agent faces at the start, an index of ``MOVES``.
    """
    found: dict[str, tuple[Tensor, int]] = {}
    text = files("lit_crl.envs.mazes").joinpath("heldout_mazes.txt").read_text(encoding="utf-8")
    for block in text.split("\n\n"):
        name, *rows = [line for line in block.splitlines() if not line.startswith(";")] or [""]
        if rows and len(rows) == len(rows[0]) == size:
            kinds = ("#", HEADINGS, "G")
            maps = [[[float(tile in kind) for tile in row] for row in rows] for kind in kinds]
            heading = next(HEADINGS.index(tile) for row in rows for tile in row if tile in HEADINGS)
            found[name] = torch.tensor(maps)[None], heading
    return found
