"""Updates on flat parameters, one operation at a time, by autograd on the networks themselves."""

import math
from collections.abc import Callable
from typing import Generic

import torch
from torch import Tensor, nn

from lit_crl.training.flat.clipping import clip_to_norm
from lit_crl.training.flat.engine import FlatEngine
from lit_crl.training.updates import AnyMinibatch, LossAndReport, Report, Update


class DirectEngine(Generic[AnyMinibatch]):
    """The ``Engine`` of updates that run one by one, or from a record of such a run.

    They take half the time of ``FlatEngine``'s, which only a compiler and CUDA graphs need.
    """

    def __init__(self, update: Update[AnyMinibatch], engine: FlatEngine[AnyMinibatch]) -> None:
        """Make the updates of an ``engine``, on its vectors and by its optimizers."""
        self._update, self._engine = update, engine

    @torch.no_grad()
    def update(self, rate: Tensor | None, minibatch: AnyMinibatch) -> Report:
        """One update; without a rate slow networks stay as they are."""
        return self._update(self, minibatch, 0.0 if rate is None else rate)

    def descend(
        self,
        network: nn.Module,
        loss: Callable[[], LossAndReport],
        norm_name: str,
        max_norm: float = math.inf,
    ) -> Report:
        """See ``Engine``."""
        flat, adams = self._engine.flat, self._engine.adams
        parameters = flat[network].present()
        others = [p for other in adams if other is not network for p in flat[other].present()]
        for parameter in parameters:
            parameter.requires_grad_(True)
        for parameter in others:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            minimised, report = loss()
        for parameter in others:
            parameter.requires_grad_(True)
        gradients = torch.autograd.grad(minimised, parameters, materialize_grads=True)
        norm, gradient = clip_to_norm(flat[network].join(gradients), max_norm)
        adams[network].step(flat[network].vector, gradient)
        return {name: number.detach() for name, number in report.items()} | {norm_name: norm}

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float | Tensor) -> None:
        """See ``Engine``."""
        self._engine.follow(slow, fast, rate)
