"""The world's networks for maps of bits: E members of each, as one convolution with E groups.

They take what those for vectors take: rows of a condition, d = C · H · W bits and a one-hot action,
and of a target, the d flips. In here these become planes ``[planes, H, W]``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_crl.gan.equations import straight_through
from lit_crl.world import equations
from lit_crl.world.networks import Ensemble, Generators, LikelihoodGenerators, Networks
from lit_crl.world.rewards import reward_atoms
from lit_crl.world.settings import WorldSettings

#: Filters of each convolution of generators and discriminators, and of the heads.
FILTERS, HEADS_FILTERS = 32, 16
#: Components of a likelihood.
COMPONENTS = 4
#: How far components are apart at the start, as a share of their weights.
APART = 0.01
#: Log odds of a flip before anything was learnt: nothing changes.
STAYS = -4.0


class MapShape(NamedTuple):
    """What rows are made of."""

    channels: int
    height: int
    width: int
    actions: int

    @property
    def bits(self) -> int:
        """Bits d of a map."""
        return self.channels * self.height * self.width

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a map."""
        return self.height, self.width

    def condition(self, rows: Tensor) -> Tensor:
        """Planes of bits and of the action ``[..., C + A, H, W]`` of rows ``[..., d + A]``."""
        bits, action = torch.split(rows, [self.bits, self.actions], -1)
        return torch.cat([self.maps(bits), self.everywhere(action)], -3)

    def transition(self, rows: Tensor) -> Tensor:
        """The same and which bits become 1, and which 0, ``[..., 3 C + A, H, W]``.

        Args:
            rows: Conditions with their targets, ``[..., d + A + d]``.
        """
        bits, action, flips = torch.split(rows, [self.bits, self.actions, self.bits], -1)
        planes = [self.maps(each) for each in (bits, (1 - bits) * flips, bits * flips)]
        return torch.cat([*planes, self.everywhere(action)], -3)

    def maps(self, bits: Tensor) -> Tensor:
        """Bits ``[..., d]`` as ``[..., C, H, W]``."""
        return bits.reshape(*bits.shape[:-1], self.channels, *self.size)

    def everywhere(self, numbers: Tensor) -> Tensor:
        """A plane for each of the numbers ``[..., k]``, which every cell sees."""
        return numbers[..., None, None].expand(*numbers.shape, *self.size)


