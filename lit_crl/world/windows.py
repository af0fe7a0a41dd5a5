"""Stretches of real episodes, which a world is to imagine again under the same actions."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_crl.dqn.replay.buffer import ReplayBuffer


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
