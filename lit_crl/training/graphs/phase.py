"""K updates as one graph: the ``Phase`` of ``updates`` on a GPU."""

from collections.abc import Callable, Sequence
from typing import Any, Generic

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.training.batches import shapes, tensors_of
from lit_crl.training.eager import count_steps
from lit_crl.training.flat.engine import FlatEngine
from lit_crl.training.graphs.capture import Capture
from lit_crl.training.updates import AnyMinibatch, Report

#: How many updates one graph holds at most, by the number of networks that an update trains:
#: recording takes three times as long as running them one by one.
LONGEST = {1: 64, 2: 32, 3: 25}
#: Compiled code wants its inputs at multiples of so many bytes, and copies others.
ALIGNMENT = 16

#: One update from its rate ``[1]`` and a stack of one minibatch, see ``FlatEngine.updates``.
Step = Callable[[Tensor, AnyMinibatch], Report]


class GraphedPhase(Generic[AnyMinibatch]):
    """Runs updates as one graph, or as a few calls of it if there are many.

    A first call with new shapes records a graph. What changes from call to call, such as learning
    rates and the share that a slow network takes, is copied into the graph's own tensors.
    """

    def __init__(
        self,
        trainer: Trainer,
        engine: FlatEngine[AnyMinibatch],
        step: Step[AnyMinibatch],
        capture: Capture,
        clock: Stopwatch,
    ) -> None:
        """Record nothing yet.

        Args:
            trainer: Counts the steps of optimizers.
            engine: Has the networks.
            step: Makes one of its updates; compiled or not.
            capture: Records.
            clock: Times the recording.
        """
        self._trainer, self._engine, self._step = trainer, engine, step
        self._capture, self._clock = capture, clock
        self._graphs: dict[object, _Graph[AnyMinibatch]] = {}

    def __call__(self, rates: Sequence[float], stack: AnyMinibatch) -> Report:
        """See ``Phase``."""
        self._engine.rejoin()
        self._engine.take_rates()
        trained = len(self._engine.adams)
        at_most = min(LONGEST[trained], len(rates))
        size = next(n for n in range(at_most, 0, -1) if len(rates) % n == 0)
        reports = []
        for start in range(0, len(rates), size):
            chunk = slice(start, start + size)
            reports.append(self._graph(stack.chunk(chunk))(rates[chunk], stack.chunk(chunk)))
        count_steps(self._trainer, len(rates) * trained)
        if len(reports) == 1:
            return reports[0]
        return {name: torch.cat([report[name] for report in reports]) for name in reports[0]}

    def _graph(self, stack: AnyMinibatch) -> "_Graph[AnyMinibatch]":
        key = shapes(stack)
        if key not in self._graphs:
            with self._clock("compile"):
                self._graphs[key] = _Graph(stack, self._engine, self._step, self._capture)
        return self._graphs[key]


class _Graph(Generic[AnyMinibatch]):
    """A graph of updates, and the tensors that it reads."""

    def __init__(
        self,
        stack: AnyMinibatch,
        engine: FlatEngine[AnyMinibatch],
        step: Step[AnyMinibatch],
        capture: Capture,
    ) -> None:
        self._stack: AnyMinibatch = copied(stack)
        self._tensors = list(tensors_of(self._stack))
        self._device, updates = self._tensors[0].device, len(self._tensors[0])
        self._rates = aligned(torch.zeros(updates, device=self._device))
        self._given: list[float] = [0.0] * updates
        self._step = step
        self._launch = capture(self._work, engine.held(), [], "updates")

    def __call__(self, rates: Sequence[float], stack: AnyMinibatch) -> Report:
        for mine, given in zip(self._tensors, tensors_of(stack), strict=True):
            mine.copy_(given)
        self._take(list(rates))
        return {name: numbers.clone() for name, numbers in self._launch().items()}

    def _take(self, rates: list[float]) -> None:
        """Hand over the slow network's rates, which are mostly the same as before."""
        if rates == self._given:
            return
        self._given = rates
        given = torch.tensor(rates)
        if self._device.type == "cuda":  # from pageable RAM the program would wait for the copy
            given = given.pin_memory()
        self._rates.copy_(given, non_blocking=True)

    def _work(self) -> Report:
        reports = [
            self._step(self._rates[i : i + 1], self._stack.chunk(slice(i, i + 1)))
            for i in range(len(self._rates))
        ]
        return {name: torch.cat([report[name] for report in reports]) for name in reports[0]}


def aligned(stack: Tensor) -> Tensor:
    """A copy of a stack ``[K, ...]`` in which each of its K parts begins at such a multiple.

    >>> aligned(torch.ones(3, 2)).stride(), aligned(torch.ones(3, 8)).stride()
    ((4, 1), (8, 1))
    """
    size, each = stack[0].numel(), ALIGNMENT // stack.element_size()
    padded = stack.new_empty(len(stack), -(-size // each) * each)
    return padded[:, :size].view(stack.shape).copy_(stack)


def copied(stack: Any) -> Any:
    """Minibatches at addresses of their own, each part of a stack ``aligned``."""
    if isinstance(stack, Tensor):
        return aligned(stack)
    return None if stack is None else type(stack)(*map(copied, stack))
