"""The GAN's equations against naive log/sigmoid formulas, finite differences and closed forms."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import learner_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam

from lit_crl import CreativeLearner
from lit_crl.dqn.equations import Transitions
from lit_crl.envs import MountainCar
from lit_crl.gan import equations as gan
from lit_crl.gan.batch import GanBatch
from lit_crl.gan.networks import VectorDiscriminator, VectorGenerator
from lit_crl.training.batches import Batch

Numbers = list[float]
KINDS = ("relativistic", "non_saturating", "least_squares", "hinge")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(numbers: Any) -> float:
    items = list(numbers)
    return sum(items) / len(items)


def naive_discriminator(kind: str, real: Numbers, fake: Numbers, label: Numbers) -> float:
    """Each loss as the papers write it."""
    pairs = list(zip(real, fake, strict=True))
    if kind == "relativistic":
        return -mean(math.log(sigmoid(r - f)) for r, f in pairs)
    if kind == "non_saturating":
        return -mean(math.log(sigmoid(r)) for r in real) - mean(
            math.log(1 - sigmoid(f)) for f in fake
        )
    if kind == "hinge":
        return mean(max(0, 1 - r) for r in real) + mean(max(0, 1 + f) for f in fake)
    judged = zip(real, label, strict=True)
    return mean(y * (r - 1) ** 2 + (1 - y) * (r + 1) ** 2 for r, y in judged) + mean(
        (f + 1) ** 2 for f in fake
    )


def naive_generator(kind: str, real: Numbers, fake: Numbers) -> float:
    if kind == "relativistic":
        return -mean(math.log(sigmoid(f - r)) for r, f in zip(real, fake, strict=True))
    if kind == "non_saturating":
        return -mean(math.log(sigmoid(f)) for f in fake)
    if kind == "hinge":
        return -mean(fake)
    return mean((f - 1) ** 2 for f in fake)


logits = st.lists(
    st.tuples(st.floats(-12, 12), st.floats(-12, 12), st.sampled_from([0.0, 1.0])),
    min_size=1,
    max_size=9,
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(KINDS), logits)
def test_every_adversarial_loss_is_the_formula_of_its_paper(
    kind: Any, rows: list[tuple[float, float, float]]
) -> None:
    real, fake, label = torch.tensor(rows, dtype=torch.float64).unbind(1)
    lists = (real.tolist(), fake.tolist(), label.tolist())
    discriminator = gan.discriminator_loss(kind, real, fake, label).item()
    assert discriminator == pytest.approx(naive_discriminator(kind, *lists), rel=1e-6, abs=1e-9)
    generator = gan.generator_loss(kind, real, fake).item()
    assert generator == pytest.approx(naive_generator(kind, *lists[:2]), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_are_means_so_batch_size_does_not_scale_them(kind: Any) -> None:
    real, fake = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.3])
    label = torch.tensor([1.0, 0.0])
    for loss in (
        lambda k: gan.discriminator_loss(kind, real.repeat(k), fake.repeat(k), label.repeat(k)),
        lambda k: gan.generator_loss(kind, real.repeat(k), fake.repeat(k)),
    ):
        assert loss(1).item() == pytest.approx(loss(7).item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_players_pull_the_logits_in_opposite_directions(kind: Any) -> None:
    real = torch.tensor([0.2, -0.4], requires_grad=True)
    fake = torch.tensor([-0.3, 0.5], requires_grad=True)
    loss = gan.discriminator_loss(kind, real, fake, torch.ones(2))
    on_real, on_fake = torch.autograd.grad(loss, (real, fake))
    assert (on_real < 0).all() and (on_fake > 0).all()
    (generator,) = torch.autograd.grad(gan.generator_loss(kind, real.detach(), fake), fake)
    assert (generator < 0).all()


@pytest.mark.parametrize("kind", ["relativistic", "non_saturating", "hinge"])
@pytest.mark.parametrize(("real", "fake"), [(1e3, -1e3), (-1e3, 1e3), (1e3, 1e3), (-1e3, -1e3)])
def test_extreme_logits_neither_overflow_nor_lose_the_gradient(
    kind: Any, real: float, fake: float
) -> None:
    r = torch.tensor([real], requires_grad=True)
    f = torch.tensor([fake], requires_grad=True)
    label = torch.ones(1)
    discriminator, generator = (
        gan.discriminator_loss(kind, r, f, label),
        gan.generator_loss(kind, r, f),
    )
    expected = {
        "relativistic": (max(0, fake - real), max(0, real - fake)),
        "non_saturating": (max(0, -real) + max(0, fake), max(0, -fake)),
        "hinge": (max(0, 1 - real) + max(0, 1 + fake), -fake),
    }[kind]
    if kind == "relativistic" and real == fake:
        expected = (math.log(2), math.log(2))
    assert discriminator.item() == pytest.approx(expected[0], abs=1e-6)
    assert generator.item() == pytest.approx(expected[1], abs=1e-6)
    gradients = [
        *torch.autograd.grad(discriminator, (r, f), retain_graph=True),
        *torch.autograd.grad(generator, (r, f), allow_unused=True),
    ]
    assert all(bool(g.isfinite().all()) for g in gradients if g is not None)
    if fake < real and kind != "hinge":
        assert gradients[3].item() == pytest.approx(-1), "a beaten generator keeps its gradient"


def test_labels_turn_a_real_level_into_a_negative_one() -> None:
    label, fake = torch.tensor([1.0, 0.0]), torch.tensor([-1.0])
    assert gan.discriminator_loss("least_squares", torch.tensor([1.0, -1.0]), fake, label) == 0
    assert gan.discriminator_loss("least_squares", torch.tensor([-1.0, 1.0]), fake, label) == 4
    for kind in ("relativistic", "non_saturating", "hinge"):
        real, other = torch.tensor([0.3, -2.0]), torch.tensor([1.5, 0.1])
        losses = [gan.discriminator_loss(kind, real, other, y) for y in (label, 1 - label)]
        assert losses[0] == losses[1], "only least squares looks at labels"


class Bumpy(nn.Module):
    """A small smooth network in float64, so that finite differences are exact enough."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)
        ).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x).squeeze(-1)
        return out


