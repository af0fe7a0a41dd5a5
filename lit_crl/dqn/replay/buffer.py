"""The replay buffer: preallocated tensors, one observation per row.

Each environment writes one column. A row is a step (``obs, action, reward, discount``), and the row
below it holds the next observation, so none is stored twice. An episode of T steps takes T + 1
rows: the last one holds its final observation, is marked as a *boundary*, and no transition starts
there. So a truncated episode bootstraps from its true final observation, and an n-step window ends
where its episode ends.

Columns are rings: a full column overwrites its oldest row. Two kinds of transitions must then not
be sampled. The newest n rows of a column have to wait, because the rows below them are still the
oldest ones. And where observations are stacked frames, a row holds only the newest frame, so the
rows below an overwritten one have lost a frame of their stacks (``frames``).
"""

from typing import Protocol

import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.equations import Transitions, n_step
from lit_crl.dqn.possible_returns import joined, no_rewards, reward_range
from lit_crl.dqn.replay import frames, saved
from lit_crl.dqn.replay.fields import new_fields
from lit_crl.dqn.replay.priorities import Priorities, Prioritized, importance_weight
from lit_crl.dqn.replay.sampling import Shape, draw_by_rank, draw_uniform


class Relabelling(Protocol):
    """Changes transitions as they are drawn, see ``hindsight``."""

    def gather(self, replay: "ReplayBuffer", start: Tensor, rng: torch.Generator) -> Transitions:
        """The transitions that begin at the flat rows ``start [B]``, some of them changed."""


