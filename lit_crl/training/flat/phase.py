"""Updates as a list of operations that was recorded once: the ``Phase`` of ``updates`` on a CPU."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_crl.training.batches import like, shapes, tensors_of
from lit_crl.training.eager import count_steps
from lit_crl.training.flat.engine import FlatEngine
from lit_crl.training.flat.tracing import traced
from lit_crl.training.updates import AnyMinibatch, Report

#: An update is recorded once there are so many of its kind: to record it takes as long as some
#: hundred updates that are not.
WORTH_RECORDING = 100
#: An update from the slow network's rate, 0-dimensional, and a minibatch's tensors.
Recorded = Callable[..., Report]


class TracedPhase(Generic[AnyMinibatch]):
    """Runs updates without Lightning's wrappers, and without the Python code that made them.

    It is for one process without a loss scaler and without hooks around a step, and for Adam.
    """

    def __init__(self, trainer: Trainer, engine: FlatEngine[AnyMinibatch]) -> None:
        """Record nothing yet.

        Args:
            trainer: Counts the steps of optimizers.
            engine: Has the networks, and makes an update.
        """
        self._trainer, self._engine = trainer, engine
        self._recorded: dict[object, Recorded] = {}
        #: Updates of each kind so far.
        self._made: Counter[object] = Counter()

    def __call__(self, rates: Sequence[float], stack: AnyMinibatch) -> Report:
        """See ``Phase``."""
        self._engine.rejoin()
        self._engine.take_rates()
        # Recorded operations read the networks' buffers: for others they are recorded anew.
        kind = (shapes(stack.chunk(slice(0, 1))), self._engine.places())
        self._made[kind] += len(rates)
        if self._made[kind] < WORTH_RECORDING:
            reports = self._updates(rates, stack)
        else:
            reports = self._recorded_updates(kind, rates, stack)
        count_steps(self._trainer, len(rates) * len(self._engine.adams))
        return {name: torch.stack([report[name] for report in reports]) for name in reports[0]}

    def _updates(self, rates: Sequence[float], stack: AnyMinibatch) -> list[Report]:
        given = zip(self._held(rates), rates, stack.unstack(), strict=True)
        update = self._engine.update
        return [update(held if rate > 0 else None, batch) for held, rate, batch in given]

    def _recorded_updates(
        self, kind: object, rates: Sequence[float], stack: AnyMinibatch
    ) -> list[Report]:
        for moves in {rate > 0 for rate in rates}:
            if (moves, kind) not in self._recorded:
                self._recorded[moves, kind] = self._record(moves, next(stack.unstack()))
        minibatches = zip(*(tensor.unbind() for tensor in tensors_of(stack)), strict=True)
        given = zip(self._held(rates), rates, minibatches, strict=True)
        # What autocast does is among the operations. They need no gradients of their own.
        with torch.inference_mode(), torch.autocast(self._engine.device.type, enabled=False):
            return [self._recorded[rate > 0, kind](held, *batch) for held, rate, batch in given]

    def _held(self, rates: Sequence[float]) -> Sequence[Tensor]:
        """Each rate where the networks are."""
        return torch.tensor(rates, device=self._engine.device).unbind()

    def _record(self, moves: bool, minibatch: AnyMinibatch) -> Recorded:
        def update(rate: Tensor, *tensors: Tensor) -> Report:
            return self._engine.update(rate if moves else None, like(minibatch, tensors))

        with self._engine.undone():
            rate = torch.zeros((), device=self._engine.device)
            return traced(update, [rate, *tensors_of(minibatch)])
