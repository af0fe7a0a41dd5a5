"""The GAN's networks for levels that are maps of tiles."""

import pytest
import torch
from conftest import learner_settings
from gymnasium.spaces import Box
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from lit_crl import CreativeLearner
from lit_crl.dqn.networks import QNetwork
from lit_crl.envs import Maze
from lit_crl.envs.images import ImageSpace
from lit_crl.envs.mazes.layouts import perfect_layouts
from lit_crl.envs.mazes.shortest_paths import distances
from lit_crl.gan.equations import success_loss
from lit_crl.gan.map_networks import (
    GridDiscriminator,
    GridGenerator,
    MazeSuccessHead,
    edited,
    path_lengths,
    tiles,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maze_learner(**changes: object) -> tuple[CreativeLearner, Maze]:
    torch.manual_seed(0)
    env = Maze(4, size=7)
    settings = {"hidden": (16,), "gan_hidden": (16,), **changes}
    return CreativeLearner(**learner_settings(**settings)).build(env), env


def test_generated_maps_have_one_start_and_one_goal_on_free_cells() -> None:
    torch.manual_seed(0)
    generator = GridGenerator((3, 6, 5), 16)
    levels = generator(10 * torch.randn(500, 16, generator=rng()))
    assert set(levels.unique().tolist()) == {-1, 1}
    walls, start, goal = ((levels.detach().view(-1, 3, 30) + 1) / 2).unbind(1)
    assert (start.sum(dim=1) == 1).all() and (goal.sum(dim=1) == 1).all()
    for one, other in ((start, goal), (start, walls), (goal, walls)):
        assert not (one * other).any()
    assert 0 < walls.mean() < 1


def test_all_generated_mazes_can_be_solved() -> None:
    learner, env = maze_learner()
    z = learner.draw_noise(300, rng())
    assert env.valid(learner.generate_levels(z)).all()


def test_a_start_is_where_the_goal_can_be_reached() -> None:
    logits = torch.randn(2_000, 3, 5, 5, generator=rng())
    logits[:, 0] += 0.5  # many walls
    maps = tiles(logits)
    env = Maze(1, size=5)
    solvable = env.optimal_steps(maps.flatten(1)).isfinite()
    walls, start, goal = (maps > 0.5).unbind(1)
    beside = torch.nn.functional.max_pool2d(goal.float(), (3, 1), 1, (1, 0))
    beside = beside.maximum(torch.nn.functional.max_pool2d(goal.float(), (1, 3), 1, (0, 1))) > 0
    # Where the start stands, a wall may have been before: beside a goal that was walled in.
    walled_in = (walls | ~beside | goal | start).flatten(1).all(dim=1)
    assert solvable[~walled_in].all()
    assert 0.5 < solvable.float().mean() < 1
    # Among those cells it is the likeliest one.
    here = distances(walls, goal).isfinite() & ~goal
    likeliest = logits[:, 1].masked_fill(~here, -torch.inf).flatten(1).argmax(dim=1)
    near = distances(walls, goal).masked_fill(~here, 0).flatten(1).amax(dim=1) < 12
    chosen = start.flatten(1).float().argmax(dim=1)
    assert torch.equal(
        chosen[solvable & ~walled_in & near], likeliest[solvable & ~walled_in & near]
    )


def test_a_gradient_reaches_every_kind_of_tile() -> None:
    logits = torch.randn(4, 3, 5, 5, generator=rng(), requires_grad=True)
    weight = torch.randn(4, 3, 5, 5, generator=rng(1))
    (gradient,) = torch.autograd.grad((tiles(logits) * weight).sum(), logits)
    assert (gradient.flatten(2).norm(dim=2) > 0).all()
    # A wall that costs is made less likely, unless start or goal stand there.
    free = tiles(logits).detach()[:, 1:].sum(dim=1) == 0
    assert torch.equal(gradient[:, 0].sign()[free], weight[:, 0].sign()[free])
    assert (gradient[:, 0][~free] == 0).all()


def test_a_share_of_the_tiles_is_edited() -> None:
    maps = Maze(1, size=13).maps(Maze(1, size=13).reference_levels(400, rng()))
    changed = edited(maps, 0.1, rng())
    assert torch.equal(changed[:, 1:], maps[:, 1:])
    differs = changed[:, 0] != maps[:, 0]
    is_end = maps[:, 1:].sum(dim=1) > 0
    assert not differs[is_end].any()
    assert differs[~is_end].float().mean() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(edited(maps, 0.0, rng()), maps)


def test_a_judgement_can_depend_on_every_tile() -> None:
    torch.manual_seed(0)
    judge = GridDiscriminator((3, 7, 7), (16,))
    level = torch.randn(5, 147, generator=rng(), requires_grad=True)
    for logit, blind in ((judge(level), 0), (judge.success_logit(level), 1)):
        assert logit.shape == (5,)
        (gradient,) = torch.autograd.grad(logit.sum(), level)
        # p̂ counts the goal's rows and columns from its first cell.
        assert (gradient.abs().sum(dim=0) == 0).sum() == blind


@pytest.mark.parametrize("size", [3, 6, 7])
def test_ways_are_as_long_as_a_search_finds_them(size: int) -> None:
    env = Maze(1, size=size)
    maps = env.maps(torch.cat([env.reference_levels(200, rng()), env.target_levels(200, rng(1))]))
    walls, _, goal = (maps > 0.5).unbind(1)
    most = size * size // 2
    expected = distances(walls, goal).clamp(max=most)
    assert torch.equal(path_lengths(*maps[:, [0, 2]].unbind(1)), expected)
    assert (expected == most).any() and (expected == 1).any()


def test_p_hat_of_mazes_learns_how_long_a_way_the_policy_goes() -> None:
    torch.manual_seed(0)
    env, judge = Maze(1, size=7), MazeSuccessHead((3, 7, 7), 32)

    def outcomes(seed: int) -> tuple[Tensor, Tensor]:
        """As of a policy that finds goals less than six moves off."""
        levels = env.reference_levels(200, rng(seed))
        return 2 * levels - 1, (env.optimal_steps(levels) < 6).float()

    optimizer = torch.optim.Adam(judge.parameters(), lr=5e-4, betas=(0.0, 0.99))
    levels, success = outcomes(0)
    for _ in range(600):
        loss = success_loss(judge(levels)[:, 0], success)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen, theirs = outcomes(1)
    assert binary_auroc(judge(unseen)[:, 0], theirs.long()) > 0.95
    # Elsewhere, too: these ways are twice as long.
    perfect = 2 * env.levels_of(perfect_layouts(200, 7, rng(2)), rng()) - 1
    far = env.optimal_steps((perfect + 1) / 2) >= 6
    assert (torch.sigmoid(judge(perfect))[far] < 0.5).float().mean() > 0.9


def test_the_challenge_moves_the_start_along_the_way() -> None:
    # A corridor of five cells with the goal at its left end.
    maps = torch.zeros(1, 3, 1, 5)
    maps[0, 2, 0, 0] = maps[0, 1, 0, 2] = 1
    judge = MazeSuccessHead((3, 1, 5), 4)
    torch.nn.init.ones_(judge.judge[0].weight)
    torch.nn.init.ones_(judge.judge[2].weight)
    level = (2 * maps - 1).flatten(1).requires_grad_()
    (gradient,) = torch.autograd.grad(judge(level).sum(), level)
    # Lengths 0, 1, 2, 2, 2 (half the cells at most), in tens; apart weighs nothing off the way.
    along = gradient.view(3, 5)[1]
    assert along[0] < along[1] < along[2]


def test_bytes_are_scaled_by_their_brightest_value() -> None:
    torch.manual_seed(0)
    one = QNetwork(ImageSpace(Box(0, 1, (2, 7, 7), "uint8"), "CHW"), 4, hidden=(8,))
    torch.manual_seed(0)
    other = QNetwork(ImageSpace(Box(0, 255, (2, 7, 7), "uint8"), "CHW"), 4, hidden=(8,))
    image = torch.randint(2, (3, 2, 7, 7), generator=rng()).byte()
    assert torch.equal(one(image), other(255 * image))
