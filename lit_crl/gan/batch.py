"""What a GAN phase learns from."""

from typing import NamedTuple

from torch import Tensor


class GanBatch(NamedTuple):
    """Minibatches for the GAN phase, in the environment's units; leading dimensions ``[G, B]``."""

    real: Tensor
    label: Tensor
    level: Tensor
    success: Tensor
