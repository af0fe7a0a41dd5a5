"""Ensembles against stacks of ``nn.Linear``, one for each member."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_crl.world.networks import (
    BernoulliGenerators,
    Ensemble,
    GaussianGenerators,
    Generators,
    NoiseGenerators,
)

E, SIZES = 3, (5, 8, 6, 2)


def stack(ensemble: Ensemble, member: int) -> nn.Sequential:
    """A member as layers of torch's own."""
    layers: list[nn.Module] = []
    for weight, bias in zip(ensemble.weights, ensemble.biases, strict=True):
        linear = nn.Linear(*weight.shape[1:])
        with torch.no_grad():
            linear.weight.copy_(weight[member].T)
            linear.bias.copy_(bias[member, 0])
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


@pytest.fixture
def ensemble() -> Ensemble:
    torch.manual_seed(3)
    ensemble = Ensemble(E, SIZES)
    for bias in ensemble.biases:
        nn.init.normal_(bias)
    return ensemble


@pytest.mark.parametrize("shared", [True, False])
def test_an_ensemble_equals_stacks_of_linear_layers(ensemble: Ensemble, shared: bool) -> None:
    x = torch.randn(7, 5) if shared else torch.randn(E, 7, 5)
    for member, found in enumerate(ensemble(x)):
        expected = stack(ensemble, member)(x if shared else x[member])
        torch.testing.assert_close(found, expected)


def test_a_members_loss_has_no_gradient_for_another_and_is_the_one_it_has_alone(
    ensemble: Ensemble,
) -> None:
    x, y = torch.randn(E, 7, 5), torch.randn(E, 7, 2)
    F.mse_loss(ensemble(x)[1], y[1]).backward()
    for parameter in ensemble.parameters():
        assert parameter.grad is not None
        assert parameter.grad[1].any()
        assert not parameter.grad[[0, 2]].any()
    alone = stack(ensemble, 1)
    F.mse_loss(alone(x[1]), y[1]).backward()
    for linear, weight, bias in zip(alone[::2], ensemble.weights, ensemble.biases, strict=True):
        torch.testing.assert_close(linear.weight.grad.T, weight.grad[1])
        torch.testing.assert_close(linear.bias.grad, bias.grad[1, 0])


def test_members_start_apart_and_are_known_by_their_weights_alone(ensemble: Ensemble) -> None:
    for weight in ensemble.weights:
        for one in range(E):
            for other in range(one):
                assert (weight[one] - weight[other]).abs().mean() > 0.1
    x = torch.randn(7, 5)
    before, order = ensemble(x), torch.tensor([2, 0, 1])
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.copy_(parameter[order].clone())
    torch.testing.assert_close(ensemble(x), before[order])


def test_an_ensemble_stays_in_float32_under_mixed_precision(ensemble: Ensemble) -> None:
    x = torch.randn(7, 5)
    plain = ensemble(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ensemble(x)
        halved = ensemble(x.bfloat16())
    assert mixed.dtype == halved.dtype == torch.float32
    assert torch.equal(mixed, plain)


def generators(kind: str) -> Generators:
    torch.manual_seed(1)
    if kind == "noise":
        return NoiseGenerators(E, 3, 2, (8, 8), 4)
    return (GaussianGenerators if kind == "gaussian" else BernoulliGenerators)(E, 3, 2, (8, 8))


@pytest.mark.parametrize("kind", ["noise", "gaussian"])
def test_rescaled_generators_give_rescaled_targets(kind: str) -> None:
    made = generators(kind)
    condition, z = torch.randn(6, 3), torch.randn(6, made.noise_dim)
    if isinstance(made, GaussianGenerators):  # a deviation of .3 is far from its bounds
        with torch.no_grad():
            made.network.weights[-1][..., 2:] = 0
            made.network.biases[-1][..., 2:] = -1.2
    draw, centre, factor = made(condition, z), made.centre(condition), torch.tensor([1.5, 0.7])
    made.rescale(factor)
    torch.testing.assert_close(made.centre(condition), factor * centre)
    torch.testing.assert_close(made(condition, z), factor * draw, rtol=0.1, atol=0.05)


def test_draws_have_the_moments_that_the_likelihood_says() -> None:
    condition = torch.randn(1, 3)
    gaussian = generators("gaussian")
    assert isinstance(gaussian, GaussianGenerators)
    mean, log_std = (x[:, 0] for x in gaussian.parameters_of(condition))
    draws = gaussian(condition.expand(40_000, -1), torch.randn(40_000, 2))
    torch.testing.assert_close(draws.mean(1), mean, rtol=0.05, atol=0.05)
    torch.testing.assert_close(draws.std(1), log_std.exp(), rtol=0.05, atol=0.05)
    bernoulli = generators("bernoulli")
    bits = bernoulli(condition.expand(40_000, -1), torch.randn(40_000, 2))
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(bits.mean(1), bernoulli.centre(condition)[:, 0], rtol=0, atol=0.02)


def test_deviations_are_bounded() -> None:
    gaussian = generators("gaussian")
    assert isinstance(gaussian, GaussianGenerators)
    with torch.no_grad():
        gaussian.network.biases[-1][0] = 50
        gaussian.network.biases[-1][1] = -50
    deviation: Tensor = gaussian.parameters_of(torch.zeros(1, 3))[1].exp()
    assert deviation[0].max() <= 3.1
    assert 0.009 <= deviation[1].min() <= 0.011
