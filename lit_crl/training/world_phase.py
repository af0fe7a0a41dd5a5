"""The phase in which the world learns from real steps."""

from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from lit_crl.training.batches import WorldMinibatch
from lit_crl.training.updates import Engine, MakePhase, Networks, Phase, Report, world_update
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan


def world_phase(
    world: TransitionGan,
    settings: WorldSettings,
    discriminator_optimizer: LightningOptimizer,
    generator_optimizer: LightningOptimizer,
    make_phase: MakePhase,
) -> Phase[WorldMinibatch]:
    """Updates of all networks of a world; no network follows another, so their rates are 0.

    Args:
        world: Is trained.
        settings: What it minimises.
        discriminator_optimizer: Of discriminators and heads.
        generator_optimizer: Of generators.
        make_phase: Runs the updates.
    """
    networks: Networks = {
        world.heads: discriminator_optimizer,
        world.generators: generator_optimizer,
    }
    if world.discriminators is not None:
        networks = {**networks, world.discriminators: discriminator_optimizer}

    def update(engine: Engine, batch: WorldMinibatch, rate: float | Tensor) -> Report:
        return world_update(world, settings, engine, batch)

    return make_phase(update, networks)
