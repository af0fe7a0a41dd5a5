"""The Q-network: torsos for vectors and images, and its heads."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from lit_crl.core.categorical import expected
from lit_crl.core.checks import ConfigError
from lit_crl.core.mlp import Linear, mlp
from lit_crl.dqn.c51 import evenly_spaced
from lit_crl.dqn.equations import dueling
from lit_crl.dqn.impala import impala_layers
from lit_crl.dqn.memory import remembered
from lit_crl.dqn.noisy import NoisyLinear, noisy_layers, through
from lit_crl.dqn.planning import PlanningQNetwork
from lit_crl.dqn.settings import NetworkSettings, Torso
from lit_crl.envs.images import ImageSpace, channels_first

#: Bounds beyond this are nominal (Gymnasium writes ±3.4e38 for "unbounded"): do not scale by them.
_LARGEST_MEANINGFUL_BOUND = 1e3
#: The same for pixels, which may have 16 bits.
_LARGEST_MEANINGFUL_PIXEL = 1e6
#: Convolutions need at least this many rows and columns.
_SMALLEST_SIDE = 5
#: Filters, side of the kernel and stride of MinAtar's convolution (Young & Tian 2019).
MINATAR = [(16, 3, 1)]

#: Makes a fully connected layer of so many inputs and outputs.
MakeLinear = Callable[[int, int], nn.Module]


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
    space: Box, hidden: Sequence[int], layer_norm: bool, scale: bool, linear: MakeLinear = Linear
) -> tuple[nn.Module, int]:
    """A torso for vector observations, and its number of features."""
    inputs = int(np.prod(space.shape))
    features = mlp([inputs, *hidden], nn.ReLU, layer_norm, linear)
    first = ScaleObservation(space) if scale else FlattenObservation()
    return nn.Sequential(first, features), hidden[-1]


def image_torso(
    space: ImageSpace,
    hidden: Sequence[int],
    layer_norm: bool,
    kind: Torso = "plain",
    linear: MakeLinear = Linear,
) -> tuple[nn.Module, int]:
    """A convolutional torso for images, and its number of features.

    The plain one is that of Mnih et al. 2015: images of at least 36×36 pixels get the three layers
    of the paper; smaller ones get two 3×3 layers without stride. That of MinAtar is the first of
    these two alone. See ``impala.py`` for the third one.

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
    convolutions = {
        "plain": lambda: plain_layers(channels, smallest),
        "minatar": lambda: convolutions_of(channels, MINATAR),
        "impala": lambda: impala_layers(channels),
    }[kind]()
    layers = [ScaleImage(space), *convolutions, nn.Flatten()]
    with torch.no_grad():
        inputs = nn.Sequential(*layers)(torch.zeros(1, *space.shape)).shape[1]
    return nn.Sequential(*layers, mlp([inputs, *hidden], nn.ReLU, layer_norm, linear)), hidden[-1]


def plain_layers(channels: int, smallest_side: int) -> list[nn.Module]:
    """The convolutions of a plain torso."""
    large, small = [(32, 8, 4), (64, 4, 2), (64, 3, 1)], [(16, 3, 1), (32, 3, 1)]
    return convolutions_of(channels, large if smallest_side >= 36 else small)


def convolutions_of(channels: int, spec: Sequence[tuple[int, int, int]]) -> list[nn.Module]:
    """Convolutions with (filters, side of the kernel, stride), each followed by a ReLU."""
    layers: list[nn.Module] = []
    for filters, kernel, stride in spec:
        layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
        channels = filters
    return layers


