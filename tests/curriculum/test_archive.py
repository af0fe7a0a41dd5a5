"""The archive against Python deques, sorting by hand, and formulas written out."""

import io
import math
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.curriculum.archive import (
    MIN_RECENT,
    NOVELTY_NEIGHBOUR,
    Archive,
    LevelRing,
    frontier_weight,
    novelty,
)

Pair = tuple[float, float]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(first: int, count: int) -> Tensor:
    """Levels that are numbers, so that each can be recognised: (number, -number)."""
    number = torch.arange(first, first + count).float()
    return torch.stack([number, -number], dim=1)


def drawn(ring: LevelRing, newest: int | None = None) -> set[Pair]:
    """Every (number, value) that turns up in many draws."""
    levels, values = ring.draw(2_000, rng(), newest)
    assert levels.shape == (2_000, 2) and values.shape == (2_000,)
    assert torch.equal(levels[:, 0], -levels[:, 1])
    return set(zip(levels[:, 0].tolist(), values.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(0, 12), max_size=8), st.integers(1, 15))
def test_a_ring_holds_what_a_deque_of_its_length_holds(
    capacity: int, batches: list[int], newest: int
) -> None:
    ring, naive = LevelRing.empty(capacity, 2, "cpu"), deque[Pair](maxlen=capacity)
    count = 0
    for size in batches:
        levels = numbered(count, size)
        ring.add(levels, levels[:, 0] / 2)
        naive.extend((float(n), n / 2) for n in range(count, count + size))
        count += size
        assert len(ring) == len(naive) and ring.written == count
    if naive:
        assert drawn(ring) == set(naive)
        assert drawn(ring, newest) == set(list(naive)[-newest:])


def test_a_ring_is_drawn_from_uniformly() -> None:
    ring = LevelRing.empty(20, 2, "cpu")
    for first in (0, 15):
        ring.add(numbered(first, 15), torch.zeros(15))
    each = 1_000
    numbers = ring.draw(20 * each, rng(1))[0][:, 0]
    counts = numbers.unique(return_counts=True)[1]
    assert numbers.min() == 10 and len(counts) == 20
    chi_square = ((counts - each) ** 2 / each).sum().item()
    assert abs(chi_square - 19) < 6 * math.sqrt(2 * 19)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 4), st.integers(0, 10**6))
def test_novelty_is_the_distance_to_the_third_neighbour(
    n: int, m: int, dim: int, seed: int
) -> None:
    levels, known = torch.randn(n + m, dim, generator=rng(seed)).split([n, m])
    naive = []
    for row in levels.tolist():
        others = sorted(math.dist(row, other) for other in known.tolist())
        naive.append(others[min(NOVELTY_NEIGHBOUR, len(others)) - 1])
    mean = sum(naive) / n
    assert NOVELTY_NEIGHBOUR == 3
    expected = [max(d / mean, 0.1) for d in naive]
    assert novelty(levels, known).tolist() == pytest.approx(expected, abs=2e-3)


def test_the_novelty_of_levels_that_are_all_the_same_is_a_number() -> None:
    assert novelty(torch.ones(20, 2), torch.ones(20, 2)).isfinite().all()
    assert novelty(torch.ones(1, 2), torch.ones(1, 2)).isfinite().all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 9)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_the_frontier_weight_follows_its_formula(rows: list[Pair], exponent: float) -> None:
    p, far = torch.tensor(rows, dtype=torch.float64).unbind(1)
    raw = [(4 * q * (1 - q) + 0.01) ** 2 * d**exponent for q, d in rows]
    limit = 20 * sum(raw) / len(raw)
    expected = [min(weight, limit) for weight in raw]
    weight = frontier_weight(p, far, exponent)
    assert weight.tolist() == pytest.approx(expected, rel=1e-6)
    assert (weight > 0).all()


def test_one_outlier_is_clipped_at_twenty_times_the_mean() -> None:
    p, far = torch.zeros(200), torch.ones(200)
    p[7] = 0.5
    weight = frontier_weight(p, far, 0.5)
    mean = (199 * 0.01**2 + 1.01**2) / 200
    assert weight[7].item() == pytest.approx(20 * mean, rel=1e-4)
    assert weight[0].item() == pytest.approx(0.01**2, rel=1e-4)


