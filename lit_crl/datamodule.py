"""The replay as a Lightning DataModule: collects experience and feeds both phases.

One batch is what one ``training_step`` needs: K minibatches of transitions, and on every
``gan_every``-th batch minibatches for the GAN. So all processes run the same phases.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lit_crl import checks, distributed, trainer_checks
from lit_crl.archive import Archive
from lit_crl.arms import EQUAL_MIX, Arm, OwnSource, arm_name, arm_shares, check_arm, own_source
from lit_crl.batches import Batch, GanBatch, ReplayLoader, SingleBatch
from lit_crl.checks import ConfigError
from lit_crl.curriculum import Curriculum, Reals, Teacher
from lit_crl.envs import LevelEnv
from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.evaluation.protocol import EnvFactory, Evaluation
from lit_crl.exploration import EpsilonLadder, Exploration
from lit_crl.hindsight import Hindsight
from lit_crl.proposals import Proposals
from lit_crl.replay import ReplayBuffer
from lit_crl.rollout import Actor, Rollout
from lit_crl.schedule import Schedule
from lit_crl.seeding import random_stream, stream_seed
from lit_crl.stopwatch import Stopwatch


class ReplayDataModule(LightningDataModule):
    """Environments, replay, archive and curriculum, as batches for the Trainer."""

    env: LevelEnv
    replay: ReplayBuffer
    rollout: Rollout

    def __init__(
        self,
        env: EnvFactory,
        arm: Arm | OwnSource = "gan",
        env_steps: int = 100_000,
        num_envs: int = 32,
        capacity: int = 100_000,
        warmup: int = 2_000,
        gamma: float = 0.99,
        n_steps: int = 3,
        batch_size: int = 256,
        updates_per_batch: int = 16,
        steps_per_batch: int = 4,
        exploration: Exploration | None = None,
        hindsight: float = 0.0,
        frame_stack: int = 1,
        priority_exponent: float = 0.0,
        importance_exponent: float = 0.4,
        mix: Mapping[str, float] | None = None,
        gan_every: int = 16,
        gan_updates: int = 64,
        gan_batch_size: int = 128,
        min_outcomes: int = 50,
        proposals: Proposals = "frontier",
        reals: Reals = "frontier",
        reference_reals: float = 0.25,
        novelty_exponent: float = 0.5,
        tried: int = 4_096,
        visited: int = 32_768,
        label_epsilon: float = 0.1,
        validate_every: int = 10_000,
        validation_episodes: int = 20,
        test_episodes: int = 100,
        generated_levels: int = 64,
        difficulty: float | None = None,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        """Say what to practise in, how much, and how batches are made.

        Args:
            env: Class of the environment and its arguments.
            arm: Curriculum: where levels come from. ``target``: the task's own resets;
                ``reference``: also random levels; ``archive``: also visited states and tried
                levels near the frontier; ``gan``: also generated levels. In place of these
                two ``valid_reference``: legal random; ``plr``: replays by MaxMC, ``accel``: with
                edits; ``sfl``: screened for p (1 − p), ``oracle``: free; or your function or class.
            env_steps: Budget, in steps of single environments, warm-up included, of all processes.
            num_envs: Environments that step together, in each process.
            capacity: Rows of the replay buffer (one a step, one more an episode).
            warmup: Env steps with random actions before the first update.
            gamma: Discount factor γ of one step.
            n_steps: Steps folded into one transition.
            batch_size: Transitions an update of the DQN, in each process.
            updates_per_batch: K, updates of the DQN in one batch (one ``training_step``).
            steps_per_batch: Steps of every environment between two batches.
            exploration: ε of each environment; default: a ladder from 0.4 down to 0.4⁸.
            hindsight: Share of transitions relabelled with a goal reached later (goal tasks).
            frame_stack: Frames that an observation's first axis holds (FrameStackObservation's
                stack_size), newest last; the replay keeps each but once.
            priority_exponent: α of prioritized replay; 0: transitions are drawn uniformly.
            importance_exponent: β of its importance weights at the start; at the end it is 1.
            mix: Share of resets from each source under the ``gan`` arm; an arm gives those
                that it lacks to its own. Default: 25 % each.
            gan_every: Batches from one GAN phase to the next (one cycle).
            gan_updates: Updates of discriminator and generator in one GAN phase; 0: no GAN.
            gan_batch_size: Levels an update of the GAN, in each process.
            min_outcomes: Outcomes needed before the GAN trains and its levels are played.
            proposals: Generated levels to play: ``valid`` ones all alike; rather those at the
                ``frontier``; of these the ``realistic`` ones; the visited states nearest to these
                (``projected``).
            reals: What the GAN takes for real: archive levels at the ``frontier``; all of them,
                ``labelled`` by whether they are; or ``visited`` states all alike.
            reference_reals: Share of reference levels among the reals.
            novelty_exponent: How much novelty counts when archive levels are drawn; 0: nothing.
            tried: Newest outcomes that the success head learns from.
            visited: Newest visited states that are kept.
            label_epsilon: Only environments that explore at most this much give outcomes.
            validate_every: Env steps from one validation to the next.
            validation_episodes: Target episodes of a validation.
            test_episodes: Target episodes of the final test.
            generated_levels: Generated levels that an evaluation plays, 16 episodes each.
            difficulty: p̂ of the levels that ``predict`` writes; null: as training plays them.
            device: Where environments and replay live; ``auto``: where the learner is.
            seed: Seed of every random stream of the data.

        Raises:
            ConfigError: If a number makes no sense.
        """
        super().__init__()
        checks.data_settings(locals())
        self.schedule = Schedule(
            env_steps, num_envs, warmup, steps_per_batch, gan_every, validate_every
        )
        self.make_env, self.arm, self.own = env, arm_name(arm), own_source(arm)
        self.shares = arm_shares(arm, mix or EQUAL_MIX)
        self.num_envs, self.steps_per_batch = num_envs, steps_per_batch
        self.capacity, self._shape = capacity, (updates_per_batch, batch_size)
        self.gamma, self.n_steps, self.frame_stack = gamma, n_steps, frame_stack
        self.priority_exponent, self.importance_exponent = priority_exponent, importance_exponent
        self.exploration, self.difficulty = exploration or EpsilonLadder(), difficulty
        self.gan_updates, self.gan_batch_size = gan_updates, gan_batch_size
        self.min_outcomes, self.label_epsilon = min_outcomes, label_epsilon
        self.proposals, self.novelty_exponent = proposals, novelty_exponent
        self.reals, self.reference_reals = reals, reference_reals
        self.tried, self.visited, self.hindsight = tried, visited, hindsight
        self.validation_episodes, self.test_episodes = validation_episodes, test_episodes
        self.generated_levels, self.requested_device, self.seed = generated_levels, device, seed
        self.rank, self.world_size, self.batches_done = 0, 1, 0
        self.archive, self.curriculum = cast(Archive | None, None), cast(Curriculum | None, None)
        self.clock = Stopwatch()

    @property
    def env_steps(self) -> int:
        """Env steps taken so far, by all processes, those of screening levels included."""
        charged = self.curriculum.charged_steps if self.curriculum else 0
        played = self.rollout.env_steps if hasattr(self, "rollout") else 0
        return played * self.world_size + charged

    @property
    def epsilon(self) -> Tensor:
        """ε of every environment now, ``[N]``; 1 while warming up."""
        if self.schedule.is_warming_up(self.env_steps):
            return torch.ones(self.num_envs, device=self.env.device)
        return self.exploration(self.num_envs, self.env_steps).to(self.env.device)

    def setup(self, stage: str) -> None:
        """Make the environments, and for ``fit`` the replay, the archive and the curriculum."""
        if (trainer := self.trainer) is not None:
            self.rank, self.world_size = trainer.global_rank, trainer.world_size
            self.schedule.share(self.num_envs * self.world_size)
            if stage == "fit":
                trainer_checks.check_interval(trainer, self.schedule.batches_per_epoch)
        if not hasattr(self, "env"):
            self._set_up_env()
        if stage == "fit" and not hasattr(self, "replay"):
            self._set_up_collection()

    def _set_up_env(self) -> None:
        checks.default_dtype()
        try:
            self.env = cast(LevelEnv, self.make_env(self.num_envs, self._device()))
        except (ValueError, TypeError) as error:  # the second: a class with other arguments
            raise ConfigError(f"data.env: {error}") from error
        check_arm(self.arm, self.own, self.reals, self.proposals, self.env, self.world_size)

    def _device(self) -> torch.device:
        if self.requested_device != "auto":
            return checks.device("data.device", self.requested_device)
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _set_up_collection(self) -> None:
        env, device = self.env, self.env.device
        self.replay = ReplayBuffer(
            self.capacity, self.num_envs, env.single_observation_space, n_steps=self.n_steps,
            frame_stack=self.frame_stack, priority_exponent=self.priority_exponent, device=device,
        )  # fmt: skip
        self._goals = Hindsight.of(env, self.hindsight, self.gamma)
        if env.level_space is not None:
            dim, sizes = env.level_space.shape[0], {"tried": self.tried, "visited": self.visited}
            self.archive = Archive(dim, **sizes, device=device)
            self.curriculum = Curriculum(
                env, self.archive, self.shares,
                novelty_exponent=self.novelty_exponent, min_outcomes=self.min_outcomes,
                proposals=self.proposals, own=self.own, make_env=self.make_env,
                steps_left=lambda: self.schedule.budget - self.env_steps,
                rng=random_stream(self.seed, "curriculum", self.rank, device),
            )  # fmt: skip
        self.rng = random_stream(self.seed, "replay", self.rank, device)
        archive = self.archive if self.gan_updates > 0 or self.arm in ("archive", "gan") else None
        self.rollout = Rollout(
            env, self.replay, archive, gamma=self.gamma, label_epsilon=self.label_epsilon,
            seed=stream_seed(self.seed, "training environments", self.rank) % 2**31,
            record=None if self.curriculum is None else self.curriculum.record,
        )  # fmt: skip

    def train_dataloader(self) -> ReplayLoader:
        """A sized iterable of batches; one pass is an epoch, which ends with a validation."""
        return ReplayLoader(self.batches, self.schedule.batches_per_epoch)

    def batches(self) -> Iterator[Batch]:
        """Collect and sample until the budget is spent."""
        learner: Any = self.trainer.lightning_module  # type: ignore[union-attr]
        self.rollout.play_with(learner, self.clock)
        while self.schedule.is_warming_up(self.env_steps):
            self._step(learner.act, learner)
        while not self.schedule.is_spent(self.env_steps):
            if self.curriculum is not None and self.schedule.ends_cycle(self.batches_done):
                self.curriculum.new_cycle()
            for _ in range(self.steps_per_batch):
                self._step(learner.act, learner)
            self.batches_done += 1
            if self.archive is not None and self.schedule.ends_cycle(self.batches_done):
                self.archive.exchange_outcomes()
            with self.clock("gan"):
                levels = self._gan_batch(learner)
            with self.clock("replay"):
                batch = self._batch(levels)
            # Said before the last batch is handed out: the Trainer finishes it, validates, stops.
            self._stop_if_spent()
            yield batch
        self._stop_if_spent()
        if self.trainer is not None:
            trainer_checks.check_minimum(self.trainer)

    def _batch(self, levels: GanBatch | None) -> Batch:
        shape, progress = self._shape, self.env_steps / self.schedule.budget
        if self.replay.priorities is None:
            return Batch(self.replay.sample(shape, self.rng, self._goals), levels, progress)
        # The bias that priorities make matters most at the end (Schaul et al. 2016, §3.4).
        beta = self.importance_exponent + progress * (1 - self.importance_exponent)
        drawn = self.replay.sample_prioritized(shape, self.rng, beta, self._goals)
        update = partial(self.replay.priorities.update, drawn.row)
        return Batch(drawn.transitions, levels, progress, drawn.weight, update)

    def _stop_if_spent(self) -> None:
        if self.schedule.is_spent(self.env_steps) and self.trainer is not None:
            self.trainer.should_stop = True

    def _step(self, act: Actor, teacher: Teacher) -> None:
        def draw(n: int) -> tuple[Tensor, Tensor]:
            curriculum = cast(Curriculum, self.curriculum)  # asked only where there are levels
            with self.clock("gan"):
                return curriculum.draw(n, teacher)

        with self.clock("environments"):
            self.rollout.step(act, self.epsilon, draw)

    def _gan_batch(self, teacher: Teacher) -> GanBatch | None:
        due = self.gan_updates > 0 and self.schedule.ends_cycle(self.batches_done)
        if not due or self.curriculum is None:
            return None
        if not distributed.all_agree(self.curriculum.ready(self.reals), self.rng.device):
            return None
        shape = (self.gan_updates, self.gan_batch_size)
        return self.curriculum.gan_batch(shape, self.reals, self.reference_reals, teacher, self.rng)

    def val_dataloader(self) -> SingleBatch:
        """One evaluation with few target episodes."""
        return self._evaluation(Evaluation, self.validation_episodes)

    def test_dataloader(self) -> SingleBatch:
        """One evaluation with many target episodes, and all that takes longer."""
        return self._evaluation(FinalEvaluation, self.test_episodes)

    def predict_dataloader(self) -> SingleBatch:
        """How many levels to generate, and of which difficulty."""
        return SingleBatch((self.generated_levels, self.difficulty))

    def _evaluation(self, kind: type[Evaluation], episodes: int) -> SingleBatch:
        sizes = (episodes, self.generated_levels)
        return SingleBatch(kind(self.make_env, self.env.device, *sizes, self.seed))

    def metrics(self) -> dict[str, float]:
        """How training went lately, and what became of the generated levels over the run."""
        rates = self.curriculum.counts.rates() if self.curriculum else {}
        return {"behaviour/epsilon": self.epsilon.mean().item()} | self.rollout.log.means() | rates

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Batches are made where they are used, unless ``device`` keeps the data elsewhere."""
        if isinstance(batch, Batch) and batch.dqn.obs.device != device:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return batch