class QNetwork(nn.Module):
    """Action values: a torso that fits the observation space, and a plain or dueling head."""

    #: Outputs of the head for each action.
    outputs = 1
    #: Numbers that it remembers of an episode; 0: it has no memory.
    memory_size = 0

    def __init__(
        self,
        space: Box,
        num_actions: int,
        hidden: Sequence[int] = (128, 128),
        dueling: bool = False,
        layer_norm: bool = True,
        scale_obs: bool = True,
        torso: Torso = "plain",
        noise: float = 0.0,
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
            torso: Convolutions for images.
            noise: σ₀ of the noisy layers, which all fully connected layers then are; 0: none is.

        Raises:
            ConfigError: If the torso is for images, and observations are none.
        """
        super().__init__()
        self.num_actions = num_actions
        linear: MakeLinear = partial(NoisyLinear, sigma=noise) if noise else Linear
        if isinstance(space, ImageSpace):
            self.torso, features = image_torso(space, hidden, layer_norm, torso, linear)
        elif torso != "plain":
            raise ConfigError(
                f"model.network.torso is {torso!r}, but observations {space} are not said to be "
                "images: set it to plain, or say how the axes of images lie (image_layout)"
            )
        else:
            self.torso, features = vector_torso(space, hidden, layer_norm, scale_obs, linear)
        self.features = features
        width = self.memory_size or features
        self.advantage = linear(width, num_actions * self.outputs)
        self.value = linear(width, self.outputs) if dueling else None
        self._noise_sizes = [layer.noise_size for layer in noisy_layers(self)]

    @property
    def noise_size(self) -> int:
        """Numbers of noise that its noisy layers take together; 0 if there are none."""
        return sum(self._noise_sizes)

    def forward(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Observations ``[B, *shape]`` to action values ``[B, A]``, which are always float32.

        Args:
            obs: Observations.
            noise: That of all noisy layers, ``[noise_size]`` or ``[B, noise_size]``; None: they use
                their means.
        """
        return self._computed(obs, noise)

    def _computed(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """What the head says, in float32."""
        parts = None
        if noise is not None:
            parts = iter(torch.split(noise, self._noise_sizes, -1))
        features = through(self.torso, obs, parts)
        if torch.is_autocast_enabled(obs.device.type):
            # bfloat16 would round a value of 100 to halves, neighbouring actions to one value.
            with torch.autocast(obs.device.type, enabled=False):
                return self._head(features.float(), parts)
        return self._head(features, parts)

    def _head(self, features: Tensor, noise: Iterator[Tensor] | None) -> Tensor:
        advantage = through(self.advantage, features, noise)
        if self.value is None:
            return advantage
        return dueling(through(self.value, features, noise), advantage)


class CategoricalQNetwork(QNetwork):
    """Action values as the means of distributions of returns (C51); see ``dqn/c51.py``."""

    #: The returns that distributions are over, ``[N]``; saved, because training may move them.
    atoms: Tensor

    def __init__(self, atoms: int, *args: Any, **kwargs: Any) -> None:
        """Build a ``QNetwork`` with distributions over so many ``atoms``, from −1 to 1 as yet."""
        self.outputs = atoms
        super().__init__(*args, **kwargs)
        self.register_buffer("atoms", evenly_spaced(torch.tensor([-1.0, 1.0]), atoms))

    def forward(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """See ``QNetwork``."""
        return expected(self.logits(obs, noise), self.atoms)

    def logits(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Observations ``[B, *shape]`` to the logits of each action's distribution, ``[B, A, N]``.

        With a dueling head Σ_a A(s, a) is 0 for each atom (Hessel et al. 2018, "The integrated
        agent").
        """
        return self._computed(obs, noise)

    def _head(self, features: Tensor, noise: Iterator[Tensor] | None) -> Tensor:
        flat = through(self.advantage, features, noise)
        advantage = flat.view(-1, self.outputs, self.num_actions)
        if self.value is not None:
            value = through(self.value, features, noise).unsqueeze(-1)
            advantage = dueling(value, advantage)
        return advantage.mT


class RecurrentQNetwork(QNetwork):
    """Action values of what an episode has shown so far: a GRU between torso and head.

    It sees observations alone, as in Hausknecht & Stone 2015 (DRQN); R2D2 shows the last action and
    reward besides. See ``dqn/memory.py``. What it remembers passes through the GRU again and again,
    so that the GRU calculates in float32 under mixed precision, too.
    """

    def __init__(self, memory: int, *args: Any, **kwargs: Any) -> None:
        """Build a ``QNetwork`` that remembers ``memory`` numbers of an episode."""
        self.memory_size = memory
        super().__init__(*args, **kwargs)
        self.cell = nn.GRUCell(self.features, memory)

    def forward(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Action values ``[B, A]`` of episodes that begin with ``obs [B, *shape]``."""
        return self.step(obs, self.no_memory(len(obs)))[0]

    def no_memory(self, n: int) -> Tensor:
        """The memory before the first observation of ``n`` episodes: zeros, ``[n, H]``."""
        return self.cell.weight_hh.new_zeros(n, self.memory_size)

    def step(self, obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Take one more observation of each episode into account.

        Args:
            obs: The observations, ``[B, *shape]``.
            memory: What was seen before them, ``[B, H]``.

        Returns:
            Action values ``[B, A]`` and the memory after the observations ``[B, H]``.
        """
        features = self.torso(obs)
        with torch.autocast(obs.device.type, enabled=False):
            memory = self.cell(features.float(), memory)
            return self._head(memory, None), memory

    def unroll(self, obs: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """Do the same with T observations of each episode, one after another.

        Args:
            obs: The observations, ``[B, T, *shape]``.
            memory: What was seen before the first of them, ``[B, H]``.
            begins: Where another episode begins, bool ``[B, T]``.

        Returns:
            Action values ``[B, T, A]`` and the memory after the last observations ``[B, H]``.
        """
        if obs.shape[1] == 0:
            return memory.new_zeros(len(obs), 0, self.num_actions), memory
        features = self.torso(obs.flatten(0, 1)).view(*obs.shape[:2], -1)
        with torch.autocast(obs.device.type, enabled=False):
            after = remembered(self.cell, features.float(), memory, begins)
            values = self._head(after.flatten(0, 1), None)
        return values.view(*obs.shape[:2], -1), after[:, -1]


ActionValues = QNetwork | PlanningQNetwork


def spread(support: Tensor, *networks: ActionValues) -> None:
    """Move the atoms of those networks that have any to a ``support [2]``, in place."""
    for network in networks:
        if isinstance(network, CategoricalQNetwork):
            network.atoms.copy_(evenly_spaced(support, len(network.atoms)))


def make_q_network(space: Box, num_actions: int, settings: NetworkSettings) -> ActionValues:
    """The Q-network that the settings describe.

    Raises:
        ConfigError: If it does not fit the observations.
    """
    hidden = settings.hidden
    if settings.planning_steps:
        return PlanningQNetwork(space, num_actions, hidden[-1], settings.planning_steps)
    plain = (settings.dueling, settings.layer_norm, settings.scale_obs)
    given = (space, num_actions, hidden, *plain, settings.torso, settings.noise)
    if settings.memory:
        return RecurrentQNetwork(settings.memory, *given)
    return CategoricalQNetwork(settings.atoms, *given) if settings.atoms else QNetwork(*given)
