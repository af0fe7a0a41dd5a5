"""The replay buffer: preallocated tensors, one observation per row.

Each environment writes its own column. A row is a step (``obs, action, reward, discount``), and
the row below it holds the next observation, so none is stored twice. An episode of T steps
takes T + 1 rows: the last one holds its final observation, is marked as a *boundary*, and is
never sampled as a start. That is what lets a truncated episode bootstrap from its true final
observation, and an n-step window stop where its episode stops.
"""

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.checks import ConfigError
from lit_crl.dqn import Transitions, n_step

_TORCH_DTYPES = {"uint8": torch.uint8, "float64": torch.float32, "float32": torch.float32}


class GoalEnv(Protocol):
    """What hindsight relabelling asks of an environment; observations hold position and goal."""

    def achieved_goal(self, obs: Tensor) -> Tensor:
        """The goal that the observed state fulfils, ``[..., g]``."""

    def relabel(self, obs: Tensor, goal: Tensor) -> Tensor:
        """The same observation with another goal."""

    def goal_reward(self, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Reward and termination that arriving at ``next_obs`` gives under its own goal."""


class ReplayBuffer:
    """Uniform n-step replay over the steps of ``num_envs`` environments."""

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        space: Box,
        *,
        n_steps: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate the buffer.

        Args:
            capacity: Rows in all; rounded down to a multiple of ``num_envs``.
            num_envs: Environments that write to it.
            space: Observation space of one environment; bytes stay bytes.
            n_steps: Steps that a sampled transition folds.
            device: Where the rows live and batches are made.

        Raises:
            ConfigError: If fewer than ``n_steps + 2`` rows would fall to each environment.
        """
        self.length = capacity // num_envs
        self.num_envs = num_envs
        self.n_steps = n_steps
        if self.length < n_steps + 2:
            raise ConfigError(
                f"data.capacity is {capacity}, too small for {num_envs} environments and "
                f"{n_steps}-step transitions: give at least {(n_steps + 2) * num_envs}"
            )
        rows = self.length * num_envs
        dtype = _TORCH_DTYPES.get(str(space.dtype), torch.float32)
        self.obs = torch.zeros(rows, *space.shape, dtype=dtype, device=device)
        self.action = torch.zeros(rows, dtype=torch.int16, device=device)
        self.reward = torch.zeros(rows, device=device)
        self.discount = torch.zeros(rows, device=device)
        self.boundary = torch.zeros(rows, dtype=torch.bool, device=device)
        self.startable = torch.zeros(rows, dtype=torch.bool, device=device)
        # The next row of each column, and the number of rows it has ever written.
        self.cursor = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._column = torch.arange(num_envs, device=device)

    @property
    def bytes_per_row(self) -> int:
        """Memory that one stored step takes."""
        fields = (self.obs, self.action, self.reward, self.discount, self.boundary, self.startable)
        return sum(field[0].numel() * field.element_size() for field in fields)

    @property
    def num_startable(self) -> int:
        """How many transitions could be sampled now."""
        return int(self.startable.sum())

    def add(self, obs: Tensor, action: Tensor, reward: Tensor, discount: Tensor) -> None:
        """Store one step of every environment, each argument ``[N, ...]``."""
        row = (self.cursor % self.length) * self.num_envs + self._column
        self.obs[row] = obs
        self.action[row] = action.to(torch.int16)
        self.reward[row] = reward
        self.discount[row] = discount
        self.boundary[row] = False
        self._advance(row, self._column)

    def add_final(self, obs: Tensor, done: Tensor) -> None:
        """Store the final observation ``[N, ...]`` of the environments where ``done [N]``."""
        column = self._column[done]
        row = (self.cursor[column] % self.length) * self.num_envs + column
        self.obs[row] = obs[done]
        self.boundary[row] = True
        self._advance(row, column)

    def _advance(self, row: Tensor, column: Tensor) -> None:
        """Count the rows as written, and let the rows whose window is now whole be sampled.

        A window is whole when its column has n more rows, even if its episode ended earlier: the
        last steps of an episode wait for the first of the next.
        """
        self.startable[row] = False
        cursor = self.cursor[column]
        # The window of row t needs the observation n rows below it.
        ripe = ((cursor - self.n_steps) % self.length) * self.num_envs + column
        self.startable[ripe] = ~self.boundary[ripe] & (cursor >= self.n_steps)
        self.cursor[column] = cursor + 1

    def sample(
        self, shape: tuple[int, ...], rng: torch.Generator, goals: "Hindsight | None" = None
    ) -> Transitions:
        """Transitions drawn uniformly with replacement, each field ``[*shape, ...]``.

        Raises:
            RuntimeError: If nothing has been stored yet that could be sampled.
        """
        starts = self.startable.nonzero().squeeze(1)
        if not len(starts):
            raise RuntimeError("the replay buffer is empty: collect steps before sampling")
        batch = int(torch.Size(shape).numel())
        pick = torch.randint(len(starts), (batch,), generator=rng, device=starts.device)
        start = starts.index_select(0, pick)
        transitions = self.gather(start) if goals is None else goals.gather(self, start, rng)
        return Transitions(*(field.view(*shape, *field.shape[1:]) for field in transitions))

    def window(self, start: Tensor) -> Tensor:
        """Flat row numbers of the n + 1 rows from each ``start [B]`` on, ``[B, n + 1]``."""
        offset = torch.arange(self.n_steps + 1, device=start.device) * self.num_envs
        return (start[:, None] + offset) % (self.length * self.num_envs)

    def gather(self, start: Tensor) -> Transitions:
        """The n-step transitions that begin at the flat rows ``start [B]``."""
        window = self.window(start)
        return self.fold(
            window, self.take(self.reward, window[:, :-1]), self.take(self.discount, window[:, :-1])
        )

    def fold(self, window: Tensor, reward: Tensor, discount: Tensor) -> Transitions:
        """Transitions over ``window [B, n + 1]`` with these rewards and discounts ``[B, n]``."""
        boundary = self.take(self.boundary, window[:, :-1])
        folded, weight, span = n_step(reward, discount, boundary)
        end = window.gather(1, span[:, None]).squeeze(1)
        return Transitions(
            self.obs.index_select(0, window[:, 0]),
            self.action.index_select(0, window[:, 0]).long(),
            folded,
            weight,
            self.obs.index_select(0, end),
        )

    @staticmethod
    def take(field: Tensor, rows: Tensor) -> Tensor:
        """``field`` at a table of rows ``[B, n]``; ``index_select`` is the fastest gather."""
        return field.index_select(0, rows.reshape(-1)).view(*rows.shape, *field.shape[1:])

    def empty_copy(self) -> "ReplayBuffer":
        """A buffer of the same sizes in which nothing is stored."""
        twin = copy.copy(self)
        for name in self._STATE:
            setattr(twin, name, torch.zeros_like(getattr(self, name)))
        return twin

    def append(self, other: "ReplayBuffer") -> None:
        """Store everything that ``other``, a buffer of the same sizes, holds; oldest first.

        Each of its columns must end with an episode's final observation.
        """
        held = other.cursor.clamp(max=other.length)
        for age in range(int(held.max()), 0, -1):
            column = self._column[held >= age]
            source = ((other.cursor[column] - age) % other.length) * self.num_envs + column
            row = (self.cursor[column] % self.length) * self.num_envs + column
            for name in ("obs", "action", "reward", "discount", "boundary"):
                getattr(self, name)[row] = getattr(other, name)[source]
            self._advance(row, column)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that was stored, as tensors."""
        steps = torch.tensor(self.n_steps)
        return {"n_steps": steps} | {name: getattr(self, name) for name in self._STATE}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave.

        Raises:
            ValueError: If it comes from a buffer of another shape.
        """
        if int(state["n_steps"]) != self.n_steps:
            raise ValueError(
                f"the saved replay folds {int(state['n_steps'])} steps, this run {self.n_steps}: "
                "resume with the data.n_steps it was saved with"
            )
        for name in self._STATE:
            mine, theirs = getattr(self, name), state[name]
            if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
                raise ValueError(
                    f"the saved replay's {name} has shape {tuple(theirs.shape)}, this run's "
                    f"{tuple(mine.shape)}: resume with the data.capacity, data.num_envs and "
                    "data.env it was saved with"
                )
        for name in self._STATE:
            getattr(self, name).copy_(state[name])

    _STATE = ("obs", "action", "reward", "discount", "boundary", "startable", "cursor")


class Hindsight:
    """Hindsight relabelling with *future* goals, Andrychowicz et al. 2017 (HER), §4.5.

    A share of the sampled transitions gets the goal that its own episode reached some steps
    later, with reward and termination computed anew for every step of the n-step window.
    """

    @classmethod
    def of(cls, env: Any, share: float, gamma: float) -> "Hindsight | None":
        """The relabelling of an environment's goals; None for a share of 0.

        Raises:
            ConfigError: If the environment has no goals.
        """
        if share == 0:
            return None
        if not hasattr(env, "achieved_goal") or env.max_episode_steps is None:
            raise ConfigError(
                f"data.hindsight is {share}, but {type(env).__name__} has no goals to relabel: "
                "set it to 0"
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
        obs = replay.take(replay.obs, window)
        goal = self.env.achieved_goal(self._future(replay, start, rng))
        relabelled = self.env.relabel(obs, goal[:, None].expand(-1, window.shape[1], -1))
        reward, terminated = self.env.goal_reward(relabelled[:, 1:])
        discount = torch.where(terminated, 0.0, self.gamma)
        chosen = torch.rand(len(start), generator=rng, device=start.device) < self.share
        kept_reward = replay.take(replay.reward, window[:, :-1])
        kept_discount = replay.take(replay.discount, window[:, :-1])
        transitions = replay.fold(
            window,
            torch.where(chosen[:, None], reward, kept_reward),
            torch.where(chosen[:, None], discount, kept_discount),
        )
        pick: Callable[[Tensor], Tensor] = lambda own: torch.where(  # noqa: E731
            chosen[:, None], self.env.relabel(own, goal), own
        )
        return transitions._replace(obs=pick(transitions.obs), next_obs=pick(transitions.next_obs))

    def _future(self, replay: ReplayBuffer, start: Tensor, rng: torch.Generator) -> Tensor:
        """An observation drawn uniformly from those that followed ``start`` in its episode."""
        steps = torch.arange(1, self.horizon + 1, device=start.device)
        rows = (start[:, None] + steps * replay.num_envs) % len(replay.boundary)
        column, written = start % replay.num_envs, replay.cursor
        age = (written[column] - 1 - start // replay.num_envs) % replay.length
        ends = replay.take(replay.boundary, rows).long().cumsum(dim=1)
        # Up to and including the first boundary, and not past the newest row.
        remaining = ((ends == 0).sum(dim=1) + 1).minimum(age).clamp(min=1)
        drawn = torch.rand(len(start), generator=rng, device=start.device) * remaining
        row = (start + (drawn.long() + 1) * replay.num_envs) % len(replay.boundary)
        return replay.obs.index_select(0, row)
