"""What worlds learn and imagine, against tasks whose answers are known."""

import copy

import pytest
import torch
from torch import Tensor
from worlds import steps, train, train_recorded

from lit_crl.world.batch import RealSteps
from lit_crl.world.interface import World
from lit_crl.world.settings import WorldLoss, WorldSettings
from lit_crl.world.transition_gan import TransitionGan, of_drawn_members

LOSSES: tuple[WorldLoss, ...] = ("gan", "gan_reconstruction", "likelihood")


def world_of(obs_dim: int, num_actions: int, **settings: object) -> TransitionGan:
    torch.manual_seed(0)
    small = {"loss": "gan_reconstruction", "members": 3, "hidden": (32, 32), "head_hidden": (32,)}
    return TransitionGan(obs_dim, num_actions, WorldSettings(**small | settings))  # type: ignore[arg-type]


def real_steps(obs: Tensor, next_obs: Tensor, **fields: Tensor) -> RealSteps:
    n = len(obs)
    no, zero = torch.zeros(n, dtype=torch.bool), torch.zeros(n)
    given = {"action": no.long(), "reward": zero, "terminated": no, "learns_next": ~no} | fields
    return RealSteps(obs=obs, next_obs=next_obs, **given)


# What is learnt


@pytest.fixture(scope="module", params=LOSSES)
def trained(request: pytest.FixtureRequest) -> tuple[TransitionGan, RealSteps]:
    """A world of the mountain car, and steps that it has not seen."""
    rng = torch.Generator().manual_seed(1)
    settings = WorldSettings(loss=request.param, members=3, hidden=(64, 64), head_hidden=(64, 64))
    torch.manual_seed(0)
    world, rows = TransitionGan(2, 3, settings), steps(4000, rng)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    train_recorded(world, settings, rows, 500, rng)
    world.fit_disagreement(rows.obs[:1000], rows.action[:1000])
    return world, steps(4000, rng)


def test_one_step_ahead_is_near_what_follows(trained: tuple[TransitionGan, RealSteps]) -> None:
    """In units of the changes' spread; who says that nothing moves is wrong by .75 and more."""
    world, rows = trained
    imagined = world.imagine(rows.obs, rows.action, torch.Generator().manual_seed(2))
    error = ((imagined.next_obs - rows.next_obs) / world.delta_scale).abs().median(0).values
    assert (error < 0.2).all()
    assert (imagined.reward == -1).all()


def test_rare_ends_are_told_apart_and_come_as_often_as_they_do(
    trained: tuple[TransitionGan, RealSteps],
) -> None:
    world, rows = trained
    _, end = world.judge(rows.obs, rows.action, rows.next_obs)
    rate = rows.terminated.float().mean()
    assert 0.005 < rate < 0.02
    assert rate / 3 < end.mean() < 3 * rate
    imagined = world.imagine(rows.obs, rows.action, torch.Generator().manual_seed(2))
    _, imagined_end = world.judge(rows.obs, rows.action, imagined.next_obs)
    assert rate / 3 < imagined_end.mean() < 3 * rate
    others = end[~rows.terminated].quantile(0.99)
    assert (end[rows.terminated] > others).float().mean() > 0.9


def test_members_are_further_apart_far_from_the_data(
    trained: tuple[TransitionGan, RealSteps],
) -> None:
    world, rows = trained
    near = world.disagreement(rows.obs, rows.action).mean()
    beyond = rows.obs + torch.tensor([1.8, 0.15])
    assert 0.7 < near < 1.4  # in units of the mean on real steps
    assert world.disagreement(beyond, rows.action).mean() > 3 * near


def test_a_gan_imagines_both_outcomes_and_the_mean_of_a_likelihood_is_neither() -> None:
    """One step up or one down, as a fair coin falls. Of N(0, 1), 38 % lie within ½ of 0."""
    rng = torch.Generator().manual_seed(3)
    obs = torch.randint(-2, 3, (1000, 1), generator=rng).float()
    rows = real_steps(obs, obs + 2 * torch.randint(2, (1000, 1), generator=rng) - 1)
    between = {}
    for loss, sizes in (("gan", {"noise_dim": 1}), ("likelihood", {})):
        settings = WorldSettings(loss=loss, members=1, hidden=(64, 64), head_hidden=(8,), **sizes)
        torch.manual_seed(0)
        world = TransitionGan(1, 1, settings)
        world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
        train_recorded(world, settings, rows, 700 if loss == "gan" else 300, rng, size=128)
        change = world.imagine(rows.obs, rows.action, rng).next_obs - rows.obs
        assert 0.4 < (change > 0).float().mean() < 0.6
        between[loss] = (change.abs() < 0.5).float().mean().item()
        if loss == "likelihood":
            centre = world.generators.centre(world.condition(rows.obs, rows.action))
            assert centre.abs().max() < 0.4  # no step leads there
    assert between["gan"] < 0.2
    assert between["likelihood"] > 0.3


