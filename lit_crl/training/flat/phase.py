"""Updates one operation at a time, on networks that are one vector each.

So the gradient's norm, Adam and the slow network take one operation each, where a list of small
tensors takes as long as the networks themselves.
"""

import math
from collections.abc import Callable, Sequence
from typing import Generic

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_crl.training.eager import count_steps
from lit_crl.training.flat.adam import FlatAdam
from lit_crl.training.flat.clipping import clip_to_norm
from lit_crl.training.flat.network import FlatNetwork
from lit_crl.training.updates import AnyMinibatch, LossAndReport, Networks, Report, Update


class FlatPhase(Generic[AnyMinibatch]):
    """Runs updates without Lightning's wrappers; the ``Engine`` and the ``Phase`` of ``updates``.

    It is for one process without a loss scaler and without hooks around a step, and for Adam.
    """

    def __init__(
        self, learner: LightningModule, update: Update[AnyMinibatch], networks: Networks
    ) -> None:
        """Flatten the ``networks`` of ``update``, for a learner that a Trainer trains.

        Raises:
            ConfigError: If an optimizer is not Adam or AdamW.
        """
        self._trainer, self._update = learner.trainer, update
        self._flat = {network: FlatNetwork(network) for network in networks}
        self._adams = {
            network: FlatAdam(optimizer.optimizer, self._flat[network])
            for network, optimizer in networks.items()
            if optimizer is not None
        }

    def __call__(self, rates: Sequence[float], stack: AnyMinibatch) -> Report:
        """See ``Phase``."""
        for network, flat in self._flat.items():
            flat.rejoin()
            # An earlier fit may have been interrupted in the middle of an update.
            network.requires_grad_(network in self._adams)
        for adam in self._adams.values():
            adam.rejoin()
            adam.take_rate()
        reports = [
            self._update(self, minibatch, rate)
            for rate, minibatch in zip(rates, stack.unstack(), strict=True)
        ]
        count_steps(self._trainer, len(rates) * len(self._adams))
        return {name: torch.stack([report[name] for report in reports]) for name in reports[0]}

    def descend(
        self,
        network: nn.Module,
        loss: Callable[[], LossAndReport],
        norm_name: str,
        max_norm: float = math.inf,
    ) -> Report:
        """See ``Engine``."""
        flat = self._flat[network]
        minimised, report = loss()
        gradients = torch.autograd.grad(
            minimised, flat.parameters, allow_unused=True, materialize_grads=True
        )
        norm, gradient = clip_to_norm(flat.join(gradients), max_norm)
        self._adams[network].step(flat.vector, gradient)
        return {name: number.detach() for name, number in report.items()} | {norm_name: norm}

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float | Tensor) -> None:
        """See ``Engine``."""
        if rate > 0:
            self._flat[slow].vector.lerp_(self._flat[fast].vector, float(rate))
