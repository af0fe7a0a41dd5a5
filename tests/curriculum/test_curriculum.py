"""The curriculum in a stub world where a level's first number tells which source it is from."""

import copy
import io
import math
import statistics
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.arms import MIXED, Arm, arm_shares
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.proposals import (
    choose_proposals,
    on_frontier,
    projected,
    proposal_weight,
    spacing,
    unique_rate,
)

QUARTERS = {"target": 0.25, "reference": 0.25, "archive": 0.25, "gan": 0.25}
TARGET, REFERENCE, ARCHIVE, GAN = range(4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def region(index: int, n: int, g: torch.Generator) -> Tensor:
    """Levels whose first number lies in [index, index + 0.9)."""
    return torch.rand(n, 2, generator=g) * torch.tensor([0.9, 1.0]) + torch.tensor([index, 0.0])


class World:
    """Target levels lie in [0, 1), reference levels in [1, 2); valid is a second number ≤ ½.

    Reference levels are all valid, as far as this does not say ``sampleable = False``.
    """

    sampleable = True

    level_space = Box(np.zeros(2, np.float32), np.array([8, 1], np.float32))

    def target_levels(self, n: int, g: torch.Generator) -> Tensor:
        return region(TARGET, n, g)

    def reference_levels(self, n: int, g: torch.Generator) -> Tensor:
        levels = region(REFERENCE, n, g)
        return levels * torch.tensor([1.0, 0.5]) if self.sampleable else levels

    def valid(self, levels: Tensor) -> Tensor:
        return levels[:, 1] <= 0.5


class StubTeacher:
    """Generates levels in [3, 4), half of them valid, and remembers every one."""

    def __init__(self, p: Callable[[Tensor], Tensor] | None = None) -> None:
        self.rng = rng(99)
        self.p = p or (lambda levels: torch.full((len(levels),), 0.5))
        self.updates = self.gan_updates = 1
        self.made: list[Tensor] = []

    def generate_levels(self, n: int) -> Tensor:
        self.made.append(region(GAN, n, self.rng))
        return self.made[-1]

    def success_probability(self, levels: Tensor) -> Tensor:
        return self.p(levels)


def archive_with(visited: int, tried: int) -> Archive:
    """Archive levels lie in [2, 3): visited ones below 2.45, tried ones above."""
    archive, g = Archive(2, tried=512, visited=512), rng(5)
    half = torch.tensor([0.45, 1.0])
    if visited:
        archive.add_visited(torch.rand(visited, 2, generator=g) * half + torch.tensor([2.0, 0]))
    if tried:
        levels = torch.rand(tried, 2, generator=g) * half + torch.tensor([2.45, 0])
        archive.add_outcomes(levels, torch.rand(tried, generator=g) < 0.5)
    return archive


def curriculum(
    shares: Any, archive: Archive | None = None, min_outcomes: int = 100, **changes: Any
) -> Curriculum:
    return Curriculum(
        cast(Any, World()),
        archive_with(200, 200) if archive is None else archive,
        shares,
        **{
            "novelty_exponent": 0.0,
            "min_outcomes": min_outcomes,
            "rng": rng(1),
            "queue": 64,
            "candidates": 128,
            **changes,
        },
    )


def right_half(n: int, curriculum: Curriculum, teacher: Any) -> Tensor:
    """A user's arm."""
    return torch.tensor([5.0, 0.0]).expand(n, 2)


def region_of(levels: Tensor) -> Tensor:
    return levels[:, 0].floor().long()


def assert_shares(source: Tensor, shares: list[float]) -> None:
    """The frequencies of the sources are binomial around their shares."""
    assert sum(shares) == pytest.approx(1)
    for index, share in enumerate(shares):
        seen = (source == index).float().mean().item()
        assert abs(seen - share) <= 5 * math.sqrt(share * (1 - share) / len(source)), index


# Arms

mixes = st.lists(st.sampled_from([0, 1, 2, 7]), min_size=4, max_size=4).filter(sum)


@settings(max_examples=60, deadline=None)
@given(mixes, st.sampled_from(MIXED), st.booleans())
def test_an_arm_keeps_the_shares_before_its_own_and_takes_the_rest(
    parts: list[int], arm: Arm, sparse: bool
) -> None:
    mix = {source: part / sum(parts) for source, part in zip(MIXED, parts, strict=True)}
    given_mix = {source: share for source, share in mix.items() if share or not sparse}
    assume(sum(mix[source] for source in MIXED[: MIXED.index(arm)]) < 1)
    shares = arm_shares(arm, given_mix)
    rest, expected = 1.0, {}
    for source in MIXED:
        if source == arm:
            expected[source] = rest
            break
        expected[source] = mix[source]
        rest -= mix[source]
    assert shares.keys() == expected.keys()
    for source, share in expected.items():
        assert shares[source] == pytest.approx(share, abs=1e-9)


def test_the_four_arms_of_equal_quarters() -> None:
    assert arm_shares("target", QUARTERS) == {"target": 1}
    assert arm_shares("reference", QUARTERS) == {"target": 0.25, "reference": 0.75}
    assert arm_shares("archive", QUARTERS) == {"target": 0.25, "reference": 0.25, "archive": 0.5}
    assert arm_shares("gan", QUARTERS) == QUARTERS


def test_a_source_that_the_mix_leaves_out_has_no_share() -> None:
    assert arm_shares("archive", {"gan": 1.0}) == {"target": 0, "reference": 0, "archive": 1}


@pytest.mark.parametrize("arm", ["reference", "archive", "gan", "plr", "accel", "sfl", right_half])
def test_a_mix_that_leaves_nothing_to_the_arm_itself_is_refused(arm: Any) -> None:
    with pytest.raises(
        ConfigError,
        match=r"data\.curriculum\.mix .* leaves no share to data\.curriculum\.arm .*: lower",
    ):
        arm_shares(arm, {"target": 1.0})


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({**QUARTERS, "novelty": 0.0}, r"no source \['novelty'\]"),
        ({"target": 1.5, "gan": -0.5}, "shares ≥ 0"),
        ({"target": float("nan"), "gan": 1.0}, "shares ≥ 0"),
        ({"target": 0.5, "gan": 0.4}, "sum to 1, got 0.9"),
        ({"target": float("inf")}, "sum to 1"),
        ({}, "sum to 1"),
    ],
)
def test_a_mix_that_makes_no_sense_is_refused(mix: dict[str, float], message: str) -> None:
    for arm in MIXED:
        with pytest.raises(ConfigError, match=message):
            arm_shares(arm, mix)