class ConvolutionalEnsemble(nn.Module):
    """E stacks of convolutions with SiLU between them; as ``Ensemble``, no member sees another."""

    def __init__(self, members: int, planes: Sequence[int], layers: Sequence[tuple[int, int]]):
        """``members`` stacks, whose convolutions have (side of the kernel, stride) of ``layers``.

        Weights have variance 1 / inputs (LeCun et al. 1998, §4.6), and biases are 0.

        Args:
            members: Number E of stacks.
            planes: Planes before each layer, and after the last.
            layers: Of each convolution; the side is odd.
        """
        super().__init__()
        self.members, self.layers = members, tuple(layers)
        shapes = zip(planes[:-1], planes[1:], layers, strict=True)
        self.weights = nn.ParameterList(
            torch.randn(members * outputs, inputs, side, side) / math.sqrt(inputs * side * side)
            for inputs, outputs, (side, _) in shapes
        )
        self.biases = nn.ParameterList(torch.zeros(members * outputs) for outputs in planes[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Every member's planes ``[E, N, out, H', W']`` for its maps, or for shared ones.

        Maps are ``[E, N, in, H, W]``, and shared ones ``[N, in, H, W]``.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.float().expand(self.members, *x.shape[-4:]).transpose(0, 1).flatten(1, 2)
            parameters = zip(self.weights, self.biases, self.layers, strict=True)
            for number, (weight, bias, (side, stride)) in enumerate(parameters):
                x = F.silu(x) if number else x
                x = F.conv2d(x, weight, bias, stride, side // 2, groups=self.members)
        return x.view(len(x), self.members, -1, *x.shape[-2:]).transpose(0, 1)


def painters(members: int, inputs: int, outputs: int) -> ConvolutionalEnsemble:
    """Stacks that make ``outputs`` numbers in each cell from the 5×5 cells around it."""
    layers = [(3, 1), (3, 1), (1, 1)]
    return ConvolutionalEnsemble(members, [inputs, FILTERS, FILTERS, outputs], layers)


class MapNoiseGenerators(Generators):
    """The noise is a plane for each of its numbers: what belongs together is drawn together."""

    def __init__(self, members: int, shape: MapShape, noise_dim: int) -> None:
        """Make ``members`` generators of maps of ``shape``."""
        super().__init__(members, noise_dim)
        self.shape = shape
        self.network = painters(members, shape.channels + shape.actions + noise_dim, shape.channels)

    def logits(self, condition: Tensor, z: Tensor) -> Tensor:
        """Log odds of a flip ``[E, N, d]`` under conditions and noise."""
        planes = torch.cat([self.shape.condition(condition), self.shape.everywhere(z)], -3)
        return STAYS + torch.flatten(self.network(planes), -3)

    def forward(self, condition: Tensor, z: Tensor) -> Tensor:
        """See ``Generators``: flips that are more likely than not, straight through."""
        logit = self.logits(condition, z)
        return straight_through((logit > 0).float(), torch.sigmoid(logit))

    def centre(self, condition: Tensor) -> Tensor:
        """Probabilities of flips at z = 0."""
        still = condition.new_zeros(*condition.shape[:-1], self.noise_dim)
        return torch.sigmoid(self.logits(condition, still))

    def rescale(self, factor: Tensor) -> None:
        """Flips have no scale."""


class MapMixtureGenerators(LikelihoodGenerators):
    """Mixtures of independent flips: a component is drawn for the whole map, then each flip."""

    draws_learnt_from = 0

    def __init__(self, members: int, shape: MapShape) -> None:
        """Make ``members`` generators of maps of ``shape``."""
        super().__init__(members, 1 + shape.bits)
        self.shape = shape
        inputs = shape.channels + shape.actions
        self.network = painters(members, inputs, COMPONENTS * (shape.channels + 1))
        self._start_alike()

    @torch.no_grad()
    def _start_alike(self) -> None:
        """Let components be equally likely, and differ but little.

        Otherwise one of them fits all maps best by chance, long before what happens in a map is
        told from what else could have happened, and then no other one ever learns.
        """
        channels = self.shape.channels
        last = self.network.weights[-1].view(self.members, COMPONENTS * (channels + 1), FILTERS)
        of_flips, of_weights = last.split([COMPONENTS * channels, COMPONENTS], 1)
        first, *others = of_flips.chunk(COMPONENTS, 1)
        for other in others:
            other.mul_(APART).add_(first)
        of_weights.zero_()

    def parameters_of(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Log odds of flips ``[E, N, M, d]`` and log weights ``[E, N, M]`` of M components.

        A component is as likely as its plane is high on average.
        """
        planes = self.network(self.shape.condition(condition))
        of_flips, of_weights = planes.split([COMPONENTS * self.shape.channels, COMPONENTS], -3)
        logit = STAYS + of_flips.reshape(*of_flips.shape[:-3], COMPONENTS, self.shape.bits)
        return logit, of_weights.mean((-2, -1)).log_softmax(-1)

    def loss(self, condition: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """See ``LikelihoodGenerators``."""
        return equations.bernoulli_mixture_loss(target, *self.parameters_of(condition), mask)

    def forward(self, condition: Tensor, z: Tensor) -> Tensor:
        """See ``Generators``: Φ(z), which is uniform, draws a component and then each flip."""
        logit, log_weight = self.parameters_of(condition)
        of_component, of_flips = torch.special.ndtr(z).split([1, self.shape.bits], -1)
        component = (log_weight.exp().cumsum(-1)[..., :-1] < of_component).sum(-1)
        index = component[..., None, None].expand(*component.shape, 1, self.shape.bits)
        flip: Tensor = of_flips < torch.sigmoid(logit.gather(-2, index).squeeze(-2))
        return flip.float()

    def centre(self, condition: Tensor) -> Tensor:
        """The probabilities of flips."""
        logit, log_weight = self.parameters_of(condition)
        return (log_weight.exp().unsqueeze(-1) * torch.sigmoid(logit)).sum(-2)

    def rescale(self, factor: Tensor) -> None:
        """Flips have no scale."""


class MapHead(nn.Module):
    """E networks from a transition to numbers: convolutions, then fully connected layers."""

    def __init__(self, members: int, shape: MapShape, hidden: Sequence[int], outputs: int) -> None:
        """``members`` networks with these ``hidden`` layers behind the convolutions."""
        super().__init__()
        self.members, self.shape = members, shape
        planes = [3 * shape.channels + shape.actions, HEADS_FILTERS, HEADS_FILTERS]
        self.convolutions = ConvolutionalEnsemble(members, planes, [(3, 1), (3, 2)])
        cells = math.prod(-(-side // 2) for side in shape.size)
        self.layers = Ensemble(members, [HEADS_FILTERS * cells, *hidden, outputs])

    def forward(self, rows: Tensor) -> Tensor:
        """Numbers ``[E, N, outputs]`` of rows ``[N, c + d]`` or ``[E, N, c + d]``."""
        seen = F.silu(self.convolutions(self.shape.transition(rows)).flatten(-3))
        told: Tensor = self.layers(seen)
        return told


class MapHeads(nn.Module):
    """What a step pays, and whether it ends the task; as ``Heads``."""

    def __init__(self, members: int, shape: MapShape, hidden: Sequence[int], atoms: int) -> None:
        """``members`` networks for each of the two, with these ``hidden`` layers."""
        super().__init__()
        self.reward = MapHead(members, shape, hidden, atoms)
        self.end = MapHead(members, shape, hidden, 1)

    def forward(self, condition: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the reward's atoms ``[E, N, A]``, and log odds of an end ``[E, N]``."""
        rows = torch.cat([condition, target], -1)
        return self.reward(rows), self.end(rows).squeeze(-1)


class MapDiscriminators(nn.Module):
    """E discriminators of flips under conditions, each the sum of one in every cell.

    What 5×5 cells look like is judged alike everywhere (Isola et al. 2017, PatchGAN, §3.2.2). Where
    a real map and an imagined one under the same condition are the same, their logits are, too.
    """

    def __init__(self, members: int, shape: MapShape) -> None:
        """``members`` networks for maps of ``shape``."""
        super().__init__()
        self.shape = shape
        self.network = painters(members, 3 * shape.channels + shape.actions, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Realness logits ``[E, N]`` of rows ``[E, N, c + d]``, conditions with their targets."""
        return torch.sum(self.network(self.shape.transition(rows)), (-3, -2, -1))


def map_networks(
    image_shape: tuple[int, int, int], num_actions: int, settings: WorldSettings
) -> Networks:
    """Convolutional networks for maps of bits of shape (C, H, W)."""
    shape, members = MapShape(*image_shape, num_actions), settings.members
    generators: Generators
    discriminators = None
    if settings.loss == "likelihood":
        generators = MapMixtureGenerators(members, shape)
    else:
        generators = MapNoiseGenerators(members, shape, settings.noise_dim)
        discriminators = MapDiscriminators(members, shape)
    heads = MapHeads(members, shape, settings.head_hidden, len(reward_atoms()))
    return Networks(generators, discriminators, heads)
