"""A planar arm that must take poses which were measured, not sampled.

A pose is given as the places of the arm's joints and of its hand, as a camera measures them. The
arm's links have fixed lengths and its joints have limits, so the poses that it can take are a thin
curved sheet in the box of all numbers: for nearly all of the box there is no such pose.
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

LINKS = (0.4, 0.35, 0.25)  # m, from the base to the hand
LIMITS = (1.5, 2.0, 2.0)  # rad to either side; at 0 a link goes on straight, the first one upwards
TURN = 0.15  # rad per env step
RADIUS = 0.15  # m; turns of 0.15 rad can always bring every joint this close


def places(angles: Tensor, links: Tensor) -> Tensor:
    """Where the ends of an arm's links are: the forward kinematics.

    Args:
        angles: Angle of each joint (rad), to the right of straight on, [..., J].
        links: Lengths of the links (m) [J].

    Returns:
        x and y of the end of each link, one link after the other, [..., 2 J].

    >>> places(torch.tensor([0.0, torch.pi / 2]), torch.tensor([2.0, 1.0])).round()
    tensor([0., 2., 1., 2.])
    """
    heading = angles.cumsum(-1)
    steps = torch.stack((torch.sin(heading), torch.cos(heading)), -1) * links.unsqueeze(-1)
    return steps.cumsum(-2).flatten(-2)


def farthest(places: Tensor, goal: Tensor) -> Tensor:
    """The largest distance [...] between a place and its goal, of places [..., 2 J]."""
    apart = (places - goal).square()
    distance: Tensor = (apart[..., ::2] + apart[..., 1::2]).sqrt().amax(-1)
    return distance


class ArmPoses(BatchedEnv):
    """Bring an arm of three links from upright to a pose; reward 1 for it, else 0.

    Level: the pose as x and y of the elbow, the wrist and the hand (m). Action 2k turns joint k by
    0.15 rad to the right, and action 2k + 1 turns it back; limits stop it. The pose is taken when
    all three places are within 0.15 m of those of the level; an episode lasts 60 steps at most.
    Observation: the three places, then those of the level. Target: angles drawn uniformly between
    their limits. Reference: uniform over the box, of which one level in a hundred is a pose that
    the arm can take.
    """

    single_action_space = Discrete(2 * len(LINKS))
    level_names = tuple(
        f"{place} {axis} (m)" for place in ("elbow", "wrist", "hand") for axis in "xy"
    )
    level_plane = (4, 5)
    level_space = Box(
        -np.repeat(np.cumsum(LINKS), 2).astype(np.float32),
        np.repeat(np.cumsum(LINKS), 2).astype(np.float32),
    )
    single_observation_space = Box(np.tile(level_space.low, 2), np.tile(level_space.high, 2))

    def __init__(
        self, num_envs: int, device: torch.device | str = "cpu", *, max_episode_steps: int = 60
    ) -> None:
        """Build the arms.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.
            max_episode_steps: Env steps after which an episode is truncated.
        """
        self.max_episode_steps = max_episode_steps
        self.links = torch.tensor(LINKS, device=device)
        self.limits = torch.tensor(LIMITS, device=device)
        joints = torch.eye(len(LINKS), device=device)
        self.turns = TURN * torch.stack((joints, -joints), 1).flatten(0, 1)
        super().__init__(num_envs, device)

    def initial_state(self, levels: Tensor) -> Tensor:
        """Every episode starts upright, with all angles [n, 3] at 0."""
        return torch.zeros_like(levels[:, : len(LINKS)])

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Turn a joint up to its limit, and reward the pose."""
        state = (state + self.turns[actions]).clamp(-self.limits, self.limits)
        taken = farthest(places(state, self.links), levels) <= RADIUS
        return state, taken.to(state.dtype), taken

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return the present places, then those of the level [n, 12]."""
        return torch.cat((places(state, self.links), levels), -1)

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """A pose that the arm was in is one that it can take [n, 6]."""
        return places(state, self.links)

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 6] poses, with each angle uniform between its limits."""
        return places(uniform_levels(n, -self.limits, self.limits, rng), self.links)

    def heldout(self) -> dict[str, Tensor]:
        """Return ``poses`` [256, 6]: fixed poses that the arm can take."""
        # Drawn on the CPU, so that the held-out set is the same on every device.
        return {"poses": self.target_levels(256, torch.Generator().manual_seed(0))}

    def symmetries(self, levels: Tensor) -> Tensor:
        """The poses and their mirror images [2, n, 6]: left and right are alike."""
        mirror = levels.new_tensor([-1.0, 1.0]).repeat(len(LINKS))
        return torch.stack((levels, mirror * levels))

    def draw_level_plane(self, axes: Axes) -> None:
        """Draw how far the hand reaches, and the hand's place at the start."""
        draw_box(axes, self.level_space, self.level_names, self.level_plane)
        axes.set_aspect("equal")
        angle = torch.linspace(0, 2 * torch.pi, 60)
        reach = sum(LINKS)
        axes.plot(reach * torch.cos(angle), reach * torch.sin(angle), color="0.4", linewidth=1,
                  label="reach", zorder=1)  # fmt: skip
        axes.plot(0, reach, marker="+", color="0.2", linestyle="", label="start", zorder=1)
