"""The learner's two phases on prepared batches.

Oracles: a second learner with the same weights and streams whose step is computed by hand (naive
losses, plain gradient descent), or the same run with one thing changed, compared bit for bit.
"""

import copy
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import learner_settings
from gymnasium.vector import VectorEnv
from lightning.pytorch import Callback
from torch import Tensor
from torch.optim import SGD, Adam

from lit_crl import CreativeLearner
from lit_crl.core.checks import ConfigError, RunError
from lit_crl.dqn import equations as dqn
from lit_crl.dqn.equations import Transitions
from lit_crl.envs import GymnasiumEnv, MountainCar, PointMass
from lit_crl.gan.batch import GanBatch
from lit_crl.training.batches import Batch
from lit_crl.training.blueprint import Blueprint
from lit_crl.training.eager import EagerPhase
from lit_crl.training.flat.phase import TracedPhase
from lit_crl.training.renamed import RENAMED

Train = Callable[..., Any]
ENV = MountainCar(2)
LOW, HIGH = torch.as_tensor(ENV.level_space.low), torch.as_tensor(ENV.level_space.high)


def make(seed: int = 0, env: VectorEnv[Any, Any, Any] = ENV, **changes: Any) -> CreativeLearner:
    """A small learner; equal arguments give equal weights and streams."""
    sizes = {"hidden": (16, 16), "gan_hidden": (16, 16)}
    learner = CreativeLearner(**learner_settings(**{**sizes, "seed": seed, **changes}))
    return learner.build(env)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def sgd(lr: float) -> Callable[..., SGD]:
    return lambda params: SGD(params, lr=lr)


def adam(lr: float) -> Callable[..., Adam]:
    return lambda params: Adam(params, lr=lr)


class Watched(SGD):
    """Gradient descent that calls ``watch`` with itself before each of its steps."""

    def __init__(self, params: Any, lr: float, watch: Callable[[Any], None]) -> None:
        super().__init__(params, lr=lr)
        self.watch = watch

    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure else None  # with a loss scaler, Lightning clips in here
        self.watch(self)
        super().step()
        return loss


def levels(*shape: int, seed: int = 0) -> Tensor:
    unit = torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed))
    return LOW + unit * (HIGH - LOW)


def transitions(updates: int, batch: int = 8, seed: int = 0) -> Transitions:
    rng = torch.Generator().manual_seed(seed)
    shape = (updates, batch)
    return Transitions(
        levels(*shape, seed=seed),
        torch.randint(3, shape, generator=rng),
        3 * torch.randn(shape, generator=rng),
        0.97 * (torch.rand(shape, generator=rng) < 0.7),
        levels(*shape, seed=seed + 1),
    )


def gan_batch(updates: int, batch: int = 16, seed: int = 0) -> GanBatch:
    rng = torch.Generator().manual_seed(seed)
    label, success = (torch.rand(2, updates, batch, generator=rng) < 0.5).float()
    return GanBatch(
        levels(updates, batch, seed=seed + 2), label, levels(updates, batch, seed=seed + 3), success
    )


def dqn_only(updates: int = 3, seed: int = 0, progress: float = 0.0) -> Batch:
    return Batch(transitions(updates, seed=seed), None, progress)


def both(updates: int = 3, gan_updates: int = 3, seed: int = 0) -> Batch:
    return Batch(transitions(updates, seed=seed), gan_batch(gan_updates, seed=seed), 0.0)


def flat(module: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def gradient(loss: Tensor, module: torch.nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])


def to_unit(level: Tensor) -> Tensor:
    return (level - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2)


def part(learner: CreativeLearner, trainer: Any, which: str) -> dict[str, Any]:
    """Weights and optimizer states of the DQN or the GAN."""
    names = {
        "dqn": ("q_network", "target_network"),
        "gan": ("level_gan",),
    }[which]
    optimizers = trainer.optimizers[:1] if which == "dqn" else trainer.optimizers[1:]
    return {
        **{name: dict(getattr(learner, name).state_dict()) for name in names},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }


class Listener(Callback):
    """Counts the backward passes."""

    def __init__(self) -> None:
        self.heard = 0

    def on_after_backward(self, *_: Any) -> None:
        self.heard += 1


@pytest.mark.usefixtures("wrapped")
def test_hooks_around_the_backward_pass_are_called_and_change_nothing(
    make_run: Callable[..., Any], difference: Callable[..., str | None]
) -> None:
    """Without such hooks the phases go around Lightning's wrapper of the backward pass."""
    listener = Listener()
    heard, unheard = make_run(callbacks=[listener]).fit(), make_run().fit()
    assert listener.heard == heard.learner.updates + 2 * heard.learner.gan_updates > 0
    assert difference(heard.everything(), unheard.everything()) is None


def test_updates_of_flat_networks_are_those_under_wrappers_up_to_rounding(
    train_on: Train, recorded: None, request: pytest.FixtureRequest
) -> None:
    alone, under = make(), make()
    train_on(alone, [both(), dqn_only(seed=1)], ENV)
    request.getfixturevalue("wrapped")
    train_on(under, [both(), dqn_only(seed=1)], ENV)
    ours, theirs = alone.state_dict(), under.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    phases = [type(learner._train_dqn) for learner in (alone, under)]
    assert phases == [TracedPhase, EagerPhase]