@pytest.mark.parametrize("loss", ["gan_reconstruction", "likelihood"])
def test_bits_are_imagined_as_bits(loss: WorldLoss) -> None:
    """One-hot places on a ring; the action says which way."""
    rng = torch.Generator().manual_seed(4)
    place, action = (
        torch.randint(6, (1500,), generator=rng),
        torch.randint(2, (1500,), generator=rng),
    )
    hot = torch.eye(6)
    rows = real_steps(hot[place], hot[(place + 2 * action - 1) % 6], action=action)
    settings = WorldSettings(loss=loss, members=2, hidden=(64, 64), head_hidden=(8,))
    torch.manual_seed(0)
    world = TransitionGan(6, 2, settings, binary=True)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    train_recorded(world, settings, rows, 300, rng)
    imagined = world.imagine(rows.obs, rows.action, rng).next_obs
    right = (imagined == rows.next_obs).all(1).float().mean()
    assert set(imagined.unique().tolist()) == {0.0, 1.0}
    assert right > 0.9


def test_a_reward_that_comes_once_in_two_hundred_steps_is_promised_nowhere_else() -> None:
    """A goal pays 1. Over 1,000 other steps, the heads promise less than a third of it in all.

    Heads that learn by squared error promise 1.4 to 7.5 here.
    """
    rng = torch.Generator().manual_seed(14)
    obs = torch.rand(1000, 2, generator=rng)
    pays = obs[:, 0] > 0.995
    assert 2 <= pays.sum() <= 10
    rows = real_steps(obs, obs + 0.1, reward=pays.float())._replace(terminated=pays)
    settings = WorldSettings(loss="likelihood", members=2, hidden=(8,), head_hidden=(32, 32))
    torch.manual_seed(0)
    world = TransitionGan(2, 1, settings)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    train_recorded(world, settings, rows, 1000, rng)
    known, _ = world.judge(rows.obs, rows.action, rows.next_obs)
    assert known[pays].mean() > 0.5
    others = torch.rand(1000, 2, generator=rng) * torch.tensor([0.9, 1.0])
    promised, _ = world.judge(others, rows.action, others + 0.1)
    assert promised.abs().sum() < 0.33


def test_as_many_ends_are_expected_as_came() -> None:
    """Whatever the heads' log odds are, and however many steps each row stands for."""
    rng = torch.Generator().manual_seed(15)
    rows, world = steps(500, rng), world_of(2, 3)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    ended = torch.arange(500) < 5
    weight = torch.where(ended, 1.0, 4.0)
    world.fit_ends(rows.obs, rows.action, rows.next_obs, weight, ended)
    _, end = world.predict(rows.obs, rows.action, rows.next_obs)
    assert (weight * end).sum().item() == pytest.approx(5, rel=1e-3)
    before = world.heads(
        world.condition(rows.obs, rows.action), world.target(rows.obs, rows.next_obs)
    )[1]
    assert world.end_shift.unique().numel() == 3 and before.isfinite().all()
    world.fit_ends(rows.obs, rows.action, rows.next_obs, weight, ~ended & ended)
    assert not world.end_shift.any()  # none came: nothing is known


def test_rewards_are_learnt_in_any_unit_and_stay_within_those_seen() -> None:
    """Reward 1,000 · x: the heads learn it in units of the largest."""
    rng = torch.Generator().manual_seed(5)
    obs = torch.rand(1000, 2, generator=rng)
    rows = real_steps(obs, obs + 0.1, reward=1000 * obs[:, 0])
    settings = WorldSettings(loss="likelihood", members=2, hidden=(8,), head_hidden=(32, 32))
    torch.manual_seed(0)
    world = TransitionGan(2, 1, settings)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    train_recorded(world, settings, rows, 300, rng)
    reward, _ = world.judge(rows.obs, rows.action, rows.next_obs)
    assert (reward - rows.reward).square().mean().sqrt() < 50
    far, _ = world.judge(50 * rows.obs, rows.action, rows.next_obs)
    assert far.min() >= rows.reward.min() and far.max() <= rows.reward.max()


