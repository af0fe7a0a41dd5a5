"""Experience from a log in the place of environments: nothing is stepped, and updates are counted.

Everything that is counted in env steps where there are environments (budget, validations, world
phases) is counted in updates of the DQN here. There is no explorer, since nobody acts: the judge
learns from the log and, where there is a world, mostly from dreams that its own policy dreams. What
the world does not know costs it reward there (``data.world.curiosity`` below 0).
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import print_once
from lit_crl.dqn.logs.filled import first_observations, replay_of
from lit_crl.dqn.logs.log import Log, counts, notices
from lit_crl.dqn.logs.task import check_agreement
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import LevelEnv
from lit_crl.training.agent import Agent
from lit_crl.training.experience.episode_log import EpisodeLog
from lit_crl.training.experience.rollout import Actor, LevelSource, Play, TellStep
from lit_crl.training.schedule import Schedule
from lit_crl.training.settings import CollectSettings, DataSettings


def schedule_in_updates(settings: DataSettings) -> Schedule:
    """The schedule of a run from a log: as of one environment, each step of which is an update.

    Raises:
        ConfigError: If the budget has no room for a batch.
    """
    budget, of_a_batch = settings.replay.log_updates, settings.replay.updates_per_batch
    clock = CollectSettings(env_steps=budget, num_envs=1, warmup=0, steps_per_batch=of_a_batch)
    return Schedule(clock, settings.gan.every, settings.evaluation.every, "updates")


def check_settings(
    settings: DataSettings, arm: str, keeps: bool, world_size: int, has_world: bool
) -> None:
    """Refuse what a log cannot do.

    Args:
        settings: Of the data.
        arm: Where levels would come from.
        keeps: Whether real steps should be recorded.
        world_size: Number of processes.
        has_world: Whether the learner has a world.

    Raises:
        ConfigError: If a setting asks for it; names its key.
    """
    replay, dreams = settings.replay, settings.world
    problems = (
        (arm != "target", f"data.curriculum.arm is {arm!r}, but nothing is reset: use target"),
        (
            replay.frame_stack > 1,
            f"data.replay.frame_stack is {replay.frame_stack}, but it has whole stacks: set it to "
            "1",
        ),
        (
            replay.hindsight > 0,
            f"data.replay.hindsight is {replay.hindsight}, which needs an environment: set it to 0",
        ),
        (
            replay.priority_exponent > 0,
            f"data.replay.priority_exponent is {replay.priority_exponent}, but its rows are drawn "
            "alike: set it to 0",
        ),
        (
            has_world and dreams.has_explorer,
            f"data.world.share is {dreams.share:g} and data.world.curiosity {dreams.curiosity:g}, "
            "but nobody explores: set share to 0 and curiosity to 0 or below (caution), and give "
            "data.world.judge_share",
        ),
        (keeps, "data.keep_transitions is true, but nothing is stepped: set it to false"),
        (
            world_size > 1,
            f"there are {world_size} processes, but one learns it: use --trainer.devices 1",
        ),
    )
    for is_there, problem in problems:
        if is_there:
            raise ConfigError(f"data.transitions is given, and {problem}")


class LoggedExperience:
    """A log in a replay of its own size; an ``Experience``.

    Attributes:
        updates: Updates of the DQN that were given out so far.
    """

    tell_starts: Callable[[Tensor], None] | None
    tell_step: TellStep | None

    def __init__(self, log: Log, env: LevelEnv, gamma: float, n_steps: int) -> None:
        """Read the log, and say what is in it.

        Args:
            log: The steps.
            env: Has the spaces, and the device of the replay.
            gamma: Discount factor of one step.
            n_steps: Steps that a sampled transition folds.

        Raises:
            ConfigError: If the log is not sound, or is about another task.
        """
        check_agreement(log, env)
        self.env, self._log, self.updates = env, log, 0
        self.replay: ReplayBuffer = replay_of(
            log,
            env.single_observation_space,
            int(env.single_action_space.n),
            gamma=gamma,
            n_steps=n_steps,
            device=env.device,
        )
        self.counts = counts(log.columns)
        self.log, self.explores = EpisodeLog(), self.replay.boundary.new_zeros(1)
        self.tell_starts = self.tell_step = None
        print_once(f"{log.key}: {self.counts}.")
        for notice in notices(log.columns):
            print_once(notice)

    @property
    def env_steps(self) -> int:
        """The number of rows."""
        return self.counts.rows

    @property
    def spent(self) -> int:
        """Updates so far."""
        return self.updates

    def step(self, act: Actor, epsilon: Tensor, draw_levels: LevelSource) -> None:
        """Count an update; nobody acts."""
        self.updates += 1

    def play_with(self, agent: Agent, play: Play | None = None) -> None:
        """Nobody acts."""

    def first_observations(self) -> Tensor:
        """See ``Experience``."""
        return first_observations(self.replay, self._log.columns.ended)

    def means(self) -> dict[str, float]:
        """No episodes are played."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """How far the run is."""
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.updates = state["updates"]

    def replay_state(self) -> dict[str, Any]:
        """The log stays in its file: a checkpoint names it."""
        return {"log": self._log.key, **self._log.fingerprint._asdict()}

    def load_replay_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore: ``lasting.py`` has seen that the log is the same."""
