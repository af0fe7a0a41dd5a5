"""Mazes with a partial view against plain Python: walks, views and searches cell by cell."""

from collections import deque

import numpy as np
import pytest
import torch
from conftest import learner_settings

from lit_crl.envs import FacingMaze, Maze
from lit_crl.envs.mazes import layouts as maze_layouts
from lit_crl.evaluation.pool import EvaluationEnvs
from lit_crl.evaluation.protocol import Evaluation
from lit_crl.gan.map_networks import GridGenerator
from lit_crl.training.learner import CreativeLearner

#: Right, down, left, up: row and column of a step.
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


#: Fewest actions, least and most, from the published start and heading to the goal.
PUBLISHED = {
    "SixteenRooms": (26, 26), "SixteenRooms2": (28, 28), "Labyrinth": (113, 113),
    "LabyrinthFlipped": (113, 113), "Labyrinth2": (113, 113), "StandardMaze": (54, 54),
    "StandardMaze2": (73, 73), "StandardMaze3": (54, 54), "NineRooms": (24, 24),
    "NineRoomsFewerDoors": (42, 42), "MediumMaze": (25, 25), "MiniMaze": (15, 15),
    "TrivialMaze": (9, 9), "TrivialMaze2": (13, 13), "TrivialMaze3": (17, 17),
    "corridors": (16, 24),
}  # fmt: skip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def placed(level: torch.Tensor, size: int) -> tuple[np.ndarray, tuple[int, int, int], tuple]:
    """Walls, (row, column, heading) of the start, and the goal's cell."""
    maps = level.view(6, size, size).numpy()
    heading, row, column = np.argwhere(maps[1:5] == 1)[0]
    return maps[0] == 1, (int(row), int(column), int(heading)), tuple(np.argwhere(maps[5] == 1)[0])


def acted(walls: np.ndarray, state: tuple[int, int, int], action: int) -> tuple[int, int, int]:
    row, column, heading = state
    if action == 0:
        return row, column, (heading - 1) % 4
    if action == 1:
        return row, column, (heading + 1) % 4
    r, c = row + STEPS[heading][0], column + STEPS[heading][1]
    size = len(walls)
    inside = 0 <= r < size and 0 <= c < size
    return (r, c, heading) if inside and not walls[r, c] else state


def fewest_actions(walls: np.ndarray, state: tuple[int, int, int], goal: tuple) -> float:
    """Breadth-first search forward with a queue."""
    queue, seen = deque([(state, 0)]), {state}
    while queue:
        here, actions = queue.popleft()
        if here[:2] == goal:
            return actions
        for action in range(3):
            after = acted(walls, here, action)
            if after not in seen:
                seen.add(after)
                queue.append((after, actions + 1))
    return float("inf")


def view(walls: np.ndarray, state: tuple[int, int, int], goal: tuple) -> np.ndarray:
    """Turn the world until the agent looks up, then cut out the cells before it."""
    row, column, heading = state
    world = np.stack([np.pad(walls, 5, constant_values=True), np.zeros_like(np.pad(walls, 5))])
    world[1, goal[0] + 5, goal[1] + 5] = True
    here = np.zeros_like(world[0])
    here[row + 5, column + 5] = True
    turns = (heading + 1) % 4  # quarter turns against the clock from `heading` to up
    turned, at = np.rot90(world, turns, axes=(1, 2)), np.argwhere(np.rot90(here, turns))[0]
    return turned[:, at[0] - 4 : at[0] + 1, at[1] - 2 : at[1] + 3]


@pytest.mark.parametrize("size", [3, 7, 8])
def test_steps_and_views_equal_a_walk_cell_by_cell(size: int) -> None:
    env = FacingMaze(64, size=size)
    obs, _ = env.reset(options={"levels": env.reference_levels(64, rng())})
    mazes = [placed(level, size) for level in env.levels]
    where = [start for _, start, _ in mazes]
    assert {heading for _, _, heading in where} == {0, 1, 2, 3}
    arrivals = 0
    for step in range(40):
        for image, (walls, _, goal), state in zip(obs.numpy(), mazes, where, strict=True):
            np.testing.assert_array_equal(image[:2], view(walls, state, goal))
            heading = np.arange(4)[:, None, None] == state[2]
            np.testing.assert_array_equal(image[2:], np.broadcast_to(heading, (4, 5, 5)))
        actions = torch.randint(3, (64,), generator=rng(step))
        obs, reward, terminated, truncated, _ = env.step(actions)
        ended = (terminated | truncated).tolist()
        for i, ((walls, start, goal), action) in enumerate(
            zip(mazes, actions.tolist(), strict=True)
        ):
            where[i] = acted(walls, where[i], action)
            assert terminated[i] == (where[i][:2] == goal) and reward[i] == terminated[i].float()
            arrivals += int(terminated[i])
            where[i] = start if ended[i] else where[i]
        options = {"levels": env.levels, "reset_mask": terminated | truncated}
        obs, _ = env.reset(options=options)
    assert arrivals > 5


