"""Hindsight relabelling against a naive loop over the episodes that were stored."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.hindsight import Hindsight
from lit_crl.envs import PointMass

GAMMA = 0.9


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Line:
    """Goals on a line: -1 a step, and on arrival within 1.5 of the goal 5 and the end."""

    def achieved_goal(self, obs: Tensor) -> Tensor:
        return obs[..., :1]

    def relabel(self, obs: Tensor, goal: Tensor) -> Tensor:
        return torch.cat([obs[..., :1], goal], dim=-1)

    def goal_reward(self, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        reached = (next_obs[..., 0] - next_obs[..., 1]).abs() < 1.5
        return torch.where(reached, 5.0, -1.0), reached


class Recorded:
    """Episodes of several environments, in a buffer and in lists.

    The buffer's action is a step's number, which hindsight never touches: it tells which step a
    sampled transition starts at.
    """

    def __init__(self, replay: ReplayBuffer) -> None:
        self.replay = replay
        self.rows: list[list[tuple[int, int | None, list[float]]]] = [
            [] for _ in range(replay.num_envs)
        ]
        self.running = list(range(replay.num_envs))
        self.episode = replay.num_envs
        self.count = 0

    def step(self, obs: Tensor, reward: Tensor, discount: Tensor) -> None:
        numbers = [self.count + env for env in range(self.replay.num_envs)]
        self.count += self.replay.num_envs
        self.replay.add(obs, torch.tensor(numbers), reward, discount)
        for env, number in enumerate(numbers):
            self.rows[env].append((self.running[env], number, obs[env].tolist()))

    def finish(self, obs: Tensor, done: Tensor) -> None:
        self.replay.add_final(obs, done)
        for env in done.nonzero().flatten().tolist():
            self.rows[env].append((self.running[env], None, obs[env].tolist()))
            self.running[env] = self.episode
            self.episode += 1

    def paths(self) -> dict[int, list[list[float]]]:
        """Of every stored step: its observation, and those stored after it in its episode."""
        found = {}
        for rows in self.rows:
            kept = rows[-self.replay.length :]
            for index, (episode, number, _) in enumerate(kept):
                if number is not None:
                    found[number] = [row[2] for row in kept[index:] if row[0] == episode]
        return found


def on_a_line(
    num_envs: int, room: int, n_steps: int, horizon: int, steps: int, seed: int
) -> Recorded:
    """Episodes whose positions climb by 1 and are all different; goals are far below zero."""
    space = Box(-np.inf, np.inf, (2,), np.float32)
    replay = ReplayBuffer((n_steps + room) * num_envs, num_envs, space, n_steps=n_steps)
    recorded = Recorded(replay)
    g = rng(seed)
    position = 1000.0 * torch.arange(num_envs)
    goal = -10.0 - torch.arange(num_envs)
    elapsed = torch.zeros(num_envs)
    for _ in range(steps):
        ended = torch.rand(num_envs, generator=g) < 0.1
        obs = torch.stack([position, goal], dim=1)
        recorded.step(obs, torch.full((num_envs,), -1.0), torch.where(ended, 0.0, GAMMA))
        position, elapsed = position + 1, elapsed + 1
        done = ended | (elapsed >= horizon)
        if done.any():
            recorded.finish(torch.stack([position, goal], dim=1), done)
            position = torch.where(done, position + 20, position)
            goal = torch.where(done, goal - num_envs, goal)
            elapsed = torch.where(done, 0, elapsed)
    return recorded


def check_line(batch: Transitions, paths: dict[int, list[list[float]]], n_steps: int) -> set[int]:
    """Recompute every relabelled transition by a loop; returns the indices of the goals' steps."""
    offsets = set()
    for obs, action, reward, discount, next_obs in zip(
        batch.obs.tolist(),
        batch.action.tolist(),
        batch.reward.tolist(),
        batch.discount.tolist(),
        batch.next_obs.tolist(),
        strict=True,
    ):
        path = [position for position, _ in paths[action]]
        position, goal = obs
        assert position == path[0]
        assert goal in path[1:], "the goal must have been achieved later in the same episode"
        offsets.add(path.index(goal))
        total, weight = 0.0, 1.0
        for reached in path[1 : n_steps + 1]:
            arrived = abs(reached - goal) < 1.5
            total += weight * (5 if arrived else -1)
            weight *= 0.0 if arrived else GAMMA
        assert reward == pytest.approx(total, abs=1e-4)
        assert discount == pytest.approx(weight, abs=1e-6)
        assert next_obs == [path[1 : n_steps + 1][-1], goal]
    return offsets


@settings(max_examples=40, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    room=st.integers(2, 14),
    n_steps=st.integers(1, 4),
    horizon=st.integers(1, 12),
    steps=st.integers(1, 50),
    seed=st.integers(0, 10**6),
)
def test_relabelled_transitions_equal_a_loop_over_their_episode(
    num_envs: int, room: int, n_steps: int, horizon: int, steps: int, seed: int
) -> None:
    recorded = on_a_line(num_envs, room, n_steps, horizon, steps, seed)
    if not recorded.replay.num_startable:
        return
    goals = Hindsight(Line(), share=1.0, horizon=horizon, gamma=GAMMA)
    batch = recorded.replay.sample((150,), rng(seed), goals)
    check_line(batch, recorded.paths(), n_steps)