# What each phase leaves alone


def test_the_dqn_phase_leaves_the_gan_as_it_is(
    train_on: Train, difference: Callable[..., str | None]
) -> None:
    shorter, longer = make(), make()
    before = train_on(shorter, [both()], ENV)
    after = train_on(longer, [both(), dqn_only(seed=1), dqn_only(seed=2)], ENV)
    assert before.optimizers[1].state and before.optimizers[2].state  # there is something to keep
    assert difference(part(shorter, before, "gan"), part(longer, after, "gan")) is None
    assert (shorter.updates, longer.updates) == (3, 9)
    assert not torch.equal(flat(shorter.q_network), flat(longer.q_network))
    assert all(parameter.requires_grad for parameter in longer.level_gan.discriminator.parameters())


def test_the_gan_phase_leaves_the_dqn_as_it_is(
    train_on: Train, difference: Callable[..., str | None]
) -> None:
    without, with_gan = make(), make()
    before = train_on(without, [dqn_only(), dqn_only(seed=1)], ENV)
    after = train_on(with_gan, [both(), both(seed=1)], ENV)
    assert difference(part(without, before, "dqn"), part(with_gan, after, "dqn")) is None
    assert (without.gan_updates, with_gan.gan_updates) == (0, 6)
    for name in ("generator", "generator_ema", "discriminator"):
        gans = (without.level_gan, with_gan.level_gan)
        assert not torch.equal(*(flat(getattr(gan, name)) for gan in gans)), name


def test_the_generators_step_leaves_the_discriminator_as_it_is(train_on: Train) -> None:
    seen: list[tuple[str, list[Tensor | None], Tensor]] = []
    learner: CreativeLearner

    def watch(who: str) -> Callable[[Any], None]:
        def record(_: Any) -> None:
            gradients = [p.grad for p in learner.level_gan.discriminator.parameters()]
            seen.append((who, gradients, flat(learner.level_gan.discriminator)))

        return record

    learner = make(
        discriminator_optimizer=lambda p: Watched(p, 0.05, watch("discriminator")),
        generator_optimizer=lambda p: Watched(p, 0.05, watch("generator")),
    )
    train_on(learner, [both(gan_updates=3)], ENV)
    assert [who for who, *_ in seen] == ["discriminator", "generator"] * 3
    for own, others in zip(seen[::2], seen[1::2], strict=True):
        assert others[1] == [None] * len(own[1])  # the generator's backward added nothing
        gradient = torch.cat([g.flatten() for g in own[1]])
        assert gradient.abs().max() > 0
        assert torch.allclose(others[2], own[2] - 0.05 * gradient, atol=1e-7)
    weights_at_the_generators_steps = [weights for _, _, weights in seen[1::2]]
    weights_at_the_next_own_steps = [weights for _, _, weights in seen[2::2]]
    weights_at_the_next_own_steps.append(flat(learner.level_gan.discriminator))
    for left, found in zip(
        weights_at_the_generators_steps, weights_at_the_next_own_steps, strict=True
    ):
        assert torch.equal(left, found)


# The success head


def test_only_outcomes_train_the_success_head(train_on: Train) -> None:
    given = gan_batch(4)
    other = gan_batch(4, seed=50)
    same_outcomes = other._replace(level=given.level, success=given.success)
    heads = {}
    for name, batch in (("given", given), ("same outcomes", same_outcomes), ("other", other)):
        learner = make(seed=0, **{} if name == "given" else {"lambda_gan": 5.0})
        if name != "given":
            learner.streams.seed = 9  # other noise z
        train_on(learner, [Batch(transitions(1), batch, 0.0)], ENV)
        heads[name] = flat(learner.level_gan.discriminator.success_head)
    assert torch.equal(heads["given"], heads["same outcomes"])
    assert not torch.equal(heads["given"], heads["other"])


def test_outcomes_do_not_train_the_critic(train_on: Train) -> None:
    given, other = gan_batch(1), gan_batch(1, seed=50)
    changed = given._replace(level=other.level, success=other.success)
    first, second = make(), make()
    train_on(first, [Batch(transitions(1), given, 0.0)], ENV)
    train_on(second, [Batch(transitions(1), changed, 0.0)], ENV)
    assert torch.equal(
        flat(first.level_gan.discriminator.critic), flat(second.level_gan.discriminator.critic)
    )
    assert not torch.equal(
        flat(first.level_gan.discriminator.success_head),
        flat(second.level_gan.discriminator.success_head),
    )


