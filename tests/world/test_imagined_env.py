"""Dreams as an environment: interface, cuts, exact continuation, no growth."""

import gc
import io

import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import LevelEnv, MountainCar
from lit_crl.envs.episodes import run_episodes
from lit_crl.envs.factory import level_env
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.interface import Imagined
from lit_crl.world.perfect import PerfectWorld

N, HORIZON = 5, 7


class Noise:
    """A world whose every number is drawn; one step in ten ends."""

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        drawn = torch.rand(4, len(obs), generator=rng)
        after = obs + drawn[0, :, None] + action[:, None]
        return Imagined(after, drawn[1], drawn[2] < 0.1, 2 * drawn[3])


class Given:
    """The next of the given observations, one after another."""

    def __init__(self, obs: Tensor) -> None:
        self.obs, self.given = obs, 0

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        row = torch.arange(self.given, self.given + n) % len(self.obs)
        self.given += n
        return self.obs[row]


class Drawn:
    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.rand(n, 2, generator=rng)


def noise_env(num_envs: int = N, horizon: int = HORIZON) -> ImaginedEnv:
    return ImaginedEnv(
        num_envs,
        Noise(),
        Drawn(),
        observation_space=Box(-100.0, 100.0, (2,)),
        action_space=Discrete(3),
        horizon=horizon,
    )


def actions(step: int, n: int = N) -> Tensor:
    return (torch.arange(n) + step) % 3


def test_it_is_an_environment_like_every_other():
    env = noise_env()
    assert isinstance(env, LevelEnv)
    assert level_env(env) is env
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert env.level_space is None and env.heldout() == {} and env.max_episode_steps == HORIZON
    obs, info = env.reset(seed=0)
    assert obs.shape == (N, 2) and info == {}
    assert torch.equal(obs, env.current_observations())
    env.close()


def test_episodes_in_a_perfect_world_are_those_of_the_task():
    """``run_episodes`` plays both; the dreams start where the real episodes did."""
    real = MountainCar(16)
    levels = real.reference_levels(16, torch.Generator().manual_seed(0))
    dreams = ImaginedEnv(
        16,
        PerfectWorld(MountainCar(1)),
        Given(levels),
        observation_space=real.single_observation_space,
        action_space=real.single_action_space,
        horizon=real.max_episode_steps,
    )

    def along(obs: Tensor) -> Tensor:
        return torch.where(obs[:, 1] >= 0, 2, 0)

    truly = run_episodes(real, along, seed=0, levels=levels)
    dreamed = run_episodes(dreams, along, seed=0)
    assert torch.equal(truly.returns, dreamed.returns)
    assert torch.equal(truly.lengths, dreamed.lengths)
    assert truly.success.any() and not dreamed.known.any()


def test_only_the_dreams_of_the_mask_start_anew():
    env = noise_env()
    env.reset(seed=1)
    before = env.step(actions(0))[0]
    mask = torch.tensor([True, False, True, False, False])
    given = torch.full((N, 2), 50.0)
    obs, _ = env.reset(options={"reset_mask": mask, "observations": given})
    assert torch.equal(obs[mask], given[mask]) and torch.equal(obs[~mask], before[~mask])
    assert env.elapsed.tolist() == [0, 1, 0, 1, 1]

    obs, _ = env.reset(options={"reset_mask": mask})
    assert (obs[mask] < 1).all() and torch.equal(obs[~mask], before[~mask])
    unchanged, _ = env.reset(options={"reset_mask": torch.zeros(N, dtype=torch.bool)})
    assert torch.equal(unchanged, obs)


def test_dreams_are_cut_at_the_horizon_and_beyond_the_gate_alone():
    env = noise_env(200, horizon=3)
    env.gate = torch.tensor(1.5)
    env.reset(seed=0)
    for step in range(3):
        _, _, _, truncated, info = env.step(actions(step, 200))
        assert torch.equal(info["gated"], info["disagreement"] > 1.5)
        assert 20 < info["gated"].sum() < 80
        expected = torch.ones(200, dtype=torch.bool) if step == 2 else info["gated"]
        assert torch.equal(truncated, expected)
        assert not info["success"].any() and not info["success_known"].any()


def test_without_a_gate_only_what_is_not_finite_is_cut():
    class Lost(Noise):
        def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
            far = torch.tensor([1e30, torch.nan, torch.inf, 0.0, 1.0])
            return super().imagine(obs, action, rng)._replace(disagreement=far)

    env = noise_env()
    env.world = Lost()
    env.reset(seed=0)
    truncated = env.step(actions(0))[3]
    assert truncated.tolist() == [False, True, True, False, False]


def test_tensors_that_were_handed_out_do_not_change():
    env = noise_env()
    first, _ = env.reset(seed=0)
    kept = first.clone()
    second = env.step(actions(0))[0]
    also = second.clone()
    first.add_(1)  # and what the caller does with them changes no dream
    second.add_(1)
    assert torch.equal(env.current_observations(), also)
    env.step(actions(1))
    env.reset()
    assert torch.equal(first, kept + 1) and torch.equal(second, also + 1)


def play(env: ImaginedEnv, steps: range) -> list[Tensor]:
    seen: list[Tensor] = []
    for step in steps:
        obs, reward, terminated, truncated, info = env.step(actions(step))
        seen += [obs, reward, terminated, truncated, info["disagreement"]]
        if (over := terminated | truncated).any():
            seen.append(env.reset(options={"reset_mask": over})[0])
    return seen


def test_saved_dreams_go_on_bit_for_bit():
    env = noise_env()
    env.gate = torch.tensor(1.9)
    env.reset(seed=3)
    play(env, range(10))
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    expected = play(env, range(10, 40))

    file.seek(0)
    again = noise_env()
    again.load_state_dict(torch.load(file, weights_only=True))
    found = play(again, range(10, 40))
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_resident_tensors_do_not_grow():
    def resident() -> tuple[int, int]:
        gc.collect()
        tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
        return len(tensors), sum(each.nbytes for each in tensors)

    env = noise_env()
    env.reset(seed=0)

    def cycle() -> None:
        env.step(actions(0))
        env.reset()

    for _ in range(10):
        cycle()
    before = resident()
    for _ in range(200):
        cycle()
    assert resident() == before


def test_mistakes_are_told():
    with pytest.raises(ConfigError, match="horizon is 0"):
        noise_env(horizon=0)
    env = noise_env()
    with pytest.raises(ResetNeeded):
        env.step(actions(0))
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        env.step(actions(0, 3))
    with pytest.raises(ValueError, match="unknown key 'levels'"):
        env.reset(options={"levels": torch.zeros(N, 2)})
    with pytest.raises(ValueError, match=r"shape \(5, 3\)"):
        env.reset(options={"observations": torch.zeros(N, 3)})
    with pytest.raises(ValueError, match="no levels"):
        env.target_levels(1, torch.Generator())
    with pytest.raises(ValueError, match="'obs' in the state"):
        env.load_state_dict(noise_env(3).state_dict())
