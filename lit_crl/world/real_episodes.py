"""Real episodes and stretches of them, which a world is to imagine again under the same actions."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.world.batch import RealSteps
from lit_crl.world.real_steps import numbered, split, steps_at


class Windows(NamedTuple):
    """n stretches of T real steps, each within one episode."""

    #: Observations ``[n, T + 1, ...]``.
    obs: Tensor
    #: Actions ``[n, T]``.
    action: Tensor


def begins(replay: ReplayBuffer, rows: Tensor, length: int) -> Tensor:
    """From which of ``rows`` (bool ``[rows]``) on the next ``length`` steps are among them too.

    No step starts at the last observation of an episode, so they all are of one episode.
    """
    found, row = rows, torch.arange(len(rows), device=rows.device)
    for step in range(1, length):
        found = found & rows[replay.shift(row, step)]
    return found


def draw_windows(
    replay: ReplayBuffer, rows: Tensor, length: int, most: int, rng: torch.Generator
) -> Windows:
    """Up to ``most`` windows of ``length`` steps among ``rows`` (bool ``[rows]``), drawn uniformly.

    They are drawn without replacement, and may overlap. There are none where no episode among
    ``rows`` is so long.
    """
    start = begins(replay, rows, length).nonzero().squeeze(1)
    start = start[torch.randperm(len(start), generator=rng, device=rng.device)[:most]]
    row = replay.shift(start[:, None], torch.arange(length + 1, device=start.device))
    return Windows(replay.observations(row), replay.take(replay.action, row[:, :-1]).long())


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
