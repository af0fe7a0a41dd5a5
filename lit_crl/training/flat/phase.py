"""Updates as a list of operations that was recorded once: the ``Phase`` of ``updates`` on a CPU."""

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

    def __call__(self, rates: Sequence[float], stack: AnyMinibatch) -> Report:
        """See ``Phase``."""
        self._engine.rejoin()
        self._engine.take_rates()
        # Recorded operations read the networks' buffers: for others they are recorded anew.
        kind = (shapes(stack), self._engine.places())
        for moves in {rate > 0 for rate in rates}:
            if (moves, kind) not in self._recorded:
                self._recorded[moves, kind] = self._record(moves, next(stack.unstack()))
        device = self._engine.device
        minibatches = zip(*(tensor.unbind() for tensor in tensors_of(stack)), strict=True)
        given = zip(rates, torch.tensor(rates, device=device).unbind(), minibatches, strict=True)
        # What autocast does is among the operations. They need no gradients of their own.
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            reports = [
                self._recorded[rate > 0, kind](held, *tensors) for rate, held, tensors in given
            ]
        count_steps(self._trainer, len(rates) * len(self._engine.adams))
        return {name: torch.stack([report[name] for report in reports]) for name in reports[0]}

    def _record(self, moves: bool, minibatch: AnyMinibatch) -> Recorded:
        def update(rate: Tensor, *tensors: Tensor) -> Report:
            return self._engine.update(rate if moves else None, like(minibatch, tensors))

        with self._engine.undone():
            rate = torch.zeros((), device=self._engine.device)
            return traced(update, [rate, *tensors_of(minibatch)])
