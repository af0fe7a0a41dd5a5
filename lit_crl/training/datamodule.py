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

from lit_crl.core import checks, distributed
from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import random_stream, stream_seed
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.core.tensor_files import plain
from lit_crl.curriculum.archive import TRIED, VISITED, Archive
from lit_crl.curriculum.arms import (
    EQUAL_MIX,
    Arm,
    arm_name,
    arm_shares,
    check_environment,
    check_gan,
    check_played,
    check_processes,
    check_visited,
    needs_of,
    own_source,
)
from lit_crl.curriculum.curriculum import Curriculum, Reals
from lit_crl.curriculum.outcomes import Collecting, unknown_success, why_too_few
from lit_crl.curriculum.proposals import Proposals
from lit_crl.curriculum.sfl import LearnabilityScreen
from lit_crl.curriculum.sources import OwnSource, Teacher
from lit_crl.dqn.exploration import EpsilonLadder, Exploration
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.hindsight import Hindsight
from lit_crl.envs import LevelEnv
from lit_crl.envs.batched import has_pure_step
from lit_crl.envs.factory import GivenEnv, env_factory, level_env
from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.evaluation.pool import EvaluationEnvs
from lit_crl.evaluation.protocol import Evaluation
from lit_crl.gan.batch import GanBatch
from lit_crl.training import trainer_checks
from lit_crl.training.batches import Batch, ReplayLoader, SingleBatch
from lit_crl.training.rollout import Actor, Play, Rollout
from lit_crl.training.schedule import Schedule

#: Settings that a resumed run must leave as they were: what was collected depends on them.
LASTING = (
    "num_envs", "capacity", "gamma", "n_steps", "frame_stack", "priority_exponent", "tried",
    "visited", "seed",
)  # fmt: skip


