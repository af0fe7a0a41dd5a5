"""What each of the three optimizers minimises: a loss of a minibatch, and what to report of it."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from lit_crl import dqn, gan
from lit_crl.batches import GanBatch
from lit_crl.level_gan import LevelGan
from lit_crl.networks import ActionValues

#: What the report calls the TD errors ``[B]``, from which priorities are made.
TD_ERROR = "td_error"
#: The loss, and named numbers about it, all 0-dimensional but for ``TD_ERROR``.
LossAndReport = tuple[Tensor, dict[str, Tensor]]


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


@dataclass
class DiscriminatorObjective:
    """Adversarial loss, gradient penalties and the success head's cross-entropy."""

    level_gan: LevelGan
    gan_loss: gan.GANLoss
    r1: float
    r2: float

    def __call__(self, z: Tensor, *levels: Tensor) -> LossAndReport:
        """From noise ``z [B, noise_dim]`` and the fields of ``GanBatch``, each ``[B, ...]``."""
        losses = self.level_gan.discriminator_losses(
            GanBatch(*levels), z, self.gan_loss, self.r1, self.r2
        )
        objective = torch.stack(list(losses.values())).sum()
        return objective, losses | {"gan/discriminator_objective": objective}


@dataclass
class GeneratorObjective:
    """challenge + λ · L_GAN."""

    level_gan: LevelGan
    gan_loss: gan.GANLoss
    lambda_gan: float

    def __call__(self, z: Tensor, *levels: Tensor) -> LossAndReport:
        """From noise ``z [B, noise_dim]`` and the fields of ``GanBatch``, each ``[B, ...]``."""
        challenge, adversarial = self.level_gan.generator_losses(
            GanBatch(*levels), z, self.gan_loss
        )
        objective = gan.generator_objective(challenge, adversarial, self.lambda_gan)
        return objective, {
            "gan/challenge": challenge,
            "gan/generator_loss": adversarial,
            "gan/generator_objective": objective,
        }
