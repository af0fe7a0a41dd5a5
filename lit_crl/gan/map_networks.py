"""Generator and discriminator for levels that are maps of tiles: walls, start and goal."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_crl.envs.mazes.shortest_paths import distances

#: Channels of the convolutions.
WIDTH = 32


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """``hard`` forward, the gradient of ``soft`` backward, Bengio et al. 2013, §4."""
    return hard + (soft - soft.detach())  # in this order nothing is rounded


def one_cell(logits: Tensor) -> Tensor:
    """The likeliest cell of each map, ``[B, cells] -> [B, cells]``, straight through."""
    hard = F.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits.dtype)
    return straight_through(hard, logits.softmax(dim=1))


def tiles(logits: Tensor) -> Tensor:
    """Maps of walls, start and goal in {0, 1} from logits ``[B, C, H, W]``, straight through.

    There are exactly one start and one goal, on two different cells without a wall. The start is in
    one of the C − 2 maps in between, one for each way to face, and in a cell from which the goal
    can be reached, unless the goal is walled in.
    """
    wall, *starts, goal = logits.unbind(1)
    at_goal = one_cell(goal.flatten(1)).view_as(goal)
    walls = straight_through((wall > 0).to(wall.dtype), torch.sigmoid(wall))
    walls = walls * (1 - at_goal.detach())
    cut_off = way_lengths(walls, at_goal) == most_moves(goal)
    hindered = torch.stack(starts, dim=1) - (1e4 * cut_off + 1e9 * at_goal.detach())[:, None]
    at_start = one_cell(hindered.flatten(1)).view_as(hindered)
    walls = walls * (1 - at_start.detach().sum(dim=1))
    return torch.cat([walls[:, None], at_start, at_goal[:, None]], dim=1)


def most_moves(maps: Tensor) -> int:
    """Longest way that is looked for in maps ``[B, H, W]``: through half of the cells."""
    return maps[0].numel() // 2


@torch.no_grad()
def way_lengths(walls: Tensor, goal: Tensor) -> Tensor:
    """Moves from every cell to the goal, ``[B, H, W]``, at most half the number of cells.

    Walls, and cells that are further away or cut off, have that number.

    Args:
        walls: Maps ``[B, H, W]``, above 0.5 where walls are.
        goal: Likewise where the goal is.
    """
    most = most_moves(goal)
    return distances(walls > 0.5, goal > 0.5, rounds=most).clamp(max=most).to(goal.dtype)


def edited(maps: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Maps ``[B, C, H, W]`` in {0, 1} with a share of the tiles changed at random.

    Each cell but start and goal turns from wall to floor or back with probability ``share``.
    """
    flips = torch.rand(maps[:, 0].shape, generator=rng, device=rng.device) < share
    is_end = maps[:, 1:].amax(dim=1) > 0.5
    walls = torch.where(flips & ~is_end, 1 - maps[:, 0], maps[:, 0])
    return torch.cat([walls[:, None], maps[:, 1:]], dim=1)


def convolutions(channels: int, layers: int) -> nn.Sequential:
    """3×3 convolutions that keep the map's size."""
    found: list[nn.Module] = []
    for inputs in (channels, *[WIDTH] * (layers - 1)):
        found += [nn.Conv2d(inputs, WIDTH, 3, padding=1), nn.LeakyReLU()]
    return nn.Sequential(*found)


class GridGenerator(nn.Module):
    """Noise to maps of tiles: a linear layer spreads it over the cells, convolutions shape them."""

    def __init__(self, shape: tuple[int, int, int], noise_dim: int) -> None:
        """``noise_dim`` numbers in, maps of ``shape`` = (C, H, W) out."""
        super().__init__()
        self.noise_dim, self.shape = noise_dim, shape
        self.spread = nn.Linear(noise_dim, WIDTH * shape[1] * shape[2])
        self.body = convolutions(WIDTH, 2)
        self.head = nn.Conv2d(WIDTH, shape[0], 1)

    def forward(self, z: Tensor) -> Tensor:
        """``z [B, noise_dim]`` to levels ``[B, C·H·W]``, −1 or 1."""
        cells = F.leaky_relu(self.spread(z)).view(-1, WIDTH, *self.shape[1:])
        return 2 * tiles(self.head(cells + self.body(cells))).flatten(1) - 1


class MazeSuccessHead(nn.Module):
    """p̂'s logit of a maze from what makes it hard: the way's length, its detour, and the walls.

    Convolutions in its place learned the outcomes by heart: with a loss of .12 on those, they
    ranked generated 7×7 mazes as a coin would. The gradient moves the start along the lengths of
    the ways from all cells, and puts up or takes down walls everywhere alike.
    """

    def __init__(self, shape: tuple[int, int, int], hidden: int) -> None:
        """Maps of ``shape`` = (C, H, W) in, ``hidden`` wide before the logit."""
        super().__init__()
        self.shape = shape
        self.judge = nn.Sequential(nn.Linear(3, hidden), nn.LeakyReLU(), nn.Linear(hidden, 1))

    def forward(self, level: Tensor) -> Tensor:
        """Levels ``[B, C·H·W]``, −1 or 1, to logits ``[B, 1]``."""
        walls, *starts, goal = ((level.view(-1, *self.shape) + 1) / 2).unbind(1)
        start = torch.stack(starts).sum(dim=0)
        length = (start * way_lengths(walls, goal)).sum(dim=(1, 2))
        apart = sum(self._between(start, goal, axis) for axis in (1, 2))
        features = [length / 10, (length - apart) / 10, walls.mean(dim=(1, 2))]
        return cast(Tensor, self.judge(torch.stack(features, dim=1)))

    @staticmethod
    def _between(start: Tensor, goal: Tensor, axis: int) -> Tensor:
        """Rows or columns from start to goal, ``[B]``."""
        place = torch.arange(start.shape[axis], device=start.device, dtype=start.dtype)
        return (((start - goal).sum(dim=3 - axis)) * place).sum(dim=1).abs()


class GridDiscriminator(nn.Module):
    """``VectorDiscriminator`` for maps: a critic that sees the whole of a small one, and p̂."""

    def __init__(self, shape: tuple[int, int, int], hidden: Sequence[int]) -> None:
        """Maps of ``shape`` = (C, H, W) in; ``hidden[-1]`` wide before the logits."""
        super().__init__()
        self.critic = nn.Sequential(
            nn.Unflatten(1, shape),
            convolutions(shape[0], 3),
            nn.Flatten(),
            nn.Linear(WIDTH * shape[1] * shape[2], hidden[-1]),
            nn.LeakyReLU(),
            nn.Linear(hidden[-1], 1),
        )
        self.success_head = MazeSuccessHead(shape, hidden[-1])

    def forward(self, level: Tensor) -> Tensor:
        """Realness logits ``[B]`` of levels ``[B, C·H·W]``, −1 or 1."""
        return cast(Tensor, self.critic(level)).squeeze(-1)

    def success_logit(self, level: Tensor) -> Tensor:
        """Logits ``[B]`` of p̂, the probability that the present policy solves the level."""
        return cast(Tensor, self.success_head(level)).squeeze(-1)
