"""The pass with gusts against a loop over walkers, and its coin against what a fair one does."""

import pytest
import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import GustyPass
from lit_crl.envs.gusty_pass import HUT, PASS, PATH, SIDE, SUMMIT, share_of, weather_of
from lit_crl.world.perfect import PerfectWorld

WEST, EAST = 0, 1


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_step(
    x: float, y: float, weather: float, east: bool
) -> tuple[float, float, float, bool, bool]:
    """Position, reward, whether the episode ends, and whether it is won."""
    fell = x >= PASS and abs(y) > PATH
    if x < PASS:
        y = SIDE if weather > 0.5 else -SIDE
    x += 0.5 if east else -0.5
    if fell:
        return x, y, 0.0, True, False
    if x <= HUT:
        return x, y, 1.0, True, True
    if x >= SUMMIT:
        return x, y, 8.0, True, True
    return x, y, 0.0, False, False


def test_steps_are_those_of_a_loop() -> None:
    n = 3000
    env = GustyPass(n)
    env.reset(options={"levels": env.reference_levels(n, rng())})
    actions = torch.randint(2, (n,), generator=rng(1))
    before = env.state.clone()
    obs, reward, terminated, truncated, info = env.step(actions)
    outcomes = set()
    for k in range(n):
        expected = one_step(*before[k].tolist(), bool(actions[k]))
        assert obs[k].tolist() == pytest.approx(expected[:2])
        assert (reward[k].item(), bool(terminated[k]), bool(info["success"][k])) == expected[2:]
        outcomes.add(expected[2:])
    assert len(outcomes) == 4 and not truncated.any()


def coins(episodes: int, steps: int) -> Tensor:
    """Which gusts blow to the north, bool ``[steps, episodes]``, seen west of the pass."""
    env = GustyPass(episodes)
    env.reset(seed=0)
    seen = []
    for t in range(steps):
        obs, *_ = env.step(torch.full((episodes,), t % 2))
        assert obs[:, 1].abs().allclose(torch.tensor(SIDE))
        seen.append(obs[:, 1] > 0)
    return torch.stack(seen)


def test_the_coin_is_fair_and_has_no_memory() -> None:
    north = coins(20_000, 12)
    assert (north.float().mean(1) - 0.5).abs().max() < 0.015  # four standard deviations
    for lag in (1, 2, 5):
        both = (north[lag:] & north[:-lag]).float().mean(1)
        assert (both - 0.25).abs().max() < 0.013
    runs = (4 * north[:-2] + 2 * north[1:-1] + north[2:].int()).flatten()
    assert (torch.bincount(runs, minlength=8) / len(runs) - 1 / 8).abs().max() < 0.004


def test_the_level_holds_the_weather() -> None:
    share = torch.rand(1000, generator=rng())
    torch.testing.assert_close(share_of(weather_of(share)), share, atol=1e-3, rtol=0)
    assert torch.equal(coins(50, 9), coins(50, 9))


def returns(env: GustyPass, action: int) -> tuple[Tensor, Tensor]:
    """What going one way pays until the end, and whether it wins."""
    n = env.num_envs
    total, running = torch.zeros(n), torch.ones(n, dtype=torch.bool)
    won = torch.zeros(n, dtype=torch.bool)
    for _ in range(env.max_episode_steps):
        _, reward, terminated, truncated, info = env.step(torch.full((n,), action))
        total += reward * running
        won |= running & info["success"] & (terminated | truncated)
        running &= ~(terminated | truncated)
    assert not running.any()
    return total, won


def test_the_hut_is_the_best_and_no_weather_opens_the_pass() -> None:
    env = GustyPass(2000)
    env.reset(seed=1)
    total, won = returns(env, WEST)
    assert (total == 1).all() and won.all()
    env.reset(seed=1)
    total, won = returns(env, EAST)
    assert (total == 0).all() and not won.any()


def test_the_path_leads_to_the_summit() -> None:
    """As a world believes that imagines the mean of both gusts."""
    env = GustyPass(100)
    levels = env.target_levels(100, rng())
    levels[:, 0] = PASS + 0.1
    env.reset(options={"levels": levels})
    total, won = returns(env, EAST)
    assert (total == 8).all() and won.all()


def test_observations_hide_the_weather_so_that_its_world_cannot_be_perfect() -> None:
    with pytest.raises(ConfigError, match="cannot be perfect"):
        PerfectWorld(GustyPass(1))
