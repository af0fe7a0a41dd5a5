"""Drawn rows against the probabilities they should have, by chi-square tests and exact counts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_crl.dqn.replay.sampling import (
    ROWS_PER_BLOCK,
    draw_by_rank,
    draw_proportional,
    draw_uniform,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi_square(rows: Tensor, probability: Tensor) -> float:
    """By how many standard deviations the counts differ more from these chances than expected."""
    counts = torch.bincount(rows.flatten(), minlength=len(probability)).double()
    assert not counts[probability == 0].any()
    expected = probability.double() * rows.numel()
    usual = expected >= 5
    groups = [(counts[usual], expected[usual])]
    if not usual.all():  # the rare ones count together
        groups.append((counts[~usual].sum()[None], expected[~usual].sum()[None]))
    seen, due = (torch.cat(one) for one in zip(*groups, strict=True))
    cells = due > 0
    freedom = int(cells.sum()) - 1
    statistic = ((seen - due)[cells] ** 2 / due[cells]).sum().item()
    return (statistic - freedom) / math.sqrt(2 * max(freedom, 1))


@pytest.mark.parametrize("draw", [draw_uniform, draw_by_rank])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.3, 0.005])
def test_allowed_rows_are_drawn_equally_often_however_few_they_are(draw: Any, share: float) -> None:
    allowed = torch.rand(1_000, generator=rng(1)) < share
    assert allowed.any()
    rows = draw(allowed, 40_000, rng(2))
    assert rows.shape == (40_000,)
    assert chi_square(rows, allowed / allowed.sum()) < 5


@pytest.mark.parametrize("draw", [draw_uniform, draw_by_rank])
def test_uniform_draws_are_independent(draw: Any) -> None:
    first, second = draw(torch.ones(10, dtype=torch.bool), 20_000, rng()).view(2, -1)
    assert chi_square(10 * first + second, torch.full((100,), 0.01)) < 5


@pytest.mark.parametrize("rows", [1, 100])
def test_nothing_allowed_is_said(rows: int) -> None:
    with pytest.raises(RuntimeError, match="the replay buffer is empty"):
        draw_uniform(torch.zeros(rows, dtype=torch.bool), 3, rng())
    with pytest.raises(RuntimeError, match="the replay buffer is empty"):
        draw_proportional(torch.zeros(rows, ROWS_PER_BLOCK), torch.zeros(rows), (2, 3), rng())


def drawn(values: Tensor, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return draw_proportional(values, values.sum(dim=1), shape, rng(seed))


def test_rows_are_drawn_in_proportion_from_the_smallest_to_the_largest() -> None:
    # Eight powers of ten, in random order, with rows and a whole block of zeros among them.
    values = torch.tensor([10.0]).pow(torch.rand(40, ROWS_PER_BLOCK, generator=rng(3)) * 8 - 6)
    values[torch.rand(40, ROWS_PER_BLOCK, generator=rng(4)) < 0.2] = 0
    values[0], values[17], values[-1] = 0, 0, 0
    rows = torch.stack([drawn(values, (16, 256), seed) for seed in range(100)])
    probability = (values.double() / values.double().sum()).flatten()
    assert chi_square(rows, probability) < 5
    for minibatch in rows.unbind(1):  # each of the stack's on its own, too
        assert chi_square(minibatch, probability) < 5


def test_single_draws_are_independent_and_in_proportion() -> None:
    values = torch.rand(2, ROWS_PER_BLOCK, generator=rng(5)).pow(4)
    rows = torch.stack([drawn(values, (2, 1), seed) for seed in range(4_000)]).squeeze(-1)
    probability = (values / values.sum()).flatten()
    assert chi_square(rows, probability) < 5
    # The two share the range of the cumulative sum between them, in random order.
    assert chi_square((rows[:, 0] < rows[:, 1]).long(), torch.tensor([0.5, 0.5])) < 5


def test_a_minibatch_has_a_row_from_each_of_equal_ranges() -> None:
    values = torch.rand(64, ROWS_PER_BLOCK, generator=rng(6))
    upto = values.sum(dim=1).cumsum(0) / values.sum()
    for minibatch in drawn(values, (8, 100)):
        block = (minibatch // ROWS_PER_BLOCK).bincount(minlength=64).cumsum(0)
        assert ((block - 100 * upto).abs() <= 1 + 1e-3).all()


def test_a_million_rows_lose_nothing_to_rounding() -> None:
    # Beyond half a million, a cumulative sum in float32 could not tell these rows apart.
    values = torch.ones(1_000_000 // ROWS_PER_BLOCK, ROWS_PER_BLOCK)
    values[:, 1::2] = 0.01
    rows = torch.cat([drawn(values, (16, 8192), seed).flatten() for seed in range(8)])
    rare = (rows % 2 == 1).float().mean().item()
    chance = 0.01 / 1.01
    assert abs(rare - chance) < 5 * math.sqrt(chance / len(rows))
    assert chi_square(rows // 1_000, torch.full((1_000,), 0.001)) < 5


def test_a_row_that_outweighs_all_others_leaves_them_their_chance() -> None:
    # In float32 several blocks would share one step of the cumulative sum, which only one gets.
    blocks, tiny = 1_000_000 // ROWS_PER_BLOCK, 5e-8 / ROWS_PER_BLOCK
    values = torch.full((blocks, ROWS_PER_BLOCK), tiny)
    values[0] = 1 / ROWS_PER_BLOCK
    rows = torch.cat([drawn(values, (4, 65_536), seed).flatten() for seed in range(8)])
    others = rows[rows >= ROWS_PER_BLOCK] // ROWS_PER_BLOCK
    expected = len(rows) * (blocks - 1) * 5e-8 / (1 + (blocks - 1) * 5e-8)
    assert abs(len(others) - expected) < 5 * math.sqrt(expected)
    distinct = blocks * -math.expm1(-len(others) / blocks)
    assert abs(len(others.unique()) - distinct) < 5 * math.sqrt(len(others) - distinct)


@pytest.mark.parametrize("extreme", [0.0, 1.0])
def test_not_even_the_first_and_the_last_number_draw_a_row_of_value_zero(
    extreme: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.rand(6, ROWS_PER_BLOCK, generator=rng(7))
    values[[0, 2, 5]], values[:, :3], values[:, -3:] = 0, 0, 0

    def rand(*shape: int, generator: torch.Generator, **options: Any) -> Tensor:
        number = torch.full(shape, extreme, **options)
        return number.nextafter(torch.zeros_like(number)) if extreme else number

    monkeypatch.setattr(torch, "rand", rand)
    assert values.flatten()[drawn(values, (3, 5))].all()
