"""The returns that are possible, against episodes that are played out."""

from random import Random

import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st

from lit_crl.dqn.possible_returns import (
    ENDING,
    GOING,
    joined,
    no_rewards,
    possible_returns,
    reward_range,
)
from lit_crl.dqn.replay.buffer import ReplayBuffer

rewards = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=4)
gammas = st.floats(0.0, 0.97)


def discounted(episode: list[float], gamma: float) -> float:
    return sum(reward * gamma**step for step, reward in enumerate(episode))


@given(rewards, st.lists(st.floats(-5, 5, width=32), max_size=3), gammas)
def test_no_episode_of_these_rewards_returns_anything_else(
    going: list[float], ending: list[float], gamma: float
) -> None:
    """Episodes that end, and ones so long that the rest is nothing, inside; the best ones close."""
    reward = torch.tensor(going + ending)
    ended = torch.arange(len(reward)) >= len(going)
    low, high = possible_returns(reward_range(reward, ended, torch.ones_like(ended)), gamma)
    long, episodes = 600, []
    for kind in (min, max):
        episodes.append([kind(going)] * long)
    for length in (0, 1, 7):
        drawn = [going[(step * 7) % len(going)] for step in range(length)]
        episodes += [[*drawn, last] for last in (*ending, *going)]
    returns = [discounted(episode, gamma) for episode in episodes]
    assert low - 1e-3 <= min(returns) and max(returns) <= high + 1e-3
    assert min(returns) == pytest.approx(float(low), abs=1e-3)
    assert max(returns) == pytest.approx(float(high), abs=1e-3)


def test_without_discount_a_reward_for_ever_has_no_bound_and_nothing_for_ever_is_nothing() -> None:
    assert possible_returns(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), 1.0).tolist() == [0.0, 2.0]
    found = possible_returns(torch.tensor([[-1.0, 0.0], [3.0, 3.0]]), 1.0)
    assert found.tolist() == [-torch.inf, 3.0]


def test_a_replay_remembers_the_rewards_that_it_has_lost() -> None:
    replay = ReplayBuffer(8, 1, Box(0.0, 1.0, (1,)))
    assert torch.equal(joined(replay.see_rewards(1), no_rewards()), no_rewards())
    obs, action = torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)
    for reward, discount in [(0.0, 0.9), (5.0, 0.0), *[(-1.0, 0.9)] * 12]:  # a ring of 8 rows
        replay.add(obs, action, torch.tensor([reward]), torch.tensor([discount]))
        if discount == 0:
            replay.add_final(obs, torch.tensor([True]))
        replay.see_rewards(1)
    assert not (replay.reward == 5).any()
    found = replay.see_rewards(1)
    assert found[GOING].tolist() == [-1.0, 0.0] and found[ENDING].tolist() == [5.0, 5.0]
    other = ReplayBuffer(8, 1, Box(0.0, 1.0, (1,)))
    other.load_state_dict(replay.state_dict())
    assert torch.equal(other.see_rewards(1), found)


@given(st.integers(1, 3), st.integers(1, 4), st.randoms(use_true_random=False))
def test_looking_at_the_newest_steps_sees_every_reward(
    num_envs: int, steps: int, random: Random
) -> None:
    """However unevenly episodes end, and whatever the ring has lost by then."""
    replay = ReplayBuffer(num_envs * random.randint(12, 40), num_envs, Box(0.0, 1.0, (1,)))
    rewards: list[float] = []
    ends: list[float] = []
    for turn in range(30):
        for _ in range(steps):
            reward = [random.uniform(-1, 1) for _ in range(num_envs)]
            done = [random.random() < 0.3 for _ in range(num_envs)]
            obs, action = torch.zeros(num_envs, 1), torch.zeros(num_envs, dtype=torch.int64)
            ended = torch.tensor(done)
            replay.add(obs, action, torch.tensor(reward), 0.9 * ~ended)
            replay.add_final(obs, ended)
            for one, is_end in zip(reward, done, strict=True):
                (ends if is_end else rewards).append(one)
        found = replay.see_rewards(steps)
        if turn == 3:  # resumed: another one goes on with what was saved
            state, replay = (
                replay.state_dict(),
                ReplayBuffer(replay.length * num_envs, num_envs, Box(0.0, 1.0, (1,))),
            )
            replay.load_state_dict(state)
    for kind, seen in ((GOING, rewards), (ENDING, ends)):
        expected = [min(seen), max(seen)] if seen else [torch.inf, -torch.inf]
        assert found[kind].tolist() == pytest.approx(expected)