# Drawing


def test_sources_appear_with_their_shares_and_levels_come_from_their_source() -> None:
    shares = {"target": 0.1, "reference": 0.2, "archive": 0.3, "gan": 0.4}
    teacher, played = StubTeacher(), curriculum(shares, queue=500)
    parts = [played.draw(n, teacher) for n in [1, 7, 900, 64] * 4]
    levels, source = (torch.cat(part) for part in zip(*parts, strict=True))
    assert len(levels) == len(source) == 972 * 4
    assert torch.equal(region_of(levels), source)
    assert_shares(source, [0.1, 0.2, 0.3, 0.4])
    assert played.counts.played == int((source == GAN).sum())


def test_levels_come_in_no_order_that_tells_their_source() -> None:
    _, source = curriculum(QUARTERS, queue=1_000).draw(4_000, StubTeacher())
    same = (source[1:] == source[:-1]).float().mean().item()
    assert abs(same - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4_000)


def test_generated_levels_are_the_teachers_own_valid_ones() -> None:
    teacher = StubTeacher()
    levels, source = curriculum(QUARTERS, queue=250).draw(1_000, teacher)
    played = levels[source == GAN]
    made = {tuple(level) for level in torch.cat(teacher.made).tolist()}
    assert len(played) > 100
    different = {tuple(level) for level in played.tolist()}
    assert different <= made and len(different) > len(played) / 2
    assert World().valid(played).all()
    assert not World().valid(torch.cat(teacher.made)).all()


def test_archive_levels_are_in_the_archive() -> None:
    archive = archive_with(60, 60)
    levels, source = curriculum(QUARTERS, archive, queue=500).draw(2_000, StubTeacher())
    known = {
        tuple(level)
        for ring in (archive.visited, archive.tried)
        for level in ring.levels[: len(ring)].tolist()
    }
    drawn = {tuple(level) for level in levels[source == ARCHIVE].tolist()}
    assert drawn <= known
    assert {x < 2.45 for x, _ in drawn} == {True, False}