# Units


def test_units_are_the_statistics_of_what_is_given() -> None:
    rng = torch.Generator().manual_seed(6)
    obs, delta = torch.randn(50, 2, generator=rng), torch.randn(50, 2, generator=rng)
    world = world_of(2, 2)
    world.fit_normaliser(obs, delta[:, 0], obs + delta)
    for axis in range(2):
        column = obs[:, axis].tolist()
        mean = sum(column) / 50
        std = (sum((x - mean) ** 2 for x in column) / 50) ** 0.5
        scale = (sum(x**2 for x in delta[:, axis].tolist()) / 50) ** 0.5
        after = (obs + delta)[:, axis].tolist()
        margin = (max(after) - min(after)) / 4
        found = (world.obs_mean, world.obs_std, world.delta_scale, world.obs_low, world.obs_high)
        expected = (mean, std, scale, min(after) - margin, max(after) + margin)
        for buffer, number in zip(found, expected, strict=True):
            assert buffer[axis].item() == pytest.approx(number, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_constant_narrow_and_distant_dimensions_are_fine(loss: WorldLoss) -> None:
    rng = torch.Generator().manual_seed(7)
    columns = torch.rand(400, 4, generator=rng) * torch.tensor([0.0, 1e-4, 10.0, 0.0])
    obs = columns + torch.tensor([0.3, 0.0, 1e6, 1e6])
    next_obs = obs + torch.tensor([0.0, 1e-5, 1.0, 0.0])
    rows = real_steps(obs, next_obs)
    settings = WorldSettings(loss=loss, members=2, hidden=(16,), head_hidden=(8,))
    world = TransitionGan(4, 1, settings)
    world.fit_normaliser(obs, rows.reward, next_obs)
    train(world, settings, rows, 20, rng)
    world.fit_disagreement(obs, rows.action)
    imagined = world.imagine(obs, rows.action, rng)
    for field in (*imagined, *world.state_dict().values()):
        assert field.isfinite().all()
    assert torch.equal(imagined.next_obs[:, [0, 3]], obs[:, [0, 3]])


def test_new_units_do_not_move_what_is_imagined() -> None:
    """The same observations, but changes of another size."""
    rng = torch.Generator().manual_seed(8)
    obs, delta = torch.randn(100, 2, generator=rng), torch.randn(100, 2, generator=rng)
    world, action = world_of(2, 2), torch.zeros(100, dtype=torch.int64)
    world.fit_normaliser(obs, delta[:, 0], obs + delta)
    z = world.draw_noise(100, rng=rng)

    def changes() -> Tensor:
        return world.delta_scale * world.generators(world.condition(obs, action), z)

    before = changes()
    scale = world.delta_scale.clone()
    world.fit_normaliser(obs, delta[:, 0], obs + delta * torch.tensor([2.0, 0.1]))
    torch.testing.assert_close(world.delta_scale, scale * torch.tensor([2.0, 0.1]))
    torch.testing.assert_close(changes(), before, rtol=1e-4, atol=1e-5)


def test_imagining_and_updates_leave_the_units_as_they_are() -> None:
    rng = torch.Generator().manual_seed(9)
    settings = WorldSettings("gan_reconstruction", members=2, hidden=(8,), head_hidden=(8,))
    world, rows = TransitionGan(2, 3, settings), steps(200, rng)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    world.fit_disagreement(rows.obs, rows.action)
    units = {name: buffer.clone() for name, buffer in world.named_buffers()}
    train(world, settings, rows, 2, rng, size=8)
    imagined = world.imagine(rows.obs, rows.action, rng)
    world.imagine(imagined.next_obs, rows.action, rng)
    assert len(units) == 11
    for name, buffer in world.named_buffers():
        assert torch.equal(buffer, units[name]), name


def test_an_untrained_world_knows_no_novelty_and_members_that_agree_give_none() -> None:
    rng = torch.Generator().manual_seed(10)
    rows, world = steps(50, rng), world_of(2, 3)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    assert not world.disagreement(rows.obs, rows.action).any()
    with torch.no_grad():
        for parameter in world.generators.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter).clone())
    world.fit_disagreement(rows.obs, rows.action)
    assert not world.disagreement(rows.obs, rows.action).any()


