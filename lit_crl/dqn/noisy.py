"""Noisy networks: layers whose weights are random, so that a Q-network explores without ε.

Fortunato et al. 2018, "Noisy networks for exploration", with factorised noise. The noise is an
argument: who calls the network draws it, from a stream of its own. Without noise a layer uses the
means of its weights, as evaluations and exported policies do; whether a module trains does not
matter.
"""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lit_crl.core.mlp import Linear


def factorised_noise(*shape: int, rng: Generator) -> Tensor:
    """The noise f(ε) = sgn(ε) · √|ε| of the inputs and outputs of layers, with ε normal.

    Fortunato et al. 2018, §3, (b): the noise of the weight from input i to output j is
    f(ε_i) · f(ε_j), and that of the bias of j is f(ε_j).
    """
    normal = torch.randn(shape, generator=rng, device=rng.device)
    return normal.sign() * normal.abs().sqrt()


class NoisyLinear(Linear):
    """A linear layer y = (μ_w + σ_w ⊙ ε_w) x + μ_b + σ_b ⊙ ε_b, Fortunato et al. 2018, eq. 9.

    ``weight`` and ``bias`` are the means μ, drawn and computed as those of a plain layer.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float) -> None:
        """Make the layer.

        Args:
            inputs: Width of its input.
            outputs: Width of its output.
            sigma: σ₀: each σ begins as σ₀ / √inputs (§3.2).
        """
        super().__init__(inputs, outputs)
        each = sigma / inputs**0.5
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), each))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), each))

    @property
    def noise_size(self) -> int:
        """Numbers of noise that the layer takes: one for each input and output."""
        return self.in_features + self.out_features

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """``[B, in] -> [B, out]``.

        The noise is factorised, so (σ_w ⊙ ε_w) x = f(ε_out) ⊙ σ_w (f(ε_in) ⊙ x): no weight is made
        from it, and each row of a batch can have noise of its own.

        Args:
            x: Inputs.
            noise: That of the inputs and then of the outputs: ``[in + out]`` for all rows together,
                or ``[B, in + out]``; None: the layer uses its means.
        """
        mean: Tensor = super().forward(x)
        if noise is None:
            return mean
        of_inputs, of_outputs = torch.split(noise, [self.in_features, self.out_features], -1)
        spread: Tensor = F.linear(x * of_inputs, self.weight_sigma, self.bias_sigma)
        return mean + of_outputs * spread


def noisy_layers(network: nn.Module) -> list[NoisyLinear]:
    """The noisy layers of a network, in the order of computation."""
    return [module for module in network.modules() if isinstance(module, NoisyLinear)]


def through(layers: nn.Module, x: Tensor, noise: Iterator[Tensor] | None) -> Tensor:
    """The output of layers in sequence.

    Args:
        layers: One layer, or a ``Sequential`` of layers, which may be nested.
        x: Their input.
        noise: The noisy ones take theirs from here, one after another; None: they use their means.
    """
    if noise is not None and isinstance(layers, nn.Sequential):
        for layer in layers:
            x = through(layer, x, noise)
        return x
    given = (x,) if noise is None or not isinstance(layers, NoisyLinear) else (x, next(noise))
    output: Tensor = layers(*given)
    return output
