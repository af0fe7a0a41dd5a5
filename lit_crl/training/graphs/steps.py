"""Steps of all environments as one graph: reset, act, step, store.

Nothing in it depends on how many episodes end: masks say which do, and new levels come from a table
that was filled before (``levels_ahead``). What is known of finished episodes stays on the GPU until
somebody asks for it, a cycle later at most.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.envs.batched import has_pure_reset, has_pure_step
from lit_crl.envs.interface import check_levels
from lit_crl.training.experience.levels_ahead import LevelsAhead
from lit_crl.training.experience.rollout import (
    VISIT_EVERY,
    Actor,
    Finished,
    LevelSource,
    Rollout,
)
from lit_crl.training.graphs.capture import Capture, Rows

#: What a rollout and its environments replace at every step, and a graph changes in place.
OF_ROLLOUT = ("obs", "done", "source", "episode_return", "largest_epsilon", "explored")
OF_ENVS = ("state", "levels", "elapsed")


class Seen(NamedTuple):
    """What steps say about episodes, ``[steps, N, ...]``, and levels that were visited."""

    #: ``[visits, N, d]``.
    visited: Tensor
    done: Tensor
    level: Tensor
    returns: Tensor
    success: Tensor
    source: Tensor
    epsilon: Tensor
    #: Whether an explorer acted in the episode.
    explored: Tensor
    #: Where episodes began, and with which observations.
    began: Tensor
    obs: Tensor


class Steps(Protocol):
    """The steps of all environments between two batches."""

    def __call__(self) -> None:
        """Take them."""

    def new_cycle(self) -> None:
        """The levels that were drawn before are old from now on."""

    def settle(self) -> None:
        """Take note of all that happened in them."""


class OneByOne:
    """Steps that are taken, and noted, one after another."""

    def __init__(self, step: Callable[[], None], steps: int) -> None:
        """Take as many ``steps`` of all environments."""
        self._step, self._steps = step, steps

    def __call__(self) -> None:
        """See ``Steps``."""
        for _ in range(self._steps):
            self._step()

    def new_cycle(self) -> None:
        """Levels are drawn when they are needed."""

    def settle(self) -> None:
        """All is noted."""


class GraphedSteps:
    """Takes the steps of a batch with one launch."""

    def __init__(
        self,
        rollout: Rollout,
        act: Actor,
        epsilon: Callable[[], Tensor],
        draw: LevelSource,
        give_back: Callable[[Tensor], None],
        networks: Sequence[nn.Module],
        generators: Sequence[Generator],
        capture: Capture,
        clock: Stopwatch,
    ) -> None:
        """Record nothing yet.

        Args:
            rollout: Its environments reset and step as ``BatchedEnv`` does.
            act: Acts.
            epsilon: Tells ε of every environment at each of the next steps, ``[steps, N]``, on the
                CPU.
            draw: Draws levels.
            give_back: Is told the sources ``[n]`` of levels that were drawn and not used.
            networks: What ``act`` acts with.
            generators: What ``act`` draws with.
            capture: Records.
            clock: Times the recording.
        """
        self._rollout, self._env, self._act = rollout, rollout.env, act
        self._next_epsilon, self._draw, self._give_back = epsilon, draw, give_back
        self._networks, self._generators = networks, generators
        self._capture, self._clock = capture, clock
        env = self._env
        before = rollout.ahead_state or (rollout.ahead.state_dict() if rollout.ahead else None)
        self._ahead = LevelsAhead(env.num_envs, len(env.level_low), env.device)
        if before is not None:
            self._ahead.load_state_dict(before)
        rollout.ahead, rollout.ahead_state, rollout.settle = self._ahead, None, self.settle
        # In places of their own: what the rollout has there now may be somebody else's, too.
        self._held = {(rollout, name): getattr(rollout, name).clone() for name in OF_ROLLOUT}
        self._held |= {(env, name): getattr(env, name).clone() for name in OF_ENVS}
        self._given = epsilon()
        self._epsilon = torch.zeros(self._given.shape, device=env.device).copy_(self._given)
        self._graphs: dict[tuple[int, ...], Callable[[], Seen]] = {}
        self._seen: list[Seen] = []

    def new_cycle(self) -> None:
        """See ``Steps``; waits for the GPU."""
        self._give_back(self._ahead.unused())
        levels, source = self._draw(self._ahead.wanted)
        env = self._env
        anywhere = torch.ones(len(levels), dtype=torch.bool, device=levels.device)
        check_levels(levels, env.level_low, env.level_high, anywhere)
        self._ahead.replace(levels, source)

    def __call__(self) -> None:
        """See ``Steps``."""
        rollout = self._rollout
        if self._ahead.is_empty:  # the run goes on from a checkpoint of a run without graphs
            self.new_cycle()
        self._bind()
        self._explore(self._next_epsilon())
        steps, n = self._epsilon.shape
        # States are visited now and then: at which steps of a launch depends on where it begins.
        begin = rollout.env_steps // n % VISIT_EVERY if rollout.archive is not None else 0
        # Who puts other tensors in the place of weights gets a graph that acts with those.
        key = (begin, *(weight.data_ptr() for weight in self._weights()))
        if key not in self._graphs:
            with self._clock("compile"):
                work = partial(self._steps, begin)
                self._graphs[key] = self._capture(
                    work, self._changed(), self._generators, "steps of the environments"
                )
        seen = self._graphs[key]()
        self._seen.append(Seen(*(field.clone() for field in seen)))
        rollout.env_steps += steps * n

    def _weights(self) -> Iterator[Tensor]:
        for network in self._networks:
            yield from network.parameters()
            yield from network.buffers()

    def _bind(self) -> None:
        """See that the rollout has its numbers where the graph has them; they may be new ones."""
        for (owner, name), mine in self._held.items():
            if (theirs := getattr(owner, name)) is not mine:
                mine.copy_(theirs)
                setattr(owner, name, mine)

    def _explore(self, epsilon: Tensor) -> None:
        """Hand over ε, which is mostly the same as before."""
        if torch.equal(epsilon, self._given):
            return
        self._given = epsilon
        if self._epsilon.is_cuda:  # from pageable RAM the program would wait for the copy
            epsilon = epsilon.pin_memory()
        self._epsilon.copy_(epsilon, non_blocking=True)

    def _changed(self) -> list[Tensor | Rows]:
        """All that steps change."""
        level = [] if self._rollout.level is None else [self._rollout.level]
        replay, steps = self._rollout.replay, len(self._epsilon)
        # A step writes a row, and another one where an episode ends.
        rows, fields = replay.next_rows(2 * steps), replay.row_fields()
        return [
            *self._held.values(),
            *level,
            *self._ahead.changing(),
            *replay.counters(),
            *(Rows(field, rows) for field in fields),
        ]

    @torch.no_grad()
    def _steps(self, begin: int) -> Seen:
        """All steps of a launch; states are visited at every fourth, counted from ``-begin``."""
        steps, visited, has_archive = [], [], self._rollout.archive is not None
        for i, epsilon in enumerate(self._epsilon.unbind()):
            steps.append(self._step(epsilon))
            if has_archive and (begin + i + 1) % VISIT_EVERY == 0:
                visited.append(self._env.current_levels())
        levels = torch.stack(visited) if visited else self._env.levels[None, :0]
        return Seen(levels, *map(torch.stack, zip(*steps, strict=True)))

    def _step(self, epsilon: Tensor) -> tuple[Tensor, ...]:
        """One step as in ``Rollout.step``; gives ``Seen`` but for visited levels, ``[N, ...]``."""
        rollout, env = self._rollout, self._env
        began = rollout.done.clone()
        self._reset(began)
        first_obs = (rollout.obs if rollout.tell_starts is not None else rollout.obs[:0]).clone()
        rollout.largest_epsilon.copy_(torch.maximum(rollout.largest_epsilon, epsilon))
        rollout.explored.logical_or_(rollout.explores)
        action = self._act(rollout.obs, epsilon)
        advanced = env.advanced(env.state, env.levels, env.elapsed, action)
        state, elapsed, next_obs, reward, terminated, truncated, success = advanced
        rollout.replay.add(rollout.obs, action, reward, rollout.gamma * (~terminated))
        env.state.copy_(state)
        env.elapsed.copy_(elapsed)
        rollout.obs.copy_(next_obs)
        rollout.done.copy_(terminated | truncated)
        rollout.episode_return += reward
        rollout.replay.add_final_where(rollout.obs, rollout.done)
        level = env.levels if rollout.level is None else rollout.level
        numbers = (rollout.done, level, rollout.episode_return, success, rollout.source)
        played = (rollout.largest_epsilon, rollout.explored)
        seen = (field.clone() for field in (*numbers, *played))
        return *seen, began, first_obs

    def _reset(self, began: Tensor) -> None:
        """Begin new episodes where ``began [N]``."""
        rollout, env, rows = self._rollout, self._env, began[:, None]
        levels, source = self._ahead.take(began)
        if rollout.level is not None:
            rollout.level.copy_(torch.where(rows, levels, rollout.level))
        legal = levels.clamp(env.level_low, env.level_high)
        env.levels.copy_(torch.where(rows, legal, env.levels))
        env.state.copy_(torch.where(rows, env.initial_state(env.levels), env.state))
        env.elapsed.masked_fill_(began, 0)
        obs = env.current_observations()
        fresh = began.view(-1, *[1] * (obs.ndim - 1))
        rollout.obs.copy_(torch.where(fresh, obs, rollout.obs))
        rollout.source.copy_(torch.where(began, source, rollout.source))
        rollout.episode_return.masked_fill_(began, 0)
        rollout.largest_epsilon.masked_fill_(began, 0)
        rollout.explored.masked_fill_(began, False)

    def settle(self) -> None:
        """Take note of what happened since the last time; waits for the GPU."""
        if not self._seen:
            return
        seen, self._seen = Seen(*map(torch.cat, zip(*self._seen, strict=True))), []
        rollout, env = self._rollout, self._env
        if rollout.tell_starts is not None and seen.began.any():
            rollout.tell_starts(seen.obs[seen.began])
        if seen.done.any():
            known, ours = torch.ones_like(seen.done), ~seen.explored
            fields = (seen.returns, seen.success, known, seen.source, seen.epsilon, ours)
            level = None if rollout.archive is None else seen.level[seen.done]
            rollout.note(Finished(level, *(field[seen.done] for field in fields)))
        if rollout.archive is not None and env.tracks_visited:
            for visited in seen.visited:
                rollout.archive.add_visited(visited[env.valid(visited)])


def can_be_graphed(rollout: Rollout) -> bool:
    """Whether nobody must be told of each step, or of each episode as it ends."""
    is_told = rollout.record is not None or rollout.tell_step is not None
    replay = rollout.replay
    is_plain = replay.priorities is None and not replay.is_on_trial and rollout.memory is None
    return has_pure_step(rollout.env) and has_pure_reset(rollout.env) and is_plain and not is_told
