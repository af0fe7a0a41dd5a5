"""How updates run: one operation at a time, compiled, or as CUDA graphs."""

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from lit_crl.core import distributed
from lit_crl.core.checks import ConfigError
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.training.compiled.obstacles import check_can_compile, obstacle
from lit_crl.training.eager import EagerPhase, has_own_backward
from lit_crl.training.flat.adam import is_plain_adam
from lit_crl.training.flat.engine import FlatEngine
from lit_crl.training.flat.network import FlatNetwork
from lit_crl.training.flat.phase import TracedPhase
from lit_crl.training.graphs.capture import Capture, capture_on
from lit_crl.training.graphs.phase import GraphedPhase, Step
from lit_crl.training.updates import AnyMinibatch, Networks, Phase, Report, Update


class PhaseMaker:
    """Makes the phases of a learner, all of one kind; see ``MakePhase``.

    On a GPU the updates of a phase are one CUDA graph, of compiled code where the settings want it.
    """

    def __init__(self, learner: LightningModule, compile_updates: bool, clock: Stopwatch) -> None:
        """Choose the kind for a learner that a Trainer trains.

        Args:
            learner: Is trained.
            compile_updates: Whether the settings want compiled updates.
            clock: Times the compiling, and the recording of graphs.

        Raises:
            ConfigError: If updates should be compiled, but the Trainer is in the way of it.
        """
        if compile_updates:
            check_can_compile(learner)
        self._learner, self._compiles, self._clock = learner, compile_updates, clock
        self._capture = capture_on(learner.device)
        if self._capture is not None and (found := obstacle(learner)) is not None:
            say_eager(found.reason)
            self._capture = None
        #: Where updates are graphs: each network with its parameters as one vector.
        self.flat: dict[nn.Module, FlatNetwork] = {}

    def __call__(self, update: Update[AnyMinibatch], networks: Networks) -> Phase[AnyMinibatch]:
        """See ``MakePhase``.

        Raises:
            ConfigError: If updates should be compiled, but an optimizer cannot be.
        """
        if self._capture is not None:
            return self._graphed(update, networks, self._capture)
        if not self._compiles:
            return self._one_by_one(update, networks)
        with self._clock("compile"):  # importing the compiler takes seconds
            from lit_crl.training.compiled.phase import CompiledPhase
        phase = CompiledPhase(self._learner, update, networks, self._clock)
        self.flat |= phase.flat
        return phase

    def _one_by_one(self, update: Update[AnyMinibatch], networks: Networks) -> Phase[AnyMinibatch]:
        """Recorded updates; under Lightning's wrappers where these have something to do."""
        optimizers = [
            optimizer.optimizer for optimizer in networks.values() if optimizer is not None
        ]
        if all(map(is_plain_adam, optimizers)) and is_unwrapped(self._learner):
            return TracedPhase(self._learner.trainer, FlatEngine(update, networks))
        return EagerPhase(self._learner, update, networks)

    def _graphed(
        self, update: Update[AnyMinibatch], networks: Networks, capture: Capture
    ) -> Phase[AnyMinibatch]:
        try:
            engine = FlatEngine(update, networks)
        except ConfigError as error:
            if self._compiles:
                raise
            say_eager(str(error))
            return EagerPhase(self._learner, update, networks)
        self.flat |= engine.flat
        step = self._compiled(engine.updates) if self._compiles else engine.updates
        return GraphedPhase(self._learner.trainer, engine, step, capture, self._clock)

    def _compiled(self, step: Step[AnyMinibatch]) -> Step[AnyMinibatch]:
        with self._clock("compile"):
            from lit_crl.training.compiled.phase import compiled, compiling
        function = compiled(step, self._learner.device)

        def compiled_step(rate: Tensor, stack: AnyMinibatch) -> Report:
            with compiling(self._clock):
                report: Report = function(rate, stack)
            return report

        return compiled_step


def is_unwrapped(learner: LightningModule) -> bool:
    """Whether nothing of Lightning or of the user stands between a loss and the weights."""
    is_single = isinstance(learner.trainer.strategy, SingleDeviceStrategy)
    if not is_single or obstacle(learner) is not None or has_own_backward(learner):
        return False
    return not torch.is_anomaly_enabled() and not has_hooks(learner)


def has_hooks(network: nn.Module) -> bool:
    """Whether somebody waits for the calls of its modules, or for the gradients of its weights."""
    of_modules = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_weights = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(module, name) for module in network.modules() for name in of_modules) or any(
        getattr(weight, name) for weight in network.parameters() for name in of_weights
    )


def say_eager(reason: str) -> None:
    """Say once why a GPU will wait for Python."""
    distributed.print_once(f"Updates run one operation at a time: {reason}.")
