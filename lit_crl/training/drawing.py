"""Draws what a training step learns from: transitions of the replay, dreams, and steps for a world.

Levels for the GAN come from the curriculum.
"""

from functools import partial

import torch

from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.hindsight import Hindsight
from lit_crl.dqn.replay.settings import ReplaySettings
from lit_crl.gan.batch import GanBatch
from lit_crl.training.batches import Batch
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.training.graphs.draws import Sample


def draw_batch(
    replay: ReplayBuffer,
    settings: ReplaySettings,
    levels: GanBatch | None,
    progress: float,
    rng: torch.Generator,
    goals: Hindsight | None,
    dreaming: Dreaming | None,
    sample: Sample,
) -> Batch:
    """What the judge learns from and, if they are due, levels for the GAN.

    Args:
        replay: Real transitions.
        settings: How many are drawn.
        levels: What the GAN learns from.
        progress: Share of the budget that is spent.
        rng: Draws transitions by priority.
        goals: Puts other goals into some of these; None: into none.
        dreaming: Has dreams for the judge; None where there is no world.
        sample: Draws real transitions where there are no priorities.
    """
    shape = (settings.updates_per_batch, settings.batch_size)
    if replay.priorities is None:
        drawn = dreaming.judge_batch(shape, sample) if dreaming else sample(shape)
        return Batch(drawn, levels, progress)
    # The bias that priorities make matters most at the end (Schaul et al. 2016, §3.4).
    beta = settings.importance_exponent + progress * (1 - settings.importance_exponent)
    found = replay.sample_prioritized(shape, rng, beta, goals)
    update = partial(replay.priorities.update, found.row)
    return Batch(found.transitions, levels, progress, found.weight, reprioritize=update)


def with_dreams(batch: Batch, dreaming: Dreaming, batch_size: int, spent: int) -> Batch:
    """The batch with what the explorer and, if it is due, the world learn from.

    Args:
        batch: What the judge learns from.
        dreaming: The world, and dreams.
        batch_size: Transitions in each of the explorer's minibatches.
        spent: How much of the budget is spent.
    """
    updates = len(batch.dqn.obs)
    batch = batch._replace(bound=dreaming.judges_bound(updates))
    if dreaming.settings.has_explorer:
        explorer, bonus = dreaming.explorer_batch((updates, batch_size), batch.progress)
        batch = batch._replace(explorer=explorer, bonus=bonus)
    return batch._replace(world=dreaming.world_batch(spent) if dreaming.is_due(spent) else None)