@pytest.mark.parametrize(("tried", "ready"), [(0, False), (99, False), (100, True), (101, True)])
def test_before_enough_outcomes_the_archive_plays_the_gans_share(tried: int, ready: bool) -> None:
    teacher, played = StubTeacher(), curriculum(QUARTERS, archive_with(200, tried), queue=500)
    assert played.ready() == ready
    levels, source = played.draw(3_000, teacher)
    assert torch.equal(region_of(levels), source)
    assert_shares(source, [0.25] * 4 if ready else [0.25, 0.25, 0.5, 0])
    assert bool(teacher.made) == ready
    assert (played.counts.candidates > 0) == ready


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (QUARTERS, [0.5, 0.5, 0, 0]),
        ({"target": 0.1, "reference": 0.3, "archive": 0.6}, [0.25, 0.75, 0, 0]),
        ({"target": 0.2, "reference": 0.0, "archive": 0.8}, [1, 0, 0, 0]),
        ({"archive": 0.5, "gan": 0.5}, [1, 0, 0, 0]),
    ],
)
def test_with_an_empty_archive_target_and_reference_levels_are_played_in_their_proportion(
    shares: dict[str, float], expected: list[float]
) -> None:
    levels, source = curriculum(shares, Archive(2), queue=500).draw(3_000, StubTeacher())
    assert torch.equal(region_of(levels), source)
    assert_shares(source, expected)


def test_what_is_played_for_an_empty_archive_is_not_queued() -> None:
    played = curriculum({"archive": 1.0}, Archive(2), queue=500)
    assert (played.draw(3, StubTeacher())[1] == TARGET).all()
    played.archive.add_visited(region(ARCHIVE, 50, rng(3)))
    assert (played.draw(200, StubTeacher())[1] == ARCHIVE).all()


def test_a_generator_that_was_never_trained_is_not_asked_and_its_p_hat_counts_nowhere() -> None:
    def fail(levels: Tensor) -> Tensor:
        raise AssertionError("p̂ of a network that has seen no outcome")

    teacher, played = StubTeacher(fail), curriculum(QUARTERS, queue=500)
    teacher.gan_updates = 0
    assert played.ready(), "there are outcomes enough"
    levels, source = played.draw(3_000, teacher)
    assert not teacher.made and torch.equal(region_of(levels), source)
    assert_shares(source, [0.25, 0.25, 0.5, 0])
    for kind in ("frontier", "labelled", "visited"):
        assert played.reals(cast(Any, kind), 50, 0.0, teacher)[1].all()
    teacher.p, teacher.gan_updates = (lambda levels: torch.full((len(levels),), 0.5)), 1
    played.new_cycle()
    assert_shares(played.draw(3_000, teacher)[1], [0.25] * 4)


def test_one_gan_phase_has_many_different_reals_and_none_of_them_often() -> None:
    """As a default run has them: half the archive is hopeless, and a tenth is on the frontier."""
    archive, g = Archive(2), rng(3)
    archive.add_visited(region(ARCHIVE, 32_768, g))
    for _ in range(4):
        archive.add_outcomes(region(ARCHIVE, 1_024, g), torch.rand(1_024, generator=g) < 0.5)
    teacher = StubTeacher(lambda levels: (1 - 20 * (levels[:, 1] - 0.5).abs()).clamp(0.001) / 2)
    played = curriculum(QUARTERS, archive, novelty_exponent=0.5, candidates=1_024)
    levels = played.reals("frontier", 8_192, 0.25, teacher)[0]
    archived = levels[region_of(levels) == ARCHIVE]
    counts = archived.unique(dim=0, return_counts=True)[1]
    assert len(archived) == 6_144
    assert len(counts) > 1_000 and counts.max() <= 40
    assert counts.sort(descending=True).values[:100].sum() < 0.35 * 6_144
    # They are still those of the frontier: (4 p̂ (1 − p̂) + 0.01)², twice novelty at random.
    assert (teacher.p(archived) > 0.1).float().mean() > 0.9


def test_when_no_proposal_is_valid_the_archive_plays_the_gans_share() -> None:
    teacher, played = StubTeacher(), curriculum(QUARTERS, queue=500)
    cast(Any, played.env).valid = lambda levels: torch.zeros(len(levels), dtype=torch.bool)
    _, source = played.draw(3_000, teacher)
    assert_shares(source, [0.25, 0.25, 0.5, 0])
    assert played.counts.valid == played.counts.frontier == played.counts.played == 0
    assert played.counts.candidates > 0


