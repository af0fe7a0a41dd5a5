"""Worlds of maps of bits: which they are, that they learn, and that they draw whole things."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor
from torch.optim import Adam
from worlds import train

from lit_crl.core.checks import ConfigError
from lit_crl.envs.images import ImageLayout, ImageSpace
from lit_crl.world.batch import RealSteps
from lit_crl.world.making import world_of
from lit_crl.world.map_gan import MapGan
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan

SIDE = 5
SPACE = ImageSpace(Box(0, 1, (SIDE, SIDE, 2), np.uint8), "HWC")


def fast(params: Any) -> Adam:
    return Adam(params, lr=5e-3, betas=(0.5, 0.99))


def small(loss: str, **settings: Any) -> WorldSettings:
    small = {"members": 2, "head_hidden": (16,)} | (
        {} if loss == "likelihood" else {"r1": 0.01, "r2": 0.0}
    )
    optimizers = {"generator_optimizer": fast, "discriminator_optimizer": fast}
    return WorldSettings(**{"loss": loss, **small, **optimizers, **settings})


def dots(n: int, rng: torch.Generator, sticky: float = 0.0) -> RealSteps:
    """A dot that moves left or right along its row as far as there is room, beside a map of a wall.

    With probability ``sticky`` it stays. A step that ends in the last column pays 1; one that
    begins there ends the task.
    """
    place = torch.randint(SIDE * SIDE, (n,), generator=rng)
    row, column = place // SIDE, place % SIDE
    action = torch.randint(2, (n,), generator=rng)
    stays = torch.rand(n, generator=rng) < sticky
    after = torch.where(stays, column, (column + 2 * action - 1).clamp(0, SIDE - 1))

    def shown(at: Tensor) -> Tensor:
        obs = torch.zeros(n, SIDE, SIDE, 2, dtype=torch.uint8)
        obs[:, 0, :, 1] = 1
        obs[torch.arange(n), row, at, 0] = 1
        return obs

    reward, end = (after == SIDE - 1).float(), column == SIDE - 1
    return RealSteps(shown(column), action, reward, end, shown(after), ~end)


def trained(loss: str, updates: int, sticky: float = 0.0) -> tuple[TransitionGan, RealSteps]:
    torch.manual_seed(0)
    rng, settings = torch.Generator().manual_seed(0), small(loss)
    world, rows = world_of(SPACE, 2, settings), dots(2000, rng, sticky)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    train(world, settings, rows, updates, rng, size=32, extra=8)
    return world, rows


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((4, 6, 3), "HWC"), ((3, 4, 6), "CHW"), ((4, 6), "HW"), ((2, 4, 6, 3), "HWC")],
)
def test_targets_say_what_changes_in_any_layout(
    shape: tuple[int, ...], layout: ImageLayout
) -> None:
    space = ImageSpace(Box(0, 1, shape, np.uint8), layout)
    world = world_of(space, 2, small("likelihood"))
    assert isinstance(world, MapGan)
    rng = torch.Generator().manual_seed(0)
    obs, after = torch.randint(2, (2, 3, 7, *shape), generator=rng, dtype=torch.uint8)
    target = world.target(obs, after)
    assert target.shape == (3, 7, np.prod(shape)) and target.sum() == (obs != after).sum()
    assert torch.equal(world.next_obs(obs, target), after.float())
    condition = world.condition(obs, torch.ones(3, 7, dtype=torch.int64))
    assert condition[..., -2:].eq(torch.tensor([0.0, 1.0])).all()
    maps = condition[0, 0, :-2].view(space.image_shape)
    one = obs[0, 0].float()
    if layout == "HWC":
        one = one.movedim(-1, -3)
    assert torch.equal(maps, one.reshape(space.image_shape))


@pytest.mark.parametrize(
    "loss", ["gan", pytest.param("gan_reconstruction", marks=pytest.mark.slow), "likelihood"]
)
def test_each_loss_learns_what_follows_what_it_pays_and_where_it_ends(loss: str) -> None:
    world, rows = trained(loss, 200)
    going = rows.learns_next
    obs, action, after = rows.obs[going], rows.action[going], rows.next_obs[going]
    drawn = world.draw_next(obs, action, torch.Generator().manual_seed(1))
    assert (drawn == after).flatten(1).all(1).float().mean() > 0.9
    assert world.one_step_error(obs, action, after) < 0.35
    reward, end = world.predict(rows.obs, rows.action, rows.next_obs)
    assert (reward - rows.reward).abs().mean() < 0.05
    assert ((end > 0.5) == rows.terminated).float().mean() > 0.99


def test_what_happens_together_is_drawn_together() -> None:
    """Where the dot stays every other time, independent bits would draw one dot half the time."""
    world, rows = trained("likelihood", 400, sticky=0.5)
    middle = (rows.obs[..., 1:-1, 0].sum((1, 2)) == 1) & rows.learns_next
    obs, action = rows.obs[middle], rows.action[middle]
    drawn = world.draw_next(obs, action, torch.Generator().manual_seed(1))
    assert (drawn[..., 0].sum((1, 2)) == 1).float().mean() > 0.9
    moved = (drawn != obs).flatten(1).any(1).float().mean()
    assert 0.35 < moved < 0.65


@pytest.mark.parametrize("loss", ["gan", "likelihood"])
def test_what_is_seen_at_an_end_is_learnt_too(loss: str) -> None:
    torch.manual_seed(0)
    rng, settings = torch.Generator().manual_seed(0), small(loss)
    rows = dots(50, rng)
    ends = torch.ones_like(rows.terminated)
    world = world_of(SPACE, 2, settings)
    before = [weights.clone() for weights in world.generators.parameters()]
    train(world, settings, rows._replace(terminated=ends, learns_next=~ends), 1, rng, size=8)
    for old, new in zip(before, world.generators.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_imagined_maps_are_bits_and_a_restored_world_imagines_the_same() -> None:
    world, rows = trained("gan", 5)
    world.fit_disagreement(rows.obs, rows.action)
    again = world_of(SPACE, 2, small("gan"))
    again.load_state_dict(world.state_dict())
    one, other = (
        each.imagine(rows.obs, rows.action, torch.Generator().manual_seed(2))
        for each in (world, again)
    )
    assert one.next_obs.shape == rows.obs.shape
    assert set(one.next_obs.unique().tolist()) == {0.0, 1.0}
    assert one.disagreement.isfinite().all() and one.disagreement.mean() > 0
    for mine, restored in zip(one, other, strict=True):
        assert torch.equal(mine, restored)


def test_images_that_are_no_maps_of_bits_are_refused() -> None:
    grey = ImageSpace(Box(0, 255, (84, 84), np.uint8), "HW")
    with pytest.raises(ConfigError, match="no vectors and no maps of bits, which a world needs"):
        world_of(grey, 2, small("gan"))


def test_widths_that_nothing_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.world\.hidden is .* leave it out"):
        world_of(SPACE, 2, small("likelihood", hidden=(8,)))
