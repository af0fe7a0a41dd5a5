"""The world's networks: E members of each, computed as one batched tensor program."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_crl.world import equations
from lit_crl.world.rewards import reward_atoms
from lit_crl.world.settings import WorldSettings

#: Bounds of a Gaussian's log σ, smoothed, in units of the target: 1/100 and 3 of its spread.
LOG_STD_BOUNDS = (math.log(0.01), math.log(3.0))


class Ensemble(nn.Module):
    """E fully connected networks with SiLU between their layers.

    No member sees another: each has weights of its own, drawn independently, and a loss that is
    summed over members gives each the gradient that it would have alone. It computes in float32,
    also under mixed precision.
    """

    def __init__(self, members: int, sizes: Sequence[int]) -> None:
        """``members`` networks with layers of these ``sizes``, inputs first and outputs last.

        Weights have variance 1 / inputs (LeCun et al. 1998, §4.6), and biases are 0.
        """
        super().__init__()
        self.members = members
        self.weights = nn.ParameterList(
            torch.randn(members, inputs, outputs) / math.sqrt(inputs)
            for inputs, outputs in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, outputs) for outputs in sizes[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Every member's output ``[E, N, out]`` for its rows ``[E, N, in]``, or for shared ones.

        Shared rows are ``[N, in]``.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.float().expand(self.members, -1, -1)
            for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                x = torch.baddbmm(bias, F.silu(x) if number else x, weight)
        return x

    @torch.no_grad()
    def transform_outputs(self, factor: Tensor, offset: Tensor) -> None:
        """From now on give ``factor · output + offset``, both ``[out]``."""
        self.weights[-1].mul_(factor)
        self.biases[-1].mul_(factor).add_(offset)


class Generators(nn.Module, ABC):
    """E generators of targets ``[d]`` under conditions ``[c]``.

    Attributes:
        members: Number E of generators.
        noise_dim: Length of the standard normal noise z of one draw.
        draws_learnt_from: Draws of noise that come with each row of an update. A likelihood needs
            none; those of vectors get two nevertheless, so that the random numbers of a run are
            the same whatever its loss.
    """

    draws_learnt_from = 2

    def __init__(self, members: int, noise_dim: int) -> None:
        """Prepare ``members`` generators that draw with ``noise_dim`` numbers of noise."""
        super().__init__()
        self.members, self.noise_dim = members, noise_dim

    @abstractmethod
    def forward(self, condition: Tensor, z: Tensor) -> Tensor:
        """One draw ``[E, N, d]`` for rows ``[N, c]`` or ``[E, N, c]`` and their noise ``z``."""

    @abstractmethod
    def centre(self, condition: Tensor) -> Tensor:
        """What each member expects, ``[E, N, d]``; noise has no part in it."""

    @abstractmethod
    def rescale(self, factor: Tensor) -> None:
        """From now on give targets that are ``factor [d]`` times as large."""


class NoiseGenerators(Generators):
    """The noise is an input, as in a GAN: it can make any distribution."""

    def __init__(
        self, members: int, condition_dim: int, dim: int, hidden: Sequence[int], noise_dim: int
    ) -> None:
        """Make ``members`` networks with these ``hidden`` layers."""
        super().__init__(members, noise_dim)
        self.network = Ensemble(members, [condition_dim + noise_dim, *hidden, dim])

    def forward(self, condition: Tensor, z: Tensor) -> Tensor:
        """See ``Generators``."""
        draw: Tensor = self.network(torch.cat([condition, z], -1))
        return draw

    def centre(self, condition: Tensor) -> Tensor:
        """What each member makes of z = 0."""
        still = condition.new_zeros(*condition.shape[:-1], self.noise_dim)
        made: Tensor = self(condition, still)
        return made

    def rescale(self, factor: Tensor) -> None:
        """See ``Generators``."""
        self.network.transform_outputs(factor, torch.zeros_like(factor))


class LikelihoodGenerators(Generators):
    """Generators whose draws have a density."""

    @abstractmethod
    def loss(self, condition: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """−log p(target), ``[E]``, of ``target [E, B, d]`` in the rows of ``mask [E, B]``."""


class GaussianGenerators(LikelihoodGenerators):
    """Independent normal distributions: mean and standard deviation of each dimension."""

    def __init__(self, members: int, condition_dim: int, dim: int, hidden: Sequence[int]) -> None:
        """Make ``members`` networks with these ``hidden`` layers."""
        super().__init__(members, dim)
        self.network = Ensemble(members, [condition_dim, *hidden, 2 * dim])

    def parameters_of(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log standard deviations, ``[E, N, d]`` each.

        The logarithm is bounded smoothly, Chua et al. 2018 (PETS), appendix A.1.
        """
        mean, log_std = self.network(condition).chunk(2, -1)
        low, high = LOG_STD_BOUNDS
        log_std = high - F.softplus(high - log_std)
        return mean, low + F.softplus(log_std - low)

    def loss(self, condition: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """See ``LikelihoodGenerators``."""
        return equations.gaussian_loss(target, *self.parameters_of(condition), mask)

    def forward(self, condition: Tensor, z: Tensor) -> Tensor:
        """See ``Generators``: mean + standard deviation · z."""
        mean, log_std = self.parameters_of(condition)
        return mean + log_std.exp() * z

    def centre(self, condition: Tensor) -> Tensor:
        """The means."""
        return self.parameters_of(condition)[0]

    def rescale(self, factor: Tensor) -> None:
        """See ``Generators``; exact for the means, and for deviations far from their bounds."""
        ones, zeros = torch.ones_like(factor), torch.zeros_like(factor)
        self.network.transform_outputs(
            torch.cat([factor, ones]), torch.cat([zeros, factor.clamp_min(1e-6).log()])
        )


class BernoulliGenerators(LikelihoodGenerators):
    """Independent bits: the probability of each."""

    def __init__(self, members: int, condition_dim: int, dim: int, hidden: Sequence[int]) -> None:
        """Make ``members`` networks with these ``hidden`` layers."""
        super().__init__(members, dim)
        self.network = Ensemble(members, [condition_dim, *hidden, dim])

    def logits(self, condition: Tensor) -> Tensor:
        """Log odds of each bit ``[E, N, d]``."""
        logit: Tensor = self.network(condition)
        return logit

    def loss(self, condition: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """See ``LikelihoodGenerators``."""
        return equations.bernoulli_loss(target, self.logits(condition), mask)

    def forward(self, condition: Tensor, z: Tensor) -> Tensor:
        """See ``Generators``: a bit is 1 where Φ(z), which is uniform, is below its probability."""
        bit: Tensor = torch.special.ndtr(z) < self.centre(condition)
        return bit.float()

    def centre(self, condition: Tensor) -> Tensor:
        """The probabilities."""
        return torch.sigmoid(self.logits(condition))

    def rescale(self, factor: Tensor) -> None:
        """Bits have no scale."""


class Heads(nn.Module):
    """What a step pays, and whether it ends the task, told from condition and target.

    Reward and end have networks of their own: neither loss drowns the other.
    """

    def __init__(self, members: int, inputs: int, hidden: Sequence[int], atoms: int) -> None:
        """``members`` networks for each of the two, with these ``hidden`` layers.

        A reward is told as a distribution over so many ``atoms``.
        """
        super().__init__()
        self.reward = Ensemble(members, [inputs, *hidden, atoms])
        self.end = Ensemble(members, [inputs, *hidden, 1])

    def forward(self, condition: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the reward's atoms ``[E, N, A]``, and log odds of an end ``[E, N]``."""
        rows = torch.cat([condition, target], -1)
        return self.reward(rows), self.end(rows).squeeze(-1)


class Discriminators(nn.Module):
    """E discriminators of targets under conditions."""

    def __init__(self, members: int, inputs: int, hidden: Sequence[int]) -> None:
        """``members`` networks with these ``hidden`` layers."""
        super().__init__()
        self.network = Ensemble(members, [inputs, *hidden, 1])

    def forward(self, rows: Tensor) -> Tensor:
        """Realness logits ``[E, N]`` of rows ``[E, N, c + d]``, conditions with their targets."""
        return torch.squeeze(self.network(rows), -1)


class Networks(NamedTuple):
    """All that a world is made of."""

    generators: Generators
    #: None where the loss is a likelihood.
    discriminators: nn.Module | None
    heads: nn.Module


def vector_networks(
    obs_dim: int, num_actions: int, settings: WorldSettings, binary: bool
) -> Networks:
    """Fully connected networks for vectors of ``obs_dim`` numbers or, if ``binary``, bits."""
    members, hidden = settings.members, settings.hidden
    condition_dim = obs_dim + num_actions
    generators: Generators
    discriminators = None
    if settings.loss == "likelihood":
        of_likelihood = BernoulliGenerators if binary else GaussianGenerators
        generators = of_likelihood(members, condition_dim, obs_dim, hidden)
    else:
        generators = NoiseGenerators(members, condition_dim, obs_dim, hidden, settings.noise_dim)
        discriminators = Discriminators(members, condition_dim + obs_dim, hidden)
    atoms = len(reward_atoms())
    heads = Heads(members, condition_dim + obs_dim, settings.head_hidden, atoms)
    return Networks(generators, discriminators, heads)