def test_a_single_valid_proposal_fills_the_gans_share() -> None:
    played = curriculum({"gan": 1.0})
    cast(Any, played.env).valid = lambda levels: levels[:, 0] == levels[:, 0].max()
    teacher = StubTeacher()
    levels, source = played.draw(64, teacher)
    assert (source == GAN).all()
    assert len(levels.unique(dim=0)) == 1
    assert torch.equal(levels[0], teacher.made[0][teacher.made[0][:, 0].argmax()])


def test_an_arm_asks_nothing_of_a_source_it_does_not_use() -> None:
    played = curriculum({"target": 1.0})
    world = cast(Any, played.env)

    def fail(*_: Any) -> None:
        raise AssertionError("not a source of this arm")

    world.reference_levels = played.frontier = fail  # type: ignore[method-assign, assignment]
    teacher = StubTeacher(cast(Any, fail))
    _, source = played.draw(500, teacher)
    assert (source == TARGET).all() and not teacher.made


def test_levels_wait_in_a_queue_until_a_new_cycle_throws_it_away() -> None:
    teacher, played = StubTeacher(), curriculum({"gan": 1.0})

    def newest(levels: Tensor) -> bool:
        made = {tuple(level) for level in teacher.made[-1].tolist()}
        return {tuple(level) for level in levels.tolist()} <= made

    assert newest(played.draw(10, teacher)[0])
    assert newest(played.draw(54, teacher)[0])
    assert len(teacher.made) == 1, "a queue of 64 must be drawn in one go"
    played.draw(1, teacher)
    assert len(teacher.made) == 2
    played.new_cycle()
    assert newest(played.draw(5, teacher)[0])
    assert len(teacher.made) == 3, "the levels of the last cycle must be gone"


def test_a_level_is_handed_out_once_and_in_order() -> None:
    together = curriculum(QUARTERS).draw(100, StubTeacher())
    played, teacher = curriculum(QUARTERS), StubTeacher()
    parts = [played.draw(n, teacher) for n in (3, 50, 1, 46)]
    for whole, pieces in zip(together, zip(*parts, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(pieces))


def test_the_counts_are_those_of_a_naive_recount() -> None:
    teacher = StubTeacher(lambda levels: levels[:, 0] - levels[:, 0].floor())
    played = curriculum(QUARTERS)
    source = torch.cat([played.draw(50, teacher)[1] for _ in range(6)])
    candidates = valid = frontier = 0
    unique = 0.0
    for made in teacher.made:
        cube = [(x / 4 - 1, 2 * y - 1) for x, y in made.tolist()]
        for (_, y), p in zip(made.tolist(), teacher.p(made).tolist(), strict=True):
            candidates += 1
            valid += y <= 0.5
            frontier += y <= 0.5 and 0.1 < p < 0.9
        for index, level in enumerate(cube):
            unique += all(math.dist(level, other) > played._spacing for other in cube[:index])
    counts = played.counts
    assert (counts.candidates, counts.valid, counts.frontier) == (candidates, valid, frontier)
    assert candidates == 128 * len(teacher.made) and 0 < frontier < valid < candidates
    assert 0 < counts.unique < candidates
    assert counts.unique == pytest.approx(unique, abs=1)  # two may be just as far apart
    assert counts.played == int((source == GAN).sum())
    rates = counts.rates()
    assert rates["curriculum/generated"] == candidates
    assert rates["curriculum/generated_valid_rate"] == valid / candidates
    assert rates["curriculum/generated_predicted_frontier_rate"] == frontier / candidates
    assert rates["curriculum/generated_unique_rate"] == counts.unique / candidates
    assert rates["curriculum/generated_played"] == counts.played


def test_the_rates_of_nothing_are_zero() -> None:
    assert set(curriculum(QUARTERS).counts.rates().values()) == {0}


# Choosing


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40),
    st.integers(1, 50),
    st.integers(0, 10**6),
)
def test_proposals_are_valid_distinct_and_as_many_as_there_can_be(
    rows: list[tuple[bool, float]], n: int, seed: int
) -> None:
    valid = torch.tensor([v for v, _ in rows])
    chosen = choose_proposals(
        valid, proposal_weight("frontier", torch.tensor([p for _, p in rows])), n, rng(seed)
    ).tolist()
    assert len(chosen) == len(set(chosen)) == min(n, sum(v for v, _ in rows))
    assert all(rows[index][0] for index in chosen)