def test_fewest_actions_equal_a_search() -> None:
    env = FacingMaze(1, size=6)
    levels = env.levels_of(maze_layouts.random_layouts(60, 6, rng()), rng())
    expected = [fewest_actions(*placed(level, 6)) for level in levels]
    assert env.optimal_steps(levels).tolist() == expected
    assert 0 < np.isinf(expected).sum() < 30
    assert env.valid(levels).tolist() == np.isfinite(expected).tolist()


def test_levels_with_two_headings_are_invalid() -> None:
    env = FacingMaze(1, size=7)
    levels = env.reference_levels(20, rng())
    assert env.valid(levels).all()
    maps = env.maps(levels.clone())
    for others in (torch.ones_like(maps[:, 1:5]) * maps[:, 1:5].amax(1, keepdim=True), 0.0):
        maps[:, 1:5] = others
        assert not env.valid(maps.flatten(1)).any()


def test_a_visited_state_is_a_level() -> None:
    env, other = FacingMaze(50, size=7), FacingMaze(50, size=7)
    env.reset(options={"levels": env.reference_levels(50, rng())})
    for step in range(9):
        env.step(torch.randint(3, (50,), generator=rng(step)))
    visited = env.current_levels()
    kept = env.valid(visited)
    assert kept.sum() > 30
    visited[~kept] = env.reference_levels(1, rng())
    obs, _ = other.reset(options={"levels": visited})
    assert torch.equal(obs[kept], env.current_observations()[kept])
    assert torch.equal(other.state[kept], env.state[kept])


def test_held_out_mazes_are_those_of_the_full_view() -> None:
    own, full = FacingMaze(1, size=13), Maze(1, size=13)
    theirs = full.heldout()
    for name, levels in own.heldout().items():
        assert own.valid(levels).all(), name
        layouts = own.layouts(levels)
        if name not in ("random", "long", "perfect", "rooms"):  # drawn: the headings between them
            assert torch.equal(layouts.flatten(1), theirs[name])
        assert (own.optimal_steps(levels) >= full.optimal_steps(layouts.flatten(1))).all()
    assert "Labyrinth" in own.heldout()


def test_public_mazes_take_as_many_actions_as_published() -> None:
    found = {}
    for size in (3, 4, 5, 7, 8, 13):
        env = FacingMaze(1, size=size)
        for name, levels in env.heldout().items():
            steps = env.optimal_steps(levels)
            found[name] = (int(steps.min()), int(steps.max()))
    assert {name: found[name] for name in PUBLISHED} == PUBLISHED


def test_generated_maps_have_one_start_that_faces_one_way() -> None:
    torch.manual_seed(0)
    levels = GridGenerator((6, 7, 7), 16)(10 * torch.randn(300, 16, generator=rng()))
    maps = ((levels.detach() + 1) / 2).view(-1, 6, 49)
    assert (maps[:, 1:5].flatten(1).sum(dim=1) == 1).all()
    assert (maps[:, 5].sum(dim=1) == 1).all()
    assert maps[:, 1:].sum(dim=1).max() == 1  # not on one cell, nor
    assert not (maps[:, 0] * maps[:, 1:].sum(dim=1)).any()  # in a wall
    env = FacingMaze(1, size=7)
    assert torch.equal(env.valid(maps.flatten(1)), env.optimal_steps(maps.flatten(1)).isfinite())


def test_the_benchmarks_return_is_reported() -> None:
    """An agent that only turns left solves nothing; one that steps ahead finds goals ahead."""
    torch.manual_seed(0)
    learner = CreativeLearner(**learner_settings(hidden=(16,))).build(FacingMaze(1, size=3))

    def ahead(obs: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 0.0, 1.0]).expand(len(obs), -1)

    learner.action_values = ahead
    make = lambda n, device: FacingMaze(n, device, size=3, max_episode_steps=10)  # noqa: E731
    evaluation = Evaluation(EvaluationEnvs(make, make(1, "cpu")), 200, 0, 100_000, 0)
    results = evaluation.run(learner, False)
    env = make(200, "cpu")
    env.reset(seed=0)
    assert 0 < results["target_success_rate"] < 1
    # One step, or two: 1 − 0.09 or 1 − 0.18 each.
    share = results["target_benchmark_return_mean"] / results["target_success_rate"]
    assert 0.82 < share < 0.91
    returns = env.benchmark_return(torch.tensor([True, True, False]), torch.tensor([1.0, 10, 10]))
    assert returns.tolist() == pytest.approx([0.91, 0.1, 0])
