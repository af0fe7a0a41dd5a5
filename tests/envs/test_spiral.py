"""The spiral corridor against loops over its turns, and against breadth-first search."""

import math
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_crl.envs import Spiral
from lit_crl.envs.spiral import (
    HALF_WIDTH,
    MOVE,
    PITCH,
    RADIUS,
    TARGET,
    at,
    in_corridor,
)

MOVES = ((MOVE, 0.0), (-MOVE, 0.0), (0.0, MOVE), (0.0, -MOVE))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaps(x: float, y: float, turns: float) -> list[tuple[float, float]]:
    """Each turn of the corridor that passes in this direction, and the distance from it."""
    radius, part = math.hypot(x, y) / PITCH, math.atan2(y, x) / (2 * math.pi) % 1
    passing = [part + k for k in range(10) if part + k <= turns]
    return [(turn, abs(radius - turn)) for turn in passing]


def inside(x: float, y: float, turns: float) -> bool:
    return math.hypot(x, y) / PITCH <= HALF_WIDTH or any(
        off <= HALF_WIDTH for _, off in gaps(x, y, turns)
    )


@settings(max_examples=300, deadline=None)
@given(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), st.floats(0.5, 3))
def test_the_corridor_against_a_loop_over_its_turns(x: float, y: float, turns: float) -> None:
    x, y = (torch.tensor(v, dtype=torch.float32).item() for v in (x, y))
    offs = [off for _, off in gaps(x, y, turns)] + [math.hypot(x, y) / PITCH]
    ends = abs(math.atan2(y, x) / (2 * math.pi) % 1 - turns % 1)
    if min(abs(off - HALF_WIDTH) for off in offs) < 1e-5 or min(ends, 1 - ends) < 1e-5:
        return  # at an edge float32 may differ from float64
    assert in_corridor(torch.tensor([x, y]), turns).item() == inside(x, y, turns)


def test_no_move_leads_through_a_wall() -> None:
    """From anywhere in the corridor, a move changes the turn only a little."""
    n = 20_000
    env = Spiral(n, turns=2.75)
    turn = 0.5 + 2.2 * torch.rand(n, generator=rng())
    env.state = at(turn, (2 * torch.rand(n, generator=rng(1)) - 1) * (HALF_WIDTH - 1e-3))
    here = env.state.clone()
    assert in_corridor(here, 2.75).all()
    env.step(torch.randint(4, (n,), generator=rng(2)))
    assert in_corridor(env.state, 2.75).all()
    moved = (env.state != here).any(1)
    assert 0.5 < moved.float().mean() < 1
    assert torch.equal(env.state[~moved], here[~moved])
    for (x, y), before in zip(env.state[moved].tolist(), turn[moved].tolist(), strict=True):
        if math.hypot(x, y) / PITCH > HALF_WIDTH:
            after, _ = min(gaps(x, y, 2.75), key=lambda gap: gap[1])
            assert abs(after - before) < 0.4


def fewest_moves(goals: list[list[float]], turns: float) -> list[int | None]:
    """Breadth-first search from the start over the lattice of moves."""
    found, queue = {(0, 0): 0}, deque([(0, 0)])
    while queue:
        i, j = queue.popleft()
        for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            cell = (i + a, j + b)
            if cell not in found and inside(MOVE * cell[0], MOVE * cell[1], turns):
                found[cell] = found[i, j] + 1
                queue.append(cell)
    return [
        min(
            (n for (i, j), n in found.items() if math.dist((MOVE * i, MOVE * j), goal) < RADIUS),
            default=None,
        )
        for goal in goals
    ]


def test_goals_can_be_reached_in_time_and_target_goals_are_far() -> None:
    env = Spiral(1)
    target = fewest_moves(env.target_levels(100, rng()).tolist(), env.turns)
    assert all(n is not None and 20 <= n <= 0.5 * env.max_episode_steps for n in target)
    anywhere = fewest_moves(env.heldout()["corridor"].tolist(), env.turns)
    assert None not in anywhere and min(n for n in anywhere if n is not None) <= 2


def test_goals_are_spread_over_the_corridor() -> None:
    """They are compared with rejection sampling from the box."""
    env, n = Spiral(1), 100_000
    box = (2 * torch.rand(4 * n, 2, generator=rng()) - 1) * env.level_high
    uniform = box[env.valid(box)].norm(dim=1)
    drawn = env.reference_levels(n, rng(1)).norm(dim=1)
    for share in (0.1, 0.5, 0.9):
        assert drawn.quantile(share) == pytest.approx(uniform.quantile(share).item(), rel=0.08)


def test_target_goals_are_at_the_end() -> None:
    env = Spiral(1)
    for x, y in env.target_levels(500, rng()).tolist():
        turn, off = min(gaps(x, y, env.turns), key=lambda gap: gap[1])
        assert env.turns - TARGET - 1e-4 <= turn <= env.turns and off < HALF_WIDTH


def test_random_actions_never_reach_a_target_goal() -> None:
    env = Spiral(500)
    env.reset(seed=0)
    for actions in torch.randint(4, (env.max_episode_steps, 500), generator=rng()):
        assert not env.step(actions)[4]["success"].any()


def test_reward_and_end_on_arrival() -> None:
    env = Spiral(2)
    env.reset(options={"levels": [[0.2, 0.0], [-0.2, 0.0]]})
    _, reward, terminated, truncated, info = env.step(torch.tensor([0, 0]))
    assert reward.tolist() == [1.0, 0.0] and not truncated.any()
    assert terminated.tolist() == info["success"].tolist() == [True, False]


def test_impossible_settings() -> None:
    with pytest.raises(ValueError, match=r"turns is 0\.3"):
        Spiral(1, turns=0.3)
