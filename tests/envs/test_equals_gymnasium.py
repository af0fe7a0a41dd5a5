"""The torch tasks against Gymnasium's own environments, step by step."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.envs import (
    Acrobot,
    BatchedEnv,
    CartPole,
    MountainCar,
)
from lit_crl.envs.acrobot import (
    PHYSICS,
    acrobot_acceleration,
    acrobot_step,
    height,
    physical_acceleration,
)
from lit_crl.envs.cartpole import MAX_ANGLE, MAX_POSITION, cartpole_step
from lit_crl.envs.mountain_car import GOAL_POSITION, mountain_car_step

# One float32 step rounds each of ~30 operations on numbers up to 13 by 6e-8 relatively.
ONE_STEP = 2e-5
# Neither task is chaotic over an episode: rounding grows by at most two orders of magnitude.
EPISODE = 2e-3


def pump(speed: Tensor) -> Tensor:
    """Push along the motion, so that energy grows and the goal is reached."""
    return torch.where(speed > 0, 2, 0)


def balance(state: Tensor) -> Tensor:
    return (state @ torch.tensor([0.1, 0.3, 10.0, 1.5]) > 0).long()


POLICIES: dict[type[BatchedEnv], Callable[[Tensor], Tensor]] = {
    MountainCar: lambda state: pump(state[:, 1]),
    CartPole: balance,
    Acrobot: lambda state: pump(state[:, 3]),
}
TASKS = list(POLICIES)


def place(env: Any, level: np.ndarray) -> None:
    """Put Gymnasium's environment at our level."""
    inner = env.unwrapped
    if len(level) == 9:
        inner.gravity, inner.masscart, inner.masspole, inner.length, inner.force_mag = level[4:]
        inner.total_mass = inner.masscart + inner.masspole
        inner.polemass_length = inner.masspole * inner.length
    inner.state = level[:4].astype(np.float64)


