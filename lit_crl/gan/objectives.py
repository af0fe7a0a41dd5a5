"""What the optimizers of discriminator and generator minimise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_crl.core.objective import LossAndReport
from lit_crl.gan import equations as gan
from lit_crl.gan.batch import GanBatch
from lit_crl.gan.level_gan import LevelGan


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
