"""The replay as a Lightning DataModule: collects experience, or has a log, and feeds all phases.

One batch is what one ``training_step`` needs: K minibatches of transitions, and on every
``data.gan.every``-th batch minibatches for the GAN. So all processes run the same phases.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lit_crl.core import checks, distributed
from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import random_stream
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.arms import arm_name, custom_source, needs_of
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.settings import CurriculumSettings
from lit_crl.dqn.exploration import EpsilonLadder
from lit_crl.dqn.logs.log import Log
from lit_crl.dqn.logs.opening import open_log
from lit_crl.dqn.logs.task import LoggedTask
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.hindsight import Hindsight
from lit_crl.dqn.replay.settings import ReplaySettings
from lit_crl.envs import GymnasiumEnv, LevelEnv
from lit_crl.envs.factory import GivenEnv, env_factory
from lit_crl.envs.given_levels import Given, GivenLevels
from lit_crl.evaluation.absent import evaluation_of
from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.evaluation.pool import EvaluationEnvs
from lit_crl.evaluation.protocol import Evaluation, Learner, Played
from lit_crl.evaluation.settings import EvaluationSettings
from lit_crl.training import trainer_checks
from lit_crl.training.agent import Agent
from lit_crl.training.batches import Batch, ReplayLoader, SingleBatch
from lit_crl.training.data_checks import check_arm, check_levels
from lit_crl.training.drawing import Draws
from lit_crl.training.dreams.beginning import begin_to_dream
from lit_crl.training.dreams.checks import check_world
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.training.dreams.explorers import explorers_places, judges
from lit_crl.training.dreams.watch import WorldWatch
from lit_crl.training.experience.collection import new_collection, new_env
from lit_crl.training.experience.interface import Experience, check_is_kept
from lit_crl.training.experience.lasting import check_lasting, lasting
from lit_crl.training.experience.logged import LoggedExperience, check_settings, schedule_in_updates
from lit_crl.training.graphs.capture import capture_on
from lit_crl.training.graphs.steps import Steps
from lit_crl.training.network_checks import check_memory, check_support
from lit_crl.training.outcome_watch import OutcomeWatch, outcome_timing
from lit_crl.training.schedule import schedule
from lit_crl.training.settings import (
    CollectSettings,
    DataSettings,
    DreamSettings,
    GanPhaseSettings,
)
from lit_crl.training.stepping import Stepping


class ReplayDataModule(LightningDataModule):
    """Environments, replay, archive and curriculum, as batches for the Trainer."""

    env: LevelEnv
    replay: ReplayBuffer
    #: Steps the environments, or holds a log in their place.
    rollout: Experience

    def __init__(
        self,
        env: GivenEnv | None = None,
        collect: CollectSettings = CollectSettings(),
        replay: ReplaySettings = ReplaySettings(),
        curriculum: CurriculumSettings = CurriculumSettings(),
        gan: GanPhaseSettings = GanPhaseSettings(),
        world: DreamSettings = DreamSettings(),
        evaluation: EvaluationSettings = EvaluationSettings(),
        transitions: str | None = None,
        keep_transitions: bool = False,
        given: Given | None = None,
        given_heldout: Given | None = None,
        seed: int = 0,
    ) -> None:
        """Configure environments, replay, curriculum and evaluation.

        In place of each group of settings, a mapping of its fields is accepted as well.

        Args:
            env: A class of environments with its arguments, a factory, or a Gymnasium id; see
                ``lit_crl.envs.factory.env_factory``. With ``transitions`` it only evaluates, and
                may be left out.
            collect: How experience is collected.
            replay: What the replay keeps, and the minibatches of the DQN.
            curriculum: Where levels come from.
            gan: When the GAN learns, how much, and from what.
            world: When the world learns and dreams, and who learns from dreams.
            evaluation: When and how long the policy and the generator are examined.
            transitions: A log to learn from, in the place of environments: a .npz file, or a Minari
                dataset by its folder or as minari:ID.
            keep_transitions: Write all real steps of the run to transitions.npz in its folder.
            given: Levels that take the place of the environment's target levels: a .npz file with
                an array ``levels [K, d]``; a .csv file with a level in each row; the rows
                themselves; or K, for K of its target levels, drawn once by the seed.
            given_heldout: The held-out levels ``fresh``, which are never trained on, in the same
                ways. Default with ``given``: 256 of the environment's own target levels, if it can
                draw them.
            seed: Seed of every random stream of the data.

        Raises:
            ConfigError: If a number makes no sense, or there is nothing to learn from.
        """
        super().__init__()
        self.settings = DataSettings.of(collect, replay, curriculum, gan, world, evaluation)
        arm = self.settings.curriculum.arm
        if env is None and transitions is None:
            raise ConfigError(
                "data.env is missing: give an environment, or a log with data.transitions"
            )
        self.transitions, self.keep_transitions = transitions, keep_transitions
        self.given = GivenLevels(given, given_heldout, seed)
        collect, has_log = self.settings.collect, transitions is not None
        self.schedule = schedule_in_updates(self.settings) if has_log else schedule(self.settings)
        self._make_env = env_factory(self._logged_task if env is None else env)
        self.num_envs, self.seed = 1 if has_log else collect.num_envs, seed
        self.arm, self.custom_source, self.needs = arm_name(arm), custom_source(arm), needs_of(arm)
        self.exploration = collect.exploration or EpsilonLadder()
        self.rank, self.world_size = 0, 1
        #: Batches handed out, and how many had been when the loaded checkpoint was saved.
        self.batches_done = self._saved_batches = 0
        #: Dreams, where the learner has a world, and the environments in which its explorer acts.
        self.dreaming: Dreaming | None = None
        self.watch = WorldWatch(seed)
        self._explores: Tensor | None = None
        #: How a fit steps the environments and draws from the replay; graphs outlast its epochs.
        self._steps: Steps | None = None
        self._draws: Draws | None = None
        self.archive: Archive | None = None
        self._goals: Hindsight | None = None
        self.curriculum: Curriculum | None = None
        self.clock = Stopwatch()

    @property
    def trains_gan(self) -> bool:
        """Whether there are GAN phases: only under arms that use what they make."""
        return self.needs.gan and self.settings.gan.updates > 0

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
    def spent(self) -> int:
        """How much of the budget is spent: env steps or, from a log, updates of the DQN."""
        is_online = self.transitions is None or not hasattr(self, "rollout")
        return self.env_steps if is_online else self.rollout.spent

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
        if stage == "fit":
            self._fit_to_network()
        if stage == "fit" and not hasattr(self, "replay"):
            self._check_world()
            if self.transitions is None:
                self._check_arm()
                self._set_up_collection()
            else:
                self._set_up_log()

    def make_env(self, num_envs: int, device: torch.device, **changes: Any) -> VectorEnv:
        """Make environments of the task, all with the same visited or given levels.

        Args:
            num_envs: How many step together.
            device: Where their tensors live.
            **changes: Other arguments than those of the training environments.
        """
        made = self._make_env(num_envs, device, **changes)
        if isinstance(made, GymnasiumEnv):
            made.share_levels(getattr(self, "env", None))
        return self.given.played_in(made)

    def _set_up_env(self) -> None:
        checks.default_dtype()
        self.env = new_env(self.make_env, self.num_envs, self._device())
        check_levels(self.settings, self.arm, self.needs, self.env, self.seed)
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

    def _fit_to_network(self) -> None:
        """Refuse what does not go with the Q-network; noisy layers explore in the place of ε."""
        if self.trainer is None:
            return
        agent = self._agent()
        check_support(self.settings, agent.network, agent.dqn)
        has_log = self.transitions is not None
        check_memory(self.settings, self.arm, self.custom_source, has_log, agent.network.memory)
        if self.settings.collect.exploration is None:
            self.exploration = EpsilonLadder(base=0.0) if agent.network.noise else EpsilonLadder()

    def _check_world(self) -> None:
        """Refuse what does not go with a world; choose the environments of its explorer."""
        if self.trainer is None or self._agent().world.loss == "none":
            return
        device = self.trainer.strategy.root_device
        check_world(self.settings, self.arm, self.needs, self.env, device)
        places = explorers_places(self.settings.world, self.num_envs)
        self._explores = None if places is None else places.to(self.env.device)

    def _check_arm(self) -> None:
        """Refuse what can never work; say so where outcomes come late."""
        loss = self._agent().gan.loss if self.trainer is not None else "least_squares"
        check_arm(self.settings, self.arm, self.needs, self.env, loss, self.world_size)
        timing = outcome_timing(
            judges(self.exploration, self._explores),
            self.settings.curriculum.label_epsilon,
            self.schedule,
            self.num_envs,
            self.world_size,
            self.env.max_episode_steps,
        )
        self._outcomes = OutcomeWatch(self.arm, self.needs, timing, self.trains_gan)
        if self.needs.outcomes:
            self._outcomes.start()

    def _device(self) -> torch.device:
        if (name := self.settings.collect.device) != "auto":
            return checks.device("data.collect.device", name)
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @cached_property
    def _log(self) -> Log:
        return open_log(str(self.transitions))

    def _logged_task(self, num_envs: int, device: torch.device) -> LoggedTask:
        return LoggedTask(self._log, device)

    def _set_up_log(self) -> None:
        """Take a log in the place of environments."""
        has_world = self.trainer is not None and self._agent().world.loss != "none"
        given = (self.settings, self.arm, self.keep_transitions, self.world_size)
        check_settings(*given, has_world)
        gamma, n_steps = self.settings.collect.gamma, self.settings.replay.n_steps
        self.rollout = LoggedExperience(self._log, self.env, gamma, n_steps)
        self.replay = self.rollout.replay
        self.rng = random_stream(self.seed, "replay", self.rank, self.env.device)

    def _set_up_collection(self) -> None:
        memory_size = 0 if self.trainer is None else self._agent().network.memory
        self.replay, self._goals, self.curriculum, self.rollout = new_collection(
            self.env,
            self.settings,
            self.needs,
            self.custom_source,
            self.make_env,
            self.schedule.budget,
            lambda: self.env_steps,
            memory_size,
            self.seed,
            self.rank,
        )
        self.archive = None if self.curriculum is None else self.curriculum.archive
        self.rng = random_stream(self.seed, "replay", self.rank, self.env.device)

    def set_up_dreams(self) -> None:
        """Prepare to dream, if the learner has a world; once, after the learner was built.

        Raises:
            ConfigError: If other settings do not go with a world, or dreams do not fit.
        """
        world = None if self.trainer is None else self._agent().world_gan
        if world is None or self.dreaming is not None or not self.settings.world.does_anything:
            return
        self.dreaming = self.watch.dreaming = begin_to_dream(
            self.settings,
            world,
            self.rollout,
            self.curriculum,
            self._explores,
            at_once=self.transitions is not None,
            seed=self.seed,
            rank=self.rank,
            capture=capture_on(self.env.device),
            clock=self.clock,
        )

    def state_dict(self) -> dict[str, Any]:
        """How far the run is, and what must stay; ``collected_state`` has what was collected."""
        kept = lasting(
            self.settings,
            env=None if self.transitions else getattr(self.env, "name", type(self.env).__name__),
            curriculum__arm=self.arm,
            seed=self.seed,
            transitions=None if self.transitions is None else str(self._log.fingerprint),
            given=None if self.given.target is None else str(self.given.target),
        )
        return {"batches_done": self.batches_done, "settings": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See that a fit can go on from a checkpoint.

        Raises:
            ConfigError: If settings were changed that have to stay.
        """
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        check_lasting(state["settings"], self.state_dict()["settings"])
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
        self.set_up_dreams()
        self._steps = self._draws = None
        return ReplayLoader(self.batches, self.schedule.batches_per_epoch)

    def batches(self) -> Iterator[Batch]:
        """Collect and sample until the budget is spent."""
        if self.schedule.is_spent(self.spent):
            distributed.print_once(self.schedule.nothing_left(self.spent))
        check_is_kept(self.keep_transitions, self.rollout)
        agent = self._agent()
        steps = self._new_steps(agent)
        while self.schedule.is_warming_up(self.trained_env_steps):
            self._step()
        draws = self._draws = self._draws or self._new_draws()
        while not self.schedule.is_spent(self.spent):
            if self.curriculum is not None and self.schedule.ends_cycle(self.batches_done):
                self.curriculum.new_cycle()
                steps.new_cycle()
            with self.clock("environments"):
                steps()
            self.batches_done += 1
            dreams = self.dreaming is not None and self.dreaming.is_stale
            if dreams or self.schedule.ends_cycle(self.batches_done):
                steps.settle()
            if self.dreaming is not None:
                with self.clock("world"):
                    self.dreaming.dream(agent, f"{self.spent:,} {self.schedule.unit}")
            if self.curriculum is not None and self.schedule.ends_cycle(self.batches_done):
                self.curriculum.archive.exchange_outcomes()
                self._outcomes.look(
                    self.curriculum,
                    self.rollout.log,
                    self.env_steps,
                    getattr(self.env, "has_success", True),
                    self.env.device,
                )
            is_gan_due = self.trains_gan and self.schedule.ends_cycle(self.batches_done)
            batch = draws.batch(agent, self.spent, is_gan_due)
            # Said before the last batch is handed out: the Trainer finishes it, validates, stops.
            self._stop_if_spent()
            yield batch
        self._stop_if_spent()
        if self.trainer is not None:
            trainer_checks.check_minimum(self.trainer)

    def _agent(self) -> Agent:
        """The learner that the Trainer trains."""
        assert self.trainer is not None
        learner: Any = self.trainer.lightning_module
        agent: Agent = learner
        return agent

    def _new_steps(self, agent: Agent) -> Steps:
        """The steps of a batch; those that were recorded before, if there are any."""
        self._stepping = Stepping(agent, self.rollout, self.curriculum, self._explores, self.clock)
        if self._steps is None:
            n, capture = self.schedule.steps_per_batch, capture_on(self.env.device)
            self._steps = self._stepping.of_a_batch(n, self._step, self._epsilon_ahead, capture)
        return self._steps

    def _new_draws(self) -> Draws:
        return Draws(
            self.replay,
            self.settings,
            self.schedule,
            self.rng,
            self.clock,
            goals=self._goals,
            curriculum=self.curriculum,
            dreaming=self.dreaming,
            remembers=self._stepping.memory is not None,
            capture=capture_on(self.rng.device),
        )

    def _stop_if_spent(self) -> None:
        if not self.schedule.is_spent(self.spent):
            return
        if self.dreaming is not None:
            self.dreaming.say_if_never()
        if self.trainer is not None:
            self.trainer.should_stop = True

    def _epsilon_ahead(self, steps: int) -> Tensor:
        """ε of every environment at each of the next ``steps``, ``[steps, N]``, on the CPU."""
        of_a_step, n = self.num_envs * self.world_size, self.num_envs
        now = self.env_steps
        return torch.stack([self.exploration(n, now + i * of_a_step) for i in range(steps)])

    def _step(self) -> None:
        """One step of all environments."""
        self._stepping.step(self.epsilon)

    def val_dataloader(self) -> SingleBatch:
        """One evaluation with few target episodes."""
        steps = self.schedule.steps_of_an_epoch
        return self._evaluation(Evaluation, self.settings.evaluation.episodes, steps)

    def test_dataloader(self) -> SingleBatch:
        """One evaluation with many target episodes, and all that takes longer."""
        episodes = self.settings.evaluation.test_episodes
        return self._evaluation(FinalEvaluation, episodes, self.schedule.budget)

    def predict_dataloader(self) -> SingleBatch:
        """How many levels to generate, and of which difficulty."""
        settings = self.settings.evaluation
        return SingleBatch((settings.generated_levels, settings.difficulty))

    def _evaluation(self, kind: type[Evaluation], episodes: int, steps: int) -> SingleBatch:
        common = (self.evaluation_envs, self.settings.evaluation, episodes, steps, self.seed)
        return SingleBatch(evaluation_of(kind, *common, self._look))

    def _look(self, learner: Learner, played: Played | None) -> dict[str, float]:
        """Measure the world; a resumed run must not do so before it goes on."""
        is_trial = self.trainer is not None and self.trainer.sanity_checking
        return {} if is_trial else self.watch.look(learner, played)

    def teardown(self, stage: str) -> None:
        """Close all environments; a later stage that needs them makes new ones."""
        if hasattr(self, "env"):
            self.evaluation_envs.close()
            self.env.close()
            self._closed = True

    def metrics(self) -> dict[str, float]:
        """How training went lately, and what became of the generated levels over the run."""
        rates = self.curriculum.counts.rates() if self.curriculum else {}
        acting = {"behaviour/epsilon": self.epsilon.mean().item()} if not self.transitions else {}
        return acting | self.rollout.means() | rates

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Batches are made where they are used, unless ``device`` keeps the data elsewhere."""
        if isinstance(batch, Batch) and batch.dqn.obs.device != device:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return batch
