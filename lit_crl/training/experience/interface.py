"""What the data asks of the place where real transitions come from: a rollout, or a log."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.training.agent import Agent
from lit_crl.training.experience.episode_log import EpisodeLog
from lit_crl.training.experience.rollout import Actor, LevelSource, Play, TellStep


class Experience(Protocol):
    """Real transitions in a replay, and how much of the budget they have taken."""

    env: Any
    replay: ReplayBuffer
    log: EpisodeLog
    #: In which environments the explorer acts, bool ``[N]``.
    explores: Tensor
    #: Is told of the observations ``[m, ...]`` with which episodes start.
    tell_starts: Callable[[Tensor], None] | None
    #: Is told of each real step.
    tell_step: TellStep | None

    @property
    def env_steps(self) -> int:
        """Real env steps that the replay has seen, in this process."""

    @property
    def spent(self) -> int:
        """How much of the budget is spent, in its own unit, in this process."""

    def step(self, act: Actor, epsilon: Tensor, draw_levels: LevelSource) -> None:
        """Go one step of the budget on: of every environment, or to the next update."""

    def play_with(self, agent: Agent, play: Play | None = None) -> None:
        """Act with an agent from now on."""

    def first_observations(self) -> Tensor:
        """Observations with which episodes begin, ``[n, ...]``."""

    def means(self) -> dict[str, float]:
        """How training went lately, as metrics."""

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, and that is not in the replay."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""

    def replay_state(self) -> dict[str, Any]:
        """What a checkpoint holds of the replay."""

    def load_replay_state(self, state: dict[str, Any]) -> None:
        """Restore it."""


def check_is_kept(keep_transitions: bool, experience: Experience) -> None:
    """Somebody records the real steps, if they should be kept.

    Raises:
        ConfigError: If nobody does.
    """
    if keep_transitions and experience.tell_step is None:
        raise ConfigError(
            "data.keep_transitions is true, but the Trainer has no "
            "lit_crl.runs.callbacks.KeepTransitions(folder): add one, or set it to false"
        )