def play(
    task: type[BatchedEnv], levels: Tensor, noise: float, seed: int, *, resync: bool, atol: float
) -> tuple[Tensor, Tensor]:
    """Play whole episodes in both; return where they ended by termination and by truncation."""
    rng = torch.Generator().manual_seed(seed)
    count = len(levels)
    ours = task(count)
    obs, _ = ours.reset(options={"levels": levels})
    theirs = [gymnasium.make(str(task.gymnasium_id)) for _ in range(count)]
    for env, level in zip(theirs, levels.double().numpy(), strict=True):
        env.reset(seed=seed)
        place(env, level)
    running = torch.ones(count, dtype=torch.bool)
    ends = torch.zeros(2, count, dtype=torch.bool)
    actions_n = int(task.single_action_space.n)
    for _ in range(ours.max_episode_steps):
        wild = torch.rand(count, generator=rng) < noise
        any_action = torch.randint(actions_n, (count,), generator=rng)
        actions = torch.where(wild, any_action, POLICIES[task](ours.state))
        obs, reward, terminated, truncated, info = ours.step(actions)
        for i in torch.nonzero(running).flatten().tolist():
            expected = theirs[i].step(int(actions[i]))
            np.testing.assert_allclose(obs[i].numpy(), expected[0], rtol=0, atol=atol)
            ends_here = (reward[i].item(), terminated[i].item(), truncated[i].item())
            assert ends_here == expected[1:4]
            if resync:
                theirs[i].unwrapped.state = ours.state[i].double().numpy()
        ended = running & (terminated | truncated)
        ends |= torch.stack((terminated, truncated)) & ended
        assert torch.equal(info["success"][ended], task.success(terminated, truncated)[ended])
        running = running & ~ended
    assert not running.any()
    return ends[0], ends[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", TASKS)
def test_every_step_of_target_episodes(task: type[BatchedEnv], seed: int) -> None:
    """Random episodes and nearly greedy ones: both endings occur."""
    levels = task(1).target_levels(4, torch.Generator().manual_seed(seed))
    ends = [play(task, levels, noise, seed, resync=True, atol=ONE_STEP) for noise in (1.0, 0.05)]
    assert any(terminated.any() for terminated, _ in ends)
    assert any(truncated.any() for _, truncated in ends)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", [MountainCar, CartPole])
def test_whole_episodes_without_resynchronizing(task: type[BatchedEnv], seed: int) -> None:
    """Acrobot is chaotic, so it is compared freely in float64 below instead."""
    levels = task(1).reference_levels(4, torch.Generator().manual_seed(seed))
    play(task, levels, 1.0, seed, resync=False, atol=EPISODE)


@pytest.mark.parametrize("task", TASKS)
def test_every_step_from_reference_levels(task: type[BatchedEnv]) -> None:
    """Broad start states, and for the cart-pole broad physics."""
    levels = task(1).reference_levels(8, torch.Generator().manual_seed(7))
    play(task, levels, 0.3, 7, resync=True, atol=ONE_STEP)


def test_acrobot_runs_freely_in_float64() -> None:
    """60 steps (12 s) of a chaotic arm: rounding of 1e-16 stays far below 1e-8."""
    env = gymnasium.make("Acrobot-v1")
    env.reset(seed=0)
    state = torch.tensor([[0.3, -0.2, 0.5, 0.1]], dtype=torch.float64)
    env.unwrapped.state = state[0].numpy()
    limits = torch.tensor([4 * math.pi, 9 * math.pi], dtype=torch.float64)
    for action in torch.randint(3, (60, 1), generator=torch.Generator().manual_seed(0)):
        state, _ = acrobot_step(state, action, limits)
        env.step(int(action))
        np.testing.assert_allclose(state[0], env.unwrapped.state, atol=1e-8)


def level_strategy(task: type[BatchedEnv]) -> st.SearchStrategy[list[float]]:
    space = task(1).level_space
    pairs = zip(space.low.tolist(), space.high.tolist(), strict=True)
    return st.tuples(*[st.floats(low, high) for low, high in pairs]).map(list)


CAR = gymnasium.make("MountainCar-v0")
POLE = gymnasium.make("CartPole-v1")
ARM = gymnasium.make("Acrobot-v1")


def one_step(env: Any, level: list[float], action: int) -> tuple[np.ndarray, bool]:
    env.reset(seed=0)
    place(env, np.array(level))
    terminated = env.step(action)[2]
    return np.array(env.unwrapped.state, dtype=np.float64), terminated


@settings(max_examples=200, deadline=None)
@given(level_strategy(MountainCar), st.integers(0, 2))
def test_mountain_car_from_any_state(level: list[float], action: int) -> None:
    state, terminated = one_step(CAR, level, action)
    ours, reached = mountain_car_step(
        torch.tensor([level], dtype=torch.float64), torch.tensor([action])
    )
    np.testing.assert_allclose(ours[0], state, atol=1e-12)
    assume(abs(state[0] - GOAL_POSITION) > 1e-9 and abs(state[1]) > 1e-12)
    assert bool(reached) == terminated


@settings(max_examples=200, deadline=None)
@given(level_strategy(CartPole), st.integers(0, 1))
def test_cartpole_from_any_state_and_physics(level: list[float], action: int) -> None:
    state, terminated = one_step(POLE, level, action)
    both = torch.tensor([level], dtype=torch.float64)
    ours, fallen = cartpole_step(both[:, :4], both[:, 4:], torch.tensor([action]))
    np.testing.assert_allclose(ours[0], state, atol=1e-10)
    assume(abs(abs(state[0]) - MAX_POSITION) > 1e-9 and abs(abs(state[2]) - MAX_ANGLE) > 1e-9)
    assert bool(fallen) == terminated


@settings(max_examples=200, deadline=None)
@given(level_strategy(Acrobot), st.integers(0, 2))
def test_acrobot_from_any_state(level: list[float], action: int) -> None:
    """Angles are compared on the circle, because π and -π are the same."""
    state, terminated = one_step(ARM, level, action)
    limits = torch.tensor([4 * math.pi, 9 * math.pi], dtype=torch.float64)
    ours, above = acrobot_step(
        torch.tensor([level], dtype=torch.float64), torch.tensor([action]), limits
    )
    gap = (ours[0].numpy() - state + math.pi) % (2 * math.pi) - math.pi
    np.testing.assert_allclose(gap[:2], 0, atol=1e-7)
    np.testing.assert_allclose(ours[0, 2:], state[2:], atol=1e-7)
    assume(abs(float(height(ours)) - 1) > 1e-6)
    assert bool(above) == terminated


def test_car_stops_at_the_left_wall() -> None:
    """The wall stops a car that moves left, and a car can drive away from it."""
    env = MountainCar(2)
    env.reset(options={"levels": torch.tensor([[-1.2, -0.07], [-1.2, 0.05]])})
    obs = env.step(torch.tensor([0, 2]))[0]
    assert obs[0].tolist() == pytest.approx([-1.2, 0.0])
    assert obs[1, 1] > 0 and obs[1, 0] > -1.2


def test_a_car_that_rolls_back_over_the_flag_has_not_arrived() -> None:
    env = MountainCar(2)
    env.reset(options={"levels": torch.tensor([[0.58, -0.02], [0.48, 0.05]])})
    terminated = env.step(torch.tensor([1, 1]))[2]
    assert terminated.tolist() == [False, True]


@settings(max_examples=200, deadline=None)
@given(level_strategy(MountainCar), st.integers(0, 2), st.floats(1e-4, 2e-3))
def test_any_engine_from_any_state(level: list[float], action: int, force: float) -> None:
    CAR.unwrapped.force = force
    try:
        state, _ = one_step(CAR, level, action)
    finally:
        CAR.unwrapped.force = 0.001
    both = torch.tensor([level], dtype=torch.float64), torch.tensor([action])
    np.testing.assert_allclose(mountain_car_step(*both, force)[0][0], state, atol=1e-12)


def test_a_weak_engine_is_another_task() -> None:
    """It has no id in Gymnasium; its reward is 1 at the flag, and swinging still gets there."""
    assert MountainCar(1).gymnasium_id == "MountainCar-v0"
    for changed in ({"force": 0.0005}, {"sparse": True}, {"max_episode_steps": 300}):
        assert MountainCar(1, **changed).gymnasium_id is None
    env = MountainCar(50, force=0.0005, sparse=True, max_episode_steps=300)
    assert env.max_episode_steps == 300
    env.reset(seed=0)
    total, first = torch.zeros(50), torch.zeros(50)
    for t in range(300):
        _, reward, terminated, truncated, _ = env.step(pump(env.state[:, 1] + 1e-9))
        assert torch.equal(reward, terminated.float()) and truncated.all() == (t == 299)
        first = torch.where((total == 0) & terminated, t + 1.0, first)
        total += reward
    assert (first > 150).all()
    with pytest.raises(ValueError, match="force is 0"):
        MountainCar(1, force=0.0)


def odd_arm(physics: list[float]) -> Any:
    """Gymnasium's acrobot with our masses, lengths and torque."""
    env = gymnasium.make("Acrobot-v1")
    inner: Any = env.unwrapped
    inner.LINK_MASS_1, inner.LINK_MASS_2, inner.LINK_LENGTH_1, inner.LINK_LENGTH_2 = physics[:4]
    inner.LINK_COM_POS_1, inner.LINK_COM_POS_2 = physics[2] / 2, physics[3] / 2
    inner.AVAIL_TORQUE = [-physics[4], 0.0, physics[4]]
    return env


@settings(max_examples=100, deadline=None)
@given(level_strategy(Acrobot), st.lists(st.floats(0.5, 2), min_size=5, max_size=5),
       st.integers(0, 2))  # fmt: skip
def test_acrobot_of_any_physics(level: list[float], physics: list[float], action: int) -> None:
    state, above = one_step(odd_arm(physics), level, action)
    limits = torch.tensor([4 * math.pi, 9 * math.pi], dtype=torch.float64)
    own = torch.tensor([physics], dtype=torch.float64)
    ours, reached = acrobot_step(
        torch.tensor([level], dtype=torch.float64),
        torch.tensor([action]),
        limits,
        lambda at, torque: physical_acceleration(at, torque, own),
    )
    gap = (ours[0].numpy() - state + math.pi) % (2 * math.pi) - math.pi
    np.testing.assert_allclose(gap[:2], 0, atol=1e-7)
    np.testing.assert_allclose(ours[0, 2:], state[2:], atol=1e-7)
    assume(abs(float(height(ours)) - 1) > 1e-6)
    assert bool(reached) == above


def test_a_level_is_played_with_its_physics() -> None:
    env = Acrobot(6, physics_spread=2.0)
    levels = env.reference_levels(6, torch.Generator().manual_seed(0))
    env.reset(options={"levels": levels})
    theirs = [odd_arm(level[4:]) for level in levels.double().tolist()]
    for other, level in zip(theirs, levels.double().numpy(), strict=True):
        other.reset(seed=0)
        other.unwrapped.state = level[:4]
    for actions in torch.randint(3, (20, 6), generator=torch.Generator().manual_seed(1)):
        obs, _, terminated, _, _ = env.step(actions)
        for i, other in enumerate(theirs):
            expected = other.step(int(actions[i]))
            np.testing.assert_allclose(obs[i].numpy(), expected[0], rtol=0, atol=ONE_STEP)
            assert bool(terminated[i]) == expected[2]
            other.unwrapped.state = env.state[i].double().numpy()
    assert torch.equal(env.current_levels()[:, 4:], levels[:, 4:])


def test_default_physics_are_the_book_arm() -> None:
    rng = torch.Generator().manual_seed(0)
    state = 3 * torch.randn(200, 4, generator=rng, dtype=torch.float64)
    torque = torch.randn(200, generator=rng, dtype=torch.float64)
    physics = torch.tensor(PHYSICS, dtype=torch.float64).expand(200, -1)
    book = acrobot_acceleration(state, torque)
    torch.testing.assert_close(physical_acceleration(state, torque, physics), book)
    env = Acrobot(1, physics_spread=2.0)
    assert env.gymnasium_id == "Acrobot-v1"  # the target is its task
    assert (env.target_levels(9, rng)[:, 4:] == torch.tensor(PHYSICS)).all()
    with pytest.raises(ValueError, match=r"physics_spread is 1\.0"):
        Acrobot(1, physics_spread=1.0)
