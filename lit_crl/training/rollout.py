"""Stepping the environments with the learner: exploration, resets to levels, outcomes."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lit_crl.core.seeding import random_stream
from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.sources import SOURCES, FinishedEpisodes
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.training.value_trace import ValueTrace

#: Takes observations ``[N, ...]`` and ε ``[N]``, gives actions ``[N]``.
Actor = Callable[[Tensor, Tensor], Tensor]
#: Gives ``n`` levels ``[n, d]`` and the index of each one's source ``[n]``.
LevelSource = Callable[[int], tuple[Tensor, Tensor]]
#: Actions ``[N]``, and what stepping the environments with them gave.
Played = tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]]
#: Takes the actor, observations ``[N, ...]`` and ε ``[N]``.
Play = Callable[[Actor, Tensor, Tensor], Played]

#: Every how many vector steps the states are put into the archive: neighbours in time are alike.
VISIT_EVERY = 4


@dataclass
class EpisodeLog:
    """What the finished training episodes looked like."""

    returns: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    successes: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    episodes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    solved: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    #: Episodes of which it was known whether they succeeded, and of these those that explored
    #: little enough to speak of the policy.
    known: int = 0
    judged: int = 0

    def add(
        self, returns: Tensor, success: Tensor, known: Tensor, source: Tensor, greedy: Tensor
    ) -> None:
        """Record finished episodes ``[m]``.

        Args:
            returns: Their returns.
            success: Whether they succeeded, where that is ``known``.
            known: Whether it is.
            source: Index of the source of their level.
            greedy: Whether they explored little: only these are averaged.
        """
        # One wait for the device; float64 holds all of them exactly.
        rows = torch.stack([x.double() for x in (returns, success, known, source, greedy)]).tolist()
        for episode_return, solved, is_known, index, is_greedy in zip(*rows, strict=True):
            self.episodes[SOURCES[int(index)]] += 1
            if is_greedy:
                self.returns.append(episode_return)
            if is_known:
                self.known += 1
                self.solved[SOURCES[int(index)]] += int(solved)
            if is_known and is_greedy:
                self.judged += 1
                self.successes.append(solved)

    @property
    def ended(self) -> int:
        """Episodes that have ended."""
        return sum(self.episodes.values())

    def means(self) -> dict[str, float]:
        """As metrics: recent return and success, and episodes by the source of their level.

        Of successes nothing is told where none has been known.
        """
        numbers: dict[str, float] = {}
        if self.returns:
            numbers["behaviour/return_mean"] = sum(self.returns) / len(self.returns)
        if self.successes:
            numbers["behaviour/success_rate"] = sum(self.successes) / len(self.successes)
        for source in SOURCES:
            numbers[f"curriculum/{source}_episodes"] = self.episodes[source]
            if self.known or not self.ended:
                numbers[f"curriculum/{source}_solved"] = self.solved[source]
        return numbers


class Rollout:
    """Runs all environments in step and writes what happens to the replay and the archive."""

    def __init__(
        self,
        env: Any,
        replay: ReplayBuffer,
        archive: Archive | None,
        *,
        gamma: float,
        label_epsilon: float,
        seed: int,
        record: Callable[[FinishedEpisodes], None] | None = None,
    ) -> None:
        """Start every environment at a target level.

        Args:
            env: The batched environment, see ``lit_crl.envs.LevelEnv``.
            replay: Where transitions go.
            archive: Where levels and outcomes go; None where nothing is made of them.
            gamma: Discount factor of one step.
            label_epsilon: Episodes of environments that explore more than this say nothing
                about the policy, so their outcomes are not recorded. Nor are those of which the
                environment's ``info["success_known"]`` says that success is unknown.
            seed: Seed of the environments' own random streams.
            record: What wants to know of finished episodes, beside the archive.
        """
        self.env = env
        self.replay = replay
        self.archive = archive
        self.gamma = gamma
        self.label_epsilon = label_epsilon
        options: dict[str, Tensor] = {}
        self.level: Tensor | None = None
        if env.level_space is not None:
            self.level = env.target_levels(env.num_envs, random_stream(seed, "first levels"))
            options["levels"] = self.level = self.level.to(env.device)
        self.obs, _ = env.reset(seed=seed, options=options)
        device = self.obs.device
        self.done = torch.zeros(env.num_envs, dtype=torch.bool, device=device)
        self.source = torch.zeros(env.num_envs, dtype=torch.int64, device=device)
        self.episode_return = torch.zeros(env.num_envs, device=device)
        # ε changes between batches; an episode is judged by the largest it was played with.
        self.largest_epsilon = torch.zeros(env.num_envs, device=device)
        self.env_steps = 0
        self.record = record
        self._trace = None if record is None else ValueTrace(env.num_envs, gamma, device)
        self._action_values: Callable[[Tensor], Tensor] | None = None
        self.log = EpisodeLog()
        #: How a step is played: one operation at a time, or as one graph.
        self.play: Play = self._play
        #: Which environments' episodes have just ended.
        self._ended = self.done.nonzero().squeeze(1)

    def step(self, act: Actor, epsilon: Tensor, draw_levels: LevelSource) -> None:
        """One step of every environment; those that finished are first reset to new levels."""
        if len(self._ended):
            self._reset(draw_levels)
        self.largest_epsilon = torch.maximum(self.largest_epsilon, epsilon)
        action, step = self.play(act, self.obs, epsilon)
        next_obs, reward, terminated, truncated, info = step
        self.replay.add(self.obs, action, reward, self.gamma * (~terminated))
        if self._trace is not None and self._action_values is not None:
            after = (next_obs, reward, terminated)
            self._trace.see(self._action_values, self.obs, action, after)
        self.episode_return += reward
        self.obs, self.done = next_obs, terminated | truncated
        self._ended = self.done.nonzero().squeeze(1)
        self.env_steps += self.env.num_envs
        if len(self._ended):
            self._finish(info, terminated)
        if self.archive is not None and self.env_steps % (VISIT_EVERY * self.env.num_envs) == 0:
            self._visit()

    def play_with(self, learner: Any, play: Play | None = None) -> None:
        """Act with a learner; ``play`` acts and steps in its place, as one graph, say."""
        self._action_values = learner.action_values
        self.play = play or self._play

    def _play(self, act: Actor, obs: Tensor, epsilon: Tensor) -> Played:
        action = act(obs, epsilon)
        return action, self.env.step(action)

    def _visit(self) -> None:
        if self.archive is not None and self.env.tracks_visited:
            visited = self.env.current_levels()
            self.archive.add_visited(visited[self.env.valid(visited)])

    def _reset(self, draw_levels: LevelSource) -> None:
        options: dict[str, Tensor] = {"reset_mask": self.done}
        if self.level is not None:
            levels, source = draw_levels(len(self._ended))
            self.level.index_copy_(0, self._ended, levels)
            self.source.index_copy_(0, self._ended, source)
            options["levels"] = self.level
        obs, _ = self.env.reset(options=options)
        fresh = self.done.view(-1, *[1] * (obs.ndim - 1))
        self.obs = torch.where(fresh, obs, self.obs)
        self.episode_return.index_fill_(0, self._ended, 0)
        self.largest_epsilon.index_fill_(0, self._ended, 0)

    def _finish(self, info: dict[str, Any], terminated: Tensor) -> None:
        self.replay.add_final(self.obs, self.done)
        success = info["success"]
        # Environments that do not say so always know.
        known = info.get("success_known", torch.ones_like(success))
        fields = (self.episode_return, success, known, self.source, self.largest_epsilon)
        returns, success, known, source, epsilon = (x.index_select(0, self._ended) for x in fields)
        judged = epsilon <= self.label_epsilon
        self.log.add(returns, success, known, source, judged)
        if self.level is None or (self.archive is None and self.record is None):
            return
        level = self.level.index_select(0, self._ended)
        # The task's own resets, rows of NaN, are no levels that could be reset to again.
        legal = self._legal(level, source) & level.isfinite().all(dim=1)
        if self.record is not None and self._trace is not None:
            terminated = terminated.index_select(0, self._ended)
            traced = self._trace.finish(self._ended)
            finished = FinishedEpisodes(level, success, known, terminated, returns, *traced)
            if legal.any():
                self.record(FinishedEpisodes(*(field[legal] for field in finished)))
        if self.archive is not None:
            labelled = judged & known & legal
            self.archive.add_outcomes(level[labelled], success[labelled])

    def _legal(self, level: Tensor, source: Tensor) -> Tensor:
        """Which levels ``[m, d]`` are worth knowing: an episode can start there, ``[m]``.

        Reference levels may be others, where nobody can sample valid ones, and so may own ones.
        """
        doubtful = (source == SOURCES.index("reference")) | (source == SOURCES.index("own"))
        legal = ~doubtful
        if doubtful.any():
            legal[doubtful] = self.env.valid(level[doubtful])
        return legal

    def _restart_episodes(self) -> None:
        """Cut the running episodes off as a time limit would: the environments lost theirs."""
        self.replay.add_final(self.obs, ~self.done)
        self.obs = self.env.current_observations()
        for running in (self.done, self.source, self.episode_return, self.largest_epsilon):
            running.zero_()
        if self._trace is not None:
            self._trace.sums.zero_()
        self._ended = self.done.nonzero().squeeze(1)
        if self.level is not None:
            self.level.copy_(self.env.levels)

    def state_dict(self) -> dict[str, Any]:
        """Running episodes, counters and the environments' states."""
        return {
            "obs": self.obs,
            "done": self.done,
            "source": self.source,
            "level": self.level,
            "episode_return": self.episode_return,
            "largest_epsilon": self.largest_epsilon,
            "env_steps": self.env_steps,
            "env": self.env.state_dict(),
            "returns": list(self.log.returns),
            "successes": list(self.log.successes),
            "episodes": dict(self.log.episodes),
            "solved": dict(self.log.solved),
            "known": self.log.known,
            "judged": self.log.judged,
            "trace": None if self._trace is None else self._trace.sums,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name in ("obs", "done", "source", "episode_return", "largest_epsilon"):
            getattr(self, name).copy_(state[name])
        if self.level is not None:
            self.level.copy_(state["level"])
        if self._trace is not None:
            self._trace.sums.copy_(state["trace"])
        self.env_steps = state["env_steps"]
        self._ended = self.done.nonzero().squeeze(1)
        self.env.load_state_dict(state["env"])
        if not self.env.resumable:
            self._restart_episodes()
        for recent in ("returns", "successes"):
            getattr(self.log, recent).clear()
            getattr(self.log, recent).extend(state[recent])
        self.log.episodes.update(state["episodes"])
        self.log.solved.update(state["solved"])
        self.log.known, self.log.judged = state["known"], state["judged"]
