"""Metrics of a world against naive loops and closed forms."""

import math

import pytest
import torch
from torch import Tensor

from lit_crl.evaluation import world_metrics as metrics
from lit_crl.world.interface import Imagined

N, T, D = 7, 5, 3


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Drifting:
    """Moves by 1 whatever the action; pays 2; ends at ``end``."""

    def __init__(self, end: float = math.inf) -> None:
        self.end = end

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        after = obs + 1
        return Imagined(after, 2 * torch.ones(len(obs)), after[:, 0] >= self.end, 0 * obs[:, 0])


def test_the_error_by_step_is_that_of_a_loop(rng: torch.Generator) -> None:
    imagined, real = torch.randn(2, N, T, D, generator=rng)
    spread = torch.tensor([0.5, 0.0, 2.0])
    for step, found in enumerate(metrics.error_by_step(imagined, real, spread).tolist()):
        squares = [
            ((imagined[n, step, d] - real[n, step, d]).item() / spread[d].item()) ** 2
            for n in range(N)
            for d in (0, 2)
        ]
        assert found == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-5)


def test_the_relative_error_is_in_units_of_the_spread(rng: torch.Generator) -> None:
    predicted, real = torch.randn(2, 50, generator=rng)
    found = metrics.relative_error(predicted, real)
    mean = sum(real.tolist()) / 50
    variance = sum((x - mean) ** 2 for x in real.tolist()) / 50
    square = sum((p - r) ** 2 for p, r in zip(predicted.tolist(), real.tolist(), strict=True)) / 50
    assert found.item() == pytest.approx(math.sqrt(square / variance), rel=1e-5)
    # A factor and an offset of all rewards do not matter, and rewards that never differ count as
    # they are.
    assert metrics.relative_error(1000 * predicted + 7, 1000 * real + 7).item() == pytest.approx(
        found.item(), rel=1e-3
    )
    assert metrics.relative_error(torch.full((4,), -3.0), torch.full((4,), -1.0)) == 2


def test_steps_that_bounds_stop_are_counted() -> None:
    low, high = torch.tensor([-1.0, 3.0]), torch.tensor([1.0, 3.0])
    obs = torch.tensor([[[0.0, 3.0], [1.0, 3.0]], [[-1.0, 3.0], [0.9, 3.0]]])
    assert metrics.beyond_bounds(obs, low, high) == 0.5


def test_the_calibration_error_is_that_of_a_loop(rng: torch.Generator) -> None:
    p = torch.rand(500, generator=rng)
    p[0], p[1] = 0, 1
    happened = torch.rand(500, generator=rng) < p**2
    expected = 0.0
    for low in range(10):
        rows = [
            (a, b)
            for a, b in zip(p.tolist(), happened.tolist(), strict=True)
            if low <= 10 * a < low + 1 or (low == 9 and a == 1)
        ]
        predicted = sum(a for a, _ in rows) / len(rows)
        true = sum(b for _, b in rows) / len(rows)
        expected += len(rows) / 500 * abs(predicted - true)
    assert expected > 0.1
    assert metrics.calibration_error(p, happened).item() == pytest.approx(expected, abs=1e-5)
    certain = torch.tensor([0.0, 1.0, 1.0])
    assert metrics.calibration_error(certain, certain.bool()) == 0


@pytest.mark.parametrize(
    ("end", "steps", "expected"), [(math.inf, 6, 12.0), (4.0, 6, 8.0), (1.0, 6, 2.0)]
)
def test_a_return_in_dreams_is_counted_as_a_real_one(
    end: float, steps: int, expected: float, rng: torch.Generator
) -> None:
    obs = torch.zeros(3, 1)
    act = torch.zeros_like
    found = metrics.dreamed_returns(Drifting(end), act, obs, steps, rng)
    assert found.tolist() == [expected] * 3


def test_dreams_that_have_ended_are_paid_nothing_while_others_go_on(rng: torch.Generator) -> None:
    obs = torch.tensor([[3.0], [1.0], [-9.0]])
    found = metrics.dreamed_returns(Drifting(4.0), torch.zeros_like, obs, 5, rng)
    assert found.tolist() == [2.0, 6.0, 10.0]


