"""Data-parallel training for phases that alternate."""

import signal
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from lit_crl.core import distributed


class PhaseDDP(DDPStrategy):
    """One flat all-reduce after each backward, of the gradients that this backward made.

    torch's DistributedDataParallel waits in every backward for every parameter, or searches the
    graph for unused ones. Here each phase has a backward of its own, in which the parameters of
    the other networks have no gradient. The gradients are averaged before mixed precision
    unscales them, so that all processes agree on which steps to skip.
    """

    def __init__(self, timeout_seconds: float = 1800.0, **kwargs: Any) -> None:
        """Set the patience of the processes with each other.

        A process that dies breaks its connections, which ends the others at once. A process that is
        alive may be slow for a good reason: the first one draws films, uploads, and writes
        checkpoints while the others wait.

        Args:
            timeout_seconds: A process that waits longer than this for a living one ends the
                run.
            **kwargs: As ``DDPStrategy``.
        """
        super().__init__(timeout=timedelta(seconds=timeout_seconds), **kwargs)

    def configure_ddp(self) -> None:
        """Start from the weights of the first process; nothing is wrapped."""
        assert self.lightning_module is not None
        for tensor in self.lightning_module.state_dict().values():
            dist.broadcast(tensor, src=0)

    def on_exception(self, exception: BaseException) -> None:
        """End the processes that this one has started: they may wait for it, or hang."""
        super().on_exception(exception)
        launcher: Any = self.launcher
        if launcher is not None and distributed.lost_another(exception):
            launcher.kill(signal.SIGKILL)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients of the phase."""
        assert self.lightning_module is not None
        parameters = self.lightning_module.parameters()
        distributed.average([p.grad for p in parameters if p.grad is not None])
