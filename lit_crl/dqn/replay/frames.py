"""Stacks of frames as observations, of which each row keeps one frame: pure functions.

The *depth* of a row says how many rows above it hold earlier frames of its stack. Before an
episode's first frame that frame is repeated, as Gymnasium's ``FrameStackObservation`` does.
"""

import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.core.checks import ConfigError

#: First vector steps at which observations are compared with the ones rebuilt from stored frames: a
#: wrong number of frames shows as soon as something moves.
CHECKED_STEPS = 100


def frame_shape(space: Box, stack: int) -> tuple[int, ...]:
    """Shape of one of the ``stack`` frames along the first axis of an observation.

    Raises:
        ConfigError: If that axis does not hold ``stack`` frames.
    """
    if stack == 1:
        return space.shape
    if not space.shape or space.shape[0] % stack:
        raise ConfigError(
            f"data.replay.frame_stack is {stack}, but observations of shape {space.shape} do not "
            f"hold {stack} frames along their first axis: give the stack_size of the environment's "
            "FrameStackObservation, or 1"
        )
    return (space.shape[0] // stack, *space.shape[1:])


def next_depth(above: Tensor, begins: Tensor, stack: int) -> Tensor:
    """Depth of rows from that of the rows ``above [m]``; 0 where an episode ``begins [m]``.

    >>> next_depth(torch.tensor([0, 3, 3]), torch.tensor([False, False, True]), stack=4)
    tensor([1, 3, 0])
    """
    return (above + 1).clamp(max=stack - 1).masked_fill(begins, 0)


def frames_back(depth: Tensor, stack: int) -> Tensor:
    """How many rows above a row its frames are, oldest first, ``[...] -> [..., stack]``.

    >>> frames_back(torch.tensor([3, 1]), stack=4)  # the second repeats its episode's first frame
    tensor([[3, 2, 1, 0],
            [1, 1, 1, 0]])
    """
    back = torch.arange(stack - 1, -1, -1, device=depth.device)
    return back.minimum(depth[..., None])


def torn_stacks(row: Tensor, below: Tensor, depth: Tensor) -> Tensor:
    """The rows that lost a frame of their stacks when ``row [m]`` was overwritten, ``[m * stack]``.

    The row that is k rows below has lost one if its depth is at least k. There is a fixed number of
    rows for each ``row``, intact ones replaced by ``row`` itself: a mask would make the size depend
    on the data, and a GPU would have to wait for it.

    Args:
        row: Flat rows.
        below: The rows 0, 1, … below each of them, as many as a stack has frames, ``[m, stack]``.
        depth: The depth of ``below``.
    """
    steps = torch.arange(below.shape[1], device=row.device)
    return torch.where(depth >= steps, below, row[:, None]).flatten()


def check_rebuilt(given: Tensor, rebuilt: Tensor, stack: int) -> None:
    """Compare observations with the ones that were rebuilt from stored frames.

    Raises:
        ConfigError: If they differ.
    """
    if not torch.equal(given, rebuilt):
        raise ConfigError(
            f"data.replay.frame_stack is {stack}, but observations are not the last {stack} "
            "frames, with an episode's first frame repeated before it: give the stack_size of the "
            "environment's FrameStackObservation, or 1"
        )