def test_a_coin_needs_all_of_z_and_one_that_ignores_it_uses_none(rng: torch.Generator) -> None:
    """Observations ± 1 by a fair coin."""
    rows, draws = 400, 16

    def coin(*shape: int) -> Tensor:
        return torch.where(torch.rand(*shape, 1, generator=rng) < 0.5, 1.0, -1.0)

    obs, action, target = torch.rand(rows, 1, generator=rng), torch.zeros(rows), coin(rows)
    for made, low, high in ((coin(draws, rows), 0.9, 1.1), (torch.zeros(draws, rows, 1), 0, 0.01)):
        data = torch.minimum(
            metrics.unexplained_spread(made.mean(0), target),
            metrics.neighbour_spread(obs, action, target),
        )
        assert 0.9 <= data.item() <= 1.1
        assert low <= (metrics.spread_over_noise(made) / data).item() <= high


def test_neighbours_tell_noise_from_a_function(rng: torch.Generator) -> None:
    obs, action = torch.rand(1000, 2, generator=rng), torch.randint(3, (1000,), generator=rng)
    smooth = torch.sin(3 * obs[:, :1]) + action[:, None]
    noisy = smooth + 0.5 * torch.randn(1000, 1, generator=rng)
    assert metrics.neighbour_spread(obs, action, smooth) < 0.1
    # Of normal noise the largest twentieth of squares is 28 % of their sum: √(.72 / .95) is .87.
    found = metrics.neighbour_spread(obs, action, noisy).item()
    assert found == pytest.approx(0.5 * 0.87, rel=0.1)
    jumps = smooth + 5 * (torch.rand(1000, 1, generator=rng) < 0.01)  # a neighbour differs, too
    assert metrics.neighbour_spread(obs, action, jumps) < 0.1
    coins = smooth + 5 * (torch.rand(1000, 1, generator=rng) < 0.2)
    assert metrics.neighbour_spread(obs, action, coins) > 1
    alone = metrics.neighbour_spread(obs[:2], torch.tensor([0, 1]), smooth[:2])
    assert alone.isinf()


def test_the_nearest_neighbour_is_that_of_a_loop(rng: torch.Generator) -> None:
    obs, target = torch.randn(2, 40, 2, generator=rng)
    action = torch.randint(2, (40,), generator=rng)
    halves = []
    for i in range(40):
        others = [j for j in range(40) if j != i and action[j] == action[i]]
        nearest = min(others, key=lambda j: (obs[i] - obs[j]).norm().item())
        halves.append(0.5 * (target[i] - target[nearest]).square().mean().item())
    found = metrics.neighbour_spread(obs, action, target).item()
    left = sorted(halves)[: 40 - 40 // 20]
    assert found == pytest.approx(math.sqrt(sum(left) / len(left)), rel=1e-4)


def test_cells_are_counted_as_in_a_loop(rng: torch.Generator) -> None:
    points = 3 * torch.randn(60, 2, generator=rng)
    low, high = torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 3.0])
    seen = set()
    for x, y in points.tolist():
        if -2 <= x <= 2 and -1 <= y <= 3:
            seen.add((int((x + 2) / 4 * 10), int((y + 1) / 4 * 10)))
    found = metrics.visited_cells(points, low, high)
    assert len(found) == 100 and 0 < len(seen) < 60
    assert {divmod(i, 10) for i in found.nonzero().flatten().tolist()} == seen
    # The upper corner belongs to the last cell; a dimension without extent has one cell.
    corner = metrics.visited_cells(high[None], low, high)
    assert corner.nonzero().flatten().tolist() == [99]
    assert metrics.visited_cells(low[None], low, low).sum() == 1


def test_a_plane_keeps_distances_of_two_directions(rng: torch.Generator) -> None:
    flat = torch.randn(5, 2, generator=rng)
    assert metrics.plane_of(flat, flat.mean(0), flat.std(0)) is flat
    mean, std = torch.zeros(6), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 0.0])
    axes = metrics.plane_of(torch.diag(torch.where(std > 0, std, 1.0)), mean, std)
    assert torch.allclose(axes.T @ axes, torch.eye(2), atol=1e-6)