class ReplayBuffer:
    """Uniform or prioritized n-step replay over the steps of ``num_envs`` environments."""

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        space: Box,
        *,
        n_steps: int = 1,
        num_actions: int | None = None,
        frame_stack: int = 1,
        priority_exponent: float = 0.0,
        memory_size: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate the buffer.

        Args:
            capacity: Number of rows; rounded down to a multiple of ``num_envs``.
            num_envs: Environments that write to it.
            space: Observation space of one environment; bytes stay bytes.
            n_steps: Steps that a sampled transition folds.
            num_actions: Number of actions, which decides how they are stored; None: 64 bits.
            frame_stack: Frames along the first axis of an observation, the newest last.
            priority_exponent: α of prioritized replay; 0: there are no priorities.
            memory_size: Numbers that the policy remembers of an episode, which each row then keeps
                as they were before its observation; 0: it has no memory.
            device: Where the rows are stored and batches are made.

        Raises:
            ConfigError: If an environment would have fewer than ``n_steps + frame_stack + 1`` rows,
                or if the first axis does not hold ``frame_stack`` frames.
        """
        self.length = capacity // num_envs
        self.num_envs = num_envs
        self.n_steps, self.frame_stack = n_steps, frame_stack
        least = n_steps + frame_stack + 1
        if self.length < least:
            raise ConfigError(
                f"data.replay.capacity is {capacity}, too small for {num_envs} environments and "
                f"{n_steps}-step transitions: give at least {least * num_envs}"
            )
        rows = self.length * num_envs
        fields = new_fields(rows, space, num_actions, frame_stack, memory_size, device)
        self.obs, self.action, self.reward, self.discount, self.boundary = fields[:5]
        self.depth, self.memory = fields.depth, fields.memory
        self._row_fields = fields.used()
        # How many rows each column has ever written; modulo the length, this is its next row.
        self.cursor = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._column = torch.arange(num_envs, device=device)
        #: The range of the rewards that ``see_rewards`` has seen.
        self.rewards = no_rewards(device)
        self._has_seen_rewards = False
        self._unchecked = frames.CHECKED_STEPS
        plain = priority_exponent == 0
        self._startable = torch.zeros(rows * plain, dtype=torch.bool, device=device)
        self.priorities = None if plain else Priorities(rows, priority_exponent, device)

    @property
    def bytes(self) -> int:
        """How many bytes all rows take, with what finds them."""
        of_priorities = {} if self.priorities is None else vars(self.priorities)
        held = [*vars(self).values(), *of_priorities.values()]
        return sum(each.nbytes for each in held if isinstance(each, Tensor))

    @property
    def startable(self) -> Tensor:
        """Where transitions can start, ``[rows]``; with priorities, where they are above 0."""
        if self.priorities is None:
            return self._startable
        return self.priorities.values.view(-1)[: len(self.boundary)] > 0

    def see_rewards(self, steps: int) -> Tensor:
        """The range ``[2, 2]`` of all rewards since the first time that it was asked.

        Args:
            steps: Most steps of each environment since it was last asked. Looking at no others
                makes the time that it takes independent of the capacity.
        """
        # A step writes a row, and if its episode ends, another one. The first time, see all.
        newest = min(2 * steps, self.length) if self._has_seen_rewards else self.length
        age = torch.arange(newest, device=self.cursor.device)[:, None]
        row = (self.cursor - 1 - age) % self.length * self.num_envs + self._column
        reward, discount, boundary = (
            self.take(field, row) for field in (self.reward, self.discount, self.boundary)
        )
        seen = reward_range(reward, discount == 0, (age < self.cursor) & ~boundary)
        self.rewards.copy_(joined(self.rewards, seen))
        self._has_seen_rewards = True
        return self.rewards.clone()

    @property
    def num_startable(self) -> int:
        """How many transitions could be sampled now."""
        return int(self.startable.sum())

    def add(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        discount: Tensor,
        memory: Tensor | None = None,
    ) -> None:
        """Store one step of every environment, each argument ``[N, ...]``.

        ``memory`` is what the policy that acted remembered before ``obs``, if it has a memory.

        Raises:
            ConfigError: If ``obs`` is not made of the last frames of the running episodes.
        """
        row = self._next(self._column, self.cursor)
        self._put_observations(row, self.cursor, obs)
        # index_copy_ is the fastest way to write rows.
        self.action.index_copy_(0, row, action.to(self.action.dtype))
        self.reward.index_copy_(0, row, reward)
        self.discount.index_copy_(0, row, discount)
        self.boundary.index_fill_(0, row, False)
        if memory is not None:
            self.memory.index_copy_(0, row, memory)
        self._advance(row, self.cursor)
        self.cursor += 1
        if self.is_on_trial:
            self._unchecked -= 1
            given = obs.to(self.obs.dtype)
            frames.check_rebuilt(given, self.observations(row), self.frame_stack)

    def add_final(self, obs: Tensor, done: Tensor) -> None:
        """Store the final observation ``[N, ...]`` of the environments where ``done [N]``."""
        column = done.nonzero().squeeze(1)
        cursor = self.cursor.index_select(0, column)
        row = self._next(column, cursor)
        self._write_final(row, cursor, obs.index_select(0, column))
        self.cursor += done

    def add_final_where(self, obs: Tensor, done: Tensor) -> None:
        """Store what ``add_final`` does, in steps whose shapes do not depend on ``done [N]``.

        A graph needs that. Without priorities only: all columns are written, and then those whose
        episodes go on are put back.
        """
        row = self._next(self._column, self.cursor)
        fields = self.row_fields()
        before = [field.index_select(0, row) for field in fields]
        startable = self._startable.view(-1, self.num_envs).clone()
        self._write_final(row, self.cursor, obs)
        for field, old in zip(fields, before, strict=True):
            new = field.index_select(0, row)
            written = done.view(-1, *[1] * (field.ndim - 1))
            field.index_copy_(0, row, torch.where(written, new, old))
        here = self._startable.view(-1, self.num_envs)
        here.copy_(torch.where(done, here, startable))
        self.cursor += done

    def _write_final(self, row: Tensor, cursor: Tensor, obs: Tensor) -> None:
        """Write final observations ``[m, ...]`` at ``row [m]``."""
        self._put_observations(row, cursor, obs)
        self.boundary.index_fill_(0, row, True)
        # An n-step sum multiplies this row's reward by 0. An old infinite one would make it NaN.
        self.reward.index_fill_(0, row, 0)
        # What the policy remembers here matters to no step: the next row begins an episode.
        self._advance(row, cursor)

    def _next(self, column: Tensor, cursor: Tensor) -> Tensor:
        """The flat row that each ``column [m]`` writes next, given its ``cursor [m]``."""
        return torch.add(column, cursor % self.length, alpha=self.num_envs)

    def _put_observations(self, row: Tensor, cursor: Tensor, obs: Tensor) -> None:
        """Store ``obs [m, ...]`` at ``row [m]``, of stacked frames only the newest."""
        if self.frame_stack > 1:
            obs = obs[:, -self.obs.shape[1] :]
            above = self.shift(row, -1)
            begins = self.boundary.index_select(0, above) | (cursor == 0)
            depth = self.depth.index_select(0, above)
            self.depth.index_copy_(0, row, frames.next_depth(depth, begins, self.frame_stack))
        self.obs.index_copy_(0, row, obs.to(self.obs.dtype))

    def _advance(self, row: Tensor, cursor: Tensor) -> None:
        """Let the rows be sampled whose window is complete now that ``row [m]`` was written.

        A window always waits for n more rows, even if its episode ended earlier. A shorter window
        would be ready sooner, but then one write could complete several windows. So exactly one row
        of a column becomes ready with each row written, and all columns are updated at once.
        """
        spoilt = self._spoilt(row)
        # The window of row t needs the observation n rows below it.
        complete = self.shift(row, -self.n_steps)
        # In the first n rows ``complete`` wraps around to the end of the ring, where nothing is.
        ready = (cursor >= self.n_steps) & ~self.boundary.index_select(0, complete)
        if self.priorities is None:
            self._startable.index_fill_(0, spoilt, False)
            self._startable.index_copy_(0, complete, ready)
        else:
            self.priorities.insert(complete, ready, spoilt)

    def _spoilt(self, row: Tensor) -> Tensor:
        """The rows at which no transition can start after ``row [m]`` was overwritten.

        A transition that starts at ``row`` itself waits for its window. No windows that start above
        it need care: those rows are the newest of the ring, and are waiting anyway.
        """
        if self.frame_stack == 1:
            return row
        below = self.shift(row[:, None], torch.arange(self.frame_stack, device=row.device))
        return frames.torn_stacks(row, below, self.take(self.depth, below))

    def sample(
        self, shape: Shape, rng: torch.Generator, goals: Relabelling | None = None
    ) -> Transitions:
        """Transitions drawn uniformly with replacement, each field ``[*shape, ...]``.

        Raises:
            RuntimeError: If nothing has been stored yet that could be sampled. On a GPU it is the
                next operation that waits for the device that fails.
        """
        return self._transitions(self._draw(shape, rng), shape, rng, goals)

    def sample_steps(self, shape: Shape, rng: torch.Generator) -> Transitions:
        """The same for transitions of a single step, whatever n is.

        Raises:
            RuntimeError: As ``sample`` does.
        """
        row = self._draw(shape, rng).view(shape)
        return Transitions(
            self.observations(row),
            self.take(self.action, row).long(),
            self.take(self.reward, row),
            self.take(self.discount, row),
            self.observations(self.shift(row, 1)),
        )

    def sample_observations(self, n: int, rng: torch.Generator) -> Tensor:
        """The first observations ``[n, ...]`` of the transitions that ``sample`` would draw.

        Raises:
            RuntimeError: As ``sample`` does.
        """
        return self.observations(self._draw((n,), rng))

    def _draw(self, shape: Shape, rng: torch.Generator) -> Tensor:
        """Flat rows at which transitions start, drawn uniformly, ``[prod(shape)]``."""
        draw = self.draw_by_rank if self.startable.is_cuda else self.draw_by_trial
        return draw(torch.Size(shape).numel(), rng)

    def draw_by_trial(self, n: int, rng: torch.Generator) -> Tensor:
        """``n`` rows at which transitions start, in a time that depends on ``n`` alone."""
        # Until the ring is full, most of its rows are empty: drawing from them would waste draws.
        written = int(self.cursor.max().clamp(1, self.length)) * self.num_envs
        return draw_uniform(self.startable[:written], n, rng)

    def draw_by_rank(self, n: int, rng: torch.Generator) -> Tensor:
        """The same without waiting for a GPU."""
        return draw_by_rank(self.startable, n, rng)

    def sample_prioritized(
        self, shape: Shape, rng: torch.Generator, beta: float, goals: Relabelling | None = None
    ) -> Prioritized:
        """Transitions drawn by priority, with importance weights to the power of ``beta``.

        The weights of all minibatches are divided by their common maximum, so that a transition has
        the same weight in each of them.

        Raises:
            RuntimeError: If nothing has been stored yet that could be sampled.
        """
        assert self.priorities is not None, "made with a priority_exponent of 0"
        row, priority = self.priorities.draw(shape, rng)
        transitions = self._transitions(row.reshape(-1), shape, rng, goals)
        return Prioritized(transitions, row, importance_weight(priority, beta))

    def _transitions(
        self, start: Tensor, shape: Shape, rng: torch.Generator, goals: Relabelling | None
    ) -> Transitions:
        found = self.gather(start) if goals is None else goals.gather(self, start, rng)
        return Transitions(*(field.view(*shape, *field.shape[1:]) for field in found))

    def shift(self, rows: Tensor, steps: Tensor | int) -> Tensor:
        """The flat rows ``steps`` below ``rows`` in the rings; above, if ``steps`` is negative."""
        return (rows + steps * self.num_envs) % (self.length * self.num_envs)

    def window(self, start: Tensor) -> Tensor:
        """Flat row numbers of the n + 1 rows from each ``start [B]`` on, ``[B, n + 1]``."""
        return self.shift(start[:, None], torch.arange(self.n_steps + 1, device=start.device))

    def gather(self, start: Tensor) -> Transitions:
        """The n-step transitions that begin at the flat rows ``start [B]``."""
        window = self.window(start)
        reward, discount = (self.take(one, window[:, :-1]) for one in (self.reward, self.discount))
        return self.fold(window, reward, discount)

    def fold(self, window: Tensor, reward: Tensor, discount: Tensor) -> Transitions:
        """Transitions over ``window [B, n + 1]``; rewards and discounts are ``[B, n]``."""
        boundary = self.take(self.boundary, window[:, :-1])
        folded, weight, span = n_step(reward, discount, boundary)
        end = window.gather(1, span[:, None]).squeeze(1)
        obs, next_obs = self.observations(window[:, 0]), self.observations(end)
        action = self.action.index_select(0, window[:, 0]).long()
        return Transitions(obs, action, folded, weight, next_obs)

    def observations(self, rows: Tensor) -> Tensor:
        """The observations at flat ``rows [...]``, with full stacks, ``[..., *space.shape]``."""
        if self.frame_stack == 1:
            return self.take(self.obs, rows)
        back = frames.frames_back(self.take(self.depth, rows), self.frame_stack)
        stack = self.take(self.obs, self.shift(rows[..., None], -back))
        return stack.flatten(rows.ndim, rows.ndim + 1)

    @staticmethod
    def take(field: Tensor, rows: Tensor) -> Tensor:
        """``field`` at a table of rows ``[...]``; ``index_select`` is the fastest gather."""
        return field.index_select(0, rows.reshape(-1)).view(*rows.shape, *field.shape[1:])

    def next_rows(self, steps: int) -> Tensor:
        """The flat rows that all columns write next, ``[steps * N]``; fewer if they are all."""
        ahead = torch.arange(min(steps, self.length), device=self.cursor.device)
        return self._next(self._column, self.cursor + ahead[:, None]).flatten()

    def row_fields(self) -> list[Tensor]:
        """What is stored in rows, ``[rows, ...]`` each."""
        return [getattr(self, name) for name in self._row_fields]

    def counters(self) -> list[Tensor]:
        """What says which rows were written, and at which of them transitions can start."""
        return [self.cursor, self._startable]

    @property
    def is_on_trial(self) -> bool:
        """Whether observations are still compared with the ones rebuilt from stored frames."""
        return self.frame_stack > 1 and self._unchecked > 0

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that changes in use."""
        tensors = {name: getattr(self, name) for name in (*self._row_fields, "cursor", "rewards")}
        if self.priorities is None:
            return tensors | {"startable": self._startable}
        return tensors | self.priorities.tensors()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to continue, as tensors, without the rows that were never written."""
        rows = min(int(self.cursor.max()), self.length) * self.num_envs
        sizes = {"n_steps": torch.tensor(self.n_steps), "length": torch.tensor(self.length)}
        return sizes | saved.without_empty_rows(self._tensors(), self._row_fields, rows)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict()``, on the device of this buffer.

        Raises:
            ValueError: If it comes from a buffer of another shape.
        """
        saved.check_sizes(state, self.n_steps, self.length, self.num_envs)
        saved.put_back(self._tensors(), state)
