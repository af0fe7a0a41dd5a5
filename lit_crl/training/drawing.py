"""Draws what a training step learns from: transitions of the replay, dreams, and steps for a world.

Levels for the GAN come from the curriculum.
"""

from functools import partial
from typing import cast

import torch
from torch import Tensor

from lit_crl.core import distributed
from lit_crl.dqn.possible_returns import HIGH, LOW, possible_returns
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.hindsight import Hindsight
from lit_crl.dqn.replay.settings import ReplaySettings
from lit_crl.gan.batch import GanBatch
from lit_crl.training.batches import Batch
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.training.graphs.draws import Sample, SampleSequences


def draw_batch(
    replay: ReplayBuffer,
    settings: ReplaySettings,
    levels: GanBatch | None,
    progress: float,
    rng: torch.Generator,
    goals: Hindsight | None,
    dreaming: Dreaming | None,
    sample: Sample | SampleSequences,
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
        if dreaming is None:
            return Batch(sample(shape), levels, progress)
        # A Q-network with memory has no dreams, so these are transitions.
        return Batch(dreaming.judge_batch(shape, cast(Sample, sample)), levels, progress)
    # The bias that priorities make matters most at the end (Schaul et al. 2016, §3.4).
    beta = settings.importance_exponent + progress * (1 - settings.importance_exponent)
    found = replay.sample_prioritized(shape, rng, beta, goals)
    update = partial(replay.priorities.update, found.row)
    return Batch(found.transitions, levels, progress, found.weight, reprioritize=update)


def seen_rewards(replay: ReplayBuffer, steps: int) -> Tensor:
    """The range ``[2, 2]`` of the rewards that the replays of all processes have seen.

    Args:
        replay: That of this process.
        steps: Most steps of each environment since the last time.
    """
    mine = replay.see_rewards(steps)
    low, high = distributed.smallest(mine[:, LOW]), distributed.largest(mine[:, HIGH])
    return torch.stack([low, high], 1)


def with_returns(
    batch: Batch, rewards: Tensor, gamma: float, goals: Hindsight | None, dreaming: Dreaming | None
) -> Batch:
    """The batch with the returns that its rewards can add up to.

    Other goals have other rewards than those that were seen: then nothing is known.

    Args:
        batch: What the judge learns from.
        rewards: The range of the task's rewards ``[2, 2]``.
        gamma: Discount factor of one step.
        goals: Has put other goals into some of them; None: into none.
        dreaming: Has dreamed some of them, at a cost if it is cautious; None: none.
    """
    if goals is not None:
        return batch
    judged = rewards if dreaming is None else dreaming.judges_rewards(rewards)
    returns = possible_returns(judged, gamma)
    return batch._replace(returns=returns.expand(len(batch.dqn.obs), -1))


def with_dreams(
    batch: Batch, dreaming: Dreaming, rewards: Tensor, batch_size: int, spent: int
) -> Batch:
    """The batch with what the explorer and, if it is due, the world learn from.

    Args:
        batch: What the judge learns from.
        dreaming: The world, and dreams.
        rewards: The range of the task's rewards ``[2, 2]``.
        batch_size: Transitions in each of the explorer's minibatches.
        spent: How much of the budget is spent.
    """
    updates = len(batch.dqn.obs)
    if dreaming.settings.has_explorer:
        shape = (updates, batch_size)
        explorer, bonus = dreaming.explorer_batch(shape, batch.progress, rewards)
        batch = batch._replace(explorer=explorer, bonus=bonus)
    return batch._replace(world=dreaming.world_batch(spent) if dreaming.is_due(spent) else None)
