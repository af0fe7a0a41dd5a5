"""The networks against forward passes written out with ``torch.nn.functional``."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.nn import functional as F

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.networks import QNetwork
from lit_crl.envs import CartPole, MountainCar
from lit_crl.envs.images import ImageSpace
from lit_crl.gan.level_gan import LevelGan
from lit_crl.gan.networks import VectorDiscriminator, VectorGenerator

VECTOR = Box(np.array([-2.0, 1.0], np.float32), np.array([4.0, 2.0], np.float32))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image_space(*shape: int) -> Box:
    return Box(0, 255, shape, np.uint8)


def random_image(space: Box, rows: int = 2) -> Tensor:
    return torch.randint(256, (rows, *space.shape), generator=rng(), dtype=torch.uint8)


def layers_of(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


def weights_of(layer: nn.Module) -> tuple[Tensor, Tensor]:
    found = dict(layer.named_parameters())
    return found["weight"], found["bias"]


def naive_q(network: QNetwork, features: Tensor, layer_norm: bool, dueling: bool) -> Tensor:
    """Hidden layers and head, by hand, from scaled features."""
    heads = 2 if dueling else 1
    linear = layers_of(network, nn.Linear)
    norms = layers_of(network, nn.LayerNorm)
    x = features
    for index, layer in enumerate(linear[:-heads]):
        x = F.linear(x, *weights_of(layer))
        if layer_norm:
            x = F.layer_norm(x, x.shape[1:], *weights_of(norms[index]))
        x = x.clamp(min=0)
    advantage = F.linear(x, *weights_of(network.advantage))
    if not dueling:
        return advantage
    value = F.linear(x, *weights_of(network.value))  # type: ignore[arg-type]
    return value + advantage - advantage.sum(dim=1, keepdim=True) / advantage.shape[1]


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("scale_obs", [False, True])
def test_a_vector_network_computes_what_its_settings_say(
    dueling: bool, layer_norm: bool, scale_obs: bool
) -> None:
    torch.manual_seed(0)
    network = QNetwork(VECTOR, 3, (8, 5), dueling, layer_norm, scale_obs)
    for norm in layers_of(network, nn.LayerNorm):
        nn.init.normal_(norm.weight)  # else its place would hardly show
        nn.init.normal_(norm.bias)
    assert len(layers_of(network, nn.LayerNorm)) == 2 * layer_norm
    assert [layer.out_features for layer in layers_of(network, nn.Linear)][:2] == [8, 5]
    obs = torch.tensor([[-2.0, 1.0], [4.0, 2.0], [1.0, 1.75]])
    scaled = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.5]])
    q = network(obs)
    assert q.shape == (3, 3)
    expected = naive_q(network, scaled if scale_obs else obs, layer_norm, dueling)
    assert torch.allclose(q, expected, atol=1e-5)


def test_unbounded_coordinates_are_not_scaled() -> None:
    big = 3.4e38
    low = np.array([-1.0, -np.inf, -big, 0.0, 7.0], np.float32)
    high = np.array([3.0, np.inf, big, np.inf, 7.0], np.float32)
    torch.manual_seed(0)
    network = QNetwork(Box(low, high), 2, (6,), False, False, True)
    obs = torch.tensor([[2.0, -5.0, 11.0, 4.0, 7.0]])
    passed = naive_q(network, torch.tensor([[0.5, -5.0, 11.0, 4.0, 7.0]]), False, False)
    assert torch.allclose(network(obs), passed, atol=1e-5)


def test_the_mean_advantage_of_a_dueling_network_is_zero() -> None:
    torch.manual_seed(0)
    network = QNetwork(VECTOR, 4, (16,), dueling=True)
    obs = 10 * torch.randn(20, 2, generator=rng())
    assert network.value is not None
    value = network.value(network.torso(obs))
    assert torch.allclose(network(obs).mean(dim=1, keepdim=True), value, atol=1e-5)
    with torch.no_grad():
        before = network(obs)
        network.advantage.bias += 3.0
    assert torch.allclose(network(obs), before, atol=1e-5), "a common advantage must not count"


@pytest.mark.parametrize(
    ("last", "first", "convolutions"),
    [
        ((84, 84, 4), (4, 84, 84), [(32, 8, 4), (64, 4, 2), (64, 3, 1)]),
        ((36, 40, 1), (1, 36, 40), [(32, 8, 4), (64, 4, 2), (64, 3, 1)]),
        ((10, 10, 4), (4, 10, 10), [(16, 3, 1), (32, 3, 1)]),
        ((10, 10, 7), (7, 10, 10), [(16, 3, 1), (32, 3, 1)]),
        ((5, 5, 3), (3, 5, 5), [(16, 3, 1), (32, 3, 1)]),
    ],
)
def test_images_give_the_same_values_with_channels_last_and_first(
    last: tuple[int, ...], first: tuple[int, ...], convolutions: list[tuple[int, int, int]]
) -> None:
    torch.manual_seed(0)
    channels_last = QNetwork(ImageSpace(image_space(*last), "HWC"), 5, (12,))
    channels_first = QNetwork(ImageSpace(image_space(*first), "CHW"), 5, (12,))
    channels_first.load_state_dict(channels_last.state_dict())
    image = random_image(image_space(*last))
    q = channels_last(image)
    assert q.shape == (2, 5) and q.dtype == torch.float32
    assert torch.allclose(channels_first(image.permute(0, 3, 1, 2)), q, atol=1e-5)
    layers = layers_of(channels_last, nn.Conv2d)
    assert [(c.out_channels, *c.kernel_size[:1], *c.stride[:1]) for c in layers] == convolutions

    x = image.permute(0, 3, 1, 2).float() / 255
    for layer, (_, _, stride) in zip(layers, convolutions, strict=True):
        x = F.conv2d(x, *weights_of(layer), stride=stride).clamp(min=0)
    assert torch.allclose(naive_q(channels_last, x.flatten(1), True, False), q, atol=1e-4)


def test_the_torso_of_minatar_is_one_convolution() -> None:
    """16 filters of 3×3 and a hidden layer, as in the code of Young & Tian 2019."""
    torch.manual_seed(0)
    space = image_space(10, 10, 4)
    network = QNetwork(ImageSpace(space, "HWC"), 3, (128,), layer_norm=False, torso="minatar")
    image = random_image(space)
    (layer,) = layers_of(network, nn.Conv2d)
    x = F.conv2d(image.permute(0, 3, 1, 2).float() / 255, *weights_of(layer)).clamp(min=0)
    assert x.shape[1:] == (16, 8, 8)
    assert torch.allclose(naive_q(network, x.flatten(1), False, False), network(image), atol=1e-4)
    sizes = 4 * 9 * 16 + 16, 1024 * 128 + 128, 128 * 3 + 3
    assert sum(p.numel() for p in network.parameters()) == sum(sizes)


def test_what_is_not_said_to_be_an_image_is_not_convolved() -> None:
    for space in (Box(-1, 1, (10, 10, 4), np.float32), image_space(10, 10)):
        network = QNetwork(space, 2, (4,))
        assert not layers_of(network, nn.Conv2d)
        assert network(torch.zeros(3, *space.shape)).shape == (3, 2)


@pytest.mark.parametrize(
    ("shape", "layout", "pixels"),
    [
        ((4, 20, 3), "HWC", "4×20"),
        ((3, 20, 4), "CHW", "20×4"),
        ((9, 4, 4, 9), "HWC", "4×4"),
        ((9, 4), "HW", "9×4"),
    ],
)
def test_images_too_small_to_convolve_are_refused(
    shape: tuple[int, ...], layout: Any, pixels: str
) -> None:
    with pytest.raises(ConfigError, match=f"{pixels} pixels are too small .* to vector"):
        QNetwork(ImageSpace(image_space(*shape), layout), 2, (4,))


@pytest.mark.parametrize("scale_obs", [False, True])
def test_a_vector_of_bytes_is_read_as_numbers(scale_obs: bool) -> None:
    torch.manual_seed(0)
    network = QNetwork(Box(0, 255, (3,), np.uint8), 2, (4,), scale_obs=scale_obs)
    obs = torch.tensor([[0, 255, 51]], dtype=torch.uint8)
    seen = torch.tensor([[-1.0, 1.0, -0.6]]) if scale_obs else obs.float()
    assert torch.allclose(network(obs), naive_q(network, seen, True, False), atol=1e-5)


def test_every_weight_of_a_q_network_learns() -> None:
    for space in (VECTOR, ImageSpace(image_space(10, 10, 4), "HWC")):
        for dueling in (False, True):
            torch.manual_seed(0)
            network = QNetwork(space, 3, (8, 8), dueling)
            image = len(space.shape) == 3
            obs = random_image(space, 9) if image else torch.randn(9, 2, generator=rng())
            network(obs)[:, 0].square().sum().backward()
            for name, weight in network.named_parameters():
                assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_the_generator_stays_inside_the_cube_whatever_the_noise() -> None:
    torch.manual_seed(0)
    generator = VectorGenerator(3, 5, (8, 8))
    z = torch.randn(200, 5, generator=rng())
    levels = generator(z)
    assert levels.shape == (200, 3)
    assert (levels.abs() <= 1).all() and levels.std(dim=0).min() > 0
    far = generator(1e6 * z)
    assert far.isfinite().all() and (far.abs() <= 1).all()


def test_a_generated_level_depends_on_its_own_noise_alone() -> None:
    torch.manual_seed(0)
    generator = VectorGenerator(2, 4, (8,))
    z = torch.randn(6, 4, generator=rng())
    together = generator(z)
    for row in range(6):
        assert torch.allclose(generator(z[row : row + 1])[0], together[row], atol=1e-6)


def test_generator_and_discriminator_fit_the_level_space() -> None:
    space = CartPole(1).level_space
    level_gan = LevelGan(space, None, 0, (8,))
    assert level_gan.generator.noise_dim == 2 * 9
    assert LevelGan(MountainCar(1).level_space, None, 0, (8,)).generator.noise_dim == 8
    assert LevelGan(space, None, 5, (8,)).generator.noise_dim == 5
    levels = level_gan.generator(torch.randn(4, 18, generator=rng()))
    judge = level_gan.discriminator
    assert levels.shape == (4, 9)
    assert judge(levels).shape == judge.success_logit(levels).shape == (4,)


def test_the_discriminators_two_judgements_share_no_weight() -> None:
    torch.manual_seed(0)
    discriminator = VectorDiscriminator(2, (8, 8))
    weights = dict(discriminator.named_parameters())
    level = torch.randn(16, 2, generator=rng())

    def used(logit: Tensor) -> set[str]:
        gradients = torch.autograd.grad(
            logit.square().sum(), list(weights.values()), allow_unused=True
        )
        return {name for name, g in zip(weights, gradients, strict=True) if g is not None}

    realness, success = used(discriminator(level)), used(discriminator.success_logit(level))
    assert realness and success and not realness & success
    assert realness | success == set(weights)


def test_the_discriminator_computes_its_layers_in_order() -> None:
    torch.manual_seed(0)
    discriminator = VectorDiscriminator(2, (8, 4))
    level = torch.randn(5, 2, generator=rng())
    for body, logit in (
        (discriminator.critic, discriminator(level)),
        (discriminator.success_head, discriminator.success_logit(level)),
    ):
        x = level
        *hidden, head = layers_of(body, nn.Linear)
        for layer in hidden:
            x = F.leaky_relu(F.linear(x, *weights_of(layer)), 0.01)
        assert torch.allclose(F.linear(x, *weights_of(head)).squeeze(1), logit, atol=1e-6)
