"""A Q-network that plans: it learns the costs and ends of a map, and computes shortest paths.

It follows value iteration networks (Tamar et al. 2016, arXiv:1602.02867) and value propagation
(Nardelli et al. 2019, arXiv:1805.11199), but with distances instead of values, so that the gradient
at the far end of a long path is as large as at its start.
"""

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.nn import functional as F

from lit_crl.core.checks import ConfigError
from lit_crl.envs.images import ImageSpace, channels_first

#: Cost of the border around a map, which no path crosses.
FAR = 1e3
#: Channels of the convolution that sees a cell and its neighbours.
CHANNELS = 16
#: The maps' weights are multiplied by this, so that they learn faster by the same factor.
GAIN = 10.0
#: Before training the maps are softplus of sums of these: a step costs 0.05 from an empty cell and
#: 1.3 from an occupied one, and paths of kind h end where the observation's channel h is 1.
EMPTY, OCCUPIED, ELSEWHERE, THERE = -3.0, 4.0, 5.0, -10.0


@torch.no_grad()
def shortest_paths(cost: Tensor, end: Tensor, cells: Tensor, sweeps: int) -> Tensor:
    """The cheapest paths from ``cells [m]`` of each map, by the algorithm of Bellman and Ford.

    A path may end in any cell at the price ``end [n, H, W]``, or pay ``cost [n, H, W]`` and go on
    to one of four neighbours. It has at most ``sweeps`` steps, and the maps' border is ``FAR``.
    Returns the paths' cells ``[sweeps + 1, n, m]``, numbered row by row through all maps; a path
    that has ended stays where it is.
    """
    n, rows, width = cost.shape
    cost, end = (each.flatten()[width:-width] for each in (cost, end))
    distance = end
    for _ in range(sweeps):
        distance = torch.minimum(distance, cost + lowest(adjacent(distance, width)))
    right, left, down, _ = sides = adjacent(distance, width)
    least = lowest(sides)
    vertical = torch.where(down == least, width, -width)
    step = torch.where(right == least, 1, torch.where(left == least, -1, vertical))
    step = F.pad(torch.where(cost + least < end, step, 0), (width, width))
    onward = torch.arange(step.shape[0], device=step.device) + step
    paths = [(torch.arange(n, device=step.device)[:, None] * (rows * width) + cells).flatten()]
    for _ in range(sweeps):
        paths.append(onward[paths[-1]])
    return torch.stack(paths).view(sweeps + 1, n, -1)


Sides = tuple[Tensor, Tensor, Tensor, Tensor]


def lowest(sides: Sides) -> Tensor:
    """The lowest of the numbers on the four sides of each cell."""
    right, left, down, up = sides
    return torch.minimum(torch.minimum(right, left), torch.minimum(down, up))


def adjacent(distance: Tensor, width: int) -> Sides:
    """The numbers right, left, below and above of each cell, for flat maps in one vector."""
    padded = F.pad(distance, (width, width), value=FAR)
    end = padded.shape[0]  # exports to any batch size, as len() would not
    return (
        padded[width + 1 : end - width + 1],
        padded[width - 1 : end - width - 1],
        padded[2 * width :],
        padded[: end - 2 * width],
    )


class PlanningQNetwork(nn.Module):
    """Action values as the mean value of the cells that an action may lead to.

    The input is an image ``[C, H, W]`` with the agent in its middle. For each kind h = 1 … C of
    path a convolution computes the cost of a step from each cell, and the cost of ending there. The
    value of a cell is Σ_h w_h exp(−d_h), where d_h is its distance to the end of a path. If a step
    costs −log γ, this is the discounted reward at the end. The network also learns where actions
    lead: as weights of the agent's cell and its eight neighbours, which depend on what is in them.
    """

    near: Tensor
    #: It has no noisy layers.
    noise_size = 0
    #: It has no memory.
    memory_size = 0

    def __init__(self, space: Box, num_actions: int, hidden: int, sweeps: int) -> None:
        """Build the network.

        Args:
            space: Observation space: an ``ImageSpace`` of bytes that are 0 or 1, H and W odd.
            num_actions: Size of the discrete action space.
            hidden: Width of the layer between the nine cells and where actions lead.
            sweeps: Longest path that is found.

        Raises:
            ConfigError: If observations are other images, or vectors.
        """
        super().__init__()
        is_map = space.dtype == np.uint8 and space.high.max() == 1
        if (
            not (is_map and isinstance(space, ImageSpace))
            or min(space.image_shape[1:]) < 3
            or not all(n % 2 for n in space.image_shape[1:])
        ):
            raise ConfigError(
                f"model.network.planning_steps is {sweeps}, but observations {space} are not maps "
                "of bytes in {0, 1} with the agent in the middle: set it to 0"
            )
        self.layout = space.layout
        self.channels, rows, columns = space.image_shape
        self.middle = [rows // 2, columns // 2]
        self.sweeps, self.num_actions = sweeps, num_actions
        width = columns + 2  # with a border
        row, column = (n + 1 for n in self.middle)
        near = [(row + i) * width + column + j for i in (-1, 0, 1) for j in (-1, 0, 1)]
        self.register_buffer("near", torch.tensor(near), persistent=False)
        self.look = nn.Conv2d(self.channels, CHANNELS, 3, padding=1)
        self.maps = nn.Conv2d(self.channels + CHANNELS, 2 * self.channels, 1)
        for parameter in self.maps.parameters():
            nn.init.zeros_(parameter)
        self.leads = nn.Sequential(
            nn.Linear(9 * self.channels, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, 9 * num_actions),
        )
        self.worth = nn.Parameter(torch.full((self.channels, 1), 1 / self.channels))
        self.bias = nn.Parameter(torch.zeros(num_actions))

    def forward(self, obs: Tensor) -> Tensor:
        """Observations ``[B, *shape]`` to action values ``[B, A]``."""
        with torch.autocast(obs.device.type, enabled=False):
            seen = channels_first(obs, self.layout).float()
            value = (self.worth * torch.exp(-self.distances(seen))).sum(dim=1, keepdim=True)
            row, column = self.middle
            around = seen[..., row - 1 : row + 2, column - 1 : column + 2].flatten(1)
            leads = self.leads(around).view(-1, self.num_actions, 9).softmax(dim=2)
            return torch.sum(leads * value, dim=2) + self.bias

    def distances(self, seen: Tensor) -> Tensor:
        """Distances ``[B, C, 9]`` of the agent's cell and its neighbours to the paths' ends."""
        logits = GAIN * self.maps(torch.cat([F.relu(self.look(seen)), seen], dim=1))
        cost, end = logits.chunk(2, dim=1)
        cost = F.softplus(cost + EMPTY + OCCUPIED * seen.amax(dim=1, keepdim=True))
        end = F.softplus(end + ELSEWHERE + THERE * seen)
        cost, end = (F.pad(each, (1,) * 4, value=FAR).flatten(0, 1) for each in (cost, end))
        paths = shortest_paths(cost, end, self.near, self.sweeps)
        # The search itself has no gradient: costs are added up again along the paths it found.
        steps = paths[1:] != paths[:-1]
        paid = (cost.flatten()[paths[:-1]] * steps).sum(dim=0) + end.flatten()[paths[-1]]
        return paid.view(seen.shape[0], self.channels, 9)
