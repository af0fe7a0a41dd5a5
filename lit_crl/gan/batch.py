"""The levels that a GAN phase learns from."""

from typing import NamedTuple

from torch import Tensor


class GanBatch(NamedTuple):
    """Levels in the environment's units, ``[B, ...]``; those of a stack are ``[K, B, ...]``."""

    #: Levels that the discriminator takes for real.
    real: Tensor
    #: 1 for a real level of the right difficulty, else 0; only least squares looks at it.
    label: Tensor
    #: Levels that were played.
    level: Tensor
    #: Whether the policy solved them, 0 or 1.
    success: Tensor
