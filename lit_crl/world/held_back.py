"""Whole episodes that no member of a world learns from."""

import torch

from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.world.batch import RealSteps
from lit_crl.world.real_steps import numbered, split, steps_at


def held_back_episodes(replay: ReplayBuffer, share: float) -> list[RealSteps]:
    """The episodes in a replay that are held back, with their steps in order, ``[T, ...]`` each.

    Of an episode whose first rows were overwritten, the rest is left. One whose last rows still
    wait, as the newest n rows of a replay of n-step transitions do, is not there yet.

    Args:
        replay: Where the real steps are.
        share: Share of the episodes that are held back, as it was for the world.
    """
    serial, final = numbered(replay.boundary.view(-1, replay.num_envs), replay.cursor)
    held_back = split(replay, 1, 1.0, share).held_back.view(-1, replay.num_envs)
    episodes = []
    for column in range(replay.num_envs):
        place = held_back[:, column].nonzero().squeeze(1)
        place = place[serial[place, column].argsort()]
        _, lengths = torch.unique_consecutive(final[place, column], return_counts=True)
        for row in torch.split(place, lengths.tolist()):
            if len(row) and serial[row[-1], column] + 1 == final[row[-1], column]:
                episodes.append(steps_at(replay, row * replay.num_envs + column))
    return episodes
