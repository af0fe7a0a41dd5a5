"""Updates as compiled graphs: target, gradient, clipping, Adam and slow network in one call.

On small networks an update is overhead more than arithmetic, so that what pays is to compile all
of it. Parameters and the optimizer's own state are changed in place: a checkpoint is the same
with and without compilation, and so are the numbers, up to rounding.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Generic, cast

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
from lit_crl.training.updates import LossAndReport, M, Networks, Report, Update

#: Updates in one graph, at most, that train one network and two, which take several times as long:
#: more take long to compile and gain little.
UNROLL = {1: 10, 2: 2}


class _Together(nn.Module):
    """Networks as one module: ``functional_call`` replaces its parameters while a function runs."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def clip_to_norm(gradient: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
    """The norm ‖g‖ and g · min(1, c / ‖g‖), Pascanu et al. 2013, algorithm 1; c is ``max_norm``."""
    norm = torch.linalg.vector_norm(gradient)
    if max_norm == math.inf:
        return norm, gradient
    return norm, gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0)


def compiled(
    function: Callable[..., Any], device: torch.device, held: Sequence[Tensor]
) -> Callable[..., Any]:
    """One graph of all that ``function`` does, for inputs that keep their shapes.

    On a GPU it is a CUDA graph, whose results last until its next call; the tensors ``held`` by the
    function stay where they are.
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


class CompiledPhase(Generic[M]):
    """Runs updates as a few calls of one graph; the ``Engine`` and the ``Phase`` of ``updates``.

    Its first call compiles. Later runs with the same shapes take the graph from the cache that
    torch keeps on disk (``TORCHINDUCTOR_CACHE_DIR``).
    """

    def __init__(
        self, learner: LightningModule, update: Update[M], networks: Networks, clock: Stopwatch
    ) -> None:
        """Prepare to compile ``update``; ``clock`` times the compilation.

        Raises:
            ConfigError: If an optimizer is not Adam or AdamW, or if the Trainer or a hook does
                between gradient and step what a graph cannot.
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
            held += [adam.rate, *adam.state()]
        self._device, self._is_compiled = learner.device, False
        self._graph = compiled(self._updates, self._device, held)

    def __call__(self, rates: Sequence[float], stack: M) -> Report:
        """See ``Phase``.

        Raises:
            ConfigError: If the graph cannot be compiled.
        """
        for adam in self._adams.values():
            adam.rate.fill_(adam.group["lr"])
        at_most = UNROLL[len(self._adams)]
        size = next(n for n in range(at_most, 0, -1) if len(rates) % n == 0)
        all_rates = torch.tensor(rates, device=self._device)
        reports = []
        for start in range(0, len(rates), size):
            chunk = slice(start, start + size)
            with nullcontext() if self._is_compiled else compiling(self._clock):
                report: Report = self._graph(all_rates[chunk], stack.at(chunk))
            self._is_compiled = True
            if (
                self._device.type == "cuda"
            ):  # a CUDA graph's results are overwritten by its next call
                report = {name: numbers.clone() for name, numbers in report.items()}
            reports.append(report)
        count_steps(self._trainer, len(rates) * len(self._adams))
        return {name: torch.cat([report[name] for report in reports]) for name in reports[0]}

    @torch.no_grad()
    def _updates(self, rates: Tensor, stack: M) -> Report:
        """All updates of one graph, in which networks use views of their flat parameters."""
        views: dict[str, Tensor] = {}
        for network, flat in self.flat.items():
            views |= flat.views(self._prefixes[network])
        return cast(
            Report, functional_call(self._together, views, (self._one_by_one, rates, stack))
        )

    def _one_by_one(self, rates: Tensor, stack: M) -> Report:
        reports = [self._update(self, stack.at(k), rate) for k, rate in enumerate(rates.unbind())]
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
            return cast(LossAndReport, functional_call(self._together, parameters, (loss,)))

        gradients, report = grad(loss_at, has_aux=True)(flat.views(prefix))
        gradient = flat.join([gradients[prefix + name] for name in flat.names])
        norm, gradient = clip_to_norm(gradient, max_norm)
        self._adams[network].step(flat.vector, gradient)
        return cast(Report, report) | {norm_name: norm}

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float | Tensor) -> None:
        """See ``Engine``."""
        self.flat[slow].vector.lerp_(self.flat[fast].vector, rate)


def check_can_compile(learner: LightningModule) -> None:
    """Refuse what must come between a gradient and its step, where a graph cannot call it.

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
