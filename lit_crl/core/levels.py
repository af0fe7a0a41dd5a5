"""Levels as the networks see them: every coordinate is scaled to [−1, 1]."""

from typing import Self

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn


class UnitBox(nn.Module):
    """The affine map between a bounded box in the environment's units and the cube [−1, 1]ᵈ.

    It is a module so that its bounds move to the device of the network that uses them. They are not
    saved, because the space defines them.

    >>> box = UnitBox(torch.tensor([0.0]), torch.tensor([10.0]))
    >>> box.to_unit(torch.tensor([[2.5]])), box.from_unit(torch.tensor([[1.0]]))
    (tensor([[-0.5000]]), tensor([[10.]]))
    """

    low: Tensor
    high: Tensor
    width: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        """Map ``low … high`` (each ``[d]``, finite) onto −1 … 1."""
        super().__init__()
        self.register_buffer("low", low.float(), persistent=False)
        self.register_buffer("high", high.float(), persistent=False)
        # A fixed coordinate has the width 0: divided by 1 instead, it is −1 in the cube.
        width = torch.where(high > low, high - low, torch.ones_like(low))
        self.register_buffer("width", width.float(), persistent=False)

    @classmethod
    def of(cls, space: Box | None) -> Self:
        """The map of a bounded space.

        Raises:
            ValueError: If there is no space, or a bound is infinite.
        """
        if space is None:
            raise ValueError("the environment has no level_space: there are no levels to scale")
        low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
        if not (low.isfinite().all() and high.isfinite().all()):
            raise ValueError(f"level_space must have finite bounds, got {space}: give low and high")
        return cls(low, high)

    @property
    def dim(self) -> int:
        """The number of coordinates of a level."""
        return self.low.numel()

    def to_unit(self, level: Tensor) -> Tensor:
        """Environment units to [−1, 1]."""
        return 2 * (level - self.low) / self.width - 1

    def from_unit(self, unit: Tensor) -> Tensor:
        """[−1, 1] to environment units; values outside the cube are clamped to it."""
        return self.low + (unit.clamp(-1, 1) + 1) / 2 * (self.high - self.low)
