"""Communication between the processes of a data-parallel run; without others, nothing happens.

Every process must call these functions in the same order. So the schedule decides when they are
called, and never local data.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import Tensor

#: Endings of metrics that count something: they are added up over the processes.
COUNTS = ("_episodes", "_solved", "/generated", "_played")


def process_rank() -> int:
    """The number of this process, also before the processes are connected."""
    # Lightning sets it when it is imported; a policy is used without Lightning.
    return int(getattr(rank_zero_only, "rank", 0))


def print_once(text: str) -> None:
    """Print in the first process, and nothing in the others."""
    if process_rank() == 0:
        print(text)


def is_alone() -> bool:
    """Whether there is only this process."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def lost_another(error: BaseException) -> bool:
    """Whether an error means that another process has died or no longer answers."""
    # gloo raises plain RuntimeErrors, the second on a time-out.
    words = ("gloo", "Application timeout caused pair closure")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype by their means over all processes, in one all-reduce."""
    if is_alone() or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def mean_of_rows(rows: Tensor) -> Tensor:
    """Mean in float64 over the rows ``[n, ...]`` of all processes; ``n`` may differ between them.

    It is the same number in all processes, bit for bit, as are ``largest`` and ``smallest``.

    >>> mean_of_rows(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))  # without other processes
    tensor([2., 3.], dtype=torch.float64)
    """
    total, count = rows.double().sum(0), rows.new_tensor(len(rows), dtype=torch.float64)
    if not is_alone():
        dist.all_reduce(total)
        dist.all_reduce(count)
    return total / count


def largest(tensor: Tensor) -> Tensor:
    """The element-wise maximum of a ``tensor`` over all processes."""
    if is_alone():
        return tensor
    found = tensor.clone()
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found


def smallest(tensor: Tensor) -> Tensor:
    """The element-wise minimum of a ``tensor`` over all processes."""
    return -largest(-tensor)


def all_agree(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` holds in every process."""
    if is_alone():
        return flag
    doubts = torch.tensor([not flag], dtype=torch.int64, device=device)
    dist.all_reduce(doubts)
    return doubts.item() == 0


def part_of(n: int) -> tuple[int, int]:
    """This process's part of ``n`` items: the first one, and the one after the last.

    >>> part_of(10)  # without other processes
    (0, 10)
    """
    if is_alone():
        return 0, n
    rank, world = dist.get_rank(), dist.get_world_size()
    return rank * n // world, (rank + 1) * n // world


def from_first(tensor: Tensor) -> Tensor:
    """The first process's ``tensor``, in all processes; all have the same shape."""
    if is_alone():
        return tensor
    tensor = tensor.contiguous()
    dist.broadcast(tensor, src=0)
    return tensor


def gather_rows(rows: Tensor) -> Tensor:
    """The rows ``[n, ...]`` of all processes in order of rank; ``n`` may differ between them."""
    if is_alone():
        return rows
    world = dist.get_world_size()
    length = torch.tensor([len(rows)], device=rows.device)
    lengths = [torch.zeros_like(length) for _ in range(world)]
    dist.all_gather(lengths, length)
    padded = rows.new_zeros((int(max(lengths)), *rows.shape[1:]))
    padded[: len(rows)] = rows
    gathered = [torch.zeros_like(padded) for _ in range(world)]
    dist.all_gather(gathered, padded)
    parts = zip(gathered, lengths, strict=True)
    return torch.cat([part[: int(length)] for part, length in parts])


def reduce_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics of all processes: counts are added, others averaged over those that have them."""
    if is_alone():
        return metrics
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, metrics)
    names = dict.fromkeys(name for numbers in everyone for name in numbers)
    reduced = {}
    for name in names:
        values = [numbers[name] for numbers in everyone if name in numbers]
        total = sum(values)
        reduced[name] = total if name.endswith(COUNTS) else total / len(values)
    return reduced
