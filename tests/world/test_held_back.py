"""Episodes that are held back, against a naive record of what was played."""

import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.world.real_episodes import held_back_episodes
from lit_crl.world.real_steps import split


def filled(capacity: int, steps: int, n_steps: int) -> tuple[ReplayBuffer, list[list[float]]]:
    """A replay of two environments, and every episode that ended, as its observations.

    Observations are numbered, so that no two are alike; episodes last 3 to 7 steps.
    """
    replay = ReplayBuffer(capacity, 2, Box(-1e6, 1e6, (1,)), n_steps=n_steps, num_actions=5)
    rng = torch.Generator().manual_seed(0)
    running: list[list[float]] = [[1.0], [2.0]]
    ended, count = [], 2.0
    lengths = torch.randint(3, 8, (2,), generator=rng)
    for _ in range(steps):
        obs = torch.tensor([[episode[-1]] for episode in running])
        done = torch.tensor([len(e) == length for e, length in zip(running, lengths, strict=True)])
        replay.add(obs, (obs[:, 0] % 5).long(), obs[:, 0] / 2, torch.where(done, 0.0, 0.9))
        for column in range(2):
            count += 1
            running[column].append(count)
        replay.add_final(torch.tensor([[episode[-1]] for episode in running]), done)
        for column in done.nonzero().flatten().tolist():
            ended.append(running[column])
            count += 1
            running[column] = [count]
            lengths[column] = torch.randint(3, 8, (1,), generator=rng)
    return replay, ended


def path(obs: Tensor, next_obs: Tensor) -> list[float]:
    assert torch.equal(obs[1:], next_obs[:-1])
    return [*obs.flatten().tolist(), next_obs[-1].item()]


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("capacity", [40, 1_000])
def test_episodes_are_whole_and_in_order(capacity: int, n_steps: int) -> None:
    replay, ended = filled(capacity, 120, n_steps)
    found = held_back_episodes(replay, 1.0)
    paths = [path(each.obs, each.next_obs) for each in found]
    by_end = {episode[-1]: episode for episode in ended}
    assert len(paths) >= 5
    for each, walked in zip(found, paths, strict=True):
        whole = by_end.pop(walked[-1])
        assert walked == whole[-len(walked) :]  # the oldest rows are overwritten, and only those
        assert each.terminated.tolist() == [False] * (len(walked) - 2) + [True]
        assert torch.equal(each.action, (each.obs[:, 0] % 5).long())
        assert torch.equal(each.reward, each.obs[:, 0] / 2)
    if capacity == 1_000:  # nothing was overwritten; the newest n rows still wait
        lasts = replay.n_steps
        assert all(episode[-1] > max(map(max, ended)) - 3 * lasts for episode in by_end.values())


def test_only_episodes_that_are_held_back_are_found() -> None:
    replay, _ = filled(1_000, 200, 1)
    whole, some = (held_back_episodes(replay, share) for share in (1.0, 0.3))
    rows = sum(len(each.action) for each in some)
    assert rows == int(split(replay, 1, 1.0, 0.3).held_back.sum())
    starts = {each.obs[0].item() for each in whole}
    assert {each.obs[0].item() for each in some} < starts
    assert held_back_episodes(replay, 0.0) == []
