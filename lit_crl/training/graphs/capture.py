"""Work on a GPU as one CUDA graph: recorded once, then launched by a single call.

Small networks leave a GPU idle while Python launches one kernel after another. A graph launches
them together. It reads and writes the addresses that it was recorded with, so whatever changes from
launch to launch is in tensors that keep their places, and every random number comes from a
generator that the graph knows.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Generator, Tensor

from lit_crl.core import distributed

Result = TypeVar("Result")


@dataclass
class Rows:
    """Those rows of a tensor that work may change; it would take long to copy them all."""

    field: Tensor
    rows: Tensor

    def clone(self) -> Tensor:
        """What the rows hold now."""
        return self.field.index_select(0, self.rows)

    def copy_(self, before: Tensor) -> None:
        """Let them hold what they held before."""
        self.field.index_copy_(0, self.rows, before)


class Capture(Protocol):
    """Records work that can then be launched again and again."""

    def __call__(
        self,
        work: Callable[[], Result],
        held: Sequence[Tensor | Rows],
        generators: Sequence[Generator],
        name: str,
    ) -> Callable[[], Result]:
        """Record ``work`` without a lasting effect.

        Args:
            work: Reads and changes tensors in place, with the same shapes each time.
            held: All that it changes, besides what it returns.
            generators: All that it draws from.
            name: What it is, in words, plural.

        Returns:
            Does the work. The next call overwrites what it returns.
        """


def capture_on(device: torch.device) -> Capture | None:
    """How to record work on a device; None: it can only be done one operation at a time."""
    return partial(cuda_graph, device=device) if device.type == "cuda" else None


def cuda_graph(
    work: Callable[[], Result],
    held: Sequence[Tensor | Rows],
    generators: Sequence[Generator],
    name: str,
    device: torch.device | str = "cuda",
) -> Callable[[], Result]:
    """See ``Capture``; what cannot be recorded is done one operation at a time, with a notice."""
    with torch.cuda.device(device), _kept(held, generators):
        _warm_up(work)
    try:
        with torch.cuda.device(device):  # a stream of another one would record nothing
            with _kept(held, generators), _no_waiting():
                _warm_up(work)
            return _recorded(work, generators)
    except RuntimeError as error:
        cause = str(error).split("\n")[0]
        distributed.print_once(
            f"The {name} run one operation at a time, because they make no CUDA graph ({cause})."
        )
        return work


def _warm_up(work: Callable[[], object]) -> None:
    """Do the work once beside the stream in use, as recording asks for: libraries set up."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)


def _recorded(work: Callable[[], Result], generators: Sequence[Generator]) -> Callable[[], Result]:
    device = torch.device("cuda", torch.cuda.current_device())
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    for generator in generators:
        graph.register_generator_state(generator)
    known = [*generators, torch.cuda.default_generators[device.index]]
    states = [generator.get_state() for generator in known]
    try:
        with torch.cuda.graph(graph, pool=pool):
            result = work()
    except RuntimeError:
        _give_back(pool, device)
        for generator, state in zip(known, states, strict=True):
            _renew(generator, state)
        raise

    def launch() -> Result:
        graph.replay()
        return result

    return launch


def _renew(generator: Generator, state: Tensor) -> None:
    """Let a generator whose recording failed, and which refuses to draw, go on from a state."""
    fresh = Generator(generator.device)
    fresh.set_state(state)
    generator.graphsafe_set_state(fresh.graphsafe_get_state())


def _give_back(pool: tuple[int, int], device: torch.device) -> None:
    """Free the GPU RAM of a failed recording, which torch keeps until the program ends."""
    torch._C._cuda_endAllocateToPool(device.index, pool)
    torch._C._cuda_releasePool(device.index, pool)
    torch.cuda.empty_cache()


@contextmanager
def _kept(held: Sequence[Tensor | Rows], generators: Sequence[Generator]) -> Iterator[None]:
    """Put tensors and random streams back to where they were."""
    tensors, states = [tensor.clone() for tensor in held], [g.get_state() for g in generators]
    try:
        yield
    finally:
        for tensor, before in zip(held, tensors, strict=True):
            tensor.copy_(before)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise where the program would wait for the device: a failed recording loses GPU RAM."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():  # that it does not find all that waits
        warnings.simplefilter("ignore", UserWarning)
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
