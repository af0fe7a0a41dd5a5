"""The world's equations, against loops over members and rows, and brute force."""

import math

import pytest
import torch
from torch import Tensor

from lit_crl.gan import equations as gan
from lit_crl.world import equations
from lit_crl.world.networks import Discriminators

E, B, D = 3, 7, 4


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.fixture
def mask(rng: torch.Generator) -> Tensor:
    mask = torch.rand(E, B, generator=rng) < 0.6
    assert mask.any(1).all() and not mask.all(1).any()
    return mask


def test_each_members_loss_is_that_of_the_level_gan_on_its_rows_alone(
    rng: torch.Generator, mask: Tensor
) -> None:
    torch.manual_seed(0)
    network = Discriminators(E, D, (8, 8))
    real, fake = torch.randn(2, E, B, D, generator=rng)
    losses = equations.discriminator_losses(network, real, fake, mask, 0.3, 0.7)
    made = equations.generator_loss(network, real, fake, mask)
    for member in range(E):

        def alone(rows: Tensor, member: int = member) -> Tensor:
            logits: Tensor = network(rows.expand(E, -1, -1))[member]
            return logits

        mine = real[member, mask[member]], fake[member, mask[member]]
        label = torch.ones(len(mine[0]))
        expected = gan.discriminator_losses(
            alone, "relativistic", mine[0], label, mine[1], 0.3, 0.7
        )
        for name, loss in expected.items():
            torch.testing.assert_close(losses[name.removeprefix("gan/")][member], loss)
        generated = gan.relativistic_generator(alone(mine[0]), alone(mine[1]))
        torch.testing.assert_close(made[member], generated)
    without = equations.discriminator_losses(network, real, fake, mask, 0, 0)
    torch.testing.assert_close(without["discriminator_loss"], losses["discriminator_loss"])
    assert "penalty" not in without


def test_a_penalty_is_half_the_squared_slope_of_each_row(rng: torch.Generator) -> None:
    """D(x) = Σ xᵢ², so that ∇D = 2x and ½‖∇D‖² = 2‖x‖²."""
    real, fake = torch.randn(2, E, B, D, generator=rng)

    def squares(rows: Tensor) -> Tensor:
        return rows.square().sum(-1)

    found = equations.discriminator_losses(squares, real, fake, torch.ones(E, B), 0.3, 0.7)
    expected = [
        sum(0.3 * 2 * float(x @ x) + 0.7 * 2 * float(y @ y) for x, y in zip(*rows, strict=True)) / B
        for rows in zip(real, fake, strict=True)
    ]
    torch.testing.assert_close(found["penalty"], torch.tensor(expected))


def test_the_error_of_the_mean_does_not_see_the_spread_over_z(rng: torch.Generator) -> None:
    """A million draws: (y − μ)², and neither a bias nor σ²; σ has no gradient."""
    y, mean, spread = 0.3, torch.tensor(1.1, requires_grad=True), torch.tensor(2.0)
    spread.requires_grad_()
    draw, other = mean + spread * torch.randn(2, 1, 1_000_000, 1, generator=rng)
    target = torch.full_like(draw, y)
    error = equations.squared_error_of_mean(target, draw, other, torch.ones(1, 1_000_000)).sum()
    to_mean, to_spread = torch.autograd.grad(error, (mean, spread))
    assert error.item() == pytest.approx((y - 1.1) ** 2, abs=0.02)
    assert to_mean.item() == pytest.approx(2 * (1.1 - y), abs=0.02)
    assert to_spread.item() == pytest.approx(0, abs=0.02)


def test_likelihoods_are_those_of_torch(rng: torch.Generator, mask: Tensor) -> None:
    target, mean, log_std = torch.randn(3, E, B, D, generator=rng)
    found = equations.gaussian_loss(target, mean, log_std, mask)
    density = torch.distributions.Normal(mean, log_std.exp()).log_prob(target).mean(-1)
    bits = (target > 0).float()
    of_bits = equations.bernoulli_loss(bits, mean, mask)
    mass = torch.distributions.Bernoulli(logits=mean).log_prob(bits).mean(-1)
    for member in range(E):
        mine = mask[member]
        nll = -density[member, mine].mean() - 0.5 * math.log(2 * math.pi)
        torch.testing.assert_close(found[member], nll)
        torch.testing.assert_close(of_bits[member], -mass[member, mine].mean())


def test_ends_that_are_drawn_often_are_learnt_at_the_rate_at_which_they_come() -> None:
    """One logit for all rows: the best one, by brute force, is the log odds in the data.

    A thousand rows, two of them ends; a minibatch of all of them and of 40 ends besides.
    """
    ended = torch.zeros(1, 1040)
    ended[0, :2] = ended[0, 1000:] = 1
    share = torch.tensor([0.002])
    log_odds = equations.end_log_odds(1000, 40, share, torch.tensor([1.0]))
    logits = torch.linspace(-9, 1, 2001)
    loss = [
        equations.end_loss(
            torch.full((1, 1040), float(logit)), ended, log_odds, torch.ones(1, 1040)
        )
        for logit in logits
    ]
    best = logits[torch.stack(loss).argmin()]
    assert torch.sigmoid(best).item() == pytest.approx(0.002, rel=0.02)


def test_rare_rows_that_are_no_ends_do_not_count() -> None:
    """Half of the extra rows are ends, and 20 of 40 in addition to 2 of 1,000 are 11 times 2."""
    log_odds = equations.end_log_odds(1000, 40, torch.tensor([0.002]), torch.tensor([0.5]))
    assert log_odds.exp().item() == pytest.approx(11)


def test_disagreement_is_a_loop_over_rows_and_dimensions(rng: torch.Generator) -> None:
    centre = torch.randn(E, B, D, generator=rng)
    counts = torch.tensor([True, False, True, True])
    for row, found in enumerate(equations.disagreement(centre, counts)):
        apart = []
        for axis in (0, 2, 3):
            values = centre[:, row, axis].tolist()
            mean = sum(values) / E
            apart.append(math.sqrt(sum((v - mean) ** 2 for v in values) / E))
        assert found.item() == pytest.approx(sum(apart) / 3, rel=1e-5)
    assert not equations.disagreement(centre[:1], counts).any()
