"""Both phases as compiled graphs: gradient, clipping, Adam and the averaged networks in one call.

On small networks an update is overhead more than arithmetic, so that what pays is to compile all
of it. Parameters and the optimizer's own state are changed in place: a checkpoint is the same
with and without compilation, and so are the numbers, up to rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import InductorError
from torch.func import functional_call, grad

from lit_crl.core.checks import ConfigError
from lit_crl.core.objective import LossAndReport
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.training.compiled.adam import FlatAdam
from lit_crl.training.compiled.parameters import FlatNetwork
from lit_crl.training.gradients import clip_to_norm
from lit_crl.training.updates import (
    BACKWARD_HOOKS,
    STEP_HOOKS,
    Player,
    Turns,
    count_steps,
    listeners,
)

#: Updates in one graph, at most, of one player and of two, whose update is several times as long:
#: more take long to compile and gain little.
UNROLL = {1: 10, 2: 2}


class _AtParameters(nn.Module):
    """A function as a module, so that ``functional_call`` can take it at other parameters."""

    def __init__(self, networks: dict[str, nn.Module], function: Callable[..., Any]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.function = function

    def forward(self, *fields: Tensor | None) -> Any:
        return self.function(*fields)


class _Foresight:
    """What a phase's slow network adds to K minibatches."""

    def __init__(self, turns: Turns, flats: dict[str, FlatNetwork]) -> None:
        networks = {name: flat.network for name, flat in flats.items()}
        self.function = _AtParameters(networks, cast(Callable[..., Any], turns.foresee))
        self.slow = next(flat for flat in flats.values() if flat.network is turns.slow)

    def __call__(self, fields: list[Tensor | None]) -> Tensor:
        given = {index: field for index, field in enumerate(fields) if field is not None}
        given_fields = tuple(given.get(index) for index in range(max(given) + 1))
        views = self.slow.views(self.slow.vector)
        return cast(Tensor, functional_call(self.function, views, given_fields))


class _Descent:
    """One step of Adam down a player's objective, all of which a compiler can trace."""

    def __init__(self, player: Player, flats: dict[str, FlatNetwork]) -> None:
        networks = {name: flat.network for name, flat in flats.items()}
        self.objective = _AtParameters(networks, player.objective)
        self.flat = next(flat for flat in flats.values() if flat.network is player.network)
        self.others = [flat for flat in flats.values() if flat is not self.flat]
        self.norm_name, self.max_norm = player.norm_name, player.max_norm
        self.adam = FlatAdam(player.optimizer.optimizer, self.flat)

    def __call__(self, minibatch: list[Tensor | None]) -> dict[str, Tensor]:
        vectors = [flat.vector for flat in (self.flat, *self.others)]
        given = {index: field for index, field in enumerate(minibatch) if field is not None}
        gradient, report = self._gradient(vectors, given)
        self.adam.step(self.flat.vector, gradient)
        return report

    def _gradient(
        self, vectors: list[Tensor], given: dict[int, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own, *others = vectors
        fixed: dict[str, Tensor] = {}
        for flat, vector in zip(self.others, others, strict=True):
            fixed |= flat.views(vector)
        minibatch = tuple(given.get(index) for index in range(max(given) + 1))

        def loss_at(params: dict[str, Tensor]) -> LossAndReport:
            everything = (params | fixed, minibatch)
            return cast(LossAndReport, functional_call(self.objective, *everything))

        gradients, report = grad(loss_at, has_aux=True)(self.flat.views(own))
        gradient = self.flat.join([gradients[name] for name in self.flat.names])
        norm, gradient = clip_to_norm(gradient, self.max_norm)
        return gradient, cast(dict[str, Tensor], report) | {self.norm_name: norm}


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


class CompiledPhase:
    """A phase as a few calls of one compiled graph.

    Its first call compiles. Later runs with the same shapes take the graph from the cache that
    torch keeps on disk (``TORCHINDUCTOR_CACHE_DIR``).
    """

    def __init__(self, learner: Any, turns: Turns) -> None:
        """Train the players of a ``CreativeLearner``.

        Raises:
            ConfigError: If an optimizer is not Adam or AdamW, or if the Trainer or a hook does
                between gradient and step what a graph cannot.
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
        networks = [turns.slow, *(player.network for player in turns.players)]
        flats = {str(i): FlatNetwork(str(i), network) for i, network in enumerate(networks)}
        self._descents = [_Descent(player, flats) for player in turns.players]
        self._foresee = _Foresight(turns, flats) if turns.foresee is not None else None
        self._slow, self._fast = (
            next(flat.vector for flat in flats.values() if flat.network is network)
            for network in (turns.slow, turns.fast)
        )
        state = [flat.vector for flat in flats.values()]
        state += [t for descent in self._descents for t in descent.adam.state()]
        #: Parameters of the first player's networks.
        self.flat = self._descents[0].flat
        self._clock: Stopwatch = learner.clock
        self._trainer: Trainer = learner.trainer
        self._compiled: set[bool] = set()  # with rates and without are two graphs
        rates = (descent.adam.rate for descent in self._descents)
        self._graph = compiled(self._updates, learner.device, [*state, *rates])

    @torch.no_grad()
    def _updates(self, rates: Tensor | None, fields: list[Tensor | None]) -> dict[str, Tensor]:
        reports = []
        updates = len(next(field for field in fields if field is not None))
        size = updates if rates is None else 1  # of stretches that see the slow network as one
        for start in range(0, updates, size):
            stacks = [None if field is None else field[start : start + size] for field in fields]
            if self._foresee is not None:
                stacks.append(self._foresee(stacks))
            for k in range(size):
                report: dict[str, Tensor] = {}
                for descent in self._descents:
                    report |= descent([None if stack is None else stack[k] for stack in stacks])
                if rates is not None:
                    self._slow.lerp_(self._fast, rates[start])
                reports.append(report)
        return {name: torch.stack([report[name] for report in reports]) for name in reports[0]}

    def __call__(
        self, rates: Sequence[float], fields: Sequence[Tensor | None]
    ) -> dict[str, Tensor]:
        """See ``Phase``.

        Raises:
            ConfigError: If the graph cannot be compiled.
        """
        for descent in self._descents:
            descent.adam.rate.fill_(descent.adam.group["lr"])
        at_most = UNROLL[len(self._descents)]
        size = next(n for n in range(at_most, 0, -1) if len(rates) % n == 0)
        chunks = len(rates) // size
        stacks = (
            [None] * chunks if field is None else torch.split(field, size) for field in fields
        )
        all_rates = torch.split(torch.tensor(rates, device=self._slow.device), size)
        reports = []
        for chunk, *taken in zip(range(chunks), *stacks, strict=True):
            *within, last = rates[chunk * size : (chunk + 1) * size]
            # Where the slow network only follows now and then, the graph need not look after it.
            report = self._call(all_rates[chunk] if any(within) else None, taken)
            if not any(within) and last > 0:
                self._slow.lerp_(self._fast, last)
            reports.append(report)
        count_steps(self._trainer, len(rates) * len(self._descents))
        return {name: torch.cat([report[name] for report in reports]) for name in reports[0]}

    def _call(self, rates: Tensor | None, fields: list[Tensor | None]) -> dict[str, Tensor]:
        first = (rates is None) not in self._compiled
        with compiling(self._clock) if first else nullcontext():
            report: dict[str, Tensor] = self._graph(rates, fields)
        self._compiled.add(rates is None)
        if not self._slow.is_cuda:
            return report
        # A CUDA graph's results are overwritten by its next call.
        return {name: numbers.clone() for name, numbers in report.items()}