def finite_difference_penalty(network: Callable[[Tensor], Tensor], levels: Tensor) -> Tensor:
    """Half the squared gradient norm of each row, by central differences."""
    h = 1e-5
    total = torch.zeros(len(levels), dtype=levels.dtype)
    for axis in range(levels.shape[1]):
        step = torch.zeros(levels.shape[1], dtype=levels.dtype)
        step[axis] = h
        slope = (network(levels + step) - network(levels - step)) / (2 * h)
        total += slope.detach() ** 2
    return total / 2


def test_the_gradient_penalty_agrees_with_finite_differences() -> None:
    network = Bumpy()
    levels = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    penalty, logit = gan.gradient_penalty(network, levels)
    expected = finite_difference_penalty(network, levels)
    assert penalty.shape == (6,)
    assert torch.equal(logit, network(levels))
    assert torch.allclose(penalty, expected, rtol=1e-6)


def test_the_gradient_penalty_of_a_plane_is_half_its_squared_slope() -> None:
    slope = torch.tensor([3.0, -4.0])
    levels = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    penalty, _ = gan.gradient_penalty(lambda level: level @ slope + 7, levels)
    assert torch.allclose(penalty, torch.full((5,), 12.5))


def test_the_gradient_penalty_can_be_minimised() -> None:
    network = Bumpy()
    levels = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gan.gradient_penalty(network, levels)[0].mean().backward()
    weight = network.layers[0].weight
    h = 1e-5
    for i, j in ((0, 0), (3, 2)):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[i, j] += sign * h
                sides.append(finite_difference_penalty(network, levels).mean().item())
                weight[i, j] -= sign * h
        slope = (sides[0] - sides[1]) / (2 * h)
        assert weight.grad[i, j].item() == pytest.approx(slope, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_critics_losses_weigh_the_penalties_on_reals_and_fakes_apart(kind: Any) -> None:
    critic, label = Bumpy(), torch.tensor([1.0, 0.0, 1.0])
    real, fake = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator())
    losses = gan.discriminator_losses(critic, kind, real, label, fake, r1=0.3, r2=7.0)
    on_real = finite_difference_penalty(critic, real).mean().item()
    on_fake = finite_difference_penalty(critic, fake).mean().item()
    assert abs(on_real - on_fake) > 1e-3
    assert losses["gan/penalty"].item() == pytest.approx(0.3 * on_real + 7 * on_fake, rel=1e-4)
    logits = (critic(real).tolist(), critic(fake).tolist(), label.tolist())
    naive = naive_discriminator(kind, *logits)
    assert losses["gan/discriminator_loss"].item() == pytest.approx(naive, rel=1e-5)
    without = gan.discriminator_losses(critic, kind, real, label, fake, r1=0.0, r2=0.0)
    assert without.keys() == {"gan/discriminator_loss"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_generators_losses_are_challenge_and_the_adversarial_loss(kind: Any) -> None:
    generator, discriminator, real, z = players()
    fake = generator(z)
    challenge, adversarial = gan.generator_losses(discriminator, kind, real, fake)
    p = [0.01 + 0.98 * sigmoid(x) for x in discriminator.success_logit(fake).tolist()]
    naive = mean(-math.log(q) / 2 - math.log(1 - q) / 2 - math.log(2) for q in p)
    assert challenge.item() == pytest.approx(naive, rel=1e-4, abs=1e-6)
    naive = naive_generator(kind, discriminator(real).tolist(), discriminator(fake).tolist())
    assert adversarial.item() == pytest.approx(naive, rel=1e-4, abs=1e-6)


def test_learnability_peaks_at_one_half_and_vanishes_at_never_and_always() -> None:
    p = torch.linspace(0, 1, 101)
    value = gan.learnability(p)
    assert value.argmax().item() == 50 and value[50].item() == pytest.approx(1)
    assert value[0] == 0 and value[100] == 0
    assert torch.allclose(value, value.flip(0), atol=1e-6)
    # The variance of a coin with that probability, scaled to a maximum of 1.
    for share, seen in zip(p.tolist(), value.tolist(), strict=True):
        variance = share * (1 - share) ** 2 + (1 - share) * share**2
        assert seen == pytest.approx(4 * variance, abs=1e-6)


def test_challenge_is_lowest_where_all_levels_are_on_the_frontier() -> None:
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    each = torch.stack([gan.challenge(logit) for logit in torch.logit(p)[:, None]])
    assert p[each.argmin()].item() == pytest.approx(0.5) and each.min().item() == pytest.approx(0)
    for q, seen in zip((0.01 + 0.98 * p).tolist(), each.tolist(), strict=True):
        divergence = 0.5 * math.log(0.5 / q) + 0.5 * math.log(0.5 / (1 - q))
        assert seen == pytest.approx(divergence, abs=1e-9)
    assert gan.challenge(torch.logit(p)).item() == pytest.approx(each.mean().item())
    assert gan.challenge(torch.tensor([1e4, -1e4])).isfinite()


def test_challenge_still_pulls_where_all_is_hopeless_or_solved() -> None:
    p = torch.tensor([0.001, 0.01, 0.3, 0.5, 0.999])
    logit = torch.logit(p).requires_grad_()
    (gradient,) = torch.autograd.grad(len(p) * gan.challenge(logit), logit)
    plain = torch.logit(p).requires_grad_()
    (saturating,) = torch.autograd.grad(-gan.learnability(torch.sigmoid(plain)).sum(), plain)
    assert (gradient[[0, 1, -1]].abs() > 5 * saturating[[0, 1, -1]].abs()).all()
    assert gradient[0] < 0 < gradient[-1], "descending it moves p̂ towards one half"


def test_challenge_lets_go_where_outcomes_cannot_tell_levels_apart() -> None:
    logit = torch.tensor([-30.0, -12.0, 12.0, 30.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(4 * gan.challenge(logit), logit)
    assert gradient.abs().max() < 1e-3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-15, 15), st.sampled_from([0.0, 1.0])), min_size=1, max_size=9))
