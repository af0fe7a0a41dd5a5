"""The phases that a world adds: its own, and that of the explorer which learns where to go."""

from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from lit_crl.dqn.networks import ActionValues
from lit_crl.dqn.settings import DqnSettings
from lit_crl.training.batches import DqnMinibatch, WorldMinibatch
from lit_crl.training.updates import (
    Engine,
    MakePhase,
    Networks,
    Phase,
    Report,
    update_of,
    world_update,
)
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan

#: The explorer's numbers that are reported, by the names that they have in the judge's update.
EXPLORER_NAMES = {
    "dqn/loss": "explorer/loss",
    "dqn/q_mean": "explorer/q_mean",
    "dqn/impossible_targets": "explorer/impossible_targets",
    "dqn/clipped_targets": "explorer/clipped_targets",
}


def explorer_phase(
    explorer: ActionValues,
    target_network: ActionValues,
    settings: DqnSettings,
    optimizer: LightningOptimizer,
    make_phase: MakePhase,
) -> Phase[DqnMinibatch]:
    """Updates of the explorer, which learns as the judge does, from rewards with curiosity.

    Args:
        explorer: Is trained.
        target_network: Values the next observations; it follows ``explorer``.
        settings: How the judge learns.
        optimizer: Of the explorer.
        make_phase: Runs the updates.
    """
    update_explorer = update_of(explorer, target_network, settings)

    def update(engine: Engine, batch: DqnMinibatch, rate: float | Tensor) -> Report:
        report = update_explorer(engine, batch, rate)
        return {new: report[old] for old, new in EXPLORER_NAMES.items() if old in report}

    return make_phase(update, {explorer: optimizer, target_network: None})


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
