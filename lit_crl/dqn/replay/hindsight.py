"""Hindsight relabelling: an episode is judged by a goal that it reached later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.equations import Transitions
from lit_crl.envs import LevelEnv

if TYPE_CHECKING:
    from lit_crl.dqn.replay.buffer import ReplayBuffer


@runtime_checkable
class GoalEnv(Protocol):
    """What hindsight relabelling asks of an environment; observations hold position and goal."""

    def achieved_goal(self, obs: Tensor) -> Tensor:
        """The goal that the observed state fulfils, ``[..., g]``."""

    def relabel(self, obs: Tensor, goal: Tensor) -> Tensor:
        """The same observation with another goal."""

    def goal_reward(self, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Reward and termination for arriving at ``next_obs``, judged by the goal in it."""


class Hindsight:
    """Hindsight relabelling with *future* goals, Andrychowicz et al. 2017 (HER), §4.5.

    A share of the sampled transitions gets a goal that its episode reached some steps later. Reward
    and termination are computed anew for every step of the n-step window.
    """

    @classmethod
    def of(cls, env: LevelEnv, share: float, gamma: float) -> Hindsight | None:
        """The relabelling of an environment's goals; None for a share of 0.

        Raises:
            ConfigError: If the environment has no goals.
        """
        if share == 0:
            return None
        if not isinstance(env, GoalEnv) or env.max_episode_steps is None:
            raise ConfigError(
                f"data.replay.hindsight is {share}, but {type(env).__name__} has no goals to "
                "relabel: set it to 0"
            )
        return cls(env, share, env.max_episode_steps, gamma)

    def __init__(self, env: GoalEnv, share: float, horizon: int, gamma: float) -> None:
        """Relabel ``share`` of the transitions; episodes last at most ``horizon`` steps."""
        self.env = env
        self.share = share
        self.horizon = horizon
        self.gamma = gamma

    def gather(self, replay: ReplayBuffer, start: Tensor, rng: torch.Generator) -> Transitions:
        """The n-step transitions from the rows ``start [B]``, some of them relabelled."""
        window = replay.window(start)
        goal = self.env.achieved_goal(self._future(replay, start, rng))
        reached = replay.observations(window[:, 1:])
        relabelled = self.env.relabel(reached, goal[:, None].expand(-1, replay.n_steps, -1))
        reward, terminated = self.env.goal_reward(relabelled)
        discount = torch.where(terminated, 0.0, self.gamma)
        chosen = torch.rand(len(start), generator=rng, device=start.device) < self.share
        transitions = replay.fold(
            window,
            torch.where(chosen[:, None], reward, replay.take(replay.reward, window[:, :-1])),
            torch.where(chosen[:, None], discount, replay.take(replay.discount, window[:, :-1])),
        )
        obs, next_obs = (
            torch.where(chosen.view(-1, *[1] * (seen.ndim - 1)), self.env.relabel(seen, goal), seen)
            for seen in (transitions.obs, transitions.next_obs)
        )
        return transitions._replace(obs=obs, next_obs=next_obs)

    def _future(self, replay: ReplayBuffer, start: Tensor, rng: torch.Generator) -> Tensor:
        """An observation drawn uniformly from those that followed ``start`` in its episode."""
        steps = torch.arange(1, self.horizon + 1, device=start.device)
        column, written = start % replay.num_envs, replay.cursor
        age = (written[column] - 1 - start // replay.num_envs) % replay.length
        ends = replay.take(replay.boundary, replay.shift(start[:, None], steps)).long().cumsum(1)
        # Up to and including the first boundary, and not past the newest row: the rows below it are
        # the oldest of the ring, from another episode.
        remaining = ((ends == 0).sum(dim=1) + 1).minimum(age).clamp(min=1)
        drawn = torch.rand(len(start), generator=rng, device=start.device) * remaining
        return replay.observations(replay.shift(start, drawn.long() + 1))