def test_the_success_head_learns_to_tell_solvable_from_hopeless_levels(train_on: Train) -> None:
    def solvable(level: Tensor) -> Tensor:
        return level[..., 0] + 4 * level[..., 1] > -0.3  # a slanted edge through the level space

    start = levels(300, 64)
    lucky = torch.rand(300, 64, generator=torch.Generator().manual_seed(3)) < 0.1
    batch = GanBatch(start, torch.ones(300, 64), start, (solvable(start) ^ lucky).float())
    learner = make(discriminator_optimizer=adam(1e-2))
    train_on(learner, [Batch(transitions(1), batch, 0.0)], ENV)
    fresh = levels(1_000, seed=77)
    p_hat, truth = learner.success_probability(fresh), solvable(fresh)
    assert p_hat.shape == (1_000,) and (p_hat > 0).all() and (p_hat < 1).all()
    assert ((p_hat > 0.5) == truth).float().mean() > 0.95
    assert p_hat[truth].mean().item() == pytest.approx(0.9, abs=0.04)
    assert p_hat[~truth].mean().item() == pytest.approx(0.1, abs=0.04)


# Generator and λ


def naive_generator_gradients(learner: CreativeLearner, z: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the challenge and of the non-saturating loss at the generator's weights."""
    p = torch.sigmoid(learner.level_gan.discriminator.success_head(learner.level_gan.generator(z)))
    judged = torch.sigmoid(learner.level_gan.discriminator.critic(learner.level_gan.generator(z)))
    q = 0.01 + 0.98 * p
    challenge = -(q * (1 - q)).log().mean() / 2 - math.log(2)
    adversarial = -torch.log(judged).mean()
    return gradient(challenge, learner.level_gan.generator), gradient(
        adversarial, learner.level_gan.generator
    )


@pytest.mark.parametrize("lambda_gan", [0.0, 0.5, 20.0])
def test_the_generator_descends_the_challenge_plus_lambda_times_the_gan_loss(
    train_on: Train, lambda_gan: float
) -> None:
    settings = {
        "gan_loss": "non_saturating",
        "lambda_gan": lambda_gan,
        "generator_optimizer": sgd(0.5),
        "discriminator_optimizer": sgd(0.0),
    }
    learner, twin = make(**settings), make(**settings)
    train_on(learner, [both(gan_updates=1)], ENV)
    challenge, adversary = naive_generator_gradients(twin, twin.draw_noise(16))
    expected = flat(twin.level_gan.generator) - 0.5 * (challenge + lambda_gan * adversary)
    assert torch.allclose(flat(learner.level_gan.generator), expected, atol=1e-6)
    assert challenge.norm() > 1e-4 and adversary.norm() > 1e-4  # both say something


def test_lambda_matters_under_adam(train_on: Train) -> None:
    def after(lambda_gan: float) -> Tensor:
        learner = make(lambda_gan=lambda_gan)
        train_on(learner, [both(gan_updates=4), both(gan_updates=4, seed=1)], ENV)
        return flat(learner.level_gan.generator)

    ends = {lambda_gan: after(lambda_gan) for lambda_gan in (0.0, 0.1, 1.0, 1e5, 1e6)}
    assert torch.equal(ends[1.0], after(1.0))
    learning_rate = 5e-4
    for small, large in ((0.0, 0.1), (0.1, 1.0), (1.0, 1e5), (0.0, 1.0)):
        assert (ends[small] - ends[large]).abs().max() > learning_rate, (small, large)
    # Beyond a large λ only the GAN's own direction is left, and Adam does not see its length.
    assert (ends[1e5] - ends[1e6]).abs().max() < learning_rate / 10


def test_a_huge_lambda_goes_the_plain_gans_way(train_on: Train) -> None:
    settings = {
        "gan_loss": "non_saturating",
        "lambda_gan": 1e5,
        "generator_optimizer": sgd(1e-5),
        "discriminator_optimizer": sgd(0.0),
    }
    learner, twin = make(**settings), make(**settings)
    train_on(learner, [both(gan_updates=1)], ENV)
    moved = flat(learner.level_gan.generator) - flat(twin.level_gan.generator)
    _, adversary = naive_generator_gradients(twin, twin.draw_noise(16))
    assert torch.cosine_similarity(moved, -adversary, dim=0) > 0.9999


def test_without_lambda_generated_levels_move_to_the_predicted_frontier(train_on: Train) -> None:
    start = levels(150, 64)
    batch = GanBatch(
        torch.zeros_like(start), torch.ones(150, 64), start, (start[..., 0] > 0).float()
    )
    learner = make(
        lambda_gan=0.0,
        ema_rate=1.0,
        discriminator_optimizer=adam(1e-2),
        generator_optimizer=adam(1e-2),
    )
    train_on(learner, [Batch(transitions(1), batch, 0.0)], ENV)
    generated = learner.generate_levels(learner.draw_noise(200))
    p_hat = learner.success_probability(generated)
    assert (4 * p_hat * (1 - p_hat)).mean() > 0.9
    assert generated[:, 0].abs().mean() < 0.1  # where solvable meets hopeless


@pytest.mark.parametrize("ema_rate", [0.005, 0.3, 1.0])
def test_the_moving_average_moves_by_ema_rate(train_on: Train, ema_rate: float) -> None:
    steps: list[Tensor] = []
    learner = make(
        ema_rate=ema_rate,
        generator_optimizer=lambda p: Watched(
            p, 0.1, lambda _: steps.append(flat(learner.level_gan.generator))
        ),
    )
    average = flat(learner.level_gan.generator_ema)
    assert torch.equal(average, flat(learner.level_gan.generator))
    train_on(learner, [both(gan_updates=4)], ENV)
    for generator in [*steps[1:], flat(learner.level_gan.generator)]:
        average = (1 - ema_rate) * average + ema_rate * generator
    assert torch.allclose(flat(learner.level_gan.generator_ema), average, atol=1e-7)
    assert not torch.equal(steps[0], steps[-1])


# The four GAN losses


def log1pexp(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


DISCRIMINATOR = {
    "relativistic": lambda r, f, y: log1pexp(f - r).mean(),
    "non_saturating": lambda r, f, y: (log1pexp(-r) + log1pexp(f)).mean(),
    "hinge": lambda r, f, y: ((1 - r).clamp(min=0) + (1 + f).clamp(min=0)).mean(),
    "least_squares": lambda r, f, y: (
        y * (r - 1) ** 2 + (1 - y) * (r + 1) ** 2 + (f + 1) ** 2
    ).mean(),
}
GENERATOR = {
    "relativistic": lambda r, f: log1pexp(r - f).mean(),
    "non_saturating": lambda r, f: log1pexp(-f).mean(),
    "hinge": lambda r, f: -f.mean(),
    "least_squares": lambda r, f: ((f - 1) ** 2).mean(),
}


def repeated(updates: int) -> Batch:
    """The same GAN minibatch many times."""
    many = gan_batch(1).map(lambda field: field.repeat(updates, *[1] * (field.ndim - 1)))
    return Batch(transitions(1), GanBatch(*many), 0)


@pytest.mark.parametrize("kind", DISCRIMINATOR)
def test_every_gan_loss_lowers_its_own_discriminator_loss(train_on: Train, kind: str) -> None:
    learner = make(gan_loss=kind, generator_optimizer=sgd(0.0), discriminator_optimizer=adam(3e-3))
    batch = repeated(60)
    real, label = to_unit(batch.gan.real[0]), batch.gan.label[0]
    noise = torch.randn(16, learner.level_gan.generator.noise_dim)

    @torch.no_grad()
    def loss() -> float:
        critic = learner.level_gan.discriminator.critic
        fake = learner.level_gan.generator(noise)
        return DISCRIMINATOR[kind](critic(real)[:, 0], critic(fake)[:, 0], label).item()

    before = loss()
    train_on(learner, [batch], ENV)
    assert loss() < before - 0.05


@pytest.mark.parametrize("kind", GENERATOR)
def test_every_gan_loss_lowers_its_own_generator_loss(train_on: Train, kind: str) -> None:
    learner = make(
        gan_loss=kind,
        lambda_gan=100.0,
        generator_optimizer=adam(1e-3),
        discriminator_optimizer=sgd(0.0),
    )
    batch = repeated(60)
    real = to_unit(batch.gan.real[0])
    noise = torch.randn(16, learner.level_gan.generator.noise_dim)

    @torch.no_grad()
    def loss() -> float:
        critic = learner.level_gan.discriminator.critic
        return GENERATOR[kind](
            critic(real)[:, 0], critic(learner.level_gan.generator(noise))[:, 0]
        ).item()

    before = loss()
    train_on(learner, [batch], ENV)
    assert loss() < before - 0.01


@pytest.mark.parametrize("kind", DISCRIMINATOR)
def test_the_logged_gan_losses_equal_naive_ones(train_on: Train, kind: str) -> None:
    settings = {
        "gan_loss": kind, "generator_optimizer": sgd(0.1), "discriminator_optimizer": sgd(0.0),
        "r1": 0.7, "r2": 0.2,
    }  # fmt: skip
    learner, twin = make(**settings), make(**settings)
    batch = both(gan_updates=1)
    train_on(learner, [batch], ENV)
    logged = learner.losses.pop_means()
    real, label, level, success = (field[0] for field in batch.gan[:4])
    real, level = to_unit(real), to_unit(level)
    critic = twin.level_gan.discriminator.critic
    with torch.no_grad():
        fake = twin.level_gan.generator(twin.draw_noise(16))
        r, f = critic(real)[:, 0], critic(fake)[:, 0]
        p = torch.sigmoid(twin.level_gan.discriminator.success_head(level)[:, 0])
        at_fake = torch.sigmoid(twin.level_gan.discriminator.success_head(fake)[:, 0])

    def penalty(points: Tensor) -> float:
        total = 0.0
        for point in points:
            point = point.clone().requires_grad_()
            (slope,) = torch.autograd.grad(critic(point[None]).squeeze(), point)
            total += 0.5 * sum(x * x for x in slope.tolist())
        return total / len(points)

    q = 0.01 + 0.98 * at_fake
    expected = {
        "gan/discriminator_loss": DISCRIMINATOR[kind](r, f, label).item(),
        "gan/generator_loss": GENERATOR[kind](r, f).item(),
        "gan/success_loss": -(success * p.log() + (1 - success) * (1 - p).log()).mean().item(),
        "gan/challenge": -(q * (1 - q)).log().mean().item() / 2 - math.log(2),
        "gan/penalty": 0.7 * penalty(real) + 0.2 * penalty(fake),
    }
    seen = {name: logged[name] for name in expected}
    assert seen == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_gradient_penalties_flatten_the_critic(train_on: Train) -> None:
    def steepness(**weights: float) -> float:
        learner = make(generator_optimizer=sgd(0.0), discriminator_optimizer=adam(1e-2), **weights)
        batch = repeated(80)
        train_on(learner, [batch], ENV)
        points = to_unit(batch.gan.real[0]).requires_grad_()
        (slope,) = torch.autograd.grad(learner.level_gan.discriminator(points).sum(), points)
        return slope.norm(dim=1).mean().item()

    free = steepness(r1=0.0, r2=0.0)
    assert steepness(r1=5.0, r2=0.0) < free / 2
    assert steepness(r1=0.0, r2=5.0) < free / 2


# The DQN's loss


def naive_td(learner: CreativeLearner, given: Transitions) -> list[float]:
    """The targets of one minibatch, a transition at a time."""
    targets = []
    for _, _, reward, discount, next_obs in zip(*given, strict=True):
        online = learner.q_network(next_obs[None])[0].tolist()
        frozen = learner.target_network(next_obs[None])[0].tolist()
        chosen = max(range(3), key=(online if learner.dqn.double else frozen).__getitem__)
        targets.append(reward.item() + discount.item() * frozen[chosen])
    return targets


def naive_loss(errors: list[float], kind: str) -> float:
    if kind == "mse":
        return sum(e * e for e in errors) / len(errors)
    small = [0.5 * e * e if abs(e) <= 1 else abs(e) - 0.5 for e in errors]
    return sum(small) / len(errors)


@pytest.mark.parametrize("td_loss", ["huber", "mse"])
@pytest.mark.parametrize("double", [True, False], ids=["double", "plain"])
def test_one_dqn_update_equals_a_naive_one(train_on: Train, td_loss: str, double: bool) -> None:
    settings = {
        "td_loss": td_loss, "double_dqn": double, "max_grad_norm": 1e9, "target_rate": 1e-9,
        "q_optimizer": sgd(0.1),
    }  # fmt: skip
    learner, twin = make(**settings), make(**settings)
    for each in (learner, twin):  # an online network that has moved away from the target
        torch.manual_seed(5)
        for parameter in each.q_network.parameters():
            parameter.data.add_(0.5 * torch.randn_like(parameter))
    stack = transitions(1, batch=32)
    train_on(learner, [Batch(stack, None, 0.0)], ENV)
    given = Transitions(*(field[0] for field in stack))
    targets = naive_td(twin, given)

    values = [
        twin.q_network(obs[None])[0, action]
        for obs, action in zip(given.obs, given.action, strict=True)
    ]
    errors = [value.item() - target for value, target in zip(values, targets, strict=True)]
    assert 4 < sum(abs(error) > 1 for error in errors) < 28  # both branches of Huber are in it
    logged = learner.losses.pop_means()
    assert logged["dqn/loss"] == pytest.approx(naive_loss(errors, td_loss), rel=1e-4)
    assert logged["dqn/q_mean"] == pytest.approx(sum(v.item() for v in values) / 32, rel=1e-4)

    # Semi-gradient: dL/dQ(s, a) is the error (clipped for Huber), and the target is a constant.
    slope = [2 * e if td_loss == "mse" else max(-1.0, min(1.0, e)) for e in errors]
    surrogate = sum(s * value for s, value in zip(slope, values, strict=True)) / 32
    expected = flat(twin.q_network) - 0.1 * gradient(surrogate, twin.q_network)
    assert torch.allclose(flat(learner.q_network), expected, atol=1e-5)


def test_double_and_plain_targets_differ(train_on: Train) -> None:
    losses = []
    for double in (True, False):
        learner = make(double_dqn=double)
        torch.manual_seed(5)
        for parameter in learner.q_network.parameters():
            parameter.data.add_(0.5 * torch.randn_like(parameter))
        train_on(learner, [dqn_only(updates=1)], ENV)
        losses.append(learner.losses.pop_means()["dqn/loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize(("period", "rate"), [(1, 0.005), (1, 1.0), (2, 0.3), (3, 1.0)])
def test_the_target_network_is_synced_at_the_right_updates(
    train_on: Train, period: int, rate: float
) -> None:
    online: list[Tensor] = []
    learner = make(
        target_period=period,
        target_rate=rate,
        q_optimizer=lambda p: Watched(p, 0.05, lambda _: online.append(flat(learner.q_network))),
    )
    target = flat(learner.target_network)
    assert torch.equal(target, flat(learner.q_network))
    # Two batches: the count of updates goes on from one to the next.
    train_on(learner, [dqn_only(updates=4), dqn_only(updates=3, seed=1)], ENV)
    assert len(online) == learner.updates == 7
    for update, weights in enumerate([*online[1:], flat(learner.q_network)], start=1):
        if update % period == 0:
            target = (1 - rate) * target + rate * weights
    assert torch.allclose(flat(learner.target_network), target, atol=1e-7)
    if rate == 1:  # a hard copy is exact
        assert torch.equal(
            flat(learner.target_network), [*online, flat(learner.q_network)][7 // period * period]
        )


@pytest.mark.parametrize(("period", "rate"), [(1, 0.3), (3, 1.0), (20, 1.0)])
def test_each_update_sees_the_target_network_of_its_time(
    train_on: Train, period: int, rate: float
) -> None:
    """Whatever is computed ahead, as updates one by one in plain torch."""
    settings = {"target_period": period, "target_rate": rate, "q_optimizer": sgd(0.3)}
    learner, twin = make(final_lr=1.0, **settings), make(**settings)
    stack = transitions(11, batch=8)
    train_on(learner, [Batch(stack, None, 0.0)], ENV)
    optimizer = torch.optim.SGD(twin.q_network.parameters(), 0.3)
    for update, row in enumerate(zip(*stack, strict=True), start=1):
        given = Transitions(*row)
        target = torch.tensor(naive_td(twin, given))
        value = twin.q_network(given.obs)[range(8), given.action]
        optimizer.zero_grad()
        torch.nn.functional.huber_loss(value, target).backward()
        torch.nn.utils.clip_grad_norm_(twin.q_network.parameters(), twin.dqn.max_grad_norm)
        optimizer.step()
        if update % period == 0:
            for slow, fast in zip(
                twin.target_network.parameters(), twin.q_network.parameters(), strict=True
            ):
                slow.data = (1 - rate) * slow.data + rate * fast.data
    assert torch.allclose(flat(learner.q_network), flat(twin.q_network), atol=1e-5)
    assert not torch.allclose(flat(learner.q_network), flat(make().q_network), atol=1e-2)


# Gradient clipping and learning rates


def gradient_norm(optimizer: Any) -> float:
    squares = [p.grad.square().sum().item() for g in optimizer.param_groups for p in g["params"]]
    return math.sqrt(sum(squares))


def test_the_q_networks_gradient_is_clipped_to_the_norm(train_on: Train) -> None:
    def norms(limit: float) -> tuple[list[float], Tensor]:
        seen: list[float] = []
        learner = make(
            max_grad_norm=limit,
            td_loss="mse",
            q_optimizer=lambda p: Watched(p, 1e-3, lambda o: seen.append(gradient_norm(o))),
        )
        start = flat(learner.q_network)
        train_on(learner, [dqn_only(updates=1), dqn_only(updates=1, seed=1)], ENV)
        return seen, flat(learner.q_network) - start

    free, way = norms(1e9)
    assert min(free) > 1
    clipped, clipped_way = norms(0.1)
    assert clipped == pytest.approx([0.1, 0.1], rel=1e-3)
    assert torch.cosine_similarity(way, clipped_way, dim=0) > 0.9
    untouched, _ = norms(10 * max(free))  # a gradient below the limit is not scaled up
    assert untouched == pytest.approx(free)


def test_only_the_q_network_is_clipped(train_on: Train) -> None:
    tight, loose = make(max_grad_norm=1e-6), make(max_grad_norm=1e9)
    for learner in (tight, loose):
        train_on(learner, [both()], ENV)
    assert not torch.equal(flat(tight.q_network), flat(loose.q_network))
    assert torch.equal(flat(tight.level_gan), flat(loose.level_gan))


def test_the_learning_rate_falls_linearly_to_its_last_share(train_on: Train) -> None:
    rates: list[float] = []
    gan_rates: list[float] = []

    def watched(into: list[float]) -> Callable[[Any], Watched]:
        return lambda p: Watched(p, 0.2, lambda o: into.append(o.param_groups[0]["lr"]))

    learner = make(
        final_lr=0.1,
        q_optimizer=watched(rates),
        generator_optimizer=watched(gan_rates),
        discriminator_optimizer=watched(gan_rates),
    )
    progress = [0.0, 0.25, 0.5, 1.0]
    batches = [Batch(transitions(1), gan_batch(1), p) for p in progress]
    train_on(learner, batches, ENV)
    assert rates == pytest.approx([0.2, 0.155, 0.11, 0.02])
    assert gan_rates == [0.2] * 8


def test_a_final_share_of_one_keeps_the_learning_rate(train_on: Train) -> None:
    rates: list[float] = []
    watched = lambda p: Watched(p, 0.2, lambda o: rates.append(o.param_groups[0]["lr"]))  # noqa: E731
    train_on(make(final_lr=1.0, q_optimizer=watched), [dqn_only(2), dqn_only(2, progress=1.0)], ENV)
    assert rates == pytest.approx([0.2] * 4)


# Acting


def test_the_greedy_action_is_the_online_networks_best() -> None:
    learner = make()
    torch.manual_seed(1)
    for parameter in learner.q_network.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    obs = levels(300)
    online = [max(range(3), key=row.__getitem__) for row in learner.q_network(obs).tolist()]
    frozen = [max(range(3), key=row.__getitem__) for row in learner.target_network(obs).tolist()]
    assert learner.act(obs).tolist() == online
    assert learner.act(obs, torch.zeros(300)).tolist() == online
    # Evaluation acts with the target network instead.
    assert learner(obs).tolist() == frozen != online
    assert torch.equal(learner.action_values(obs), learner.target_network(obs))


def test_epsilon_one_acts_uniformly_and_other_rates_in_between() -> None:
    learner = make()
    learner.q_network.advantage.weight.data.zero_()
    learner.q_network.advantage.bias.data = torch.tensor([0.0, 1.0, 0.0])  # 1 is greedy
    obs = levels(9_000)
    counts = torch.bincount(learner.act(obs, 1.0), minlength=3)
    chi_squared = ((counts - 3_000) ** 2 / 3_000).sum()
    assert chi_squared < 13.8  # 99.9 % of uniform samples
    rates = torch.tensor([0.0, 0.3, 1.0]).repeat_interleave(3_000)
    greedy = (learner.act(obs, rates) == 1).float().view(3, 3_000).mean(1)
    assert greedy.tolist() == pytest.approx([1.0, 0.7 + 0.1, 1 / 3], abs=0.04)


def test_exploration_follows_the_learners_seed() -> None:
    obs = levels(200)
    first, second, other = make(seed=0), make(seed=0), make(seed=0)
    other.streams.seed = 1
    actions = first.act(obs, 1.0)
    assert torch.equal(actions, second.act(obs, 1.0))
    assert not torch.equal(actions, other.act(obs, 1.0))
    assert not torch.equal(actions, first.act(obs, 1.0))


# Generated levels


def test_generated_levels_lie_in_the_level_space_and_follow_the_seed() -> None:
    first, second, other = make(level_noise=1.0), make(level_noise=1.0), make(level_noise=1.0)
    other.streams.seed = 1
    drawn = first.generate_levels(500)
    assert drawn.shape == (500, 2)
    assert (drawn >= LOW - 1e-6).all() and (drawn <= HIGH + 1e-6).all()
    assert torch.equal(drawn, second.generate_levels(500))
    assert not torch.equal(drawn, other.generate_levels(500))
    assert not torch.equal(drawn, first.generate_levels(500))


def test_levels_of_given_noise_are_exactly_the_averaged_generators() -> None:
    learner = make()
    for parameter in learner.level_gan.generator_ema.parameters():
        parameter.data.add_(0.3)
    z = learner.draw_noise(50)
    drawn = learner.generate_levels(z)
    unit = learner.level_gan.generator_ema(z)
    assert torch.allclose(to_unit(drawn), unit, atol=1e-5)
    assert torch.equal(drawn, learner.generate_levels(z))
    assert not torch.allclose(learner.level_gan.generator(z), unit, atol=1e-2)
    # Judged by what they look like in the unit cube.
    judged = torch.sigmoid(learner.level_gan.discriminator.success_head(unit)).squeeze(-1)
    assert torch.allclose(learner.success_probability(drawn), judged, atol=1e-5)


@pytest.mark.parametrize("level_noise", [0.0, 0.02, 0.1])
def test_played_levels_are_spread_by_a_share_of_the_level_space(level_noise: float) -> None:
    learner = make(level_noise=level_noise)
    for parameter in learner.level_gan.generator_ema.head.parameters():
        parameter.data.zero_()  # the generator alone gives the middle of the level space
    spread = learner.generate_levels(4_000).std(dim=0)
    assert torch.allclose(spread, level_noise * (HIGH - LOW), rtol=0.05)


@pytest.mark.parametrize(("noise_dim", "length"), [(0, 8), (3, 3)])
def test_the_noise_has_the_configured_length(noise_dim: int, length: int) -> None:
    assert make(noise_dim=noise_dim).draw_noise(5).shape == (5, length)


# Without levels


@pytest.fixture(scope="module")
def cartpole() -> Iterator[GymnasiumEnv]:
    env = GymnasiumEnv(2, id="CartPole-v1")
    yield env
    env.close()


def test_an_environment_without_levels_has_no_gan(train_on: Train, cartpole: GymnasiumEnv) -> None:
    learner = make(env=cartpole)
    assert learner.level_gan is None
    with pytest.raises(ConfigError, match="no level_space"):
        learner.generate_levels(3)
    stack = transitions(2)
    obs = torch.randn(2, 8, 4)
    stack = stack._replace(obs=obs, next_obs=obs.flip(0), action=stack.action % 2)
    before = flat(learner.q_network)
    trainer = train_on(learner, [Batch(stack, None, 0.0)], cartpole)
    assert len(trainer.optimizers) == 1
    assert learner.updates == 2 and not torch.equal(before, flat(learner.q_network))


def test_only_the_trained_networks_ask_for_gradients() -> None:
    learner = make()
    for name in ("q_network", "level_gan.generator", "level_gan.discriminator"):
        assert all(p.requires_grad for p in learner.get_submodule(name).parameters()), name
    for name in ("target_network", "level_gan.generator_ema"):
        assert not any(p.requires_grad for p in learner.get_submodule(name).parameters()), name


def test_a_learner_that_was_built_keeps_its_weights_when_it_is_trained(train_on: Train) -> None:
    learner = make(q_optimizer=sgd(0.0))
    before = copy.deepcopy(learner.state_dict())
    train_on(learner, [dqn_only()], ENV)
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())


@pytest.mark.parametrize("made", [{}, {"env": PointMass, "learner": {"dueling": True}}], ids=str)
def test_a_learner_is_loaded_from_its_checkpoint_without_a_trainer(
    make_run: Callable[..., Any], tmp_path: Path, made: dict[str, Any]
) -> None:
    run = make_run(
        **{**made, "learner": {"lambda_gan": np.float64(3.5), **made.get("learner", {})}}
    )
    path = tmp_path / "learner.ckpt"
    run.fit().trainer.save_checkpoint(path)
    torch.load(path, weights_only=True)  # plain values and tensors alone
    before = torch.random.get_rng_state()
    loaded = CreativeLearner.load_from_checkpoint(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = run.learner.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(weights[name], value) for name, value in loaded.state_dict().items())
    assert (loaded.updates, loaded.gan_updates) == (run.learner.updates, run.learner.gan_updates)
    assert loaded.gan.lambda_gan == 3.5 and loaded.sizes == run.learner.sizes
    obs = torch.randn(5, *run.data.env.single_observation_space.shape)
    assert torch.equal(loaded.action_values(obs), run.learner.action_values(obs))
    assert loaded.generate_levels(3).shape == (3, loaded.level_gan.box.dim)
    # It can be trained again, with settings of one's own.
    again = make_run(**made)
    again.learner = CreativeLearner.load_from_checkpoint(path, dqn={"final_lr": 1.0})
    again.fit()
    assert again.learner.dqn.final_lr == 1.0 and again.learner.gan == loaded.gan
    assert again.learner.updates == 2 * run.learner.updates


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"state_dict": {}, "hyper_parameters": Payload(trace)}, tmp_path / "bad.ckpt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        CreativeLearner.load_from_checkpoint(tmp_path / "bad.ckpt")
    assert not trace.exists()


def test_the_seed_draws_the_first_weights_and_leaves_other_streams_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = make(seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    same, other = (make(seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(weights, same[name]) for name, weights in first.items())
    matrices = [name for name, weights in first.items() if weights.ndim > 1]
    assert matrices and not any(torch.equal(first[name], other[name]) for name in matrices)
    torch.manual_seed(3)  # what `--seed_everything 3` does
    drawn = Blueprint.of(ENV, make().sizes).q_network().state_dict()
    assert all(torch.equal(drawn[name], first[f"q_network.{name}"]) for name in drawn)


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("target_period", 0),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", math.nan),
        ("target_rate", 0.0),
        ("target_rate", 1.5),
        ("ema_rate", -0.1),
        ("final_lr", 0.0),
        ("final_lr", 2.0),
        ("lambda_gan", -1.0),
        ("lambda_gan", math.inf),
        ("r1", -0.5),
        ("r2", -0.5),
        ("noise_dim", -1),
        ("level_noise", -0.1),
        ("hidden", (16, 0)),
        ("gan_hidden", (-4,)),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_name(key: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(RENAMED[f"model.{key}"])):
        CreativeLearner(**learner_settings(**{key: given}))


# Numbers that are not finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_by_name_and_update(
    train_on: Train, bad: float
) -> None:
    stack = transitions(4)
    stack.reward[2, 5] = bad
    learner = make(td_loss="mse")
    with pytest.raises(RunError, match=r"dqn/loss became (nan|inf) at its update 6:"):
        train_on(learner, [dqn_only(), Batch(stack, None, 0.0)], ENV)  # 3 updates, then the third


def test_a_gan_loss_that_is_not_finite_stops_the_run_by_name_and_update(train_on: Train) -> None:
    batch = both(gan_updates=3)
    assert batch.gan is not None
    batch.gan.success[1, 0] = float("nan")
    with pytest.raises(RunError, match=r"gan/success_loss became nan at its update 2:"):
        train_on(make(), [batch], ENV)


def test_a_gradient_that_is_not_finite_stops_the_run(train_on: Train) -> None:
    learner = make()
    learner.q_network.advantage.bias.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(RunError, match=r"dqn/gradient_norm became nan at its update 1:"):
        train_on(learner, [dqn_only()], ENV)


def test_the_gradient_norms_are_logged_before_clipping(train_on: Train) -> None:
    learner, twin = make(max_grad_norm=1e-3), make()
    train_on(learner, [Batch(transitions(1), None, 0.0)], ENV)
    first = Transitions(*(stack[0] for stack in transitions(1)))
    next_q, selector = twin.target_network(first.next_obs), twin.q_network(first.next_obs)
    target = dqn.double_td_target(first.reward, first.discount, next_q, selector)
    loss = dqn.td_loss(dqn.q_of(twin.q_network(first.obs), first.action), target)
    expected = gradient(loss, twin.q_network).norm().item()
    assert learner.losses.pop_means()["dqn/gradient_norm"] == pytest.approx(expected, rel=1e-5)