def test_a_solved_level_keeps_a_small_weight_set_by_the_floor() -> None:
    p, far = torch.tensor([0.0, 0.5, 1.0]), torch.ones(3)
    assert frontier_weight(p, far, 1.0, floor=0.5).tolist() == pytest.approx([0.25, 2.25, 0.25])


def archive_of(visited: int, tried: int, **sizes: int) -> Archive:
    """Visited levels count up from 0, tried ones from 100 000."""
    archive = Archive(2, **sizes)
    if visited:
        archive.add_visited(numbered(0, visited))
    for first in range(0, tried, 50):
        levels = numbered(100_000 + first, min(50, tried - first))
        archive.add_outcomes(levels, levels[:, 0] % 2 == 0)
    return archive


@pytest.mark.parametrize("n", [1, 6, 7])
def test_candidates_are_half_visited_and_half_tried(n: int) -> None:
    archive = archive_of(visited=30, tried=20)
    assert len(archive) == 50
    levels = archive.candidates(n, rng())[:, 0]
    assert len(levels) == n
    assert int((levels < 100_000).sum()) == n - n // 2


@pytest.mark.parametrize(("visited", "tried"), [(5, 0), (0, 5)])
def test_candidates_all_come_from_the_only_kind_there_is(visited: int, tried: int) -> None:
    levels = archive_of(visited, tried).candidates(500, rng())[:, 0]
    assert len(levels.unique()) == 5 and len(levels) == 500
    assert bool((levels >= 100_000).all()) == (tried > 0)


def test_candidates_come_from_the_whole_archive() -> None:
    assert len(archive_of(visited=30, tried=20).candidates(3_000, rng())[:, 0].unique()) == 50


def test_outcomes_come_with_their_levels_as_zero_or_one() -> None:
    levels, success = archive_of(0, 40).draw_outcomes(500, rng())
    assert success.dtype == torch.float32
    assert torch.equal(success, (levels[:, 0] % 2 == 0).float())
    assert len(levels[:, 0].unique()) == 40


@pytest.mark.parametrize(("tried", "newest"), [(300, MIN_RECENT), (2_000, 500), (100, 100)])
def test_outcomes_are_drawn_from_the_newest_quarter_but_not_too_few(
    tried: int, newest: int
) -> None:
    levels, _ = archive_of(0, tried).draw_outcomes(20_000, rng())
    numbers = levels[:, 0].unique() - 100_000
    assert len(numbers) == newest and numbers.min() == tried - newest


def test_the_oldest_levels_make_room() -> None:
    archive = Archive(2, tried=60, visited=4)
    archive.add_visited(numbered(0, 3))
    archive.add_visited(numbered(3, 3))
    for first in range(0, 100, 10):
        archive.add_outcomes(numbered(first, 10), torch.ones(10))
    assert {n for n, _ in drawn(archive.visited)} == {2, 3, 4, 5}
    assert {n for n, _ in drawn(archive.tried)} == set(range(40, 100))
    assert len(archive) == 64


def test_a_saved_archive_continues_as_if_it_had_never_stopped() -> None:
    whole = Archive(2, tried=30, visited=10)
    whole.add_visited(numbered(0, 7))
    whole.add_outcomes(numbered(100, 23), torch.arange(23) % 3 == 0)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    again = Archive(2, tried=30, visited=10)
    again.load_state_dict(torch.load(file, weights_only=True))
    for archive in (whole, again):
        archive.add_visited(numbered(7, 8))
        archive.add_outcomes(numbered(200, 20), torch.arange(20) % 2 == 0)
    assert len(whole) == len(again) == 40
    assert torch.equal(whole.candidates(300, rng(1)), again.candidates(300, rng(1)))
    for mine, theirs in zip(
        whole.draw_outcomes(300, rng(2)), again.draw_outcomes(300, rng(2)), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_an_archive_of_another_size_is_refused() -> None:
    state = Archive(2, tried=30, visited=10).state_dict()
    with pytest.raises(ValueError, match="room for 30 tried levels, this run's for 31"):
        Archive(2, tried=31, visited=10).load_state_dict(state)
