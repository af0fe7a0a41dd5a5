"""The Q-network: torsos for vectors and images, and its head."""

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from lit_crl.core.checks import ConfigError
from lit_crl.core.mlp import Linear, mlp
from lit_crl.dqn.equations import dueling
from lit_crl.dqn.planning import PlanningQNetwork
from lit_crl.envs.images import ImageSpace, channels_first

#: Bounds beyond this are nominal (Gymnasium writes ±3.4e38 for "unbounded"): do not scale by them.
_LARGEST_MEANINGFUL_BOUND = 1e3
#: The same for pixels, which may have 16 bits.
_LARGEST_MEANINGFUL_PIXEL = 1e6
#: Convolutions need at least this many rows and columns.
_SMALLEST_SIDE = 5


class _Scale(nn.Module):
    """Shifts and scales the bounded numbers of an observation; passes the others through.

    The buffers are not saved, because the observation space defines them.
    """

    shift: Tensor
    scale: Tensor

    def _set(self, low: Tensor, high: Tensor, largest: float, shift: Tensor, scale: Tensor) -> None:
        """Use ``shift`` and ``scale`` where the bounds are different and below ``largest``."""
        bounded = (torch.maximum(low.abs(), high.abs()) < largest) & (high > low)
        self.register_buffer("shift", shift.where(bounded, 0.0), persistent=False)
        self.register_buffer("scale", scale.where(bounded, 1.0), persistent=False)


class ScaleObservation(_Scale):
    """Scale each bounded coordinate of a vector observation to [−1, 1]; pass the rest through."""

    def __init__(self, space: Box) -> None:
        """Read the bounds of ``space``."""
        super().__init__()
        low = torch.as_tensor(space.low, dtype=torch.float32).flatten()
        high = torch.as_tensor(space.high, dtype=torch.float32).flatten()
        self._set(low, high, _LARGEST_MEANINGFUL_BOUND, (low + high) / 2, (high - low) / 2)

    def forward(self, obs: Tensor) -> Tensor:
        """``[B, *shape] -> [B, d]``."""
        return (obs.flatten(1) - self.shift) / self.scale


class FlattenObservation(nn.Module):
    """A vector observation as it is, in floats."""

    def forward(self, obs: Tensor) -> Tensor:
        """``[B, *shape] -> [B, d]``."""
        return obs.flatten(1).float()


class ScaleImage(_Scale):
    """Turn images into ``[B, C, H, W]`` floats; scale each bounded pixel to [0, 1]."""

    def __init__(self, space: ImageSpace) -> None:
        """Read the bounds of ``space``."""
        super().__init__()
        self.layout = space.layout
        bounds = (torch.as_tensor(bound, dtype=torch.float32) for bound in (space.low, space.high))
        low, high = (channels_first(bound[None], space.layout)[0].contiguous() for bound in bounds)
        self._set(low, high, _LARGEST_MEANINGFUL_PIXEL, low, high - low)

    def forward(self, obs: Tensor) -> Tensor:
        """``[B, *shape] -> [B, C, H, W]``."""
        return (channels_first(obs, self.layout).float() - self.shift) / self.scale


def vector_torso(
    space: Box, hidden: Sequence[int], layer_norm: bool, scale: bool
) -> tuple[nn.Module, int]:
    """A torso for vector observations, and its number of features."""
    inputs = int(np.prod(space.shape))
    features = mlp([inputs, *hidden], nn.ReLU, layer_norm)
    first = ScaleObservation(space) if scale else FlattenObservation()
    return nn.Sequential(first, features), hidden[-1]


def image_torso(
    space: ImageSpace, hidden: Sequence[int], layer_norm: bool
) -> tuple[nn.Module, int]:
    """A convolutional torso for images (Mnih et al. 2015), and its number of features.

    Images of at least 36×36 pixels get the three layers of the paper; smaller ones (as in MinAtar)
    get two 3×3 layers without stride.

    Raises:
        ConfigError: If the images are smaller than 5×5 pixels.
    """
    channels, rows, columns = space.image_shape
    smallest = min(rows, columns)
    if smallest < _SMALLEST_SIDE:
        raise ConfigError(
            f"images of {rows}×{columns} pixels are too small for convolutions, which need 5×5: "
            "set image_layout to vector (data.env.image_layout in YAML; None in an environment of "
            "your own), which gives an MLP"
        )
    spec = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if smallest >= 36 else [(16, 3, 1), (32, 3, 1)]
    layers: list[nn.Module] = [ScaleImage(space)]
    for filters, kernel, stride in spec:
        layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
        channels = filters
    layers.append(nn.Flatten())
    with torch.no_grad():
        inputs = nn.Sequential(*layers)(torch.zeros(1, *space.shape)).shape[1]
    return nn.Sequential(*layers, mlp([inputs, *hidden], nn.ReLU, layer_norm)), hidden[-1]


class QNetwork(nn.Module):
    """Action values: a torso that fits the observation space, and a plain or dueling head."""

    def __init__(
        self,
        space: Box,
        num_actions: int,
        hidden: Sequence[int] = (128, 128),
        dueling: bool = False,
        layer_norm: bool = True,
        scale_obs: bool = True,
    ) -> None:
        """Build the network.

        Args:
            space: Observation space of one environment; an ``ImageSpace`` makes the network
                convolutional, any other space is a vector.
            num_actions: Size of the discrete action space.
            hidden: Width of each fully connected hidden layer.
            dueling: Split the head into state value and advantages.
            layer_norm: Normalise after each hidden layer, which keeps off-policy TD learning
                stable (Gallici et al. 2025, PQN).
            scale_obs: Scale bounded vector observations to [−1, 1] (images always are scaled).
        """
        super().__init__()
        if isinstance(space, ImageSpace):
            self.torso, features = image_torso(space, hidden, layer_norm)
        else:
            self.torso, features = vector_torso(space, hidden, layer_norm, scale_obs)
        self.advantage = Linear(features, num_actions)
        self.value = Linear(features, 1) if dueling else None

    def forward(self, obs: Tensor) -> Tensor:
        """Observations ``[B, *shape]`` to action values ``[B, A]``, which are always float32."""
        features = self.torso(obs)
        if torch.is_autocast_enabled(obs.device.type):
            # bfloat16 would round a value of 100 to halves, neighbouring actions to one value.
            with torch.autocast(obs.device.type, enabled=False):
                return self._head(features.float())
        return self._head(features)

    def _head(self, features: Tensor) -> Tensor:
        advantage: Tensor = self.advantage(features)
        return advantage if self.value is None else dueling(self.value(features), advantage)


ActionValues = QNetwork | PlanningQNetwork


def make_q_network(
    space: Box, num_actions: int, planning_steps: int, hidden: Sequence[int], *plain: bool
) -> ActionValues:
    """A Q-network that plans paths of up to ``planning_steps`` steps; with 0 it does not plan.

    ``plain`` are the further arguments of ``QNetwork``.
    """
    if planning_steps:
        return PlanningQNetwork(space, num_actions, hidden[-1], planning_steps)
    return QNetwork(space, num_actions, hidden, *plain)
