"""Draws what a training step learns from.

That is transitions or sequences of the replay, dreams, steps for a world, and levels for the GAN.
"""

from functools import partial
from typing import cast

import torch
from torch import Tensor

from lit_crl.core import distributed
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.sources import Teacher
from lit_crl.dqn.possible_returns import HIGH, LOW, possible_returns
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.hindsight import Hindsight
from lit_crl.dqn.replay.sequences import sample_sequences
from lit_crl.dqn.replay.settings import ReplaySettings
from lit_crl.gan.batch import GanBatch
from lit_crl.training.batches import Batch
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.training.graphs.capture import Capture
from lit_crl.training.graphs.draws import GraphedDraws, Sample, SampleSequences
from lit_crl.training.schedule import Schedule
from lit_crl.training.settings import DataSettings, GanPhaseSettings


class Draws:
    """Draws all that a training step learns from."""

    def __init__(
        self,
        replay: ReplayBuffer,
        settings: DataSettings,
        schedule: Schedule,
        rng: torch.Generator,
        clock: Stopwatch,
        *,
        goals: Hindsight | None,
        curriculum: Curriculum | None,
        dreaming: Dreaming | None,
        remembers: bool,
        capture: Capture | None,
    ) -> None:
        """Draw nothing yet.

        Args:
            replay: Real transitions.
            settings: All of the data.
            schedule: Has the budget, and the steps between two draws.
            rng: Draws.
            clock: Times the parts.
            goals: Puts other goals into transitions; None: into none.
            curriculum: Has levels for the GAN; None: there are none.
            dreaming: The world, and dreams; None: there is no world.
            remembers: Whether the Q-network has a memory, and learns from sequences.
            capture: Records draws as a graph, on a GPU; None: they run one operation at a time.
        """
        self._replay, self._settings, self._schedule = replay, settings, schedule
        self._rng, self._clock, self._goals = rng, clock, goals
        self._curriculum, self._dreaming = curriculum, dreaming
        self._sample: Sample | SampleSequences = partial(replay.sample, rng=rng, goals=goals)
        if remembers:
            sizes = settings.replay.burn_in, settings.replay.sequence_length
            draw = partial(sample_sequences, replay, rng=rng)
            self._sample = partial(draw, burn_in=sizes[0], length=sizes[1])
        elif capture is not None:
            self._sample = GraphedDraws(self._sample, rng, capture)

    def batch(self, teacher: Teacher, spent: int, is_gan_due: bool) -> Batch:
        """What the next training step learns from.

        Args:
            teacher: Knows p̂.
            spent: How much of the budget is spent.
            is_gan_due: Whether the GAN learns, too, if there are levels enough.
        """
        replay, settings, dreaming = self._replay, self._settings.replay, self._dreaming
        levels = None
        with self._clock("gan"):
            if is_gan_due and self._curriculum is not None:
                levels = draw_levels(self._curriculum, self._settings.gan, teacher, self._rng)
        with self._clock("replay"):
            given = (spent / self._schedule.budget, self._rng, self._goals, dreaming, self._sample)
            batch = draw_batch(replay, settings, levels, *given)
            rewards = seen_rewards(replay, self._schedule.steps_per_batch)
            gamma = self._settings.collect.gamma
            batch = with_returns(batch, rewards, gamma, self._goals, dreaming)
        if dreaming is None:
            return batch
        with self._clock("world"):
            return with_dreams(batch, dreaming, rewards, settings.batch_size, spent)


def draw_levels(
    curriculum: Curriculum, settings: GanPhaseSettings, teacher: Teacher, rng: torch.Generator
) -> GanBatch | None:
    """What the GAN learns from in a GAN phase; None as long as a process has too few outcomes.

    Args:
        curriculum: Has levels and their outcomes.
        settings: How many are drawn, and from where.
        teacher: Knows p̂.
        rng: Draws.
    """
    if not distributed.all_agree(curriculum.ready(settings.reals), rng.device):
        return None
    shape = (settings.updates, settings.batch_size)
    return curriculum.gan_batch(
        shape,
        settings.reals,
        settings.reference_reals,
        teacher,
        rng,
        symmetries=settings.symmetries,
        noise=settings.noise,
    )


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