# What is imagined


def test_each_row_gets_the_draw_of_one_member_and_each_member_as_many() -> None:
    world, rng = world_of(2, 3), torch.Generator().manual_seed(11)
    condition, z = torch.randn(3001, 5, generator=rng), torch.randn(3001, 4, generator=rng)
    every = world.generators(condition, z)
    drawn = of_drawn_members(world.generators, condition, z, rng)
    is_of = torch.isclose(every, drawn, atol=1e-5).all(-1)
    assert (is_of.sum(0) == 1).all()
    assert (is_of.sum(1) - 1000).abs().max() <= 1


@pytest.mark.parametrize("n", [1, 2, 4])
def test_members_are_drawn_alike_for_few_rows(n: int) -> None:
    world, rng = world_of(2, 3), torch.Generator().manual_seed(12)
    condition, z = torch.randn(n, 5, generator=rng), torch.randn(n, 4, generator=rng)
    every, counts = world.generators(condition, z), torch.zeros(3, n)
    for _ in range(600):
        drawn = of_drawn_members(world.generators, condition, z, rng)
        counts += torch.isclose(every, drawn, atol=1e-5).all(-1)
    assert (counts - 200).abs().max() < 5 * (600 * 2 / 9) ** 0.5  # five standard deviations


def test_imagined_observations_stay_near_the_real_ones_and_ends_come_by_chance() -> None:
    rng = torch.Generator().manual_seed(13)
    rows, world = steps(4000, rng), world_of(2, 3)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    with torch.no_grad():
        world.generators.network.biases[-1].fill_(1e6)  # type: ignore[operator]
        for parameter in world.heads.end.parameters():
            parameter.zero_()
        world.heads.end.biases[-1].fill_(-1.0986)  # odds 1 : 3
    imagined = world.imagine(rows.obs, rows.action, rng)
    assert torch.equal(imagined.next_obs, world.obs_high.expand(4000, -1))
    assert imagined.terminated.dtype == torch.bool
    assert imagined.terminated.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_a_row_is_told_the_same_whichever_rows_are_asked_about_with_it() -> None:
    """Members are asked in parts: 1,100 rows are three of them, the last one short."""
    world, n, rng = world_of(2, 3), 1_100, torch.Generator().manual_seed(4)
    obs, after, other = (torch.randn(n, 2, generator=rng) for _ in range(3))
    action = torch.randint(3, (n,), generator=rng)
    world.fit_normaliser(obs, torch.arange(n) % 3, after)
    world.fit_disagreement(obs, action)
    told = (*world.predict(obs, action, other), world.disagreement(obs, action))
    for row in (0, 511, 512, 1_024, n - 1):
        one = obs[row : row + 1], action[row : row + 1]
        alone = (*world.predict(*one, other[row : row + 1]), world.disagreement(*one))
        for whole, single in zip(told, alone, strict=True):
            torch.testing.assert_close(whole[row : row + 1], single)


def test_a_restored_world_imagines_the_same() -> None:
    rng = torch.Generator().manual_seed(14)
    settings = WorldSettings("gan_reconstruction", members=2, hidden=(8,), head_hidden=(8,))
    world, rows = TransitionGan(2, 3, settings), steps(200, rng)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    train(world, settings, rows, 3, rng, size=8)
    world.fit_disagreement(rows.obs, rows.action)
    restored = TransitionGan(2, 3, settings)
    restored.load_state_dict(copy.deepcopy(world.state_dict()))
    both: tuple[World, World] = world, restored
    first, second = (
        one.imagine(rows.obs, rows.action, torch.Generator().manual_seed(1)) for one in both
    )
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_what_is_imagined_is_in_float32_under_mixed_precision() -> None:
    rng = torch.Generator().manual_seed(15)
    rows, world = steps(50, rng), world_of(2, 3)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    world.fit_disagreement(rows.obs, rows.action)
    plain = world.imagine(rows.obs, rows.action, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = world.imagine(rows.obs, rows.action, torch.Generator().manual_seed(1))
    for one, other in zip(plain, mixed, strict=True):
        assert torch.equal(one, other)