def test_proposals_are_drawn_by_their_distance_from_the_frontier() -> None:
    p = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.5, 0.9, 1.0])
    valid = torch.tensor([True, True, True, True, False, True, True])
    draws, g = 6_000, rng(2)
    first = torch.cat(
        [choose_proposals(valid, proposal_weight("frontier", p), 1, g) for _ in range(draws)]
    )
    weights = [
        (4 * q * (1 - q) + 0.01) ** 2 * ok for q, ok in zip(p.tolist(), valid.tolist(), strict=True)
    ]
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        seen = (first == index).float().mean().item()
        assert abs(seen - share) <= 5 * math.sqrt(share * (1 - share) / draws), index


def naive_nearest(row: list[float], known: list[list[float]]) -> list[float]:
    """Distances in standard deviations of the known levels; without spread an axis is ignored."""
    spread = [statistics.pstdev(axis) for axis in zip(*known, strict=True)]
    return [
        math.hypot(*((x - y) / s for x, y, s in zip(row, other, spread, strict=True) if s > 1e-3))
        for other in known
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6), st.integers(0, 10**6))
def test_a_projected_candidate_is_the_known_level_fewest_spreads_away(
    m: int, n: int, d: int, seed: int
) -> None:
    scale = torch.tensor([1.0, 0.02, 0.3, 0.05, 1.0, 0.0])[:d]
    candidates, known = (scale * torch.randn(k, d, generator=rng(seed + k)) for k in (m, n))
    for row, index in zip(candidates.tolist(), projected(candidates, known).tolist(), strict=True):
        distances = naive_nearest(row, known.tolist())
        assert distances[index] == pytest.approx(min(distances), abs=1e-3)


def test_projected_proposals_are_the_visited_states_nearest_to_what_was_generated() -> None:
    archive = archive_with(40, 200)
    visited = archive.visited.levels[:40].tolist()
    teacher = StubTeacher()
    played = curriculum({"gan": 1.0}, archive, proposals="projected", queue=500)
    levels, source = played.draw(500, teacher)
    assert (source == GAN).all()
    made = torch.cat(teacher.made).tolist()
    unit = [[x / 4 - 1, 2 * y - 1] for x, y in visited]
    nearest = set()
    for x, y in made:
        distances = naive_nearest([x / 4 - 1, 2 * y - 1], unit)
        nearest.add(tuple(visited[distances.index(min(distances))]))
    assert {tuple(level) for level in levels.tolist()} == {v for v in nearest if v[1] <= 0.5}
    assert played.counts.valid == sum(y <= 0.5 for _, y in made), "of what was generated"


def test_where_nothing_was_visited_the_archive_plays_the_share_of_projected_proposals() -> None:
    played = curriculum({"gan": 1.0}, archive_with(0, 200), proposals="projected")
    teacher = StubTeacher()
    levels, source = played.draw(300, teacher)
    assert (source == ARCHIVE).all() and not teacher.made
    assert torch.equal(region_of(levels), source)


def test_the_frontier_lies_strictly_between_one_tenth_and_nine_tenths() -> None:
    p = torch.tensor([0.0, 0.1, 0.11, 0.5, 0.89, 0.9, 1.0])
    assert on_frontier(p).tolist() == [False, False, True, True, True, False, False]


def test_the_unique_rate_counts_levels_further_apart_than_the_spacing() -> None:
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    assert unique_rate(corners, spacing=0.0) == 1
    assert unique_rate(corners.repeat(5, 1), spacing=0.1) == pytest.approx(4 / 20)
    line = torch.linspace(-1, 1, 21)[:, None]  # steps of 0.1
    assert spacing(line) == pytest.approx(0.05)
    assert unique_rate(line, spacing=0.05) == 1
    assert unique_rate(line, spacing=0.11) == pytest.approx(1 / 21)  # each is near the one before
    assert unique_rate(torch.zeros(0, 2), spacing=0.1) == spacing(torch.zeros(1, 2)) == 0


# The archive's frontier


