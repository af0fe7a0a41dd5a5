"""Arms that make levels from given ones, each against an independent way to compute it."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.levels import UnitBox
from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.arms import check_environment, check_reals, custom_source, needs_of
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.edits import TargetEdits
from lit_crl.curriculum.gaussian import PcaGaussian, principal_components
from lit_crl.curriculum.plr import EditedLevelReplay, PrioritizedLevelReplay
from lit_crl.curriculum.sources import FinishedEpisodes
from lit_crl.curriculum.symmetries import signed_places, symmetries
from lit_crl.curriculum.tiles import drawn_ends, drawn_walls, given_maps, tiles, with_new_ends
from lit_crl.envs import ArmPoses, FacingMaze, Maze, MountainCar, PointMass
from lit_crl.envs.given_levels import GivenLevels, given_levels


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_given(env: Any, given: Any) -> Any:
    return GivenLevels(given, None, seed=0).played_in(env)


def here(env: Any, seed: int = 1) -> Any:
    return SimpleNamespace(env=env, rng=rng(seed), box=UnitBox.of(env.level_space))


def perfect(size: int = 5) -> Maze:
    return Maze(1, size=size, target="perfect")


def rows(levels: Tensor) -> set[tuple[float, ...]]:
    return {tuple(level) for level in levels.tolist()}


def test_symmetries_of_given_levels_are_all_played_and_nothing_else() -> None:
    env = with_given(perfect(), 3)
    drawn = rows(symmetries(2_000, here(env), cast(Any, None)))
    naive = {
        tuple(np.ascontiguousarray(np.rot90(image, turns, (1, 2))).flatten().tolist())
        for level in given_levels(env).view(-1, 3, 5, 5).numpy()
        for image in (level, level[..., ::-1])
        for turns in range(4)
    }
    assert drawn == naive


@pytest.mark.parametrize("env", [perfect(7), FacingMaze(1, size=5), ArmPoses(1)], ids=repr)
def test_symmetries_are_places_and_signs_of_coordinates(env: Any) -> None:
    box, levels = UnitBox.of(env.level_space), env.reference_levels(30, rng())
    places = signed_places(env.symmetries, box)
    unit = box.to_unit(levels)
    for row, image in zip(places, box.to_unit(env.symmetries(levels)), strict=True):
        torch.testing.assert_close(torch.cat([unit, -unit], 1)[:, row], image)


def test_what_is_no_exchange_of_coordinates_is_refused() -> None:
    box = UnitBox(torch.zeros(3), torch.ones(3))
    with pytest.raises(ConfigError, match=r"data\.gan\.symmetries is true, .* set it to false"):
        signed_places(lambda levels: torch.stack([levels, levels.square()]), box)


def test_principal_components_are_those_of_the_covariance() -> None:
    levels = torch.randn(40, 6, generator=rng()) * torch.tensor([5.0, 3.0, 1.0, 0.3, 0.1, 0.1])
    levels = levels @ torch.linalg.qr(torch.randn(6, 6, generator=rng(1)))[0] + 2
    variance, vectors = np.linalg.eigh(np.cov(levels.numpy().T))
    kept = 1 + int(np.searchsorted(np.cumsum(variance[::-1]) / variance.sum(), 0.95))
    mean, components, deviation = principal_components(levels, 0.95)
    assert components.shape == (kept, 6) and 1 < kept < 6
    np.testing.assert_allclose(mean, levels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation.square(), variance[::-1][:kept], rtol=1e-3)
    along = np.abs(components.numpy() @ vectors[:, ::-1][:, :kept])
    np.testing.assert_allclose(along, np.eye(kept), atol=1e-3)
    assert principal_components(levels, 1.0)[1].shape == (6, 6)
    assert principal_components(torch.ones(3, 4), 0.95)[2].tolist() == [0.0]  # three equal levels


def test_the_normal_distribution_has_mean_and_covariance_of_the_given_levels() -> None:
    env = PointMass(1, dim=3, goal_bound=50.0)
    given = torch.randn(400, 3, generator=rng()) @ torch.tensor(
        [[4.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]
    )
    levels = PcaGaussian(kept=1.0)(20_000, here(with_given(env, given)), None)
    torch.testing.assert_close(levels.mean(0), given.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(levels.T.cov(), given.T.cov(), atol=0.2, rtol=0.05)
    assert env.in_bounds(levels).all()


def test_walls_are_drawn_as_often_as_they_are_there() -> None:
    given = (torch.rand(30, 3, 4, 4, generator=rng()) < torch.rand(4, 4, generator=rng(1))).float()
    walls = drawn_walls(given, 30_000, rng(2))
    torch.testing.assert_close(walls.mean(0), given[:, 0].mean(0), atol=0.015, rtol=0)
    flat = walls.flatten(1)
    assert (flat.T.corrcoef().nan_to_num().fill_diagonal_(0).abs() < 0.04).all()  # independent


def test_ends_are_drawn_on_free_cells_as_often_as_they_are_there() -> None:
    given = torch.zeros(6, 4, 2, 2)  # two ways to face
    for image, (heading, start, goal) in zip(
        given, [(0, 0, 1), (0, 0, 1), (1, 0, 3), (1, 2, 3), (0, 1, 0), (0, 1, 3)], strict=True
    ):
        image[1 + heading].view(-1)[start] = image[3].view(-1)[goal] = 1
    walls = torch.zeros(40_000, 2, 2)
    walls[:, 1, 0] = 1  # cell 2
    maps = drawn_ends(given, walls, rng())
    goals, free = {0: 2.0, 1: 3.0, 3: 4.0}, (0, 1, 3)
    starts = {(0, 0): 3.0, (0, 1): 3.0, (0, 3): 1.0, (1, 0): 2.0, (1, 1): 1.0, (1, 3): 1.0}
    for goal in free:
        at_goal = maps[:, 3].flatten(1)[:, goal] == 1
        assert at_goal.float().mean() == pytest.approx(goals[goal] / 9, abs=0.01)
        possible = {place: n for place, n in starts.items() if place[1] != goal}
        for (heading, cell), n in possible.items():
            share = maps[at_goal][:, 1 + heading].flatten(1)[:, cell].mean()
            assert share == pytest.approx(n / sum(possible.values()), abs=0.015)
    assert (maps[:, 1:3].sum((1, 2, 3)) == 1).all() and torch.equal(maps[:, 0], walls)


@pytest.mark.parametrize("make", [Maze, FacingMaze])
def test_maps_of_tiles_are_valid_and_new(make: type[Maze]) -> None:
    env = with_given(make(1, size=5, target="perfect"), 40)
    levels = tiles(500, here(env), None)
    assert levels.shape == (500, env.level_space.shape[0])
    assert env.valid(levels).all()
    assert len(rows(levels) - rows(given_levels(env))) > 250
    # Where every given map has no wall, no map has one.
    never = given_maps(env)[:, 0].mean(0) == 0
    assert never.any() and not (levels.view(-1, *env.level_shape)[:, 0][:, never] > 0.5).any()


def test_new_ends_leave_the_walls_but_where_they_stand() -> None:
    env = with_given(perfect(), 10)
    levels = given_levels(env)[torch.arange(300) % 10]
    fresh = with_new_ends(levels, env, rng())
    assert torch.equal(fresh.view(-1, 3, 25)[:, 0], levels.view(-1, 3, 25)[:, 0])
    assert env.valid(fresh).all()  # any two free cells of a perfect maze are joined
    assert len(rows(fresh)) > 150


@pytest.mark.parametrize("env", [perfect(), PointMass(1, dim=4)], ids=repr)
def test_edits_are_near_a_given_level(env: Any) -> None:
    with_given(env, 8)
    box = UnitBox.of(env.level_space)
    levels = TargetEdits(edit=0.1)(400, here(env), None)
    assert env.valid(levels).all()
    apart = torch.cdist(box.to_unit(levels), box.to_unit(given_levels(env))).min(dim=1).values
    assert 0 < apart.mean() < 4 * 0.2 * box.dim**0.5
    assert len(rows(levels)) > 100


def played(levels: Tensor) -> FinishedEpisodes:
    n = len(levels)
    yes, numbers = torch.ones(n, dtype=torch.bool), torch.rand(n, generator=rng())
    return FinishedEpisodes(levels, yes, yes, yes, numbers, numbers, numbers / 2, numbers)


@pytest.mark.parametrize("arm", [PrioritizedLevelReplay, EditedLevelReplay])
def test_replay_begins_when_the_few_given_levels_are_known(arm: Any) -> None:
    env = with_given(MountainCar(1), [[-0.5, 0.0], [-0.4, 0.01], [-0.6, -0.01], [-0.5, 0.0]])
    replay, context = arm(), here(env)
    context.no_levels = lambda: torch.zeros(0, 2)
    replay.record(played(given_levels(env)[:2]))
    assert len(replay(10, context, None)) == 0
    replay.record(played(given_levels(env)))
    levels = replay(200, context, None)
    assert levels.shape == (200, 2) and env.valid(levels).all()
    if arm is PrioritizedLevelReplay:
        assert rows(levels) == rows(given_levels(env))


class Trained:
    """A teacher whose GAN knows nothing, but was trained."""

    gan_updates = updates = 1

    def __init__(self, env: Any) -> None:
        self.env = env

    def generate_levels(self, n: int) -> Tensor:
        return self.env.reference_levels(1, rng()).expand(n, -1)

    def success_probability(self, levels: Tensor) -> Tensor:
        return torch.full((len(levels),), 0.5)


def curriculum_of(env: Any, **changes: Any) -> Curriculum:
    curriculum = Curriculum(
        env, Archive(env.level_space.shape[0], tried=64, visited=64), {"gan": 1.0},
        novelty_exponent=0.5, min_outcomes=2, rng=rng(1), **changes,
    )  # fmt: skip
    curriculum.archive.add_outcomes(env.reference_levels(8, rng()), torch.ones(8))
    return curriculum


def test_a_collapsed_generator_is_played_from_many_starts_to_many_goals() -> None:
    env = with_given(perfect(), 12)
    same = curriculum_of(env, proposals="valid").propose(cast(Any, Trained(env)), 200)
    assert len(rows(same)) == 1
    redrawn = curriculum_of(env, proposals="redrawn").propose(cast(Any, Trained(env)), 200)
    assert env.valid(redrawn).all()
    assert len(rows(redrawn.view(-1, 3, 25)[:, 0])) == 1 and len(rows(redrawn)) > 60


def test_target_levels_are_reals_seen_from_all_sides() -> None:
    env = with_given(perfect(), 5)
    batch = curriculum_of(env).gan_batch(
        (4, 64), "target", 0.0, cast(Any, Trained(env)), rng(), symmetries=True, noise=0.25
    )
    assert rows(batch.real.flatten(0, 1)) == rows(given_levels(env))
    assert batch.places is not None and batch.noise is not None
    assert len(rows(batch.places.flatten(0, 1))) == 8
    assert batch.noise.std() == pytest.approx(0.5, rel=0.02)
    plain = curriculum_of(env).gan_batch((4, 64), "target", 0.0, cast(Any, Trained(env)), rng())
    assert plain.places is None and plain.noise is None
    assert torch.equal(plain.real, batch.real)  # they are drawn first


@pytest.mark.parametrize(
    ("arm", "env", "message"),
    [
        ("edits", MountainCar(1), r"makes levels from given ones: give data\.given"),
        ("tiles", with_given(PointMass(1), 4), "makes maps, but the levels of PointMass are vec"),
        ("gaussian", with_given(perfect(), 4), "makes vectors, but the levels of Maze are maps"),
        ("symmetries", with_given(PointMass(1), 4), "PointMass declares no symmetries"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_what_an_arm_needs_is_said(arm: Any, env: Any, message: str) -> None:
    assert callable(custom_source(arm))
    with pytest.raises(ConfigError, match=message) as refusal:
        check_environment(arm, needs_of(arm), env)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("reals", "proposals", "symmetric", "env", "message"),
    [
        ("frontier", "redrawn", False, perfect(), r"is redrawn, .*: give data\.given"),
        ("frontier", "redrawn", False, with_given(PointMass(1), 4), "an environment of maps"),
        ("target", "valid", True, with_given(PointMass(1), 4), "declares no symmetries"),
    ],
    ids=lambda given: str(given) if isinstance(given, str | bool) else type(given).__name__,
)
def test_what_the_gan_needs_is_said(
    reals: str, proposals: str, symmetric: bool, env: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_reals(reals, proposals, symmetric, env, rng())
    check_reals("target", "redrawn", True, with_given(perfect(), 4), rng())
