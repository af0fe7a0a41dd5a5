"""Updates on flat parameters, as functions of tensors that can be recorded or compiled.

Parameters and the optimizer's own state are changed in place. So a checkpoint is the same with and
without graphs, and the numbers are the same up to rounding.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any, Generic

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from lit_crl.training.flat.adam import FlatAdam
from lit_crl.training.flat.clipping import clip_to_norm
from lit_crl.training.flat.network import FlatNetwork
from lit_crl.training.updates import AnyMinibatch, LossAndReport, Networks, Report, Update


class _Together(nn.Module):
    """Networks as one module: ``functional_call`` replaces its parameters while a function runs."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class FlatEngine(Generic[AnyMinibatch]):
    """The ``Engine`` of updates that run as graphs: each network is one vector."""

    def __init__(self, update: Update[AnyMinibatch], networks: Networks) -> None:
        """Flatten the networks of ``update``.

        Raises:
            ConfigError: If an optimizer is not Adam or AdamW.
        """
        self._update = update
        self._together = _Together(networks)
        self._prefixes = {network: f"networks.{i}." for i, network in enumerate(networks)}
        #: Parameters of every network.
        self.flat = {network: FlatNetwork(network) for network in networks}
        self._is_tied = any(flat.is_tied for flat in self.flat.values())
        self.adams = {
            network: FlatAdam(optimizer.optimizer, self.flat[network])
            for network, optimizer in networks.items()
            if optimizer is not None
        }

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(iter(self.flat.values())).vector.device

    def held(self) -> list[Tensor]:
        """The tensors that updates change or read besides their inputs."""
        tensors = [flat.vector for flat in self.flat.values()]
        for adam in self.adams.values():
            tensors += [adam.lr, *adam.state()]
        return tensors

    def rejoin(self) -> None:
        """See that networks and optimizers are the vectors still, also if somebody replaced them.

        Weights that were written in place are there anyway.
        """
        for flat in self.flat.values():
            flat.rejoin()
        for adam in self.adams.values():
            adam.rejoin()

    def take_rates(self) -> None:
        """Use the learning rates that the optimizers have now."""
        for adam in self.adams.values():
            adam.take_rate()

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Put all that updates change back to where it was."""
        before = [tensor.clone() for tensor in self.held()]
        try:
            yield
        finally:
            for tensor, was in zip(self.held(), before, strict=True):
                tensor.copy_(was)

    def places(self) -> tuple[int, ...]:
        """Where the networks' buffers lie, which updates read."""
        return tuple(buffer.data_ptr() for buffer in self._together.buffers())

    def update(self, rate: Tensor | None, minibatch: AnyMinibatch) -> Report:
        """One update; without a rate slow networks stay as they are."""
        return self._on_views(self._one, rate, minibatch)

    def updates(self, rates: Tensor | None, stack: AnyMinibatch) -> Report:
        """One update for each minibatch of ``stack``; without rates slow networks stay."""
        return self._on_views(self._one_by_one, rates, stack)

    @torch.no_grad()
    def _on_views(self, function: Callable[..., Report], *args: Any) -> Report:
        """Let networks use views that are made in the graph while ``function`` runs.

        Their parameters alias the vectors, too, but a graph whose inputs alias each other is slow.
        """
        views: dict[str, Tensor] = {}
        for network, flat in self.flat.items():
            views |= flat.views(self._prefixes[network])
        report: Report = functional_call(
            self._together, views, (function, *args), tie_weights=self._is_tied
        )
        return report

    def _one(self, rate: Tensor | None, minibatch: AnyMinibatch) -> Report:
        return self._update(self, minibatch, 0.0 if rate is None else rate)

    def _one_by_one(self, rates: Tensor | None, stack: AnyMinibatch) -> Report:
        each: Iterable[Tensor | None] = repeat(None) if rates is None else rates.unbind()
        minibatches = zip(each, stack.unstack(), strict=False)
        reports = [self._one(rate, minibatch) for rate, minibatch in minibatches]
        return {name: torch.stack([report[name] for report in reports]) for name in reports[0]}

    def descend(
        self,
        network: nn.Module,
        loss: Callable[[], LossAndReport],
        norm_name: str,
        max_norm: float = math.inf,
    ) -> Report:
        """See ``Engine``."""
        flat, prefix = self.flat[network], self._prefixes[network]

        def loss_at(parameters: dict[str, Tensor]) -> LossAndReport:
            found: LossAndReport = functional_call(
                self._together, parameters, (loss,), tie_weights=self._is_tied
            )
            return found

        gradients: dict[str, Tensor]
        report: Report
        gradients, report = grad(loss_at, has_aux=True)(flat.views(prefix))
        gradient = flat.join([gradients[prefix + name] for name in flat.names])
        norm, gradient = clip_to_norm(gradient, max_norm)
        self.adams[network].step(flat.vector, gradient)
        return report | {norm_name: norm}

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float | Tensor) -> None:
        """See ``Engine``; a number is a rate of 0, in a graph without rates."""
        if isinstance(rate, Tensor):
            self.flat[slow].vector.lerp_(self.flat[fast].vector, rate)
