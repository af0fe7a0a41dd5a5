"""The thin manifold against a naive loop and a closed form, and what an illegal start does."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.envs import ThinManifold
from lit_crl.envs.thin_manifold import (
    GOAL,
    MOVE,
    RADIUS,
    WALLS,
)

#: Through the first gap, between the walls, through the second gap, to the goal.
WAY = ((-0.7, 0.8), (0.0, 0.8), (0.0, -0.8), (0.7, -0.8), GOAL)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_wall(u: float, v: float) -> bool:
    return any(left < u < right and low < v < high for left, low, right, high in WALLS)


def surface_at(env: ThinManifold, u: float, v: float) -> list[float]:
    rows = zip(env.waves.tolist(), env.phases.tolist(), strict=True)
    return [(1 - env.tolerance) * math.sin(a * u + b * v + c) for (a, b), c in rows]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10_000))
def test_dynamics_against_a_naive_loop(dim: int, seed: int) -> None:
    chance = random.Random(seed)
    env = ThinManifold(1, dim=dim)
    u, v = (chance.uniform(-1, 1) for _ in range(2))
    while in_wall(u, v):
        u, v = (chance.uniform(-1, 1) for _ in range(2))
    off = [chance.uniform(-0.99, 0.99) * env.tolerance for _ in range(dim - 2)]
    level = [u, v] + [x + gap for x, gap in zip(surface_at(env, u, v), off, strict=True)]
    obs, _ = env.reset(options={"levels": [level]})
    assert obs[0].tolist() == pytest.approx(level)
    for _ in range(40):
        action = chance.randrange(4)
        step = MOVE * (1 - 2 * (action % 2))
        ahead = (u + step, v) if action < 2 else (u, v + step)
        ahead_u, ahead_v = (max(-1.0, min(1.0, x)) for x in ahead)
        # The loop is in float64, the environment in float32: at a wall's edge they may differ.
        edges = [abs(ahead_u - x) for w in WALLS for x in (w[0], w[2])]
        edges += [abs(ahead_v - x) for w in WALLS for x in (w[1], w[3])]
        if min(edges) < 1e-5:
            return
        if not in_wall(ahead_u, ahead_v):
            u, v = ahead_u, ahead_v
        obs, reward, terminated, _, info = env.step(torch.tensor([action]))
        assert obs[0].tolist() == pytest.approx([u, v, *surface_at(env, u, v)], abs=1e-5)
        distance = math.dist((u, v), GOAL)
        if abs(distance - RADIUS) < 1e-5:
            return
        arrived = distance < RADIUS
        assert terminated.item() == info["success"].item() == arrived
        assert reward.item() == float(arrived)
        if arrived:
            return


@pytest.mark.parametrize(("dim", "tolerance"), [(2, 0.1), (3, 0.1), (4, 0.3), (6, 0.6)])
def test_share_of_legal_states_in_the_box(dim: int, tolerance: float) -> None:
    env, n = ThinManifold(1, dim=dim, tolerance=tolerance), 200_000
    walls = sum((right - left) * (high - low) for left, low, right, high in WALLS)
    share = (1 - walls / 4) * tolerance ** (dim - 2)
    found = env.valid(env.reference_levels(n, rng())).float().mean().item()
    assert abs(found - share) < 5 * math.sqrt(share * (1 - share) / n)


def test_legal_states_are_hardly_ever_sampled() -> None:
    env = ThinManifold(1)
    assert 0.904 * env.tolerance ** (env.dim - 2) < 5e-5
    assert env.valid(env.reference_levels(100_000, rng())).float().mean() < 0.0005


@pytest.mark.parametrize("dim", [2, 6, 20])
def test_the_surface_is_legal_and_inside_the_box(dim: int) -> None:
    env = ThinManifold(1, dim=dim)
    states = env.on_surface(2 * torch.rand(1000, 2, generator=rng()) - 1)
    in_walls = torch.tensor([in_wall(*position) for position in states[:, :2].tolist()])
    assert torch.equal(env.valid(states), ~in_walls)
    off = states.clone()
    off[:, -1] += 1.01 * env.tolerance
    assert env.valid(off).sum() == (0 if dim > 2 else env.valid(off).sum())
    assert torch.equal(ThinManifold(1, dim=dim).waves, env.waves)


def walk(env: ThinManifold, levels: Tensor) -> Tensor:
    """Play greedy walks along ``WAY``; return whether they arrive [n]."""
    env.reset(options={"levels": levels})
    stage = torch.zeros(len(levels), dtype=torch.long)
    won = torch.zeros(len(levels), dtype=torch.bool)
    way = torch.tensor(WAY)
    for _ in range(env.max_episode_steps):
        gap = way[stage] - env.state[:, :2]
        stage = (stage + (gap.abs().amax(1) < 0.06)).clamp(max=len(WAY) - 1)
        gap = way[stage] - env.state[:, :2]
        axis = gap.abs().argmax(1)
        back = gap.gather(1, axis[:, None])[:, 0] < 0
        info = env.step(2 * axis + back)[4]
        won |= info["success"]
    return won


def test_every_target_level_can_be_solved_in_time_and_never_by_chance() -> None:
    env = ThinManifold(200)
    levels = env.target_levels(200, rng())
    assert walk(env, levels).all()
    env.reset(options={"levels": levels})
    for actions in torch.randint(4, (env.max_episode_steps, 200), generator=rng(1)):
        assert not env.step(actions)[4]["success"].any()


def test_an_episode_at_an_illegal_level_is_lost_at_once() -> None:
    """This also holds at the goal itself, and does not affect a legal env beside it."""
    env = ThinManifold(3)
    levels = env.on_surface(torch.tensor([[0.75, 0.8], [0.75, 0.8], [-0.34, 0.0]]))
    levels[0, 3] -= 3 * env.tolerance
    assert env.valid(levels).tolist() == [False, True, False]
    obs, _ = env.reset(options={"levels": levels})
    assert torch.equal(obs, levels)
    obs, reward, terminated, truncated, info = env.step(torch.zeros(3, dtype=torch.long))
    assert terminated.all() and not truncated.any()
    assert info["success"].tolist() == [False, True, False]
    assert reward.tolist() == [0.0, 1.0, 0.0]
    assert torch.equal(obs[0], levels[0]) and not env.valid(env.current_levels())[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 1}, "dim is 1"),
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"tolerance": 1.0}, "is 1"),
    ],
)
def test_impossible_settings(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ThinManifold(1, **wrong)