def test_every_later_step_of_the_episode_is_a_goal_equally_often() -> None:
    recorded = on_a_line(1, 40, 1, horizon=8, steps=60, seed=4)
    paths = recorded.paths()
    batch = recorded.replay.sample((60_000,), rng(), Hindsight(Line(), 1.0, 8, GAMMA))
    seen_running = False
    for number in batch.action.unique().tolist():
        chosen = batch.obs[batch.action == number, 1]
        future = [position for position, _ in paths[number][1:]]
        assert set(chosen.tolist()) == set(future)
        share = 1 / len(future)
        margin = 6 * math.sqrt(share * (1 - share) / len(chosen))
        for goal in future:
            assert abs((chosen == goal).float().mean().item() - share) <= margin
        seen_running |= recorded.rows[0][-1][0] == next(
            episode for episode, row, _ in recorded.rows[0] if row == number
        )
    assert seen_running, "the test must cover an episode that is still running"


def sampled(share: float, draws: int) -> tuple[Transitions, Transitions]:
    """The same steps, without hindsight and with."""
    replay = on_a_line(3, 30, 3, horizon=9, steps=80, seed=2).replay
    plain = replay.sample((draws,), rng(5))
    goals = Hindsight(Line(), share, 9, GAMMA)
    return plain, replay.sample((draws,), rng(5), goals)


def test_a_share_of_zero_changes_nothing() -> None:
    plain, relabelled = sampled(0.0, 500)
    for mine, theirs in zip(plain, relabelled, strict=True):
        assert torch.equal(mine, theirs)


def test_a_share_of_one_relabels_all() -> None:
    plain, relabelled = sampled(1.0, 500)
    assert (plain.obs[:, 1] < 0).all() and (relabelled.obs[:, 1] > 0).all()
    assert torch.equal(relabelled.obs[:, 0], plain.obs[:, 0])
    assert torch.equal(relabelled.action, plain.action)
    assert torch.equal(relabelled.next_obs[:, 0], plain.next_obs[:, 0])


def test_a_share_between_relabels_whole_transitions_that_often() -> None:
    draws, share = 8_000, 0.3
    plain, mixed = sampled(share, draws)
    chosen = mixed.obs[:, 1] > 0
    rate = chosen.float().mean().item()
    assert abs(rate - share) < 5 * math.sqrt(share * (1 - share) / draws)
    for mine, theirs in zip(plain, mixed, strict=True):
        assert torch.equal(mine[~chosen], theirs[~chosen])
    assert torch.equal(mixed.obs[:, 1], mixed.next_obs[:, 1]), "one goal for both ends"


@pytest.mark.parametrize("n_steps", [1, 3])
def test_the_point_mass_gets_goals_it_reached_and_their_rewards(n_steps: int) -> None:
    num_envs, limit = 4, 12
    # Moves of 0.25 never end on the edge of the radius 0.3, where rounding would decide.
    env = PointMass(num_envs, dim=2, move=0.25, max_episode_steps=limit)
    replay = ReplayBuffer(num_envs * 60, num_envs, env.single_observation_space, n_steps=n_steps)
    recorded = Recorded(replay)
    g = rng(1)
    obs, _ = env.reset(options={"levels": env.target_levels(num_envs, g)})
    for _ in range(110):
        actions = torch.randint(4, (num_envs,), generator=g)
        after, reward, terminated, truncated, _ = env.step(actions)
        recorded.step(obs, reward, GAMMA * ~terminated)
        obs, done = after, terminated | truncated
        if done.any():
            recorded.finish(obs, done)
            levels = env.target_levels(num_envs, g)
            obs, _ = env.reset(options={"levels": levels, "reset_mask": done})
    goals = Hindsight(env, share=1.0, horizon=limit, gamma=GAMMA)
    batch = replay.sample((600,), rng(2), goals)
    paths = recorded.paths()
    rewards = set()
    for obs_row, number, reward_, discount, next_row in zip(
        batch.obs.tolist(),
        batch.action.tolist(),
        batch.reward.tolist(),
        batch.discount.tolist(),
        batch.next_obs.tolist(),
        strict=True,
    ):
        path = [row[:2] for row in paths[number]]
        position, goal = obs_row[:2], obs_row[2:]
        assert position == path[0] and goal in path[1:]
        total, weight = 0.0, 1.0
        for place in path[1 : n_steps + 1]:
            arrived = math.dist(place, goal) <= 0.3
            total += weight * arrived
            weight *= 0.0 if arrived else GAMMA
        assert reward_ == pytest.approx(total, abs=1e-5)
        assert discount == pytest.approx(weight, abs=1e-6)
        assert next_row == [*path[1 : n_steps + 1][-1], *goal]
        rewards.add(round(total, 3))
    assert {0.0, 1.0} <= rewards, "both arrivals and other steps must occur"