class ReplayDataModule(LightningDataModule):
    """Environments, replay, archive and curriculum, as batches for the Trainer."""

    env: LevelEnv
    replay: ReplayBuffer
    rollout: Rollout

    def __init__(
        self,
        env: GivenEnv,
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
        tried: int = TRIED,
        visited: int = VISITED,
        label_epsilon: float = 0.1,
        validate_every: int = 10_000,
        validation_episodes: int = 20,
        test_episodes: int = 100,
        generated_levels: int = 64,
        evaluation_share: float = 1.0,
        difficulty: float | None = None,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        """Say what to practise in, how much, and how batches are made.

        Args:
            env: Class of the environment and its arguments, or another way to make it, see
                ``lit_crl.envs.factory.env_factory``.
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
            exploration: ε of each environment; default: a ladder from 0.4 down to 0.4⁸, at
                whose greedy end a single environment is.
            hindsight: Share of transitions relabelled with a goal reached later (goal tasks).
            frame_stack: Frames that an observation's first axis holds (FrameStackObservation's
                stack_size), newest last; the replay keeps each but once.
            priority_exponent: α of prioritized replay; 0: transitions are drawn uniformly.
            importance_exponent: β of its importance weights at the start; at the end it is 1.
            mix: Share of resets from each source under the ``gan`` arm; an arm gives those
                that it lacks to its own. Default: 25 % each.
            gan_every: Batches from one GAN phase to the next (one cycle).
            gan_updates: Updates of discriminator and generator in one GAN phase; 0: no GAN. It
                trains under the arms archive and gan, and under your own.
            gan_batch_size: Levels an update of the GAN, in each process.
            min_outcomes: Outcomes needed before the GAN trains.
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
            validation_episodes: Target episodes of a validation, at most.
            test_episodes: Target episodes of the final test, at most.
            generated_levels: Generated levels that an evaluation examines, and plays 4 episodes
                each, as far as it may.
            evaluation_share: Env steps that a validation may take, as a share of those from one
                validation to the next; and the final test, of ``env_steps``. Where it is short,
                fewer episodes are played; those that do not end in time count as not solved.
            difficulty: p̂ of the levels that ``predict`` writes; null: as training plays them.
            device: Where environments and replay live; ``auto``: where the learner is.
            seed: Seed of every random stream of the data.

        Raises:
            ConfigError: If a number makes no sense.
        """
        super().__init__()
        checks.data_settings(locals())
        self._lasting = plain({name: value for name, value in locals().items() if name in LASTING})
        self._saved_batches = 0
        self.schedule = Schedule(
            env_steps, num_envs, warmup, steps_per_batch, gan_every, validate_every
        )
        self.make_env, self.arm, self.own = env_factory(env), arm_name(arm), own_source(arm)
        self.shares = arm_shares(arm, mix or EQUAL_MIX)
        self.needs = needs_of(arm)
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
        self.generated_levels, self.evaluation_share = generated_levels, evaluation_share
        self.requested_device, self.seed = device, seed
        self.rank, self.world_size, self.batches_done = 0, 1, 0
        self.archive, self.curriculum = cast(Archive | None, None), cast(Curriculum | None, None)
        self.clock = Stopwatch()
        #: When outcomes begin and when the first is expected, in env steps; None: none is needed.
        self._outcomes_begin: int | None = None
        self._outcomes_expected: int | None = None

    @property
    def trains_gan(self) -> bool:
        """Whether there are GAN phases: only under arms that use what they make."""
        return self.needs.gan and self.gan_updates > 0

    @property
    def trained_env_steps(self) -> int:
        """Env steps of training episodes, by all processes."""
        return self.rollout.env_steps * self.world_size

    @property
    def env_steps(self) -> int:
        """Env steps taken so far, by all processes, those of screening levels included."""
        charged = self.curriculum.charged_steps if self.curriculum else 0
        return (self.trained_env_steps if hasattr(self, "rollout") else 0) + charged

    @property
    def epsilon(self) -> Tensor:
        """ε of every environment now, ``[N]``; 1 while warming up."""
        if self.schedule.is_warming_up(self.trained_env_steps):
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
        elif stage == "fit" and self._closed:
            self._reopen()
        if stage == "fit" and not hasattr(self, "replay"):
            self._check_arm()
            self._set_up_collection()

    def _set_up_env(self) -> None:
        checks.default_dtype()
        try:
            self.env = level_env(self.make_env(self.num_envs, self._device()))
        except (ValueError, TypeError) as error:  # the second: a class with other arguments
            raise ConfigError(f"data.env: {error}") from error
        check_environment(self.arm, self.needs, self.env)
        check_visited(self.reals, self.proposals, self.env)
        rng = random_stream(self.seed, "check of the arm", device=self.env.device)
        check_played(self.arm, self.needs, self.shares, self.env, rng)
        self.evaluation_envs, self._closed = EvaluationEnvs(self.make_env, self.env), False

    def _reopen(self) -> None:
        """Make the environments anew that an earlier stage closed at its end, and go on in them."""
        users = [self.rollout, self.curriculum, self._goals] if hasattr(self, "rollout") else []
        state = self.rollout.state_dict() if users else {}
        self._set_up_env()
        for user in users:
            if user is not None:
                user.env = self.env
        if users:
            self.rollout.load_state_dict(state)

    def _check_arm(self) -> None:
        """Refuse what can never work; say so where outcomes come late."""
        check_processes(self.arm, self.needs, self.world_size)
        learner = None if self.trainer is None else self.trainer.lightning_module
        gan_loss = getattr(learner, "gan_loss", "least_squares")
        check_gan(self.arm, self.needs, self.gan_updates, self.reals, gan_loss)
        if self.needs.outcomes:
            self._expect_outcomes()

    def _expect_outcomes(self) -> None:
        """From now on outcomes are waited for."""
        collecting = Collecting(
            self.exploration, self.label_epsilon, self.num_envs, self.world_size,
            self.schedule.warmup, self.schedule.first_gan_phase, self.schedule.budget,
            self.env.max_episode_steps,
        )  # fmt: skip
        begin = collecting.check(self.arm)
        self._outcomes_begin = begin
        self._outcomes_expected = collecting.expected(begin)
        if (warning := collecting.forewarning(self.arm, begin)) is not None:
            distributed.say(warning)

    def _device(self) -> torch.device:
        if self.requested_device != "auto":
            return checks.device("data.collect.device", self.requested_device)
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _set_up_collection(self) -> None:
        env, device = self.env, self.env.device
        self.replay = ReplayBuffer(
            self.capacity, self.num_envs, env.single_observation_space, n_steps=self.n_steps,
            frame_stack=self.frame_stack, num_actions=int(env.single_action_space.n),
            priority_exponent=self.priority_exponent, device=device,
        )  # fmt: skip
        self._goals = Hindsight.of(env, self.hindsight, self.gamma)
        if env.level_space is not None:
            dim, sizes = env.level_space.shape[0], {"tried": self.tried, "visited": self.visited}
            self.archive = Archive(dim, **sizes, device=device)
            self.curriculum = Curriculum(
                env, self.archive, self.shares,
                novelty_exponent=self.novelty_exponent, min_outcomes=self.min_outcomes,
                proposals=self.proposals, own=self.own, make_env=self.make_env,
                budget=self.schedule.budget, spent=lambda: self.env_steps,
                rng=random_stream(self.seed, "curriculum", self.rank, device),
            )  # fmt: skip
            if isinstance(self.own, LearnabilityScreen):
                self.own.check(self.curriculum)
        self.rng = random_stream(self.seed, "replay", self.rank, device)
        self.rollout = Rollout(
            env, self.replay, self.archive if self.needs.gan else None,
            gamma=self.gamma, label_epsilon=self.label_epsilon,
            seed=stream_seed(self.seed, "training environments", self.rank) % 2**31,
            record=None if self.curriculum is None else self.curriculum.record,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """How far the run is, and what must stay; ``collected_state`` has what was collected."""
        name = getattr(self.env, "name", type(self.env).__name__)
        kept = {"env": name, "arm": self.arm, **self._lasting}
        return {"batches_done": self.batches_done, "settings": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See that a fit can go on from a checkpoint.

        Raises:
            ConfigError: If settings were changed that have to stay.
        """
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        mine = self.state_dict()["settings"]
        changed = [
            f"{'seed_everything' if name == 'seed' else f'data.{name}'} was {value} and is now "
            f"{mine.get(name)}"
            for name, value in state["settings"].items()
            if value != mine.get(name)
        ]
        if changed:
            raise ConfigError(
                f"the checkpoint does not fit this run's data settings: {', '.join(changed)}; "
                "resume with what it was saved with, or start a new run"
            )
        self._saved_batches = state["batches_done"]

    def train_dataloader(self) -> ReplayLoader:
        """A sized iterable of batches; one pass is an epoch, which ends with a validation.

        Raises:
            ConfigError: If a checkpoint was loaded, but not what the run had collected by then.
        """
        if self.batches_done != self._saved_batches > 0:
            raise ConfigError(
                "the checkpoint was saved without what the run had collected, so training cannot "
                "go on from it: save with lit_crl.runs.callbacks.RunCheckpoint and give it to this "
                "Trainer, too; or start a new run with the weights of "
                "CreativeLearner.load_from_checkpoint"
            )
        self._saved_batches = 0
        return ReplayLoader(self.batches, self.schedule.batches_per_epoch)

    def batches(self) -> Iterator[Batch]:
        """Collect and sample until the budget is spent."""
        if self.schedule.is_spent(self.env_steps):
            distributed.say(
                f"Nothing is left to train: {self.env_steps:,} env steps were taken, and the "
                f"budget (data.collect.env_steps) is {self.schedule.budget:,}. Raise it to go on, "
                "or start a new run."
            )
        learner: Any = self.trainer.lightning_module  # type: ignore[union-attr]
        self.rollout.play_with(learner, self._compiled_play(learner))
        while self.schedule.is_warming_up(self.trained_env_steps):
            self._step(learner.act, learner)
        while not self.schedule.is_spent(self.env_steps):
            if self.curriculum is not None and self.schedule.ends_cycle(self.batches_done):
                self.curriculum.new_cycle()
            for _ in range(self.steps_per_batch):
                self._step(learner.act, learner)
            self.batches_done += 1
            if self.archive is not None and self.schedule.ends_cycle(self.batches_done):
                self.archive.exchange_outcomes()
                self._watch_outcomes()
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

    def _compiled_play(self, learner: Any) -> Play | None:
        """Acting and stepping as one graph, if the learner and the environment can."""
        flat = learner.flat_networks.get(learner.q_network)
        if flat is None or not has_pure_step(self.env):
            return None
        from lit_crl.training.compiled.play import CompiledPlay  # imports the compiler

        play = CompiledPlay(learner.toss, self.env, flat, self.clock)
        return lambda act, obs, epsilon: play(obs, epsilon)

    def _watch_outcomes(self) -> None:
        """Stop where the arm can never work, and say once where it seems not to.

        All processes come here at the same time, and judge by what all of them know.
        """
        curriculum, log = cast(Curriculum, self.curriculum), self.rollout.log
        device = self.env.device
        waits = not distributed.all_agree(not curriculum.waits_for_gan, device)
        if waits and self._outcomes_begin is None:
            self._begin_to_wait()
        if self.needs.success or waits:
            is_unknown = not getattr(self.env, "has_success", True) and not log.known
            if distributed.all_agree(is_unknown and log.ended > 0, device):
                raise unknown_success(self.arm, log.ended)
        expected = self._outcomes_expected
        if expected is None or self.env_steps < expected:
            return
        self._outcomes_expected = None
        outcomes, needed = len(cast(Archive, self.archive).tried), self.min_outcomes
        spent = self.env_steps - cast(int, self._outcomes_begin)
        left = self.schedule.budget - self.env_steps
        if outcomes < needed and outcomes * (1 + left / max(spent, 1)) < needed:
            distributed.say(
                why_too_few(self.arm, self.env_steps, outcomes, needed, log.ended, log.judged)
            )

    def _begin_to_wait(self) -> None:
        """A user's arm has asked for p̂ or for generated levels: from now on it needs outcomes."""
        if not self.trains_gan:
            raise ConfigError(
                f"data.gan.updates is 0, but data.curriculum.arm {self.arm!r} asks for p̂ or for "
                "generated levels, which nobody has learned: give data.gan.updates above 0"
            )
        self._expect_outcomes()

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
        due = self.trains_gan and self.schedule.ends_cycle(self.batches_done)
        if not due or self.curriculum is None:
            return None
        if not distributed.all_agree(self.curriculum.ready(self.reals), self.rng.device):
            return None
        shape = (self.gan_updates, self.gan_batch_size)
        return self.curriculum.gan_batch(shape, self.reals, self.reference_reals, teacher, self.rng)

    def val_dataloader(self) -> SingleBatch:
        """One evaluation with few target episodes."""
        steps = self.schedule.steps_of_an_epoch
        return self._evaluation(Evaluation, self.validation_episodes, steps)

    def test_dataloader(self) -> SingleBatch:
        """One evaluation with many target episodes, and all that takes longer."""
        return self._evaluation(FinalEvaluation, self.test_episodes, self.schedule.budget)

    def predict_dataloader(self) -> SingleBatch:
        """How many levels to generate, and of which difficulty."""
        return SingleBatch((self.generated_levels, self.difficulty))

    def _evaluation(self, kind: type[Evaluation], episodes: int, env_steps: int) -> SingleBatch:
        # One step at least for each of the parts, whose shares are halves of halves.
        allowed = max(2**4, int(self.evaluation_share * env_steps))
        sizes = (episodes, self.generated_levels, allowed)
        return SingleBatch(kind(self.evaluation_envs, *sizes, self.seed))

    def teardown(self, stage: str) -> None:
        """Close all environments; a later stage that needs them makes new ones."""
        if hasattr(self, "env"):
            self.evaluation_envs.close()
            self.env.close()
            self._closed = True

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
