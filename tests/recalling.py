"""A task that takes memory: a cue is shown once, and asked for some steps later."""

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.envs import BatchedEnv

#: Env steps from the cue to the question.
DELAY = 3


class Recall(BatchedEnv):
    """The first observation shows a cue, −1 or 1; the last action of the episode has to repeat it.

    That action, 0 or 1, ends the episode and pays 1 if it is right, −1 if not; all others do
    nothing. Without memory nothing is better than a guess, whose return is 0 on average.
    """

    single_observation_space = Box(-1.0, 1.0, (2,), np.float32)
    single_action_space = Discrete(2)
    level_space = Box(-1.0, 1.0, (1,), np.float32)
    level_names = ("cue",)
    level_plane = (0, 0)
    max_episode_steps = DELAY + 1
    gymnasium_id = None
    tracks_visited = False

    def initial_state(self, levels: Tensor) -> Tensor:
        return torch.cat([levels.sign(), torch.zeros_like(levels)], 1)

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        cue, time = state.unbind(1)
        asked = time == DELAY
        right = (actions == 1) == (cue > 0)
        reward = torch.where(asked, torch.where(right, 1.0, -1.0), 0.0)
        return torch.stack([cue, time + 1], 1), reward, asked

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        cue, time = state.unbind(1)
        return torch.stack([torch.where(time == 0, cue, 0.0), time / DELAY - 1], 1)

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        return state[:, :1].clone()

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        cues = torch.randint(2, (n, 1), generator=rng, device=rng.device)
        return 2.0 * cues.to(self.device) - 1


class Uneven(Recall):
    """Episodes end after one to twelve steps, as the level says, and each shows something else.

    Each step pays 1 more than its action, and the step's number as well, so that returns tell
    actions apart.
    """

    max_episode_steps = 12

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        cue, time = state.unbind(1)
        ends = time + 1 >= 12 * levels[:, 0].abs()
        return torch.stack([cue, time + 1], 1), 1 + actions * (1 + time), ends

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        level, time = levels[:, 0], state[:, 1]
        return torch.stack([level, torch.sin(9 * time * (level + 1.3))], 1)

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        return self.reference_levels(n, rng)
