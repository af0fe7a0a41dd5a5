"""The perfect world against the real environments, step by step over whole episodes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import (
    Acrobot,
    BatchedEnv,
    CartPole,
    FacingMaze,
    Maze,
    MountainCar,
    PointMass,
    Spiral,
    ThinManifold,
)
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.perfect import PerfectWorld, states_of

N = 32
TASKS: dict[str, Callable[[int], BatchedEnv]] = {
    "mountain_car": MountainCar,
    "weak_engine": lambda n: MountainCar(n, force=0.0005, sparse=True, max_episode_steps=400),
    "cartpole": CartPole,
    "acrobot": Acrobot,
    "acrobot_physics": lambda n: Acrobot(n, physics_spread=2.0),
    "point_mass": lambda n: PointMass(n, dim=2),
    "spiral": Spiral,
    "thin_manifold": ThinManifold,
}


def starts_of(env: BatchedEnv, rng: torch.Generator) -> Tensor:
    """Levels with the task's own physics from which many episodes end; some of them at once."""
    reference, target = env.reference_levels(N, rng), env.target_levels(N, rng)
    if isinstance(env, CartPole):
        return target
    if isinstance(env, Acrobot):
        reference[:, 4:] = target[:, 4:]
    if isinstance(env, ThinManifold):
        reference[1::2] = env.heldout()["surface"][-N // 2 :]  # else nearly all are illegal
    return reference


@pytest.mark.parametrize("name", TASKS)
def test_whole_episodes_are_those_of_the_environment(name: str):
    env, rng = TASKS[name](N), torch.Generator().manual_seed(0)
    world = PerfectWorld(TASKS[name](1))
    obs, _ = env.reset(options={"levels": starts_of(env, rng)})
    running, ended = torch.ones(N, dtype=torch.bool), torch.zeros(N, dtype=torch.bool)
    dreamed = obs
    turn = torch.randint(int(env.single_action_space.n), (env.max_episode_steps, N), generator=rng)
    for action in turn:
        if isinstance(env, MountainCar):  # at random it would never arrive
            action = torch.where(obs[:, 1] >= 0, 2, 0)
        imagined = world.imagine(obs, action, rng)
        dreamed = world.imagine(dreamed, action, rng).next_obs
        obs, reward, terminated, truncated, _ = env.step(action)
        torch.testing.assert_close(
            imagined.next_obs[running], obs[running], atol=2e-5 if "acrobot" in name else 0, rtol=0
        )
        if "acrobot" not in name:  # whose rounding grows
            assert torch.equal(dreamed[running], obs[running])
        assert torch.equal(imagined.reward[running], reward[running])
        assert torch.equal(imagined.terminated[running], terminated[running])
        assert (imagined.disagreement == 0).all()
        ended |= running & terminated
        running &= ~(terminated | truncated)
    assert not running.any()
    assert ended.sum() >= 3, "too few ends to compare"


def test_a_dream_of_fifty_steps_in_acrobot_stays_close():
    env, rng = Acrobot(N), torch.Generator().manual_seed(1)
    obs, _ = env.reset(options={"levels": env.target_levels(N, rng)})

    class There:
        def draw(self, n: int, rng: torch.Generator) -> Tensor:
            return obs

    dreams = ImaginedEnv(
        N,
        PerfectWorld(Acrobot(1)),
        There(),
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        horizon=50,
    )
    dreams.reset()
    for _ in range(50):
        action = torch.randint(3, (N,), generator=rng)
        torch.testing.assert_close(dreams.step(action)[0], env.step(action)[0], atol=1e-3, rtol=0)


def test_the_environment_that_is_asked_stays_as_it_is():
    env = Spiral(4)
    env.reset(seed=0)
    before = env.state_dict()
    PerfectWorld(env).imagine(torch.zeros(9, 4), torch.zeros(9).long(), torch.Generator())
    assert all(torch.equal(before[name], saved) for name, saved in env.state_dict().items())


def test_states_look_like_their_observations():
    for make in TASKS.values():
        env = make(N)
        obs, _ = env.reset(seed=0)
        state, _ = states_of(env, obs)
        torch.testing.assert_close(state, env.state, atol=1e-6, rtol=0)


def test_tasks_that_do_not_show_their_state_are_refused():
    class Hidden(MountainCar):
        def observe(self, state: Tensor, levels: Tensor) -> Tensor:
            return torch.zeros_like(state)

    class Varied(CartPole):
        def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
            return self.reference_levels(n, rng)

    class Stepping(MountainCar):
        def step(self, actions: Tensor):  # type: ignore[no-untyped-def]
            return super().step(actions)

    for env, reason in (
        (Maze(1), "do not determine the state"),
        (FacingMaze(1), "do not determine the state"),
        (Hidden(1), "are not those of the built-in task"),
        (Varied(1), "physics that observations do not show"),
        (Stepping(1), "step"),
    ):
        with pytest.raises(ConfigError, match=f"{type(env).__name__} cannot be perfect.*{reason}"):
            PerfectWorld(env)