def test_archive_levels_are_drawn_by_their_frontier_weight() -> None:
    archive = Archive(2)
    heights = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).repeat(200)
    archive.add_visited(torch.stack([2 + 0.9 * torch.rand(1_000, generator=rng(4)), heights], 1))
    p = {0.0: 0.0, 0.25: 0.1, 0.5: 0.3, 0.75: 0.5, 1.0: 0.9}
    teacher = StubTeacher(lambda levels: torch.tensor([p[y] for y in levels[:, 1].tolist()]))
    played = curriculum({}, archive, candidates=1_000)
    drawn = torch.cat([played.frontier(1_000, teacher) for _ in range(8)])[:, 1]
    weight = {y: (4 * q * (1 - q) + 0.01) ** 2 for y, q in p.items()}
    for y, own in weight.items():
        # The luck of 8 times 1000 candidates adds to the luck of the draws.
        share = own / sum(weight.values())
        assert (drawn == y).float().mean().item() == pytest.approx(share, abs=0.035)


@pytest.mark.parametrize(("exponent", "more"), [(0.0, False), (2.0, True)])
def test_novelty_favours_lonely_levels_as_much_as_it_is_told(exponent: float, more: bool) -> None:
    archive, g = Archive(2), rng(3)
    crowd = 2 + 0.05 * torch.rand(450, 2, generator=g)
    crowd[:, 1] -= 2
    lonely = torch.rand(50, 2, generator=g) * torch.tensor([0.4, 0.9]) + torch.tensor([2.5, 0.1])
    archive.add_visited(torch.cat([crowd, lonely]))
    played = curriculum({}, archive, novelty_exponent=exponent, candidates=1_024)
    share = (played.frontier(4_000, StubTeacher())[:, 0] > 2.4).float().mean().item()
    assert share > 0.5 if more else share < 0.2


def test_a_rare_level_on_the_frontier_is_found_among_many_candidates() -> None:
    archive = Archive(2)
    levels = region(ARCHIVE, 1_000, rng(6))
    levels[:20, 1] = 2.0
    archive.add_visited(levels)
    teacher = StubTeacher(lambda levels: (levels[:, 1] == 2).float() / 2)
    played = curriculum({}, archive, candidates=1_000)
    drawn = torch.cat([played.frontier(10, teacher) for _ in range(20)])
    assert (drawn[:, 1] == 2).float().mean() > 0.9


def test_novelty_is_measured_in_shares_of_the_level_space() -> None:
    """Two rows of levels, as long in the environment's units: the space is 8 wide and 1 high."""
    archive, along = Archive(2), torch.rand(500, generator=rng(7))
    wide = torch.stack([2 + 0.9 * along, torch.zeros(500)], dim=1)
    tall = torch.stack([torch.full((500,), 2.95), 0.1 + 0.9 * along], dim=1)
    archive.add_visited(torch.cat([wide, tall]))
    played = curriculum({}, archive, novelty_exponent=1.0, candidates=1_000)
    share = (played.frontier(4_000, StubTeacher())[:, 0] == 2.95).float().mean().item()
    assert share == pytest.approx(8 / 9, abs=0.05)


def test_a_small_archive_can_be_drawn_from() -> None:
    for size in (1, 2, 4, 8):
        for seed in range(5):
            archive = Archive(2)
            archive.add_visited(region(ARCHIVE, size, rng(seed)))
            played = curriculum({}, archive, novelty_exponent=0.5, rng=rng(seed))
            drawn = played.frontier(200, StubTeacher())[:, 0]
            assert len(drawn.unique()) == size


# Reals


@pytest.mark.parametrize("kind", ["frontier", "labelled", "visited"])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.7])
def test_reals_hold_the_asked_share_of_reference_levels(kind: Any, share: float) -> None:
    levels, label = curriculum(QUARTERS).reals(kind, 203, share, StubTeacher())
    assert levels.shape == (203, 2) and label.shape == (203,)
    origin = region_of(levels)
    assert int((origin == REFERENCE).sum()) == round(203 * share)
    assert int((origin == ARCHIVE).sum()) == 203 - round(203 * share)


@pytest.mark.parametrize("kind", ["labelled", "visited"])
def test_reals_can_all_be_reference_levels(kind: Any) -> None:
    levels, _ = curriculum(QUARTERS).reals(kind, 50, 1.0, StubTeacher())
    assert (region_of(levels) == REFERENCE).all()


def test_frontier_reals_can_all_be_reference_levels() -> None:
    levels, _ = curriculum(QUARTERS).reals("frontier", 50, 1.0, StubTeacher())
    assert (region_of(levels) == REFERENCE).all()


