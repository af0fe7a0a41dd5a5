"""Real episodes imagined again: windows against plain lists, errors against closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import Acrobot, BatchedEnv, CartPole, MountainCar, PointMass
from lit_crl.evaluation.world_metrics import error_by_step
from lit_crl.world.gate import gate
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.interface import Imagined
from lit_crl.world.open_loop import follow_actions
from lit_crl.world.perfect import PerfectWorld
from lit_crl.world.real_episodes import begins, draw_windows

GAMMA = 0.9


def recorded(env: BatchedEnv, steps: int, length: int, rng: torch.Generator) -> ReplayBuffer:
    """The last rows of ``steps`` random steps of each environment."""
    replay = ReplayBuffer(length * env.num_envs, env.num_envs, env.single_observation_space)
    levels = env.target_levels(env.num_envs, rng)
    obs, _ = env.reset(options={"levels": levels})
    for _ in range(steps):
        action = torch.randint(int(env.single_action_space.n), (env.num_envs,), generator=rng)
        after, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, reward, GAMMA * (~terminated).float())
        done, obs = terminated | truncated, after
        if done.any():
            replay.add_final(after, done)
            levels = env.target_levels(env.num_envs, rng)
            obs, _ = env.reset(options={"levels": levels, "reset_mask": done})
    return replay


@pytest.mark.parametrize("steps", [30, 90])  # the ring has been overwritten in the second case
def test_windows_are_the_stretches_of_episodes(steps: int) -> None:
    """Against a walk from every row, in a task whose observation tells episode and step."""
    replay = ReplayBuffer(2 * 40, 2, Box(-np.inf, np.inf, (2,), np.float32))
    draws, now = torch.Generator().manual_seed(0), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    episodes = 2
    for _ in range(steps):
        action = torch.randint(3, (2,), generator=draws)
        replay.add(now, action, now[:, 1], torch.full((2,), GAMMA))
        now = now + torch.tensor([0.0, 1.0])
        done = torch.rand(2, generator=draws) < 0.12
        if done.any():
            replay.add_final(now, done)
            for env in done.nonzero().flatten().tolist():
                now[env] = torch.tensor([float(episodes), 0.0])
                episodes += 1
    for length in (1, 4, 9):
        found = begins(replay, replay.startable, length)
        for row in range(80):
            walk = [(row + 2 * step) % 80 for step in range(length + 1)]
            obs = replay.obs[walk]
            is_one = bool((obs[:, 0] == obs[0, 0]).all() and (obs[:, 1].diff() == 1).all())
            assert bool(found[row]) == (is_one and bool(replay.startable[walk[:-1]].all()))
        windows = draw_windows(replay, replay.startable, length, 1000, draws)
        assert len(windows.action) == found.sum() > 0
        assert windows.obs.shape == (len(windows.action), length + 1, 2)
        assert (windows.obs[..., 1].diff(dim=1) == 1).all()
        assert len(draw_windows(replay, replay.startable, length, 2, draws).action) == 2
    assert len(draw_windows(replay, replay.startable, 70, 9, draws).action) == 0


@pytest.mark.parametrize(
    "make",
    [MountainCar, CartPole, Acrobot, lambda n: PointMass(n, dim=2)],
    ids=["mountain_car", "cartpole", "acrobot", "point_mass"],
)
def test_a_perfect_world_has_no_error_after_50_steps(make: Callable[[int], BatchedEnv]) -> None:
    rng = torch.Generator().manual_seed(0)
    replay = recorded(make(8), 400, 300, rng)
    going_on = replay.startable & (replay.discount > 0)
    real = draw_windows(replay, going_on, 50, 64, rng)
    assert 1 <= len(real.action) <= 64
    imagined = follow_actions(PerfectWorld(make(1)), real.obs[:, 0], real.action, rng)
    assert not imagined.ended.any()
    spread = replay.obs[going_on].std(0)
    by_step = error_by_step(imagined.obs[:, 1:], real.obs[:, 1:], spread)
    assert by_step.shape == (50,)
    assert (by_step < 1e-5).all()
    # The check can fail: with the actions of another window the error is large.
    other = follow_actions(PerfectWorld(make(1)), real.obs[:, 0], 1 - real.action.clamp(0, 1), rng)
    wrong = error_by_step(other.obs[:, 1:], real.obs[:, 1:], spread)
    assert wrong[-1] > 0.05


class Shifted:
    """A world that moves by 1 and, in the second dimension, by ``bias`` too much."""

    def __init__(self, bias: float) -> None:
        self.bias = bias

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        after = obs + 1 + torch.tensor([0.0, self.bias])
        return Imagined(after, obs[:, 0], action > 0, 0 * obs[:, 0])


def test_a_bias_adds_up_as_the_closed_form_says() -> None:
    real = torch.arange(21.0)[None, :, None].expand(3, 21, 2)
    actions = torch.zeros(3, 20, dtype=torch.long)
    loop = follow_actions(Shifted(0.25), real[:, 0], actions, torch.Generator())
    spread = torch.tensor([2.0, 5.0])
    expected = [(0.5 * (0.25 * k / 5) ** 2) ** 0.5 for k in range(1, 21)]
    found = error_by_step(loop.obs[:, 1:], real[:, 1:], spread)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(loop.reward, loop.obs[:, :-1, 0]) and not loop.ended.any()


class Planted:
    """Random walks in a square; in a corner without data a step pays 10, and members disagree."""

    corner = 0.8

    def known(self, obs: Tensor) -> Tensor:
        return ~(obs > self.corner).all(1)

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        after = (obs + 0.1 * torch.randn(obs.shape, generator=rng)).clamp(0, 1)
        noise = 1 + 0.2 * torch.randn(len(obs), generator=rng).abs()
        apart = torch.where(self.known(after), noise, 4 * noise)
        reward = torch.where(self.known(after), 0.0, 10.0)
        return Imagined(after, reward, torch.zeros(len(obs)).bool(), apart)


class Anywhere:
    """Dreams start where the data are."""

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        return 0.7 * torch.rand(n, 2, generator=rng)


@pytest.mark.parametrize(("quantile", "low", "high"), [(0.99, 0.9, 1.0), (1.0, 0.0, 0.0)])
def test_the_gate_cuts_dreams_that_enter_a_planted_corner(
    quantile: float, low: float, high: float
) -> None:
    rng, world = torch.Generator().manual_seed(0), Planted()
    obs = Anywhere().draw(2000, rng)
    held_back = world.imagine(obs, torch.zeros(2000), rng)
    space = Box(0, 1, (2,), np.float32)
    env = ImaginedEnv(
        256, world, Anywhere(), observation_space=space, action_space=Discrete(2), horizon=60
    )
    env.gate = gate(held_back.disagreement[world.known(held_back.next_obs)], quantile)
    env.reset(seed=1)
    entered = cut = 0
    for _ in range(150):
        obs, reward, terminated, truncated, info = env.step(torch.zeros(256, dtype=torch.long))
        inside = reward == 10
        entered, cut = entered + int(inside.sum()), cut + int((inside & info["gated"]).sum())
        env.reset(options={"reset_mask": terminated | truncated})
    assert entered > 100 and low <= cut / entered <= high
