"""The phases of the DQN and of the level GAN; ``dreams/phases.py`` has those that a world adds."""

from functools import partial
from typing import Any

from lightning.pytorch.core.optimizer import LightningOptimizer

from lit_crl.dqn.networks import ActionValues
from lit_crl.dqn.settings import DqnSettings
from lit_crl.gan.level_gan import LevelGan
from lit_crl.gan.settings import GanSettings
from lit_crl.training.batches import GanMinibatch
from lit_crl.training.updates import MakePhase, Networks, Phase, gan_update, update_of


def dqn_phase(
    q_network: ActionValues,
    target_network: ActionValues,
    settings: DqnSettings,
    optimizer: LightningOptimizer,
    make_phase: MakePhase,
) -> Phase[Any]:
    """Updates of the judge, from transitions or from sequences.

    Args:
        q_network: Is trained.
        target_network: Values the next observations; it follows ``q_network``.
        settings: How it learns.
        optimizer: Of ``q_network``.
        make_phase: Runs the updates.
    """
    update = update_of(q_network, target_network, settings)
    return make_phase(update, {q_network: optimizer, target_network: None})


def gan_phase(
    level_gan: LevelGan,
    settings: GanSettings,
    discriminator_optimizer: LightningOptimizer,
    generator_optimizer: LightningOptimizer,
    make_phase: MakePhase,
) -> Phase[GanMinibatch]:
    """Updates of the discriminator and the generator of levels, whose average follows it.

    Args:
        level_gan: Is trained.
        settings: What it minimises.
        discriminator_optimizer: Of the discriminator.
        generator_optimizer: Of the generator.
        make_phase: Runs the updates.
    """
    networks: Networks = {
        level_gan.discriminator: discriminator_optimizer,
        level_gan.generator: generator_optimizer,
        level_gan.generator_ema: None,
    }
    return make_phase(partial(gan_update, level_gan, settings), networks)
