"""The default optimizers of both players."""

from typing import Any

from torch.optim import Adam, Optimizer


def q_adam(params: Any) -> Optimizer:
    """Adam for the Q-network: one fused kernel, learning rate 5e-4."""
    return Adam(params, lr=5e-4, eps=1e-5, fused=True)


def gan_adam(params: Any) -> Optimizer:
    """Adam for the GAN: no momentum, which would chase the other player (R3GAN, β₁ = 0)."""
    return Adam(params, lr=5e-4, betas=(0.0, 0.99), fused=True)
