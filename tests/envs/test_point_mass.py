"""The point mass against a naive loop, and its hindsight hooks against stepping."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_crl.envs import PointMass


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(0, 10_000))
def test_dynamics_against_a_naive_loop(dim: int, seed: int) -> None:
    rng = random.Random(seed)
    env = PointMass(1, dim=dim)
    bounds = [1.0, 5.0, 0.3, 0.3, 0.3, 0.3, 0.3][:dim]
    goal = [rng.uniform(-1.5, 1.5) for _ in range(dim)]
    obs, _ = env.reset(options={"levels": [goal]})
    assert obs[0].tolist() == pytest.approx([0.0] * dim + goal)
    position = [0.0] * dim
    for _ in range(30):
        action = rng.randrange(2 * dim)
        obs, reward, terminated, _, info = env.step(torch.tensor([action]))
        axis, sign = action // 2, 1 - 2 * (action % 2)
        moved = position[axis] + 0.3 * sign
        position[axis] = max(-bounds[axis], min(bounds[axis], moved))
        distance = math.dist(position, goal)
        assert obs[0].tolist() == pytest.approx(position + goal, abs=1e-5)
        if abs(distance - 0.3 * math.sqrt(dim / 2)) > 1e-4:
            reached = distance < 0.3 * math.sqrt(dim / 2)
            assert terminated.item() == info["success"].item() == reached
            assert reward.item() == float(reached)


def test_hindsight_hooks_agree_with_stepping() -> None:
    env = PointMass(64, dim=3)
    actions = torch.randint(6, (40, 64), generator=torch.Generator().manual_seed(0))
    obs, _ = env.reset(seed=0)
    path = [obs]
    for action in actions:
        obs, reward, terminated, _, _ = env.step(action)
        hook_reward, hook_terminated = env.goal_reward(obs)
        assert torch.equal(hook_reward, reward) and torch.equal(hook_terminated, terminated)
        path.append(obs)
    trajectory = torch.stack(path)  # [T + 1, N, 6]
    goal = env.achieved_goal(trajectory[-1])
    assert torch.equal(goal, env.current_levels())
    relabelled = env.relabel(trajectory, goal.expand(41, 64, 3))

    again = PointMass(64, dim=3)
    obs, _ = again.reset(options={"levels": goal})
    assert torch.equal(obs, relabelled[0])
    rewards, ends = again.goal_reward(relabelled[1:])
    for t, action in enumerate(actions):
        obs, reward, terminated, _, _ = again.step(action)
        assert torch.equal(obs, relabelled[t + 1])
        assert torch.equal(reward, rewards[t]) and torch.equal(terminated, ends[t])
    assert ends[-1].all()  # a path ends where it ends


def test_feasibility_is_not_part_of_validity() -> None:
    env = PointMass(1, dim=4)
    rng = torch.Generator().manual_seed(0)
    reference, target = env.reference_levels(5000, rng), env.target_levels(5000, rng)
    assert env.valid(reference).all() and env.valid(target).all()
    assert env.feasible(target).all()
    # 1/5 · 5/5 · (0.3/5)² of the box can be reached.
    assert env.feasible(reference).float().mean() < 0.005
    assert env.feasible(env.heldout()["feasible"]).all()
    assert env.heldout()["feasible"].shape == (256, 4)


def test_feasible_goals_can_be_reached_in_time() -> None:
    """A walk along one axis after the other arrives at every held-out goal."""
    goals = PointMass(1).heldout()["feasible"]
    env = PointMass(len(goals))
    obs, _ = env.reset(options={"levels": goals})
    won = torch.zeros(len(goals), dtype=torch.bool)
    for _ in range(env.max_episode_steps):
        gap = obs[:, 6:] - obs[:, :6]
        axis = gap.abs().argmax(-1)
        back = gap.gather(1, axis[:, None]).squeeze(1) < 0
        obs, _, _, _, info = env.step(2 * axis + back)
        won |= info["success"]
    assert won.all()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"dim": 2, "state_bounds": [1.0]}, "state_bounds has 1 numbers, but dim is 2"),
        ({"dim": 2, "move": 0.0}, "must all be positive"),
        ({"dim": 1, "state_bounds": [-1.0]}, "must all be positive"),
    ],
)
def test_impossible_settings(settings_: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PointMass(1, **settings_)