def test_the_success_loss_is_binary_cross_entropy(rows: list[tuple[float, float]]) -> None:
    logit, success = torch.tensor(rows, dtype=torch.float64).unbind(1)
    naive = -mean(math.log(sigmoid(x)) if y else math.log(1 - sigmoid(x)) for x, y in rows)
    assert gan.success_loss(logit, success).item() == pytest.approx(naive, rel=1e-6, abs=1e-9)


def test_the_success_loss_survives_extreme_logits() -> None:
    logit = torch.tensor([1e3, -1e3, 1e3])
    loss = gan.success_loss(logit, torch.tensor([1.0, 0.0, 0.0]))
    assert loss.item() == pytest.approx(1e3 / 3)


def test_the_generators_objective_is_the_sum_weighted_by_lambda() -> None:
    challenge, adversarial = torch.tensor(2.0), torch.tensor(3.0)
    for weight in (0.0, 0.5, 10.0):
        objective = gan.generator_objective(challenge, adversarial, weight)
        assert objective.item() == 2 + weight * 3


def flat_gradient(loss: Tensor, network: nn.Module) -> Tensor:
    gradients = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    return torch.cat([g.flatten() for g in gradients])


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()


def players() -> tuple[VectorGenerator, VectorDiscriminator, Tensor, Tensor]:
    torch.manual_seed(3)
    generator = VectorGenerator(2, 4, (16, 16))
    discriminator = VectorDiscriminator(2, (16, 16))
    return generator, discriminator, torch.rand(64, 2) * 2 - 1, torch.randn(64, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_lambda_turns_the_generators_gradient_and_does_not_only_scale_it(kind: Any) -> None:
    generator, discriminator, real, z = players()
    fake = generator(z)
    adversarial = gan.generator_loss(kind, discriminator(real), discriminator(fake))
    challenge = gan.challenge(discriminator.success_logit(fake))
    pure = flat_gradient(challenge, generator)
    plain = flat_gradient(adversarial, generator)
    assert pure.norm() > 0 and plain.norm() > 0 and abs(cosine(pure, plain)) < 0.99
    before = 2.0
    for weight in (0.0, 0.1, 1.0, 1e4):
        total = flat_gradient(gan.generator_objective(challenge, adversarial, weight), generator)
        towards_challenge = cosine(total, pure)
        assert towards_challenge < before, "a larger λ must turn away from the challenge"
        before = towards_challenge
    assert cosine(total, plain) > 0.999, "λ → ∞ is the plain GAN"


def test_a_plain_scale_would_cancel_in_adam() -> None:
    """Why λ weighs L_GAN against the challenge, instead of scaling the generator's loss."""

    def step(loss_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        generator, discriminator, real, z = players()
        optimizer = Adam(generator.parameters(), lr=1e-3, eps=1e-16)
        fake = generator(z)
        adversarial = gan.generator_loss("relativistic", discriminator(real), discriminator(fake))
        loss_of(gan.challenge(discriminator.success_logit(fake)), adversarial).backward()
        optimizer.step()
        return torch.cat([w.detach().flatten() for w in generator.parameters()])

    scaled = [step(lambda _, adversarial, w=w: w * adversarial) for w in (1.0, 100.0)]
    assert torch.allclose(*scaled, atol=1e-5)
    weighed = [
        step(lambda c, adversarial, w=w: gan.generator_objective(c, adversarial, w))
        for w in (0, 100)
    ]
    assert (weighed[0] - weighed[1]).abs().max() > 1e-3


def take_generator_step(train_on: Callable[..., Any], weight: float) -> Tensor:
    """What one GAN phase with plain gradient descent does to the learner's generator."""
    torch.manual_seed(0)
    learner = CreativeLearner(
        **learner_settings(
            hidden=(8,),
            gan_hidden=(16, 16),
            lambda_gan=weight,
            q_optimizer=partial(SGD, lr=1e-3),
            discriminator_optimizer=partial(SGD, lr=0.0),
            generator_optimizer=partial(SGD, lr=1.0),
        ),
    ).build(MountainCar(1))
    rows = MountainCar(1).reference_levels(32, torch.Generator().manual_seed(0))[None]
    ones = torch.ones(1, 32)
    transitions = Transitions(rows, torch.zeros(1, 32, dtype=torch.long), ones, ones, rows)
    before = [w.detach().clone() for w in learner.level_gan.generator.parameters()]
    train_on(learner, [Batch(transitions, GanBatch(rows, ones, rows, ones), 0.0)], MountainCar(1))
    after = list(learner.level_gan.generator.parameters())
    return torch.cat([(b - a).detach().flatten() for b, a in zip(before, after, strict=True)])


def test_the_learners_generator_descends_challenge_plus_lambda_times_the_gan_loss(
    train_on: Callable[..., Any],
) -> None:
    generator_step = partial(take_generator_step, train_on)
    challenge, both = generator_step(0.0), generator_step(1.0)
    adversarial = both - challenge
    assert challenge.norm() > 0 and adversarial.norm() > 0
    assert abs(cosine(challenge, adversarial)) < 0.99
    many = generator_step(50.0)
    assert torch.allclose(many, challenge + 50 * adversarial, rtol=1e-4, atol=1e-5)
    assert cosine(many, adversarial) > cosine(both, adversarial)
