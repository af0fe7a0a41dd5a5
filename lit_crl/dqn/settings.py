"""Settings of the Q-network and of how it learns."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Adam, Optimizer

from lit_crl.core.checks import Fields
from lit_crl.dqn.equations import TDLoss


def q_adam(params: Iterable[Any]) -> Optimizer:
    """Adam for the Q-network: one fused kernel, learning rate 5e-4."""
    return Adam(params, lr=5e-4, eps=1e-5, fused=True)


@dataclass(frozen=True)
class NetworkSettings:
    """The architecture of the Q-network.

    Args:
        hidden: Width of each hidden layer.
        dueling: Split the head into state value and advantages.
        layer_norm: Apply LayerNorm after each hidden layer.
        scale_obs: Scale bounded vectors to [−1, 1]. Turn it off where the bounds are far wider
            than the values that occur.
        planning_steps: Longest path that the network plans in maps around the agent; 0: a plain
            network.
    """

    hidden: Sequence[int] = (128, 128)
    dueling: bool = False
    layer_norm: bool = True
    scale_obs: bool = True
    planning_steps: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        fields = Fields("model.network", self)
        fields.widths("hidden")
        fields.non_negative("planning_steps")


@dataclass(frozen=True)
class DqnSettings:
    """How the Q-network learns.

    Args:
        double: The online network selects the bootstrap action (double DQN).
        td_loss: Loss of a TD error: ``huber``, linear beyond 1, or ``mse``, its square.
        target_rate: Share of online weights in each sync of the target network; 1: hard copy.
        target_period: DQN updates from one sync of the target network to the next.
        max_grad_norm: A gradient with a larger norm is scaled down to this norm.
        final_lr: The learning rate falls linearly over the run to this share of its start;
            1 keeps it constant.
        conservative_weight: α of the conservative penalty (CQL), which values actions that the
            replay lacks less: for training from a log.
        optimizer: Optimizer of the Q-network.
    """

    double: bool = True
    td_loss: TDLoss = "huber"
    target_rate: float = 0.01
    target_period: int = 1
    max_grad_norm: float = 10.0
    final_lr: float = 0.1
    conservative_weight: float = 0.0
    optimizer: Callable[[Iterable[Any]], Optimizer] = q_adam

    def __post_init__(self) -> None:
        """Check the numbers."""
        fields = Fields("model.dqn", self)
        fields.one_of("td_loss", TDLoss)
        fields.positive("target_period", "max_grad_norm")
        fields.non_negative("conservative_weight")
        fields.positive_unit_interval("target_rate", "final_lr")
        fields.optimizers("optimizer")

    def target_rates(self, first: int, updates: int) -> list[float]:
        """Share of online weights that the target network takes at each of some ``updates``.

        Args:
            first: Number of the first of them in the run, from 1.
            updates: How many.

        >>> DqnSettings(target_rate=0.5, target_period=2).target_rates(first=3, updates=3)
        [0.0, 0.5, 0.0]
        """
        numbers = range(first, first + updates)
        return [self.target_rate * (n % self.target_period == 0) for n in numbers]
