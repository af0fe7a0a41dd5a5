"""What one update computes, against loops over its minibatch's rows.

The engine here descends in plain torch; ``test_compiled`` compares the package's two engines.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_crl.dqn import equations as dqn
from lit_crl.dqn.possible_returns import possible_returns
from lit_crl.dqn.settings import DqnSettings
from lit_crl.envs import MountainCar
from lit_crl.gan.batch import GanBatch
from lit_crl.gan.level_gan import LevelGan
from lit_crl.gan.settings import GanSettings
from lit_crl.training.batches import DqnMinibatch, GanMinibatch
from lit_crl.training.updates import TD_ERROR, dqn_update, gan_update


class GradientDescent:
    """Notes what is called, and in which order."""

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = rate
        self.loss: dict[nn.Module, Tensor] = {}
        self.gradient: dict[nn.Module, list[Tensor]] = {}
        self.calls: list[Any] = []

    def descend(
        self, network: nn.Module, loss: Callable[[], Any], norm: str, max_norm: float = math.inf
    ) -> dict[str, Tensor]:
        self.loss[network], report = loss()
        parameters = list(network.parameters())
        self.gradient[network] = list(torch.autograd.grad(self.loss[network], parameters))
        with torch.no_grad():
            for parameter, gradient in zip(parameters, self.gradient[network], strict=True):
                parameter.sub_(self.rate * gradient)
        self.calls.append((network, norm, max_norm))
        return report

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float) -> None:
        self.calls.append((slow, fast, rate))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["huber", "mse"])
def test_the_loss_of_a_dqn_update_equals_a_loop_over_its_rows(
    double: bool, kind: dqn.TDLoss, weighted: bool
) -> None:
    g = torch.Generator().manual_seed(4)
    online, target = nn.Linear(3, 4), nn.Linear(3, 4)
    with torch.no_grad():
        for weight in (*online.parameters(), *target.parameters()):
            weight.copy_(2 * torch.randn(weight.shape, generator=g))
    rows = 16
    obs, next_obs = torch.randn(2, rows, 3, generator=g)
    action = torch.randint(4, (rows,), generator=g)
    reward, discount = torch.randn(rows, generator=g), 0.9 * (torch.arange(rows) % 3 > 0)
    transitions = dqn.Transitions(obs, action, reward, discount, next_obs)
    importance = torch.rand(rows, generator=g) if weighted else None
    batch, engine = DqnMinibatch(transitions, importance), GradientDescent(rate=0.0)
    settings = DqnSettings(double=double, td_loss=kind, max_grad_norm=10.0)
    report = dqn_update(online, target, settings, engine, batch, 0.25)
    losses, taken_values = [], []
    for i in range(rows):
        values = target(next_obs[i]).tolist()
        selector = online(next_obs[i]).tolist() if double else values
        best = values[selector.index(max(selector))]
        taken = online(obs[i])[action[i]].item()
        taken_values.append(taken)
        error = reward[i].item() + discount[i].item() * best - taken
        if weighted:
            assert report[TD_ERROR][i].item() == pytest.approx(error, abs=1e-4)
        error = abs(error)
        square = error**2 if kind == "mse" else error**2 / 2
        row = square if kind == "mse" or error <= 1 else error - 0.5
        losses.append(row * (1 if importance is None else importance[i].item()))
    assert engine.loss[online].item() == pytest.approx(sum(losses) / rows, rel=1e-4)
    assert report["dqn/loss"] is engine.loss[online]
    assert report["dqn/q_mean"].item() == pytest.approx(sum(taken_values) / rows, rel=1e-4)
    assert (TD_ERROR in report) == weighted
    # The target network follows when the step has been made.
    assert engine.calls == [(online, "dqn/gradient_norm", 10.0), (target, online, 0.25)]


def test_targets_beyond_every_return_are_counted_and_clipped() -> None:
    """Rewards of ±1 at γ = ½ add up to ±2: 2.3 is more than a twentieth beyond it, 2.1 is not."""

    class Says(nn.Module):
        """The observation is the value."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, obs: Tensor) -> Tensor:
            return self.weight * obs

    next_values = torch.tensor([[2.6], [2.2], [0.0], [-6.4], [9.0]])
    rewards, discounts = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0]), 0.5 * torch.ones(5)
    discounts[4] = 0.0  # the task ends there: what follows has no value
    steps = dqn.Transitions(
        torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64), rewards, discounts, next_values
    )
    returns = possible_returns(torch.tensor([[-1.0, 1.0], [-1.0, -1.0]]), 0.5)
    assert returns.tolist() == [-2.0, 2.0]
    assert (rewards + discounts * next_values[:, 0]).tolist() == pytest.approx(
        [2.3, 2.1, 1.0, -2.2, -1.0]
    )
    for settings in (DqnSettings(double=True), DqnSettings(double=False)):
        batch = DqnMinibatch(steps, torch.ones(5), returns)
        report = dqn_update(Says(), Says(), settings, GradientDescent(), batch, 0.0)
        assert report["dqn/impossible_targets"].item() == pytest.approx(0.2)
        # The observation, and so the value, is 0: the error is the target.
        assert report[TD_ERROR].tolist() == pytest.approx([2.0, 2.0, 1.0, -2.0, -1.0])
        report = dqn_update(Says(), Says(), settings, GradientDescent(), DqnMinibatch(steps), 0.0)
        assert "dqn/impossible_targets" not in report


