"""What a row of the replay stores, as preallocated tensors ``[rows, ...]``."""

from typing import NamedTuple

import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.dqn.replay.frames import frame_shape

_TORCH_DTYPES = {"uint8": torch.uint8, "float64": torch.float32, "float32": torch.float32}


class Fields(NamedTuple):
    """The fields of all rows; those that a replay does not need have no rows."""

    #: The observation or, where observations are stacked frames, its newest frame.
    obs: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    #: Whether the row holds the final observation of an episode, so that it is no step.
    boundary: Tensor
    #: See ``frames``; of stacks alone.
    depth: Tensor
    #: What the policy remembered before ``obs``; of a policy with memory alone.
    memory: Tensor

    def used(self) -> list[str]:
        """The names of the fields that have rows."""
        return [name for name, field in self._asdict().items() if len(field)]


def new_fields(
    rows: int,
    space: Box,
    num_actions: int | None,
    frame_stack: int,
    memory_size: int,
    device: torch.device | str,
) -> Fields:
    """Fields of zeros; for the arguments see ``ReplayBuffer``.

    Raises:
        ConfigError: If the first axis of an observation does not hold ``frame_stack`` frames.
    """
    dtype = _TORCH_DTYPES.get(str(space.dtype), torch.float32)
    return Fields(
        torch.zeros(rows, *frame_shape(space, frame_stack), dtype=dtype, device=device),
        torch.zeros(rows, dtype=action_dtype(num_actions), device=device),
        torch.zeros(rows, device=device),
        torch.zeros(rows, device=device),
        torch.zeros(rows, dtype=torch.bool, device=device),
        torch.zeros(rows * (frame_stack > 1), dtype=torch.uint8, device=device),
        torch.zeros(rows * (memory_size > 0), memory_size, device=device),
    )


def action_dtype(num_actions: int | None) -> torch.dtype:
    """The smallest type for actions numbered from 0; None: there may be any number.

    >>> action_dtype(256), action_dtype(257)
    (torch.uint8, torch.int16)
    """
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if num_actions is not None and num_actions - 1 <= torch.iinfo(dtype).max:
            return dtype
    return torch.int64
