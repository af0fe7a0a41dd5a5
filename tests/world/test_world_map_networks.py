"""Networks for maps of bits: each member by itself, and distributions by adding up all maps."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_crl.world.map_networks import (
    COMPONENTS,
    ConvolutionalEnsemble,
    MapDiscriminators,
    MapHeads,
    MapMixtureGenerators,
    MapNoiseGenerators,
    MapShape,
)

#: Two maps of one row and two columns: sixteen ways to flip.
TINY = MapShape(channels=2, height=1, width=2, actions=3)
ALL_FLIPS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=TINY.bits)))


def conditions(n: int, shape: MapShape = TINY) -> Tensor:
    bits = (torch.rand(n, shape.bits) < 0.5).float()
    return torch.cat([bits, torch.eye(shape.actions)[torch.arange(n) % shape.actions]], -1)


def mixture(members: int = 2) -> MapMixtureGenerators:
    """One whose components differ, and are not equally likely."""
    torch.manual_seed(0)
    generators = MapMixtureGenerators(members, TINY)
    torch.nn.init.normal_(generators.network.weights[-1], std=2.0)
    torch.nn.init.normal_(generators.network.biases[-1], mean=2.0)
    return generators


def test_an_ensemble_is_its_members_one_by_one() -> None:
    torch.manual_seed(0)
    ensemble = ConvolutionalEnsemble(3, [2, 4, 5], [(3, 1), (3, 2)])
    for bias in ensemble.biases:
        torch.nn.init.normal_(bias)
    x = torch.randn(3, 7, 2, 6, 5)
    together = ensemble(x)
    first, second = (w.view(3, -1, *w.shape[1:]) for w in ensemble.weights)
    one_bias, other_bias = (b.view(3, -1) for b in ensemble.biases)
    for e in range(3):
        hidden = F.silu(F.conv2d(x[e], first[e], one_bias[e], padding=1))
        expected = F.conv2d(hidden, second[e], other_bias[e], stride=2, padding=1)
        torch.testing.assert_close(together[e], expected)
    torch.testing.assert_close(ensemble(x[0]), ensemble(x[:1].expand(3, -1, -1, -1, -1)))


def test_planes_say_what_is_there_what_comes_and_what_goes() -> None:
    shape = MapShape(channels=1, height=2, width=2, actions=2)
    bits, flips = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    rows = torch.cat([bits, torch.tensor([0.0, 1.0]), flips])
    there, comes, goes, no, yes = shape.transition(rows)
    assert there.tolist() == [[0, 1], [0, 1]]
    assert comes.tolist() == [[1, 0], [0, 0]] and goes.tolist() == [[0, 1], [0, 0]]
    assert no.eq(0).all() and yes.eq(1).all()
    assert torch.equal(shape.condition(rows[:6]), torch.stack([there, no, yes]))


def test_probabilities_of_all_ways_to_flip_add_up_to_1_and_are_those_drawn() -> None:
    generators = mixture()
    condition = conditions(1).expand(len(ALL_FLIPS), -1)
    one_by_one = [
        torch.stack([generators.loss(condition[:1], y[None, None].expand(2, 1, -1),
                                     torch.ones(2, 1)) for y in ALL_FLIPS])
    ]  # fmt: skip
    probability = torch.exp(-TINY.bits * one_by_one[0]).detach()
    torch.testing.assert_close(probability.sum(0), torch.ones(2))
    expected = torch.einsum("ye,yd->ed", probability, ALL_FLIPS)
    torch.testing.assert_close(generators.centre(condition[:1])[:, 0].detach(), expected)
    n = 20_000
    z = torch.randn(n, generators.noise_dim, generator=torch.Generator().manual_seed(1))
    drawn = generators(conditions(1)[:1].mul(0).add(condition[:1]).expand(n, -1), z)
    same = (drawn[:, :, None] == ALL_FLIPS).all(-1)
    torch.testing.assert_close(same.float().mean(1), probability.T, atol=0.015, rtol=0)


def test_components_start_alike_and_nothing_changes() -> None:
    torch.manual_seed(0)
    generators = MapMixtureGenerators(2, MapShape(3, 6, 6, 2))
    condition = conditions(40, generators.shape)
    logit, log_weight = generators.parameters_of(condition)
    assert torch.allclose(log_weight.exp(), torch.full_like(log_weight, 1 / COMPONENTS))
    between, along = logit.std(2).mean(), logit.std(-1).mean()
    assert 0 < between < 0.1 * along
    assert generators.centre(condition).mean() < 0.05


def test_noise_makes_bits_and_their_gradient_is_that_of_the_probabilities() -> None:
    torch.manual_seed(0)
    generators = MapNoiseGenerators(2, TINY, noise_dim=3)
    torch.nn.init.constant_(generators.network.biases[-1], 4.0)  # flips are as likely as not
    condition, z = conditions(30), torch.randn(30, 3)
    drawn = generators(condition, z)
    assert drawn.shape == (2, 30, TINY.bits) and set(drawn.unique().tolist()) == {0.0, 1.0}
    probability = torch.sigmoid(generators.logits(condition, z))
    assert torch.equal(drawn, (probability > 0.5).float())
    weights = list(generators.parameters())
    for mine, other in zip(
        torch.autograd.grad(drawn.sum(), weights),
        torch.autograd.grad(probability.sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


def test_no_member_learns_from_the_loss_of_another() -> None:
    torch.manual_seed(0)
    shape = MapShape(2, 5, 5, 2)
    condition, flips = conditions(6, shape), torch.rand(6, shape.bits).round()
    rows = torch.cat([condition, flips], -1).expand(3, -1, -1)
    heads, discriminators = MapHeads(3, shape, [8], 5), MapDiscriminators(3, shape)
    reward, end = heads(condition, flips)
    assert reward.shape == (3, 6, 5) and end.shape == (3, 6)
    logit = discriminators(rows)
    assert logit.shape == (3, 6)
    for weight in discriminators.parameters():
        (gradient,) = torch.autograd.grad(logit[1].sum(), [weight], retain_graph=True)
        of_member = gradient.view(3, -1).abs().sum(1)
        assert of_member[1] > 0 and of_member[0] == of_member[2] == 0