def test_no_gradient_flows_through_the_bootstrap_value() -> None:
    """With obs and next_obs apart, only the row of the taken action may move."""
    online, target = nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False)
    obs, next_obs = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    ones = torch.ones(1)
    batch = DqnMinibatch(dqn.Transitions(obs, torch.tensor([2]), ones, ones, next_obs))
    engine, settings = GradientDescent(), DqnSettings(td_loss="mse")
    dqn_update(online, target, settings, engine, batch, 0.0)
    (gradient,) = engine.gradient[online]
    assert gradient.nonzero().tolist() == [[2, 0]]


def test_the_generator_faces_the_discriminator_that_has_just_learned() -> None:
    torch.manual_seed(0)
    space = MountainCar(1).level_space
    level_gan = LevelGan(space, None, 4, (8, 8))
    levels = torch.as_tensor(space.low) * torch.rand(16, 2)
    label, success = (torch.rand(2, 16) < 0.5).float()
    batch = GanMinibatch(torch.randn(16, 4), GanBatch(levels, label, levels.flip(0), success))
    engine, made = GradientDescent(), level_gan.generator
    settings = GanSettings(loss="non_saturating", lambda_gan=3.0)
    fake = level_gan.generator(batch.z).detach()
    report = gan_update(level_gan, settings, engine, batch, 0.25)
    judge = level_gan.discriminator
    assert [call[0] for call in engine.calls] == [judge, made, level_gan.generator_ema]
    assert engine.calls[-1] == (level_gan.generator_ema, made, 0.25)
    parts = [report[f"gan/{name}"] for name in ("discriminator_loss", "penalty", "success_loss")]
    assert engine.loss[judge].item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)
    logit = judge(fake)  # by now the discriminator has made its step
    assert report["gan/generator_loss"].item() == pytest.approx(
        -logit.sigmoid().log().mean().item()
    )
    expected = report["gan/challenge"] + 3 * report["gan/generator_loss"]
    assert engine.loss[made].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_discriminator_sees_reals_and_generated_levels_changed_alike() -> None:
    """Both losses are those of levels that a loop has changed, and the gradient passes through."""
    torch.manual_seed(1)
    level_gan = LevelGan(MountainCar(1).level_space, None, 4, (8, 8))
    level = level_gan.box.from_unit(2 * torch.rand(16, 2) - 1)
    places = torch.tensor([[0, 1], [1, 0], [2, 1], [3, 2]])[torch.randint(4, (16,))]
    noise, ones, z = 0.1 * torch.randn(16, 2), torch.ones(16), torch.randn(16, 4)
    levels = GanBatch(level, ones, level, ones, places, noise)

    def changed(unit: Tensor) -> Tensor:
        rows = []
        for x, place, e in zip(unit, places.tolist(), noise, strict=True):
            rows.append(torch.stack([x[p] if p < 2 else -x[p - 2] for p in place]) + e)
        return torch.stack(rows)

    engine = GradientDescent()
    settings = GanSettings(loss="non_saturating", lambda_gan=3.0, r1=0.0, r2=0.0)
    judge, maker = level_gan.discriminator, level_gan.generator
    real, fake = changed(level_gan.box.to_unit(level)), changed(maker(z))
    before = -(judge(real).sigmoid().log() + (-judge(fake)).sigmoid().log()).mean().item()
    report = gan_update(level_gan, settings, engine, GanMinibatch(z, levels), 0.5)
    assert report["gan/discriminator_loss"].item() == pytest.approx(before, rel=1e-5)
    with torch.no_grad():  # back to where the generator's loss was computed
        for weight, gradient in zip(maker.parameters(), engine.gradient[maker], strict=True):
            weight.add_(engine.rate * gradient)
    fake = changed(maker(z))
    q = 0.01 + 0.98 * judge.success_logit(fake).sigmoid()
    loss = -3 * judge(fake).sigmoid().log().mean() - (q.log() / 2 + (1 - q).log() / 2).mean()
    for found, expected in zip(
        engine.gradient[maker], torch.autograd.grad(loss, list(maker.parameters())), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_levels_that_are_not_changed_stay_so_in_every_part_of_a_stack() -> None:
    fields = [torch.arange(12.0).view(3, 4) + 100 * i for i in range(5)]
    stack = GanMinibatch(torch.zeros(3, 4, 2), GanBatch(*fields[:4], noise=fields[4]))
    for i, one in enumerate(stack.unstack()):
        assert one.levels.places is None
        assert one.levels.noise is not None and torch.equal(one.levels.noise, fields[4][i])
        assert torch.equal(one.levels.success, fields[3][i])
    part = stack.chunk(slice(1, 3)).levels
    assert part.places is None and part.noise is not None
    assert torch.equal(part.noise, fields[4][1:]) and torch.equal(part.real, fields[0][1:])


def test_a_minibatch_of_a_stack_has_its_own_rows() -> None:
    fields = [torch.arange(12.0).view(3, 4) + 100 * i for i in range(6)]
    stack = DqnMinibatch(dqn.Transitions(*fields[:5]), fields[5])
    (_, second, _), rest = stack.unstack(), stack.chunk(slice(1, 3))
    for whole, row, rows in zip(
        (*stack.transitions, stack.weight),
        (*second.transitions, second.weight),
        (*rest.transitions, rest.weight),
        strict=True,
    ):
        assert torch.equal(row, whole[1]) and torch.equal(rows, whole[1:])
    assert [one.weight for one in stack._replace(weight=None).unstack()] == [None] * 3
    bounds = torch.arange(6.0).view(3, 2)
    bounded = stack._replace(returns=bounds)
    assert [one.returns for one in stack.unstack()] == [None] * 3
    for one, row in zip(bounded.unstack(), bounds, strict=True):
        assert one.returns is not None and torch.equal(one.returns, row)
    some = bounded.chunk(slice(1, 3)).returns
    assert some is not None and torch.equal(some, bounds[1:])
