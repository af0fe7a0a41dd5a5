"""What the optimizer of the Q-network minimises."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from lit_crl.core.objective import LossAndReport
from lit_crl.dqn import equations as dqn
from lit_crl.dqn.networks import ActionValues

#: What the report calls the TD errors ``[B]``, from which priorities are made.
TD_ERROR = "td_error"


@dataclass
class DqnObjective:
    """L_DQN of a minibatch of transitions."""

    q_network: ActionValues
    target_network: ActionValues
    td_loss: dqn.TDLoss
    double_dqn: bool

    def next_q(self, weight: Tensor | None, *transitions: Tensor) -> Tensor:
        """Q⁻(s', ·) of K minibatches at once, ``[K, B, A]``: larger products, fewer calls."""
        next_obs = dqn.Transitions(*transitions).next_obs
        with torch.no_grad(), torch.autocast(next_obs.device.type, enabled=False):
            next_q = cast(Tensor, self.target_network(next_obs.flatten(0, 1)))
        return next_q.view(*next_obs.shape[:2], -1)

    def __call__(self, weight: Tensor | None, *fields: Tensor) -> LossAndReport:
        """From importance weights ``[B]``, if any, ``dqn.Transitions``' fields, and ``next_q``."""
        *transitions, next_q = fields
        loss, q, td_error = dqn.dqn_loss(
            self.q_network,
            next_q,
            dqn.Transitions(*transitions),
            self.td_loss,
            self.double_dqn,
            weight,
        )
        report = {"dqn/loss": loss, "dqn/q_mean": q.mean()}
        return loss, report if weight is None else report | {TD_ERROR: td_error}
