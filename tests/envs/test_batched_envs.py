"""What all batched torch environments share: levels, masks, checkpoints, fresh tensors."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from matplotlib.figure import Figure
from torch import Tensor

from lit_crl.envs import (
    Acrobot,
    ArmPoses,
    BatchedEnv,
    CartPole,
    GustyPass,
    LevelEnv,
    Maze,
    MountainCar,
    PointMass,
    Spiral,
    ThinManifold,
)

Make = Callable[..., BatchedEnv]
WEAK_CAR = partial(MountainCar, force=0.0005, sparse=True, max_episode_steps=300)
ODD_ARM = partial(Acrobot, physics_spread=1.5)
PHYSICAL: list[Make] = [MountainCar, CartPole, Acrobot, WEAK_CAR, ODD_ARM]
ALL: list[Make] = [*PHYSICAL, PointMass, Maze, Spiral, ThinManifold, ArmPoses, GustyPass]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_actions(env: BatchedEnv, steps: int, seed: int = 0) -> Tensor:
    shape = (steps, env.num_envs)
    return torch.randint(int(env.single_action_space.n), shape, generator=generator(seed))


def contains(env: BatchedEnv, levels: Tensor) -> bool:
    return all(env.level_space.contains(level) for level in levels.numpy())


@pytest.mark.parametrize("make", ALL)
def test_interface(make: Make) -> None:
    env = make(3)
    assert isinstance(env, VectorEnv) and isinstance(env, LevelEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert len(env.level_names) == env.level_space.shape[0]
    assert env.level_space.is_bounded() and env.tracks_visited and env.resumable
    obs, info = env.reset(seed=0)
    assert info == {} and env.observation_space.contains(obs.numpy())
    obs, reward, terminated, truncated, info = env.step(random_actions(env, 1)[0])
    assert env.observation_space.contains(obs.numpy())
    kind = torch.uint8 if make is Maze else torch.float32
    assert (obs.dtype, reward.dtype) == (kind, torch.float32)
    assert {terminated.dtype, truncated.dtype, info["success"].dtype} == {torch.bool}
    assert reward.shape == terminated.shape == truncated.shape == info["success"].shape == (3,)


@pytest.mark.parametrize("make", ALL)
def test_episodes_start_at_the_given_levels(make: Make) -> None:
    env = make(50)
    levels = env.reference_levels(50, generator())
    obs, _ = env.reset(options={"levels": levels})
    assert torch.equal(env.levels, levels)
    assert torch.equal(env.state, env.initial_state(levels))
    assert torch.equal(obs, env.observe(env.initial_state(levels), levels))
    assert torch.equal(obs, env.current_observations())


@pytest.mark.parametrize("make", ALL)
def test_reset_without_levels_draws_target_levels_from_the_seed(make: Make) -> None:
    one, two = make(20), make(20)
    first, _ = one.reset(seed=5)
    second, _ = two.reset(seed=5)
    other, _ = two.reset()
    assert torch.equal(first, second)
    assert not torch.equal(one.levels, two.levels) and not torch.equal(first[:10], first[10:])
    assert torch.equal(one.levels, one.target_levels(20, generator(5)))
    assert torch.equal(other, two.observe(two.initial_state(two.levels), two.levels))


@pytest.mark.parametrize("make", ALL)
def test_mask_resets_only_masked(make: Make) -> None:
    env = make(6)
    env.reset(seed=0)
    for actions in random_actions(env, 5):
        env.step(actions)
    state, levels, elapsed = env.state.clone(), env.levels.clone(), env.elapsed.clone()
    mask = torch.tensor([True, False, True, False, False, True])
    wanted = env.reference_levels(6, generator(1))
    wanted[~mask] = torch.nan  # ignored rows may hold anything
    obs, _ = env.reset(options={"levels": wanted, "reset_mask": mask})
    assert torch.equal(env.levels[mask], wanted[mask])
    assert torch.equal(env.state[mask], env.initial_state(wanted[mask]))
    assert torch.equal(env.state[~mask], state[~mask])
    assert torch.equal(env.levels[~mask], levels[~mask])
    assert env.elapsed.tolist() == [0, 5, 0, 5, 5, 0] and elapsed.tolist() == [5] * 6
    assert obs.isfinite().all() and torch.equal(obs, env.current_observations())
    env.reset(options={"reset_mask": torch.zeros(6, dtype=torch.bool)})
    assert torch.equal(env.state[~mask], state[~mask])


@pytest.mark.parametrize("make", PHYSICAL)
def test_reset_to_current_levels_continues_identically(make: Make) -> None:
    env, copy = make(32), make(32)
    env.reset(options={"levels": env.reference_levels(32, generator())})
    for actions in random_actions(env, 3):
        env.step(actions)
    visited = env.current_levels()
    kept = env.valid(visited)
    assert kept.sum() > 8
    visited[~kept] = copy.levels[~kept]
    obs, _ = copy.reset(options={"levels": visited})
    assert torch.equal(obs[kept], env.current_observations()[kept])
    for actions in random_actions(env, 10, seed=1):
        for ours, theirs in zip(env.step(actions)[:3], copy.step(actions)[:3], strict=True):
            assert torch.equal(ours[kept], theirs[kept])


@pytest.mark.parametrize("make", ALL)
def test_state_dict_continues_step_for_step(make: Make) -> None:
    env, copy = make(8), make(8)
    env.reset(seed=3)
    for actions in random_actions(env, 7):
        env.step(actions)
    saved = env.state_dict()

    def go_on(it: BatchedEnv) -> list[Tensor]:
        seen = []
        for t, actions in enumerate(random_actions(it, 30, seed=2)):
            obs, reward, terminated, truncated, info = it.step(actions)
            seen += [obs, reward, terminated, truncated, info["success"]]
            mask = terminated | (torch.arange(8) == t % 8)
            seen.append(it.reset(options={"reset_mask": mask})[0])
        return seen

    expected = go_on(env)
    copy.load_state_dict(saved)  # after go_on: the saved state must not have moved
    assert all(torch.equal(a, b) for a, b in zip(expected, go_on(copy), strict=True))
    with pytest.raises(ValueError, match="'state' in the state has shape"):
        make(4).load_state_dict(saved)


@pytest.mark.parametrize("make", ALL)
def test_sampled_levels_are_valid(make: Make) -> None:
    env = make(1)
    for draw in (env.target_levels, env.reference_levels):
        levels = draw(2000, generator())
        assert levels.dtype == torch.float32 and levels.shape == (2000, *env.level_space.shape)
        assert contains(env, levels[:200])
        # Nobody can sample the thin manifold's legal states.
        assert env.valid(levels).all() or (make, draw.__name__) == (
            ThinManifold, "reference_levels"
        )  # fmt: skip
        assert torch.equal(levels, draw(2000, generator()))
        assert not torch.equal(levels, draw(2000, generator(1)))
    assert draw(0, generator()).shape == (0, *env.level_space.shape)


@pytest.mark.parametrize("make", ALL)
def test_invalid_levels(make: Make) -> None:
    env = make(1)
    levels = env.target_levels(4, generator())
    levels[0, 0], levels[1, 0], levels[2, 0] = torch.nan, torch.inf, 1e3
    assert env.valid(levels).tolist() == [False, False, False, True]


def test_already_ended_levels_are_invalid() -> None:
    car, arm = MountainCar(1), Acrobot(1)
    assert car.valid(torch.tensor([[0.5, 0.0], [0.49, 0.0]])).tolist() == [False, True]
    upright, hanging = [torch.pi, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]
    assert arm.valid(torch.tensor([upright, hanging])).tolist() == [False, True]


@pytest.mark.parametrize("make", ALL)
def test_heldout_levels_are_fixed_and_valid(make: Make) -> None:
    env = make(2)
    env.reset(seed=9)
    levels = env.heldout()
    again = make(1).heldout()
    assert levels and levels.keys() == again.keys()
    for name, batch in levels.items():
        assert torch.equal(batch, again[name]) and env.valid(batch).all()
        assert len(batch.unique(dim=0)) == len(batch) <= 400
        make(len(batch)).reset(options={"levels": batch})


def test_heldout_sizes() -> None:
    assert MountainCar(1).heldout()["grid"].shape == (400, 2)
    for spread in (1.25, 2.0):
        poles = CartPole(1, physics_spread=spread)
        physics = poles.heldout()["physics"]
        assert physics.shape == (256, 9)
        assert poles.valid(physics).all()
    arms = Acrobot(1, physics_spread=1.5)
    physics = arms.heldout()["physics"]
    assert physics.shape == (256, 9) and arms.valid(physics).all()
    assert len(physics[:, 5:].unique(dim=0)) == 256
    grid = Acrobot(1).heldout()["grid"]
    assert 128 < len(grid) < 256 and (grid[:, 2:] == 0).all()


@pytest.mark.parametrize("make", ALL)
def test_observations_never_change_afterwards(make: Make) -> None:
    env = make(4)
    obs, _ = env.reset(seed=0)
    seen = [(obs, obs.clone())]
    for actions in random_actions(env, 5):
        for tensor in env.step(actions)[:4]:
            seen.append((tensor, tensor.clone()))
        visited, reset_obs = (
            env.current_levels(),
            env.reset(options={"reset_mask": torch.tensor([True, False, False, False])})[0],
        )
        seen += [(visited, visited.clone()), (reset_obs, reset_obs.clone())]
    assert all(torch.equal(tensor, copy) for tensor, copy in seen)


@pytest.mark.parametrize("make", ALL)
def test_writing_to_returned_tensors_does_not_change_the_env(make: Make) -> None:
    env = make(4)
    levels = env.target_levels(4, generator())
    obs, _ = env.reset(options={"levels": levels})
    before = {name: value.clone() for name, value in env.state_dict().items()}
    for tensor in (levels, obs, env.current_levels(), *env.state_dict().values()):
        tensor.fill_(0).add_(1)
    for batch in env.heldout().values():
        batch.fill_(7)
    assert all(torch.equal(env.state_dict()[name], value) for name, value in before.items())
    env.step(random_actions(env, 1)[0])[0].fill_(7)
    assert env.level_space.contains(env.levels[0].numpy()) and (env.state != 7).any()


@pytest.mark.parametrize("make", ALL)
def test_time_limit(make: Make) -> None:
    env = make(2)
    env.reset(seed=0)
    for step in range(env.max_episode_steps):
        truncated = env.step(torch.zeros(2, dtype=torch.int64))[3]
        assert truncated.all() == (step == env.max_episode_steps - 1)


def test_success() -> None:
    terminated = torch.tensor([True, True, False, False])
    truncated = torch.tensor([True, False, True, False])
    assert torch.equal(MountainCar.success(terminated, truncated), terminated)
    assert CartPole.success(terminated, truncated).tolist() == [False, False, True, False]


def options(**changes: Any) -> dict[str, Any]:
    return {"levels": torch.zeros(4, 2), **changes}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (options(levels=torch.zeros(3, 2)), r"\['levels'\] has shape \(3, 2\), but \(4, 2\)"),
        (options(levels=torch.full((4, 2), torch.nan)), "not finite or outside the level space"),
        (options(levels=torch.ones(4, 2)), r"\['levels'\]\[0\] is \[1.0, 1.0\]"),
        (options(reset_mask=torch.ones(3, dtype=torch.bool)), r"bool tensor of shape \(4,\)"),
        (options(reset_mask=torch.ones(4)), r"bool tensor of shape \(4,\)"),
        (options(level=1), "unknown key 'level'"),
    ],
)
def test_wrong_options(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MountainCar(4).reset(options=wrong)


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="num_envs is 0"):
        MountainCar(0)
    for make in (MountainCar, Maze, Spiral):
        with pytest.raises(ValueError, match="max_episode_steps is 0, but must be at least 1"):
            make(1, max_episode_steps=0)
    with pytest.raises(ValueError, match=r"actions has shape \(2,\)"):
        MountainCar(3).step(torch.zeros(2, dtype=torch.int64))


def test_levels_off_by_float_rounding_are_clamped() -> None:
    env = MountainCar(1)
    env.reset(options={"levels": np.array([[-1.2000008, 0.0700001]])})
    assert contains(env, env.levels)


@pytest.mark.parametrize("make", ALL)
def test_draw_level_plane(make: Make) -> None:
    axes = Figure().subplots()
    env = make(1)
    env.draw_level_plane(axes)
    assert axes.get_xlabel() == env.level_names[env.level_plane[0]]
    low, high = env.level_space.low[env.level_plane[1]], env.level_space.high[env.level_plane[1]]
    assert axes.get_ylim() == pytest.approx((low, high))


def test_plotting_is_imported_only_when_used() -> None:
    """Nothing of matplotlib is bound in the modules, so training works without it."""
    modules = [module for name, module in sys.modules.items() if name.startswith("lit_crl.envs")]
    assert len(modules) > 5
    bound = [value for module in modules for value in vars(module).values()]
    origins = {str(getattr(value, "__module__", None) or value) for value in bound}
    assert not any("matplotlib" in origin for origin in origins)
