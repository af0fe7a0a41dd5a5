"""The levels that a GAN phase learns from."""

from collections.abc import Callable
from typing import Any, NamedTuple

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
    #: A random symmetry for each level, as places in ``[x, −x]`` of the unit cube; None: none.
    places: Tensor | None = None
    #: Noise for each level, in the unit cube; None: none.
    noise: Tensor | None = None

    def map(self, change: Callable[[Tensor], Any]) -> tuple[Any, ...]:
        """Each field as ``change`` makes it; what is None stays None."""
        return tuple(None if field is None else change(field) for field in self)