def test_reals_are_shuffled() -> None:
    levels, _ = curriculum(QUARTERS).reals("frontier", 2_000, 0.5, StubTeacher())
    reference = (region_of(levels) == REFERENCE).float()
    assert abs(reference[:1000].mean().item() - 0.5) < 0.1


def test_frontier_and_visited_reals_are_all_positive() -> None:
    teacher = StubTeacher(lambda levels: torch.zeros(len(levels)))
    for kind in ("frontier", "visited"):
        _, label = curriculum(QUARTERS).reals(cast(Any, kind), 60, 0.25, teacher)
        assert torch.equal(label, torch.ones(60))


def test_labelled_reals_say_whether_the_policy_solves_them_sometimes() -> None:
    teacher = StubTeacher(lambda levels: levels[:, 1])
    levels, label = curriculum(QUARTERS).reals("labelled", 400, 0.25, teacher)
    expected = [float(0.1 < p < 0.9) for p in levels[:, 1].tolist()]
    assert label.tolist() == expected
    assert 0 < sum(expected) < 400


def test_visited_reals_are_visited_states_drawn_uniformly() -> None:
    teacher = StubTeacher(lambda levels: (levels[:, 1] < 0.5).float() / 2)
    levels, _ = curriculum(QUARTERS).reals("visited", 4_000, 0.0, teacher)
    assert (levels[:, 0] < 2.45).all(), "tried levels must not be among them"
    counts = levels[:, 0].unique(return_counts=True)[1]
    assert len(counts) == 200
    chi_square = ((counts - 20.0) ** 2 / 20).sum().item()
    assert abs(chi_square - 199) < 6 * math.sqrt(2 * 199)


def test_frontier_reals_prefer_what_is_solved_sometimes_and_labelled_ones_do_not() -> None:
    teacher = StubTeacher(lambda levels: (levels[:, 1] < 0.5).float() / 2)

    def near(kind: Any) -> float:
        levels, _ = curriculum(QUARTERS).reals(kind, 2_000, 0.0, teacher)
        return (levels[:, 1] < 0.5).float().mean().item()

    assert near("frontier") > 0.95
    assert 0.35 < near("labelled") < 0.65


@pytest.mark.parametrize("kind", ["frontier", "labelled", "visited"])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_reference_levels_at_which_no_episode_can_start_are_not_real(
    kind: Any, share: float
) -> None:
    """Half of them are left, and the archive makes up for the rest."""
    played = curriculum(QUARTERS)
    cast(Any, played.env).sampleable = False
    levels, label = played.reals(kind, 4_000, share, StubTeacher())
    assert levels.shape == (4_000, 2) and label.shape == (4_000,)
    reference = region_of(levels) == REFERENCE
    assert played.env.valid(levels[reference]).all()
    assert (region_of(levels[~reference]) == ARCHIVE).all()
    assert reference.float().mean().item() == pytest.approx(share / 2, abs=0.04)


# Saving


def test_a_saved_curriculum_continues_as_if_it_had_never_stopped() -> None:
    whole, teacher = curriculum(QUARTERS), StubTeacher()
    whole.draw(100, teacher)  # leaves 28 levels in the queue
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    again, other = curriculum(QUARTERS, rng=rng(77)), copy.copy(teacher)
    again.load_state_dict(torch.load(file, weights_only=True))
    other.rng, other.made = rng(), []
    other.rng.set_state(teacher.rng.get_state())
    for _ in range(3):
        for mine, theirs in zip(whole.draw(60, teacher), again.draw(60, other), strict=True):
            assert torch.equal(mine, theirs)
    mine, _ = whole.reals("frontier", 50, 0.25, teacher)
    theirs, _ = again.reals("frontier", 50, 0.25, other)
    assert torch.equal(mine, theirs)
    assert whole.counts == again.counts and whole.counts.played > 0


def test_a_saved_state_does_not_change_afterwards() -> None:
    played, teacher = curriculum(QUARTERS), StubTeacher()
    played.draw(100, teacher)
    state = played.state_dict()
    before = copy.deepcopy(state)
    played.draw(200, teacher)
    assert torch.equal(state["levels"], before["levels"])
    assert torch.equal(state["rng"], before["rng"]) and state["counts"] == before["counts"]
