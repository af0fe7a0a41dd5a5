"""Noisy layers, against layers whose weights are written out, and against their moments."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor
from torch.nn import functional as F

from lit_crl.dqn.networks import QNetwork
from lit_crl.dqn.noisy import NoisyLinear, factorised_noise, noisy_layers

SPACE = Box(-1, 1, (3,), np.float32)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def written_out(layer: NoisyLinear, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias with noise, entry by entry: Fortunato et al. 2018, eq. 9 to 11."""
    weight, bias = layer.weight.clone(), layer.bias.clone()
    of_inputs, of_outputs = noise[: layer.in_features], noise[layer.in_features :]
    for j in range(layer.out_features):
        for i in range(layer.in_features):
            weight[j, i] = weight[j, i] + layer.weight_sigma[j, i] * of_inputs[i] * of_outputs[j]
        bias[j] = bias[j] + layer.bias_sigma[j] * of_outputs[j]
    return weight, bias


def noisy_layer() -> NoisyLinear:
    torch.manual_seed(0)
    layer = NoisyLinear(4, 3, sigma=0.5)
    for sigma in (layer.weight_sigma, layer.bias_sigma):
        torch.nn.init.uniform_(sigma)  # else one sigma could stand for another
    return layer


def test_a_layer_and_its_gradients_are_those_of_the_weights_written_out() -> None:
    layer, x, noise = noisy_layer(), torch.randn(6, 4, generator=rng()), torch.randn(7)
    y = layer(x, noise)
    by_hand = F.linear(x, *written_out(layer, noise))
    torch.testing.assert_close(y, by_hand)
    slope, parameters = torch.randn(6, 3, generator=rng(1)), list(layer.parameters())
    assert len(parameters) == 4
    for found, expected in zip(
        torch.autograd.grad((slope * y).sum(), parameters),
        torch.autograd.grad((slope * by_hand).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_each_row_can_have_noise_of_its_own() -> None:
    layer, x = noisy_layer(), torch.randn(6, 4, generator=rng())
    noise = factorised_noise(6, layer.noise_size, rng=rng(2))
    y = layer(x, noise)
    for row in range(6):
        torch.testing.assert_close(y[row], F.linear(x[row], *written_out(layer, noise[row])))


def test_without_noise_a_layer_is_the_plain_layer_of_its_means() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(4, 3)
    torch.manual_seed(0)
    layer = NoisyLinear(4, 3, sigma=0.5)
    x = torch.randn(6, 4, generator=rng())
    for module in (layer.train(), layer.eval()):  # the mode does not matter
        assert torch.equal(module(x), plain(x))
    assert (layer.weight_sigma == 0.25).all() and (layer.bias_sigma == 0.25).all()


def test_noise_and_outputs_have_the_moments_of_the_paper() -> None:
    """E f(ε) = 0, E f(ε)² = E|ε| = √(2/π); so Var y = Σ_i (σ_i x_i)² · 2/π + σ_b² √(2/π)."""
    noise = factorised_noise(200_000, 7, rng=rng(3))
    size = math.sqrt(2 / math.pi)
    assert noise.mean().abs() < 0.003 and noise.square().mean().item() == pytest.approx(size, 0.01)
    normal = torch.randn(200_000, 7, generator=rng(3))
    assert torch.equal(noise.sign(), normal.sign())
    torch.testing.assert_close(noise.square(), normal.abs())
    layer, x = noisy_layer(), torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    with torch.no_grad():
        y = layer(x.expand(200_000, -1), noise)
        torch.testing.assert_close(y.mean(0), layer(x)[0], atol=0.02, rtol=0.02)
        variance = (layer.weight_sigma * x).square().sum(1) * size**2
        variance += layer.bias_sigma.square() * size
    torch.testing.assert_close(y.var(0), variance, atol=0.0, rtol=0.03)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_network_gives_each_layer_its_part_of_the_noise(dueling: bool, layer_norm: bool) -> None:
    torch.manual_seed(0)
    network = QNetwork(SPACE, 2, (5, 4), dueling, layer_norm, noise=0.5)
    layers = noisy_layers(network)
    assert [(layer.in_features, layer.out_features) for layer in layers] == [
        (3, 5), (5, 4), (4, 2), *([(4, 1)] if dueling else []),
    ]  # fmt: skip
    assert network.noise_size == 8 + 9 + 6 + 5 * dueling
    obs, noise = torch.rand(6, 3), factorised_noise(network.noise_size, rng=rng(1))
    found = network(obs, noise)
    plain = QNetwork(SPACE, 2, (5, 4), dueling, layer_norm)
    state, at = network.state_dict(), 0
    for name, layer in network.named_modules():
        if isinstance(layer, NoisyLinear):
            weight, bias = written_out(layer, noise[at : at + layer.noise_size])
            state |= {f"{name}.weight": weight, f"{name}.bias": bias}
            at += layer.noise_size
    assert at == len(noise)
    plain.load_state_dict({name: value for name, value in state.items() if "sigma" not in name})
    torch.testing.assert_close(found, plain(obs), atol=1e-5, rtol=1e-4)
    own = torch.stack([noise, torch.zeros_like(noise)]).repeat(3, 1)
    torch.testing.assert_close(network(obs, own)[::2], found[::2])
    torch.testing.assert_close(network(obs, own)[1::2], network(obs)[1::2])


def test_noise_leaves_the_means_of_a_plain_networks_first_weights() -> None:
    torch.manual_seed(0)
    plain = QNetwork(SPACE, 2, (5,)).state_dict()
    torch.manual_seed(0)
    noisy = QNetwork(SPACE, 2, (5,), noise=0.5).state_dict()
    assert all(torch.equal(noisy[name], value) for name, value in plain.items())
    assert {name for name in noisy if name not in plain} == {
        f"{layer}.{kind}_sigma"
        for layer in ("torso.1.0", "advantage") for kind in ("weight", "bias")
    }  # fmt: skip
