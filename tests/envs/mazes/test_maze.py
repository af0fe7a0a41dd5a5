"""Mazes against plain Python: searches with a queue, walks cell by cell, views cut out by hand."""

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.envs import Maze
from lit_crl.envs.mazes import layouts
from lit_crl.envs.mazes.maze import views
from lit_crl.envs.mazes.shortest_paths import distances

#: Fewest moves from start to goal, as published with the mazes.
PUBLISHED = {
    "SixteenRooms": 20, "SixteenRooms2": 22, "Labyrinth": 96, "LabyrinthFlipped": 96,
    "Labyrinth2": 96, "StandardMaze": 40, "StandardMaze2": 56, "StandardMaze3": 39,
    "NineRooms": 20, "NineRoomsFewerDoors": 34,
}  # fmt: skip
SMALL_CORRIDOR = """\
.............
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#g#g#g#g#g#.
S###########.
.#g#g#g#g#g#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.#.#.#.#.#.#.
.............
""".splitlines()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def search(walls: np.ndarray, goals: list[tuple[int, int]]) -> np.ndarray:
    """Breadth-first search with a queue."""
    found = np.full(walls.shape, np.inf)
    queue = deque(goal for goal in goals if not walls[goal])
    for goal in queue:
        found[goal] = 0
    while queue:
        row, column = queue.popleft()
        for r, c in ((row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column)):
            inside = 0 <= r < walls.shape[0] and 0 <= c < walls.shape[1]
            if inside and not walls[r, c] and found[r, c] == np.inf:
                found[r, c] = found[row, column] + 1
                queue.append((r, c))
    return found


def cell(level_map: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(level_map.argmax(), level_map.shape)
    return int(row), int(column)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(2, 9), st.integers(2, 9), st.integers(0, 9), st.floats(0, 1))
def test_distances_equal_a_search_with_a_queue(
    n: int, height: int, width: int, seed: int, share: float
) -> None:
    walls = torch.rand(n, height, width, generator=rng(seed)) < share
    goal = torch.rand(n, height, width, generator=rng(seed + 1)) < 0.1
    found = distances(walls, goal).numpy()
    for mine, wall, ends in zip(found, walls.numpy(), goal.numpy(), strict=True):
        expected = search(wall, [tuple(end) for end in np.argwhere(ends)])
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("size", [3, 7, 8])
def test_steps_equal_a_walk_cell_by_cell(size: int) -> None:
    env = Maze(64, size=size)
    env.reset(options={"levels": env.reference_levels(64, rng())})
    maps = env.maps(env.levels).numpy()
    where = [cell(level[1]) for level in maps]
    moves = ((0, 1), (1, 0), (0, -1), (-1, 0))
    arrivals, elapsed = 0, np.zeros(64, int)
    for step in range(40):
        actions = torch.randint(4, (64,), generator=rng(step))
        _, reward, terminated, truncated, info = env.step(actions)
        for i, action in enumerate(actions.tolist()):
            row, column = where[i][0] + moves[action][0], where[i][1] + moves[action][1]
            inside = 0 <= row < size and 0 <= column < size
            if inside and not maps[i, 0, row, column]:
                where[i] = (row, column)
            arrived = where[i] == cell(maps[i, 2])
            arrivals += arrived
            assert terminated[i] == arrived and reward[i] == float(arrived)
            assert env.state[i].tolist() == list(where[i])
        assert torch.equal(info["success"], terminated)
        elapsed += 1
        np.testing.assert_array_equal(truncated, elapsed >= 2 * size * size)
        ended = terminated | truncated
        where = [cell(maps[i, 1]) if ended[i] else at for i, at in enumerate(where)]
        elapsed[ended.numpy()] = 0
        env.reset(options={"levels": env.levels, "reset_mask": ended})
    assert arrivals > 10


def test_an_agent_sees_the_maze_around_itself() -> None:
    env = Maze(20, size=5)
    levels = env.reference_levels(20, rng())
    obs, _ = env.reset(options={"levels": levels})
    for image, maps in zip(obs.numpy(), env.maps(levels).numpy(), strict=True):
        row, column = cell(maps[1])
        for r in range(9):
            for c in range(9):
                y, x = row + r - 4, column + c - 4
                inside = 0 <= y < 5 and 0 <= x < 5
                assert image[0, r, c] == (maps[0, y, x] if inside else 1)
                assert image[1, r, c] == (maps[2, y, x] if inside else 0)
    assert torch.equal(views(env.maps(levels)[:, [0, 2]].byte(), env.state.long()), obs)


def broken(level: Tensor, size: int, how: str) -> Tensor:
    walls, start, goal = level.clone().view(3, size, size)
    if how == "no start":
        start.zero_()
    if how == "two goals":
        goal[0, 0] = goal[-1, -1] = 1
    if how == "start in a wall":
        walls[start > 0] = 1
    if how == "start on the goal":
        goal.copy_(start)
    if how == "walled in":
        walls.fill_(1)
        walls[(start + goal) > 0] = 0
    return torch.stack([walls, start, goal]).flatten()


