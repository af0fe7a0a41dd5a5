"""Settings of how experience is collected, of the GAN phase, and of dreams."""

import math
from dataclasses import dataclass
from typing import Literal, Self

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError, Fields
from lit_crl.curriculum.curriculum import Reals
from lit_crl.curriculum.settings import CurriculumSettings
from lit_crl.dqn.exploration import Exploration
from lit_crl.dqn.replay.settings import ReplaySettings
from lit_crl.evaluation.settings import EvaluationSettings

#: Who says what follows in dreams.
Dynamics = Literal["learnt", "perfect"]


@dataclass(frozen=True)
class CollectSettings:
    """How experience is collected.

    Args:
        env_steps: Budget, in steps of single environments, warm-up included, of all processes.
        num_envs: Environments that step together, in each process.
        warmup: Env steps with random actions before the first update.
        steps_per_batch: Steps of every environment between two batches.
        exploration: ε of each environment. Default: a ladder from 0.4 down to 0.4⁸; a single
            environment gets the smallest ε. With noisy layers (``model.network.noise``): 0.
        gamma: Discount factor γ of one step.
        device: Where environments and replay live; ``auto``: where the learner is.
    """

    env_steps: int = 100_000
    num_envs: int = 32
    warmup: int = 2_000
    steps_per_batch: int = 4
    exploration: Exploration | None = None
    gamma: float = 0.99
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check the numbers."""
        fields = Fields("data.collect", self)
        fields.positive("env_steps", "num_envs", "steps_per_batch")
        fields.non_negative("warmup")
        fields.unit_interval("gamma")


@dataclass(frozen=True)
class GanPhaseSettings:
    """When the GAN learns, how much, and from what.

    Args:
        every: Batches from one GAN phase to the next (one cycle).
        updates: Updates of discriminator and generator in one GAN phase; 0: no GAN. It trains
            under the arms archive and gan, and under your own.
        batch_size: Levels in one update of the GAN, in each process.
        reals: What the discriminator takes for real: archive levels at the ``frontier``; all
            archive levels, ``labelled`` as at the frontier or not; ``visited`` states alike; or
            ``target`` levels, for instance those of ``data.given``.
        reference_reals: Share of reference levels among the reals.
        symmetries: Show the discriminator reals and generated levels alike under random symmetries
            of the levels (which the environment declares): few reals then count as many.
        noise: Standard deviation of the noise on both, as a share of the level space's width, so
            that the discriminator cannot learn few reals by heart.
    """

    every: int = 16
    updates: int = 64
    batch_size: int = 128
    reals: Reals = "frontier"
    reference_reals: float = 0.25
    symmetries: bool = False
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        fields = Fields("data.gan", self)
        fields.one_of("reals", Reals)
        fields.positive("every", "batch_size")
        fields.non_negative("updates", "noise")
        fields.unit_interval("reference_reals")


@dataclass(frozen=True)
class DreamSettings:
    """When the world learns and dreams, and who learns from dreams (with ``model.world.loss``).

    Args:
        every: Env steps from one world phase to the next; from a log, updates of the DQN.
        updates: Updates of the world in one phase.
        first_updates: Updates of the world in its first phase.
        batch_size: Real steps of each member in one update of the world.
        rare: Ends and rare rewards beside them, for the heads of reward and end.
        member_share: Share of the real steps that each member learns from.
        held_back: Share of the episodes that no member learns from.
        dreams: Dreams that run at the same time.
        horizon: Imagined steps after which a dream is cut.
        first_states: Share of the dreams that start in first states; others start in visited ones.
        level_states: Share of the dreams that start at generated levels, for instance under the arm
            gan. No env step is taken for it.
        dynamics: Who makes the dreams: the ``learnt`` world, or as a ceiling the ``perfect`` one of
            a built-in environment. Disagreement is always that of the learnt one.
        error_bound: Dreams begin once the world's one-step error on steps that it did not learn
            from is at most this; at 1 it is as wrong as the guess that nothing changes. The
            ``perfect`` dynamics need not wait.
        gate: Quantile of disagreement on real steps above which a dream is cut; 1: never.
        share: Share of dreamed transitions in the explorer's minibatches.
        judge_share: Share of dreamed transitions in the judge's minibatches, that is in those of
            the evaluated Q-network.
        curiosity: Weight at the start of the explorer's bonus for disagreement, in units of the
            largest real reward; it falls to 0 over the run. Novelty may be worth up to weight /
            (1 − γ): far above the reward of a goal, the explorer hardly sees the goal. A negative
            weight is caution: whatever the world does not know costs as much, in dreamed
            transitions alone, in the judge's as well; it does not fall.
        explorers: Share of the environments in which the explorer acts. Where neither dreams nor
            curiosity would teach it anything, it acts nowhere.
    """

    every: int = 200
    updates: int = 200
    first_updates: int = 600
    batch_size: int = 128
    rare: int = 32
    member_share: float = 0.8
    held_back: float = 0.1
    dreams: int = 256
    horizon: int = 100
    first_states: float = 0.25
    level_states: float = 0.0
    dynamics: Dynamics = "learnt"
    error_bound: float = 0.9
    gate: float = 1.0
    share: float = 0.8
    judge_share: float = 0.0
    curiosity: float = 0.1
    explorers: float = 0.5

    def __post_init__(self) -> None:
        """Check the numbers."""
        fields = Fields("data.world", self)
        fields.one_of("dynamics", Dynamics)
        fields.positive("every", "updates", "first_updates", "batch_size", "dreams", "horizon")
        fields.positive("error_bound")
        fields.non_negative("rare")
        fields.positive_unit_interval("member_share", "gate")
        fields.unit_interval("held_back", "first_states", "level_states")
        fields.unit_interval("share", "judge_share", "explorers")
        if not math.isfinite(self.curiosity):
            raise ConfigError(f"data.world.curiosity is {self.curiosity}: give a finite number")
        if self.first_states + self.level_states > 1:
            raise ConfigError(
                f"data.world.first_states {self.first_states:g} and data.world.level_states "
                f"{self.level_states:g} are more than all dreams: lower one of them"
            )

    @property
    def makes_dreams(self) -> bool:
        """Whether anybody learns from dreams."""
        return self.share > 0 or self.judge_share > 0

    @property
    def has_explorer(self) -> bool:
        """Whether dreams or curiosity teach an explorer what the judge does not learn."""
        return self.share > 0 or self.curiosity > 0

    @property
    def does_anything(self) -> bool:
        """Whether a run with a world differs from one without."""
        return self.makes_dreams or self.has_explorer


@dataclass(frozen=True)
class DataSettings:
    """All groups of ``ReplayDataModule``, which must make sense together."""

    collect: CollectSettings
    replay: ReplaySettings
    curriculum: CurriculumSettings
    gan: GanPhaseSettings
    world: DreamSettings
    evaluation: EvaluationSettings

    @classmethod
    def of(
        cls,
        collect: object,
        replay: object,
        curriculum: object,
        gan: object,
        world: object,
        evaluation: object,
    ) -> Self:
        """Each group as it is, or from a mapping of its fields.

        Raises:
            ConfigError: If one is neither, or they make no sense together.
        """
        return cls(
            checks.group("data.collect", CollectSettings, collect),
            checks.group("data.replay", ReplaySettings, replay),
            checks.group("data.curriculum", CurriculumSettings, curriculum),
            checks.group("data.gan", GanPhaseSettings, gan),
            checks.group("data.world", DreamSettings, world),
            checks.group("data.evaluation", EvaluationSettings, evaluation),
        )

    def __post_init__(self) -> None:
        """See that the first batch can be drawn."""
        collect, n_steps = self.collect, self.replay.n_steps
        steps = collect.steps_per_batch
        if collect.warmup + collect.num_envs * steps < (n_steps + 1) * collect.num_envs:
            raise ConfigError(
                f"data.collect.warmup is {collect.warmup}, too little for {n_steps}-step "
                f"transitions: give at least {(n_steps + 1 - steps) * collect.num_envs}"
            )
