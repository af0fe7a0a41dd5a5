"""The map between level boxes and the unit cube, against the affine formula written out."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_crl.core.levels import UnitBox
from lit_crl.envs import (
    Acrobot,
    CartPole,
    MountainCar,
    PointMass,
)

boxes = st.lists(
    st.tuples(st.floats(-50, 50), st.floats(0.1, 100)), min_size=1, max_size=6
)  # low and width of each axis


def make(axes: list[tuple[float, float]]) -> UnitBox:
    low = np.array([low for low, _ in axes], np.float32)
    high = np.array([low + width for low, width in axes], np.float32)
    return UnitBox.of(Box(low, high))


@settings(max_examples=40, deadline=None)
@given(boxes, st.integers(0, 10**6))
def test_to_unit_is_the_affine_map_and_from_unit_undoes_it(
    axes: list[tuple[float, float]], seed: int
) -> None:
    box = make(axes)
    assert box.dim == len(axes)
    share = torch.rand(7, len(axes), generator=torch.Generator().manual_seed(seed))
    low = torch.tensor([low for low, _ in axes])
    width = torch.tensor([width for _, width in axes])
    level = low + share * width
    unit = box.to_unit(level)
    # Float32 carries 1e-7 of the largest coordinate, which may be 1500 times the width.
    assert torch.allclose(unit, 2 * share - 1, atol=2e-3)
    assert torch.allclose(box.from_unit(unit), level, atol=1e-4)
    assert torch.allclose(box.to_unit(box.from_unit(2 * share - 1)), 2 * share - 1, atol=2e-3)


def test_the_corners_of_the_box_are_the_corners_of_the_cube() -> None:
    box = make([(-1.2, 1.8), (3.0, 0.5)])
    low, high = torch.tensor([-1.2, 3.0]), torch.tensor([0.6, 3.5])
    assert torch.allclose(box.to_unit(torch.stack([low, high])), torch.tensor([[-1.0], [1.0]]))
    assert torch.allclose(box.from_unit(-torch.ones(2)), low)
    assert torch.allclose(box.from_unit(torch.ones(2)), high)
    assert torch.allclose(box.from_unit(torch.zeros(2)), (low + high) / 2)


@settings(max_examples=40, deadline=None)
@given(boxes, st.integers(0, 10**6))
def test_what_lies_outside_the_cube_comes_back_inside_the_box(
    axes: list[tuple[float, float]], seed: int
) -> None:
    box = make(axes)
    unit = 5 * torch.randn(20, len(axes), generator=torch.Generator().manual_seed(seed))
    level = box.from_unit(unit)
    slack = 1e-5 * (box.high - box.low) + 1e-5
    assert ((level >= box.low - slack) & (level <= box.high + slack)).all()
    expected = [[min(1.0, max(-1.0, u)) for u in row] for row in unit.tolist()]
    assert torch.allclose(box.to_unit(level), torch.tensor(expected), atol=2e-3)


@pytest.mark.parametrize("env", [MountainCar, CartPole, Acrobot, PointMass])
def test_whatever_a_generator_says_is_in_an_environments_bounds(env: type) -> None:
    task = env(1)
    unit = 3 * torch.randn(500, task.level_space.shape[0], generator=torch.Generator())
    assert task.in_bounds(UnitBox.of(task.level_space).from_unit(unit)).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_an_infinite_bound_is_refused(bad: float) -> None:
    low, high = np.zeros(2, np.float32), np.ones(2, np.float32)
    (low if bad < 0 else high)[1] = bad
    with pytest.raises(ValueError, match=r"level_space must have finite bounds"):
        UnitBox.of(Box(low, high))


def test_an_environment_without_levels_has_no_box() -> None:
    with pytest.raises(ValueError, match="no level_space"):
        UnitBox.of(None)


def test_the_bounds_move_with_the_module_but_are_not_saved() -> None:
    box = make([(0.0, 2.0)])
    assert not box.state_dict() and not list(box.parameters())
    assert {name for name, _ in box.named_buffers()} == {"low", "high", "width"}
    assert UnitBox(torch.zeros(1, dtype=torch.float64), torch.ones(1)).low.dtype == torch.float32


def test_a_coordinate_that_is_fixed_stays_where_it_is() -> None:
    box = UnitBox.of(Box(np.array([2.0, -1.0], np.float32), np.array([2.0, 3.0], np.float32)))
    level = torch.tensor([[2.0, 3.0], [2.0, 0.0]])
    unit = box.to_unit(level)
    assert torch.equal(unit[:, 1], torch.tensor([1.0, -0.5])) and unit.isfinite().all()
    assert torch.equal(box.from_unit(unit), level)
    assert torch.equal(box.from_unit(torch.ones(1, 2)), torch.tensor([[2.0, 3.0]]))
