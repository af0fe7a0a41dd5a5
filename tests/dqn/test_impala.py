"""The torso of IMPALA, against its figure written out with ``torch.nn.functional``."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor
from torch.nn import functional as F

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.networks import QNetwork
from lit_crl.envs.images import ImageSpace


def space(channels: int, rows: int, columns: int) -> ImageSpace:
    return ImageSpace(Box(0, 255, (channels, rows, columns), np.uint8), "CHW")


@pytest.mark.parametrize(("rows", "columns"), [(84, 84), (10, 10), (5, 7)])
def test_it_is_the_figure_of_the_paper(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    network = QNetwork(space(4, rows, columns), 3, (16,), torso="impala")
    obs = torch.randint(256, (2, 4, rows, columns), dtype=torch.uint8)
    weights = iter(
        pair for pair in pairwise(network.torso.parameters()) if pair[0].dim() == 4
    )  # a convolution's weight and bias

    def convolved(x: Tensor) -> Tensor:
        return F.conv2d(x, *next(weights), padding=1)

    x = obs.float() / 255
    for filters in (16, 32, 32):
        x = F.max_pool2d(convolved(x), 3, stride=2, padding=1)
        assert x.shape[1] == filters
        for _ in range(2):
            x = x + convolved(F.relu(convolved(F.relu(x))))
    assert next(weights, None) is None
    assert x.shape[2:] == (-(-rows // 8), -(-columns // 8))
    features = network.torso[-1](F.relu(x).flatten(1))  # type: ignore[index]
    torch.testing.assert_close(network(obs), network.advantage(features), atol=1e-5, rtol=1e-4)


def test_each_weight_of_it_learns() -> None:
    torch.manual_seed(0)
    network = QNetwork(space(3, 12, 12), 3, (8,), torso="impala", noise=0.5)
    obs = torch.randint(256, (9, 3, 12, 12), dtype=torch.uint8)
    network(obs, torch.randn(network.noise_size)).square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_vectors_have_no_convolutions() -> None:
    with pytest.raises(ConfigError, match=r"model\.network\.torso is 'impala', but .* images"):
        QNetwork(Box(-1, 1, (4,), np.float32), 2, (8,), torso="impala")
