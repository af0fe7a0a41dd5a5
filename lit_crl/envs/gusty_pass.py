"""A walker between a near hut and a high summit, which lies behind a pass with gusts.

A gust throws the walker to one side or to the other, as a fair coin falls. Who crosses the pass is
then beside the path that leads to the summit, and falls; no gust ever leads to the path. Who
imagines the mean of what follows, or a normal distribution around it, believes in the path. So the
task tells worlds that imagine both outcomes from those that imagine their mean.

The coin is fair and no observation shows it, but it is no random number: it is the weather, a
number of the state that follows the logistic map. So a level and actions determine an episode.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.envs.batched import BatchedEnv
from lit_crl.envs.interface import draw_box, uniform_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Change of x (east) by each action: west and east.
MOVES = (-0.5, 0.5)
#: The hut is here and to the west, the summit here and to the east, and the pass between them.
HUT, PASS, SUMMIT = -1.0, 0.125, 1.0
#: What they pay.
HUT_REWARD, SUMMIT_REWARD = 1.0, 8.0
#: Where gusts throw along y, to one side or the other, and how far the path reaches to both.
SIDE, PATH = 0.6, 0.3
#: Levels are between these corners (x, y), and target levels between those: from there no step
#: leads close to an edge, so that small errors of a world do not matter.
LOW, HIGH = (HUT, -0.8), (SUMMIT, 0.8)
TARGET_LOW, TARGET_HIGH = (-0.15, -0.1), (-0.05, 0.1)


def weather_after(weather: Tensor) -> Tensor:
    """The logistic map w ← 4 w (1 − w).

    Whether w is above ½ is then a fair coin, and independent of all earlier ones, if the first w is
    drawn from its invariant distribution (Ulam & von Neumann 1947).

    >>> weather_after(torch.tensor([0.25, 0.5]))
    tensor([0.7500, 1.0000])
    """
    return 4 * weather * (1 - weather)


def weather_of(share: Tensor) -> Tensor:
    """The weather below which a ``share`` of the invariant distribution lies: sin²(π share / 2).

    >>> weather_of(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return torch.sin(share * (math.pi / 2)).square()


def share_of(weather: Tensor) -> Tensor:
    """The inverse of ``weather_of``.

    >>> share_of(weather_of(torch.tensor([0.3])))
    tensor([0.3000])
    """
    return torch.asin(weather.clamp(0, 1).sqrt()) * (2 / math.pi)


def is_steep(position: Tensor) -> Tensor:
    """Whether positions ``[..., 2]`` are behind the pass and beside the path."""
    x, y = position.unbind(-1)
    return (x >= PASS) & (y.abs() > PATH)


def walk(position: Tensor, actions: Tensor, northward: Tensor) -> Tensor:
    """Where walkers at ``position [N, 2]`` are after one env step.

    Args:
        position: x and y.
        actions: 0 west, 1 east ``[N]``.
        northward: Whether a gust now blows to the north, bool ``[N]``; else it blows to the south.
    """
    x, y = position.unbind(-1)
    moved = x + torch.where(actions == 0, *MOVES)
    blown = torch.where(northward, SIDE, -SIDE)
    return torch.stack((moved, torch.where(x < PASS, blown, y)), -1)


class GustyPass(BatchedEnv):
    """Choose between a near hut (reward 1) and a high summit (8) behind a pass; at most 20 steps.

    Every step from the west of the pass is blown to y = 0.6 or y = -0.6. Behind the pass it is
    calm. Whoever is there beside the path falls with the next step: that ends it without reward.
    So the hut is the best that one can reach from the west. The path itself leads to the summit.

    Level: start (x, y), and the weather, as its quantile. Target: between hut and pass. Reference:
    uniform over the level box. Observation: x and y; the weather does not show.
    """

    single_observation_space = Box(
        np.array([HUT + MOVES[0], LOW[1]], np.float32),
        np.array([SUMMIT + MOVES[1], HIGH[1]], np.float32),
    )
    single_action_space = Discrete(len(MOVES))
    level_space = Box(np.array([*LOW, 0], np.float32), np.array([*HIGH, 1], np.float32))
    level_names = ("x (east)", "y (north)", "weather (quantile)")

    def __init__(
        self, num_envs: int, device: torch.device | str = "cpu", *, max_episode_steps: int = 20
    ) -> None:
        """Build the environment.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.
            max_episode_steps: Env steps after which an episode is truncated.
        """
        self.max_episode_steps = max_episode_steps
        super().__init__(num_envs, device)

    def initial_state(self, levels: Tensor) -> Tensor:
        """x, y and the weather [n, 3]."""
        return torch.cat((levels[:, :2], weather_of(levels[:, 2:])), -1)

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Walk, be thrown, or fall; the weather changes; reward hut and summit."""
        before, weather = state[:, :2], state[:, 2:]
        falls = is_steep(before)
        position = walk(before, actions, weather[:, 0] > 0.5)
        at_hut, at_summit = position[:, 0] <= HUT, position[:, 0] >= SUMMIT
        reward = HUT_REWARD * at_hut + SUMMIT_REWARD * at_summit
        after = torch.cat((position, weather_after(weather)), -1)
        return after, torch.where(falls, 0.0, reward), falls | at_hut | at_summit

    def advanced(
        self, state: Tensor, levels: Tensor, elapsed: Tensor, actions: Tensor
    ) -> tuple[Tensor, ...]:
        """As in every built-in environment, but a fall is no success."""
        *others, reward, terminated, truncated, _ = super().advanced(
            state, levels, elapsed, actions
        )
        return *others, reward, terminated, truncated, reward > 0

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return x and y [n, 2]."""
        return state[:, :2].clone()

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """A visited state is a level [n, 3]."""
        return torch.cat((state[:, :2], share_of(state[:, 2:])), -1)

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 3]: x in [-0.15, -0.05], y in [-0.1, 0.1], any weather."""
        low, high = (
            self.level_low.new_tensor(corner)
            for corner in ((*TARGET_LOW, 0.0), (*TARGET_HIGH, 1.0))
        )
        return uniform_levels(n, low, high, rng)

    def heldout(self) -> dict[str, Tensor]:
        """Return ``anywhere`` [256, 3]: fixed reference levels."""
        # Drawn on the CPU, so that the held-out set is the same on every device.
        return {"anywhere": self.reference_levels(256, torch.Generator().manual_seed(0))}

    def draw_level_plane(self, axes: Axes) -> None:
        """Label the axes; draw steep ground, start region, hut, pass and summit."""
        draw_box(axes, self.level_space, self.level_names, self.level_plane)
        for south, north in ((LOW[1], -PATH), (PATH, HIGH[1])):
            axes.fill_between((PASS, SUMMIT), south, north, color="0.85", zorder=0)
        (left, south), (right, north) = TARGET_LOW, TARGET_HIGH
        axes.fill_between((left, right), south, north, color="0.6", label="target", zorder=0)
        axes.axvline(PASS, color="0.3", linestyle="--", label="pass", zorder=0)
