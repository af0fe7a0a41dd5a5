"""Generator and discriminator for levels that are maps of tiles: walls, start and goal."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_crl.core.categorical import one_hot
from lit_crl.envs.mazes.shortest_paths import distances
from lit_crl.gan.equations import straight_through
from lit_crl.gan.networks import Discriminator

#: Channels of the convolutions.
CHANNELS = 32


def one_cell(logits: Tensor) -> Tensor:
    """The likeliest cell of each map, ``[B, cells] -> [B, cells]``, straight through.

    >>> one_cell(torch.tensor([[0.0, 2.0, 1.0]]))
    tensor([[0., 1., 0.]])
    """
    hard = one_hot(logits.argmax(dim=1), logits.shape[1])
    return straight_through(hard, logits.softmax(dim=1))


def tiles(logits: Tensor) -> Tensor:
    """Maps of walls, start and goal in {0, 1} from logits ``[B, C, H, W]``, straight through.

    There is exactly one start and one goal, in two different cells without a wall. The start is in
    one of the C − 2 maps between walls and goal, one for each direction to face. The goal can be
    reached from its cell, unless the goal is walled in.
    """
    wall, *starts, goal = logits.unbind(1)
    at_goal = one_cell(goal.flatten(1)).view_as(goal)
    walls = straight_through((wall > 0).to(wall.dtype), torch.sigmoid(wall))
    walls = walls * (1 - at_goal.detach())
    cut_off = path_lengths(walls, at_goal) == longest_path(goal)
    # The second penalty is larger: a start that is cut off is better than one on the goal.
    penalty = 1e4 * cut_off + 1e9 * at_goal.detach()
    start = torch.stack(starts, dim=1) - penalty[:, None]
    at_start = one_cell(start.flatten(1)).view_as(start)
    walls = walls * (1 - at_start.detach().sum(dim=1))
    return torch.cat([walls[:, None], at_start, at_goal[:, None]], dim=1)


def longest_path(maps: Tensor) -> int:
    """Longest path that is looked for in maps ``[B, H, W]``: through half of the cells."""
    return maps[0].numel() // 2


@torch.no_grad()
def path_lengths(walls: Tensor, goal: Tensor) -> Tensor:
    """Moves from every cell to the goal, ``[B, H, W]``, at most ``longest_path``.

    Walls have that length, and so have cells that are further off or cut off.

    Args:
        walls: Maps ``[B, H, W]``, above 0.5 where walls are.
        goal: Maps ``[B, H, W]``, above 0.5 where the goal is.

    >>> walls, goal = torch.zeros(2, 1, 2, 4)
    >>> walls[0, :, 2], goal[0, 0, 0] = 1, 1
    >>> path_lengths(walls, goal)
    tensor([[[0., 1., 4., 4.],
             [1., 2., 4., 4.]]])
    """
    most = longest_path(goal)
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
    modules: list[nn.Module] = []
    for inputs in (channels, *[CHANNELS] * (layers - 1)):
        modules += [nn.Conv2d(inputs, CHANNELS, 3, padding=1), nn.LeakyReLU()]
    return nn.Sequential(*modules)


class GridGenerator(nn.Module):
    """Noise to maps: a linear layer spreads it over the cells, convolutions shape the tiles."""

    def __init__(self, shape: tuple[int, int, int], noise_dim: int) -> None:
        """``noise_dim`` numbers in, maps of ``shape`` = (C, H, W) out."""
        super().__init__()
        self.noise_dim, self.shape = noise_dim, shape
        self.spread = nn.Linear(noise_dim, CHANNELS * shape[1] * shape[2])
        self.body = convolutions(CHANNELS, 2)
        self.head = nn.Conv2d(CHANNELS, shape[0], 1)

    def forward(self, z: Tensor) -> Tensor:
        """``z [B, noise_dim]`` to levels ``[B, C·H·W]``, −1 or 1."""
        cells = F.leaky_relu(self.spread(z)).view(-1, CHANNELS, *self.shape[1:])
        return 2 * tiles(self.head(cells + self.body(cells))).flatten(1) - 1


class MazeSuccessHead(nn.Module):
    """p̂'s logit of a maze from three features: path length, its detour, and the share of walls.

    Convolutions learned the outcomes by heart instead: their loss on the training outcomes was .12,
    but they ranked generated 7×7 mazes no better than a coin. The gradient moves the start towards
    cells with longer or shorter paths, and adds or removes walls everywhere alike.
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
        length = (start * path_lengths(walls, goal)).sum(dim=(1, 2))
        apart = sum(self._between(start, goal, axis) for axis in (1, 2))
        features = [length / 10, (length - apart) / 10, walls.mean(dim=(1, 2))]
        logit: Tensor = self.judge(torch.stack(features, dim=1))
        return logit

    @staticmethod
    def _between(start: Tensor, goal: Tensor, axis: int) -> Tensor:
        """Rows or columns from start to goal, ``[B]``."""
        place = torch.arange(start.shape[axis], device=start.device, dtype=start.dtype)
        return (((start - goal).sum(dim=3 - axis)) * place).sum(dim=1).abs()


class GridDiscriminator(Discriminator):
    """A discriminator of maps: the critic sees the whole of a small map."""

    def __init__(self, shape: tuple[int, int, int], hidden: Sequence[int]) -> None:
        """Maps of ``shape`` = (C, H, W) in; ``hidden[-1]`` wide before the logits."""
        critic = nn.Sequential(
            nn.Unflatten(1, shape),
            convolutions(shape[0], 3),
            nn.Flatten(),
            nn.Linear(CHANNELS * shape[1] * shape[2], hidden[-1]),
            nn.LeakyReLU(),
            nn.Linear(hidden[-1], 1),
        )
        super().__init__(critic, MazeSuccessHead(shape, hidden[-1]))
