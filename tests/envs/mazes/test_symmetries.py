"""The eight symmetries of mazes: against numpy's, and against the shortest ways to the goal."""

import numpy as np
import pytest
import torch

from lit_crl.envs import FacingMaze, Maze
from lit_crl.envs.mazes.layouts import MOVES
from lit_crl.envs.mazes.symmetries import headings_before, turned_and_mirrored


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_they_are_the_eight_of_the_square() -> None:
    maps = torch.randint(9, (3, 2, 4, 4), generator=rng())
    found = {image.numpy().tobytes() for image in turned_and_mirrored(maps)}
    naive = {
        np.ascontiguousarray(np.rot90(image, turns, (2, 3))).tobytes()
        for image in (maps.numpy(), maps.numpy()[..., ::-1], maps.numpy().swapaxes(2, 3))
        for turns in range(4)
    }
    assert found == naive and len(found) == 8
    assert torch.equal(turned_and_mirrored(maps)[0], maps)


def test_a_heading_turns_with_the_map() -> None:
    """An arrow of two cells, from the start on, points where the heading points afterwards."""
    for heading, (down, right) in enumerate(MOVES):
        arrow = torch.zeros(1, 2, 5, 5)
        arrow[0, 0, 2, 2] = arrow[0, 1, 2 + down, 2 + right] = 1
        for symmetry, image in enumerate(turned_and_mirrored(arrow)[:, 0]):
            tail, head = (tuple((one == 1).nonzero()[0].tolist()) for one in image)
            points = MOVES.index((head[0] - tail[0], head[1] - tail[1]))
            assert headings_before()[symmetry, points] == heading


@pytest.mark.parametrize("make", [Maze, FacingMaze])
def test_symmetric_mazes_are_valid_and_as_far_from_the_goal(make: type[Maze]) -> None:
    env = make(1, size=7, target="perfect")
    levels = env.target_levels(40, rng(1))
    same = env.symmetries(levels)
    assert same.shape == (8, 40, levels.shape[1])
    assert torch.equal(same[0], levels)
    assert len(torch.unique(same.flatten(0, 1), dim=0)) == 320
    assert env.valid(same.flatten(0, 1)).all()
    expected = env.optimal_steps(levels)
    for image in same:
        assert torch.equal(env.optimal_steps(image), expected)
