"""Both phases as compiled graphs: gradient, clipping, Adam and the averaged networks in one call.

On small networks an update is overhead more than arithmetic, so that what pays is to compile all
of it. Parameters and the optimizer's own state are changed in place: a checkpoint is the same
with and without compilation, and so are the numbers, up to rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import InductorError
from torch.func import functional_call, grad
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.adam import adam

from lit_crl.checks import ConfigError
from lit_crl.gradients import clip_to_norm
from lit_crl.objectives import LossAndReport
from lit_crl.phases import Player
from lit_crl.stopwatch import Stopwatch

#: Updates in one graph, at most: more take long to compile and gain little.
UNROLL = 5


class _Flat:
    """A network's parameters as one vector, of which they become views.

    So a graph takes, and Adam changes, one tensor instead of dozens. The weights of widening layers
    are kept transposed: their gradient is then a product that BLAS does four times as fast.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        self.network = network
        self.parameters = list(network.parameters())
        self.names = [f"networks.{name}.{key}" for key, _ in network.named_parameters()]
        self.is_transposed = [p.ndim == 2 and p.shape[1] < p.shape[0] for p in self.parameters]
        self.vector = self.join([p.detach() for p in self.parameters])
        for parameter, view in zip(self.parameters, self.split(self.vector), strict=True):
            parameter.data = view

    def join(self, tensors: list[Tensor]) -> Tensor:
        """A vector of tensors in the parameters' shapes."""
        laid_out = zip(tensors, self.is_transposed, strict=True)
        return torch.cat([(t.t() if turned else t).reshape(-1) for t, turned in laid_out])

    def split(self, vector: Tensor) -> list[Tensor]:
        """Views of a vector like this one in the parameters' shapes."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        return [
            part.view(p.shape[::-1]).t() if turned else part.view(p.shape)
            for part, p, turned in zip(parts, self.parameters, self.is_transposed, strict=True)
        ]

    def views(self) -> dict[str, Tensor]:
        """The parameters by their names."""
        return dict(zip(self.names, self.split(self.vector), strict=True))


class _Adam:
    """Adam or AdamW on a flat vector; the optimizer's own state becomes views of its vectors."""

    def __init__(self, optimizer: Optimizer, flat: _Flat) -> None:
        if type(optimizer) not in (Adam, AdamW) or len(optimizer.param_groups) > 1:
            raise ConfigError(
                "model.compile knows torch.optim.Adam and AdamW with one group of parameters, but "
                f"was given {type(optimizer).__name__} with {len(optimizer.param_groups)}: choose "
                "one of them, or set model.compile to false"
            )
        self.group = optimizer.param_groups[0]
        self.rate = torch.zeros((), device=flat.vector.device)
        states = [optimizer.state[p] for p in flat.parameters]
        kinds = ["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * self.group["amsgrad"]]
        self.moments = [torch.zeros_like(flat.vector) for _ in kinds]
        self.steps = torch.zeros(len(states), device=flat.vector.device)
        for kind, moment in zip([*kinds, "step"], [*self.moments, self.steps], strict=True):
            views = self.steps.unbind() if kind == "step" else flat.split(moment)
            for state, view in zip(states, views, strict=True):
                state[kind] = view.copy_(state[kind]) if kind in state else view

    def tensors(self) -> list[Tensor]:
        """Everything that a step reads or changes beside the parameters."""
        return [self.rate, self.steps, *self.moments]

    def step(self, vector: Tensor, gradient: Tensor) -> None:
        """Descend along ``gradient [n]``."""
        beta1, beta2 = self.group["betas"]
        step = self.steps[0].clone()  # the same for all: they start and step together
        adam(
            [vector],
            [gradient],
            self.moments[:1],
            self.moments[1:2],
            self.moments[2:],
            [step],
            foreach=False,
            capturable=True,
            amsgrad=self.group["amsgrad"],
            beta1=beta1,
            beta2=beta2,
            lr=self.rate,
            weight_decay=self.group["weight_decay"],
            eps=self.group["eps"],
            maximize=self.group["maximize"],
            decoupled_weight_decay=self.group["decoupled_weight_decay"],
        )
        self.steps.add_(1)


class _AtParameters(nn.Module):
    """An objective as a module, so that ``functional_call`` can take it at other parameters."""

    def __init__(self, networks: dict[str, nn.Module], objective: Callable[..., Any]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.objective = objective

    def forward(self, *minibatch: Tensor | None) -> LossAndReport:
        return cast(LossAndReport, self.objective(*minibatch))


class _Descent:
    """One step of Adam down a player's objective, all of which a compiler can trace."""

    def __init__(self, player: Player, flats: dict[str, _Flat]) -> None:
        networks = {name: flat.network for name, flat in flats.items()}
        self.objective = _AtParameters(networks, player.objective)
        self.flat = next(flat for flat in flats.values() if flat.network is player.network)
        self.others = [flat for flat in flats.values() if flat is not self.flat]
        self.norm_name, self.max_norm = player.norm_name, player.max_norm
        self.adam = _Adam(player.optimizer.optimizer, self.flat)

    def __call__(self, minibatch: list[Tensor | None]) -> dict[str, Tensor]:
        fixed = {name: view for other in self.others for name, view in other.views().items()}

        def loss_at(params: dict[str, Tensor]) -> LossAndReport:
            everything = (params | fixed, tuple(minibatch))
            return cast(LossAndReport, functional_call(self.objective, *everything))

        gradients, report = grad(loss_at, has_aux=True)(self.flat.views())
        gradient = self.flat.join([gradients[name] for name in self.flat.names])
        norm, gradient = clip_to_norm(gradient, self.max_norm)
        self.adam.step(self.flat.vector, gradient)
        return cast(dict[str, Tensor], report) | {self.norm_name: norm}


class CompiledPhase:
    """A phase as a few calls of one compiled graph.

    Its first call compiles. Later runs with the same shapes take the graph from the cache that
    torch keeps on disk (``TORCHINDUCTOR_CACHE_DIR``).
    """

    def __init__(
        self, learner: Any, players: Sequence[Player], slow: nn.Module, fast: nn.Module
    ) -> None:
        """Let ``players`` take turns; then let ``slow`` follow ``fast``.

        Raises:
            ConfigError: If an optimizer is not Adam or AdamW, or if the Trainer does between
                gradient and step what a graph cannot.
        """
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
        networks = [slow, *(player.network for player in players)]
        flats = {str(i): _Flat(str(i), network) for i, network in enumerate(networks)}
        self._descents = [_Descent(player, flats) for player in players]
        self._slow, self._fast = (
            next(flat.vector for flat in flats.values() if flat.network is network)
            for network in (slow, fast)
        )
        self._clock: Stopwatch = learner.clock
        self._compiled: set[bool] = set()  # with rates and without are two graphs
        options: dict[str, Any] = {"cpp_wrapper": True}
        if learner.device.type == "cuda":
            options = {"triton.cudagraphs": True}
            vectors = [flat.vector for flat in flats.values()]
            states = [t for descent in self._descents for t in descent.adam.tensors()]
            for tensor in vectors + states:
                torch._dynamo.mark_static_address(tensor)
        self._graph = torch.compile(self._updates, fullgraph=True, dynamic=False, options=options)

    @torch.no_grad()
    def _updates(self, rates: Tensor | None, fields: list[Tensor | None]) -> dict[str, Tensor]:
        reports = []
        given = [field for field in fields if field is not None]
        for k in range(len(given[0])):
            report: dict[str, Tensor] = {}
            for descent in self._descents:
                report |= descent([None if field is None else field[k] for field in fields])
            if rates is not None:
                self._slow.lerp_(self._fast, rates[k])
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
        size = next(n for n in range(UNROLL, 0, -1) if len(rates) % n == 0)
        chunks = [slice(start, start + size) for start in range(0, len(rates), size)]
        all_rates = torch.tensor(rates, device=self._slow.device)
        reports = []
        for chunk in chunks:
            taken = [None if field is None else field[chunk] for field in fields]
            *within, last = rates[chunk]
            # Where the slow network only follows now and then, the graph need not look after it.
            report = self._call(all_rates[chunk] if any(within) else None, taken)
            if not any(within) and last > 0:
                self._slow.lerp_(self._fast, last)
            # A CUDA graph's results are overwritten by its next call.
            reports.append({name: value.clone() for name, value in report.items()})
        return {name: torch.cat([report[name] for report in reports]) for name in reports[0]}

    def _call(self, rates: Tensor | None, fields: list[Tensor | None]) -> dict[str, Tensor]:
        if (rates is None) in self._compiled:
            return self._graph(rates, fields)
        try:
            with self._clock("compile"):
                report = self._graph(rates, fields)
        except (TorchDynamoException, InductorError) as error:
            cause = str(error).split("\n\n")[0]  # hints for torch's developers follow
            raise ConfigError(
                f"model.compile is on, but torch cannot compile the update here ({cause}): install "
                "a C++ compiler, or set model.compile to false"
            ) from error
        self._compiled.add(rates is None)
        return report