@pytest.mark.parametrize(
    "how", ["no start", "two goals", "start in a wall", "start on the goal", "walled in"]
)
def test_mazes_that_cannot_be_solved_are_invalid(how: str) -> None:
    env = Maze(1, size=7)
    levels = env.reference_levels(200, rng())
    assert env.valid(levels).all()
    apart = env.optimal_steps(levels) > 1
    spoilt = torch.stack([broken(level, 7, how) for level in levels[apart]])
    assert not env.valid(spoilt).any()
    assert not env.valid(levels * 3).any() and not env.valid(levels * torch.nan).any()


def test_random_mazes_are_valid_as_often_as_a_search_finds_a_path() -> None:
    env = Maze(1, size=13)
    drawn = layouts.random_layouts(300, 13, rng())
    found = [
        search(maps[0], [cell(maps[2])])[cell(maps[1])] < np.inf
        for maps in drawn.numpy().astype(bool)
    ]
    assert env.valid(drawn.flatten(1)).tolist() == found
    assert 0.5 < np.mean(found) < 1
    assert 0 <= drawn[:, 0].mean(dim=(1, 2)).min() < 0.05
    assert 0.25 < drawn[:, 0].mean(dim=(1, 2)).max() < 60 / 169


@pytest.mark.parametrize("size", [5, 7, 12, 13])
def test_in_a_perfect_maze_one_path_joins_any_two_cells(size: int) -> None:
    walls = layouts.perfect_walls(40, size, rng())
    across = (size + 1) // 2
    for one in walls.numpy():
        free = one == 0
        assert free[::2, ::2].all() and free.sum() == 2 * across**2 - 1
        # As many passages as a tree has edges, and nothing is cut off.
        edges = (free[1:] & free[:-1]).sum() + (free[:, 1:] & free[:, :-1]).sum()
        assert edges == free.sum() - 1
        assert np.isfinite(search(one, [(0, 0)])[free]).all()
    assert len({one.numpy().tobytes() for one in walls}) > (5 if size == 5 else 38)


def test_held_out_mazes_are_what_their_names_say() -> None:
    env = Maze(1, size=13)
    held_out, again = env.heldout(), Maze(2, size=13).heldout()
    for name, levels in held_out.items():
        assert env.valid(levels).all(), name
        assert torch.equal(levels, again[name])
    steps = {name: env.optimal_steps(levels) for name, levels in held_out.items()}
    assert {name: int(steps[name]) for name in PUBLISHED} == PUBLISHED
    free = (env.maps(held_out["spiral"])[:, 0] == 0).sum()
    assert steps["spiral"].item() == free - 1 == 96
    assert steps["long"].min() > steps["random"].median()
    corridors = env.maps(held_out["corridors"]).sum(dim=0)
    for row, line in enumerate(SMALL_CORRIDOR):
        for column, tile in enumerate(line):
            maps = corridors[:, row, column].tolist()
            expected = [10 * (tile == "#"), 10 * (tile == "S"), float(tile == "g")]
            assert maps == expected, (row, column)
    assert (steps["corridors"].min(), steps["corridors"].max()) == (13, 21)
    assert not set(PUBLISHED) & set(Maze(1, size=7).heldout())
    assert "TrivialMaze3" in Maze(1, size=7).heldout()


@pytest.mark.parametrize("size", range(3, 20))
def test_a_spiral_of_any_size_is_one_path_through_all_free_cells(size: int) -> None:
    layout = layouts.spiral_layout(size)
    walls = layout[0, 0].numpy() == 1
    assert layouts.path_length(layout).item() == (~walls).sum() - 1
    assert (~walls).sum() > size * size / 2 - 1
    assert search(walls, [cell(layout[0, 2].numpy())])[cell(layout[0, 1].numpy())] > size


@pytest.mark.parametrize("target", ["random", "long", "perfect"])
def test_target_levels_are_of_the_chosen_kind(target: str) -> None:
    env = Maze(4, size=9, target=target)
    levels = env.target_levels(100, rng())
    assert env.valid(levels).all()
    reference = env.optimal_steps(env.reference_levels(100, rng(1))).mean()
    longer = env.optimal_steps(levels).mean() / reference
    assert 0.7 < longer < 1.4 if target == "random" else longer > 1.5


def test_a_visited_state_is_a_level() -> None:
    env, other = Maze(50, size=7), Maze(50, size=7)
    env.reset(options={"levels": env.reference_levels(50, rng())})
    for step in range(5):
        env.step(torch.randint(4, (50,), generator=rng(step)))
    visited = env.current_levels()
    kept = env.valid(visited)
    at_goal = (env.state == env._marked(env.levels, 2)).all(dim=1)
    assert torch.equal(kept, ~at_goal)
    visited[~kept] = env.reference_levels(1, rng())
    obs, _ = other.reset(options={"levels": visited})
    assert torch.equal(obs[kept], env.current_observations()[kept])


def test_images_of_levels() -> None:
    env = Maze(1, size=7)
    levels = env.reference_levels(3, rng())
    images = env.render_levels(levels)
    assert images.shape == (3, 7, 7, 3) and images.dtype == np.uint8
    dark = (images == 60).all(axis=-1)
    np.testing.assert_array_equal(dark, env.maps(levels)[:, 0].numpy() == 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"size": 2}, "size is 2, but must"), ({"target": "easy"}, "target is 'easy'; use one of")],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Maze(1, **wrong)
