"""Updates as compiled graphs: target, gradient, clipping, Adam and slow network in one call.

With small networks an update is more overhead than arithmetic, so it pays to compile all of it.
Parameters and the optimizer's own state are changed in place. So a checkpoint is the same with
and without compilation, and the numbers are the same up to rounding.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import repeat
from typing import Any, Generic

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import InductorError
from torch.func import functional_call, grad

from lit_crl.core.checks import ConfigError
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.training.compiled.adam import FlatAdam
from lit_crl.training.compiled.parameters import FlatNetwork
from lit_crl.training.eager import BACKWARD_HOOKS, STEP_HOOKS, count_steps, listeners
from lit_crl.training.updates import AnyMinibatch, LossAndReport, Networks, Report, Update

#: How many updates one graph holds at most, by the number of networks that an update trains. More
#: would take long to compile and gain little: with two networks an update takes several times as
#: long.
UNROLL = {1: 10, 2: 2, 3: 1}


class _Together(nn.Module):
    """Networks as one module: ``functional_call`` replaces its parameters while a function runs."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def clip_to_norm(gradient: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
    """The norm ‖g‖ and g · min(1, c / ‖g‖), Pascanu et al. 2013, algorithm 1; c is ``max_norm``.

    >>> clip_to_norm(torch.tensor([3.0, 4.0]), max_norm=1.0)
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    norm = torch.linalg.vector_norm(gradient)
    if max_norm == math.inf:
        return norm, gradient
    return norm, gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0)


def compiled(
    function: Callable[..., Any], device: torch.device, held: Sequence[Tensor]
) -> Callable[..., Any]:
    """One graph of everything that ``function`` does, for inputs that keep their shapes.

    On a GPU it is a CUDA graph, whose results last until its next call. The tensors that the
    function changes or reads besides its inputs are ``held`` where they are in memory.
    """
    options: dict[str, Any] = {"cpp_wrapper": True}
    if device.type == "cuda":
        options = {"triton.cudagraphs": True}
        for tensor in held:
            torch._dynamo.mark_static_address(tensor)
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


@contextmanager
def compiling(clock: Stopwatch) -> Iterator[None]:
    """Around the first call of a compiled graph.

    Raises:
        ConfigError: If it cannot be compiled.
    """
    try:
        with clock("compile"):
            yield
    except (TorchDynamoException, InductorError) as error:
        cause = str(error).split("\n\n")[0]  # hints for torch's developers follow
        raise ConfigError(
            f"model.compile is on, but torch cannot compile the update here ({cause}): install "
            "a C++ compiler, or set model.compile to false"
        ) from error


class CompiledPhase(Generic[AnyMinibatch]):
    """Runs updates as a few calls of one graph; the ``Engine`` and the ``Phase`` of ``updates``.

    Its first call compiles. Later runs with the same shapes take the graph from the cache that
    torch keeps on disk (``TORCHINDUCTOR_CACHE_DIR``).
    """

    def __init__(
        self,
        learner: LightningModule,
        update: Update[AnyMinibatch],
        networks: Networks,
        clock: Stopwatch,
    ) -> None:
        """Flatten the networks, and prepare to compile ``update``; ``clock`` times that.

        Raises:
            ConfigError: If an optimizer is not Adam or AdamW, or see ``check_can_compile``.
        """
        check_can_compile(learner)
        self._update, self._trainer, self._clock = update, learner.trainer, clock
        self._together = _Together(networks)
        self._prefixes = {network: f"networks.{i}." for i, network in enumerate(networks)}
        #: Parameters of every network.
        self.flat = {network: FlatNetwork(network) for network in networks}
        self._adams = {
            network: FlatAdam(optimizer.optimizer, self.flat[network])
            for network, optimizer in networks.items()
            if optimizer is not None
        }
        held = [flat.vector for flat in self.flat.values()]
        for adam in self._adams.values():
            held += [adam.lr, *adam.state()]
        self._device = learner.device
        self._compiled: set[bool] = set()  # whether the slow network moves in a compiled graph
        self._graph = compiled(self._updates, self._device, held)

    def __call__(self, rates: Sequence[float], stack: AnyMinibatch) -> Report:
        """See ``Phase``.

        Raises:
            ConfigError: If the graph cannot be compiled.
        """
        for adam in self._adams.values():
            adam.lr.fill_(adam.group["lr"])
        at_most = UNROLL[len(self._adams)]
        size = next(n for n in range(at_most, 0, -1) if len(rates) % n == 0)
        all_rates = torch.tensor(rates, device=self._device)
        reports = []
        for start in range(0, len(rates), size):
            chunk = slice(start, start + size)
            # A second graph, for chunks in which the slow network stays as it is, saves its steps.
            moves = any(rates[chunk])
            with nullcontext() if moves in self._compiled else compiling(self._clock):
                report: Report = self._graph(
                    all_rates[chunk] if moves else None, stack.chunk(chunk)
                )
            self._compiled.add(moves)
            if self._device.type == "cuda":  # the next call overwrites what a CUDA graph gives
                report = {name: numbers.clone() for name, numbers in report.items()}
            reports.append(report)
        count_steps(self._trainer, len(rates) * len(self._adams))
        return {name: torch.cat([report[name] for report in reports]) for name in reports[0]}

    @torch.no_grad()
    def _updates(self, rates: Tensor | None, stack: AnyMinibatch) -> Report:
        """All updates of one graph; without rates the slow network stays as it is.

        The networks use views that are made in the graph. Their parameters alias the vectors, too,
        but a graph whose inputs alias each other is slow.
        """
        views: dict[str, Tensor] = {}
        for network, flat in self.flat.items():
            views |= flat.views(self._prefixes[network])
        report: Report = functional_call(self._together, views, (self._one_by_one, rates, stack))
        return report

    def _one_by_one(self, rates: Tensor | None, stack: AnyMinibatch) -> Report:
        each: Iterable[float | Tensor] = repeat(0.0) if rates is None else rates.unbind()
        minibatches = zip(stack.unstack(), each, strict=False)
        reports = [self._update(self, minibatch, rate) for minibatch, rate in minibatches]
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
            found: LossAndReport = functional_call(self._together, parameters, (loss,))
            return found

        gradients: dict[str, Tensor]
        report: Report
        gradients, report = grad(loss_at, has_aux=True)(flat.views(prefix))
        gradient = flat.join([gradients[prefix + name] for name in flat.names])
        norm, gradient = clip_to_norm(gradient, max_norm)
        self._adams[network].step(flat.vector, gradient)
        return report | {norm_name: norm}

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float | Tensor) -> None:
        """See ``Engine``; a number is a rate of 0, in a graph without rates."""
        if isinstance(rate, Tensor):
            self.flat[slow].vector.lerp_(self.flat[fast].vector, rate)


def check_can_compile(learner: LightningModule) -> None:
    """Refuse a Trainer that does something between a gradient and its step, which a graph cannot.

    Raises:
        ConfigError: If there are hooks, several processes or a loss scaler.
    """
    if hooks := listeners(learner, BACKWARD_HOOKS + STEP_HOOKS):
        raise ConfigError(
            f"model.compile is on, but a compiled update cannot call {', '.join(hooks)}: set "
            "model.compile to false, or leave out the callback"
        )
    if learner.trainer.world_size > 1:
        raise ConfigError(
            "model.compile is on, but several processes average their gradients before each "
            "step: use --trainer.devices 1, or set model.compile to false"
        )
    if getattr(learner.trainer.precision_plugin, "scaler", None) is not None:
        raise ConfigError(
            "model.compile is on, but 16-mixed skips steps that overflow: use "
            "--trainer.precision bf16-mixed or 32-true, or set model.compile to false"
        )
