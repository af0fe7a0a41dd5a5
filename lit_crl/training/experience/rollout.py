"""Steps the environments with the learner: exploration, resets to levels, outcomes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_crl.core.seeding import random_stream
from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.sources import SOURCES, FinishedEpisodes
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.training.agent import Agent
from lit_crl.training.experience.episode_log import EpisodeLog
from lit_crl.training.experience.levels_ahead import LevelsAhead
from lit_crl.training.experience.value_trace import ValueTrace

#: Takes observations ``[N, ...]`` and ε ``[N]``, gives actions ``[N]``.
Actor = Callable[[Tensor, Tensor], Tensor]
#: Gives ``n`` levels ``[n, d]`` and the index of each one's source ``[n]``.
LevelSource = Callable[[int], tuple[Tensor, Tensor]]
#: Actions ``[N]``, and what stepping the environments with them gave.
Played = tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]]
#: Takes the actor, observations ``[N, ...]`` and ε ``[N]``.
Play = Callable[[Actor, Tensor, Tensor], Played]

#: Takes a step of all environments: the arrays of a log (``dqn.logs.npz``), ``[N, ...]`` each.
TellStep = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], None]

#: Vector steps between two visits to the archive: states that follow each other are much alike.
VISIT_EVERY = 4


class Finished(NamedTuple):
    """Episodes that have ended, ``[m]`` each."""

    #: Their levels ``[m, d]``; None where nobody asks for them.
    level: Tensor | None
    returns: Tensor
    success: Tensor
    #: Whether success or failure is known.
    known: Tensor
    #: Index of the source of each one's level.
    source: Tensor
    #: The largest ε that it was played with.
    epsilon: Tensor
    #: Whether the policy that is evaluated played it.
    ours: Tensor


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
            archive: Where levels and outcomes go; None if the arm uses neither.
            gamma: Discount factor of one step.
            label_epsilon: Outcomes are recorded only of episodes that explored at most this
                much: others say nothing about the policy. Outcomes are not recorded either where
                the environment's ``info["success_known"]`` is false.
            seed: Seed of the environments' own random streams.
            record: Is told of finished episodes, beside the archive.
        """
        self.env = env
        self.replay = replay
        self.archive = archive
        self.gamma = gamma
        self.label_epsilon = label_epsilon
        self._begin(seed)
        self.env_steps = 0
        self.record = record
        self._trace = None if record is None else ValueTrace(env.num_envs, gamma, self.obs.device)
        self._action_values: Callable[[Tensor], Tensor] | None = None
        self.log = EpisodeLog()
        #: Is told of the observations ``[m, ...]`` with which episodes start.
        self.tell_starts: Callable[[Tensor], None] | None = None
        #: Is told of each step.
        self.tell_step: TellStep | None = None
        #: Acts and steps the environments: one operation at a time, or as one graph.
        self.play: Play = self._play
        #: Where a graph takes the steps: new levels, what a checkpoint had of them, and a call that
        #: takes note of episodes that only the graph knows of.
        self.ahead: LevelsAhead | None = None
        self.ahead_state: dict[str, Any] | None = None
        self.settle: Callable[[], None] = lambda: None

    def _begin(self, seed: int) -> None:
        """Start every environment at a target level, with nothing known of the episodes yet."""
        env = self.env
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
        #: Where an explorer acts, ``[N]``: its episodes say nothing about the policy.
        self.explores = torch.zeros(env.num_envs, dtype=torch.bool, device=device)
        #: Whether it acted in any step of the running episode, ``[N]``.
        self.explored = torch.zeros_like(self.explores)
        #: What the policy remembers of each running episode ``[N, H]``; None: it has no memory.
        size = self.replay.memory.shape[1]
        self.memory = torch.zeros(env.num_envs, size, device=device) if size else None
        #: Which environments' episodes have just ended.
        self._ended = self.done.nonzero().squeeze(1)

    @property
    def spent(self) -> int:
        """Env steps so far."""
        return self.env_steps

    def first_observations(self) -> Tensor:
        """The observations that the first episodes begin with, before any step."""
        return torch.as_tensor(self.obs)

    def means(self) -> dict[str, float]:
        """See ``EpisodeLog``."""
        self.settle()
        return self.log.means()

    def step(self, act: Actor, epsilon: Tensor, draw_levels: LevelSource) -> None:
        """One step of every environment; those that finished are first reset to new levels."""
        if len(self._ended):
            self._reset(draw_levels)
        self.largest_epsilon = torch.maximum(self.largest_epsilon, epsilon)
        self.explored = self.explored | self.explores
        before = None if self.memory is None else self.memory.clone()
        action, step = self.play(act, self.obs, epsilon)
        next_obs, reward, terminated, truncated, info = step
        # Some environments let transitions learn from other rewards and ends than the task's own.
        learnt, ends = info.get("replay_reward", reward), info.get("replay_terminated", terminated)
        self.replay.add(self.obs, action, learnt, self.gamma * (~ends), before)
        if self.tell_step is not None:
            self.tell_step(self.obs, action, reward, terminated, truncated, next_obs)
        if self._trace is not None and self._action_values is not None:
            after = (next_obs, learnt, ends)
            self._trace.see(self._action_values, self.obs, action, after)
        self.episode_return += reward
        self.obs, self.done = next_obs, terminated | truncated
        self._ended = self.done.nonzero().squeeze(1)
        self.env_steps += self.env.num_envs
        if len(self._ended):
            self._finish(info, terminated)
        if self.archive is not None and self.env_steps % (VISIT_EVERY * self.env.num_envs) == 0:
            self._visit()

    def play_with(self, agent: Agent, play: Play | None = None) -> None:
        """Act with an agent. ``play`` replaces acting and stepping, with one compiled graph."""
        self._action_values = agent.action_values
        self.play = play or self._play
        # An earlier fit may have taken steps as a graph.
        self.settle()
        self.settle = lambda: None
        self._ended = self.done.nonzero().squeeze(1)

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
            if (nearest := getattr(self.env, "nearest_levels", None)) is not None:
                levels = nearest(levels)
            self.level.index_copy_(0, self._ended, levels)
            self.source.index_copy_(0, self._ended, source)
            options["levels"] = self.level
        obs, _ = self.env.reset(options=options)
        fresh = self.done.view(-1, *[1] * (obs.ndim - 1))
        self.obs = torch.where(fresh, obs, self.obs)
        if self.tell_starts is not None:
            self.tell_starts(obs[self.done])
        self.episode_return.index_fill_(0, self._ended, 0)
        self.largest_epsilon.index_fill_(0, self._ended, 0)
        self.explored.index_fill_(0, self._ended, False)
        if self.memory is not None:
            self.memory.index_fill_(0, self._ended, 0)

    def _finish(self, info: dict[str, Any], terminated: Tensor) -> None:
        self.replay.add_final(self.obs, self.done)
        success = info["success"]
        # An environment whose info lacks this key always knows.
        known = info.get("success_known", torch.ones_like(success))
        ours = ~self.explored
        fields = (self.episode_return, success, known, self.source, self.largest_epsilon, ours)
        found = (x.index_select(0, self._ended) for x in fields)
        asked = self.level if self.archive is not None or self.record is not None else None
        level = None if asked is None else asked.index_select(0, self._ended)
        ended = Finished(level, *found)
        legal = self.note(ended)
        if self.record is None or self._trace is None or level is None or legal is None:
            return
        terminated = terminated.index_select(0, self._ended)
        traced = self._trace.finish(self._ended)
        told = (level, ended.success, ended.known, terminated, ended.returns, *traced)
        if legal.any():
            self.record(FinishedEpisodes(*(field[legal] for field in told)))

    def note(self, ended: Finished) -> Tensor | None:
        """Take note of episodes that have ended; tells which of their levels count, ``[m]``."""
        judged = (ended.epsilon <= self.label_epsilon) & ended.ours
        self.log.add(ended.returns, ended.success, ended.known, ended.source, judged)
        if (level := ended.level) is None:
            return None
        # The task's own resets, rows of NaN, are no levels that could be reset to again.
        legal = self._legal(level, ended.source) & level.isfinite().all(dim=1) & ended.ours
        if self.archive is not None:
            labelled = judged & ended.known & legal
            self.archive.add_outcomes(level[labelled], ended.success[labelled])
        return legal

    def _legal(self, level: Tensor, source: Tensor) -> Tensor:
        """At which levels ``[m, d]`` an episode can start, ``[m]``.

        Reference levels may be invalid, where nobody can sample valid ones, and so may the levels
        of a user's arm. All others were checked before they were played.
        """
        doubtful = (source == SOURCES.index("reference")) | (source == SOURCES.index("own"))
        legal = ~doubtful
        if doubtful.any():
            legal[doubtful] = self.env.valid(level[doubtful])
        return legal

    def _restart_episodes(self) -> None:
        """Cut the running episodes off, as a time limit would: their states are lost."""
        self.replay.add_final(self.obs, ~self.done)
        self.obs = self.env.current_observations()
        fields = (self.done, self.source, self.episode_return, self.largest_epsilon, self.explored)
        for running in fields:
            running.zero_()
        if self.memory is not None:
            self.memory.zero_()
        if self._trace is not None:
            self._trace.sums.zero_()
        self._ended = self.done.nonzero().squeeze(1)
        if self.level is not None:
            self.level.copy_(self.env.levels)

    def replay_state(self) -> dict[str, Any]:
        """All that is in the replay."""
        return self.replay.state_dict()

    def load_replay_state(self, state: dict[str, Any]) -> None:
        """Restore what ``replay_state`` gave."""
        self.replay.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Running episodes, counters and the environments' states."""
        self.settle()
        return {
            "obs": self.obs,
            "done": self.done,
            "source": self.source,
            "level": self.level,
            "episode_return": self.episode_return,
            "largest_epsilon": self.largest_epsilon,
            "explored": self.explored,
            "memory": self.memory,
            "env_steps": self.env_steps,
            "env": self.env.state_dict(),
            "log": self.log.state_dict(),
            "trace": None if self._trace is None else self._trace.sums,
            "ahead": None if self.ahead is None else self.ahead.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name in ("obs", "done", "source", "episode_return", "largest_epsilon"):
            getattr(self, name).copy_(state[name])
        self.explored.copy_(state["explored"])
        if self.memory is not None:
            self.memory.copy_(state["memory"])
        if self.level is not None:
            self.level.copy_(state["level"])
        if self._trace is not None:
            self._trace.sums.copy_(state["trace"])
        self.env_steps = state["env_steps"]
        self._ended = self.done.nonzero().squeeze(1)
        self.env.load_state_dict(state["env"])
        if not self.env.resumable:
            self._restart_episodes()
        self.log.load_state_dict(state["log"])
        self.ahead_state = state.get("ahead")
