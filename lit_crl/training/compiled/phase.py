"""Updates as compiled graphs: target, gradient, clipping, Adam and slow network in one call.

With small networks an update is more overhead than arithmetic, so it pays to compile all of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Generic

import torch
from lightning.pytorch import LightningModule
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import InductorError

from lit_crl.core.checks import ConfigError
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.training.eager import count_steps
from lit_crl.training.flat.engine import FlatEngine
from lit_crl.training.updates import AnyMinibatch, Networks, Report, Update

#: How many updates one graph holds at most, by the number of networks that an update trains. More
#: would take long to compile and gain little: with two networks an update takes several times as
#: long.
UNROLL = {1: 10, 2: 2, 3: 1}


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """One compiled function for all that ``function`` does, for inputs that keep their shapes.

    On a GPU it still launches one kernel after another, unless a CUDA graph holds them. There the
    compiler tries several layouts of each kernel out: its guess is ten times too slow for some.
    """
    options: dict[str, Any] = {"cpp_wrapper": True}
    if device.type == "cuda":
        options = {"max_autotune_pointwise": True}
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
    """Runs updates as a few calls of one graph; the ``Phase`` of ``updates``.

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
            ConfigError: If an optimizer is not Adam or AdamW.
        """
        self._trainer, self._clock = learner.trainer, clock
        self._engine = FlatEngine(update, networks)
        #: Parameters of every network.
        self.flat = self._engine.flat
        self._device = learner.device
        self._compiled: set[bool] = set()  # whether the slow network moves in a compiled graph
        self._graph = compiled(self._engine.updates, self._device)

    def __call__(self, rates: Sequence[float], stack: AnyMinibatch) -> Report:
        """See ``Phase``.

        Raises:
            ConfigError: If the graph cannot be compiled.
        """
        self._engine.rejoin()
        self._engine.take_rates()
        trained = len(self._engine.adams)
        at_most = UNROLL[trained]
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
            reports.append(report)
        count_steps(self._trainer, len(rates) * trained)
        return {name: torch.cat([report[name] for report in reports]) for name in reports[0]}
