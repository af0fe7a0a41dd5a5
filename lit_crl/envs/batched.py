"""The base class of batched torch environments.

A task is five tensor functions, for instance its dynamics. ``BatchedEnv`` adds what all tasks
share: levels at reset, the episode clock, the random stream and checkpoints. Nothing here loops
over environments: a step takes the same few tensor operations for one of them as for ten thousand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from lit_crl.envs.images import ImageLayout, layout_in, space_of
from lit_crl.envs.interface import check_levels, check_mask, draw_box, in_bounds, uniform_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class BatchedEnv(VectorEnv[Tensor, Tensor, Tensor], ABC):
    """Base of the batched torch environments: levels, clock, random stream and checkpoints.

    All tensors live on ``device``. The random stream that draws target levels starts from a
    fixed seed; ``reset(seed=...)`` starts another one. To step an env whose episode has ended is
    undefined, as in Gymnasium: reset it first.

    Subclasses set the class (or instance) attributes below and define ``initial_state``,
    ``dynamics``, ``observe``, ``visited_level`` and ``target_levels``. Tasks with images also set
    ``image_layout``.

    Attributes:
        state: Physical state [N, s], float32.
        levels: Level [N, d] at which each running episode started, in env units.
        elapsed: Env steps [N] of each running episode, int64.
        rng: The environment's own random stream.
    """

    single_observation_space: Box
    single_action_space: Discrete[Any]
    level_space: Box
    level_names: tuple[str, ...]
    level_plane: tuple[int, int] = (0, 1)
    level_shape: tuple[int, int, int] | None = None
    image_layout: ImageLayout | None
    max_episode_steps: int
    gymnasium_id: str | None = None
    tracks_visited: bool = True
    resumable: bool = True

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        """Build ``num_envs`` environments, each at a target level.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.

        Raises:
            ValueError: If ``num_envs`` or the task's ``max_episode_steps`` is not positive, or
                the task has no ``image_layout`` although its observations look like images.
        """
        for name, number in (("num_envs", num_envs), ("max_episode_steps", self.max_episode_steps)):
            if number < 1:
                raise ValueError(f"{name} is {number}, but must be at least 1.")
        self.num_envs = num_envs
        self.device = torch.device(device)
        # The caller resets, because it chooses the level of each new episode.
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = space_of(self)
        self.image_layout = layout_in(self.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.level_low = torch.as_tensor(self.level_space.low, device=self.device)
        self.level_high = torch.as_tensor(self.level_space.high, device=self.device)
        self.rng = torch.Generator(self.device)
        # These first episodes are drawn from a stream of their own, so that ``rng`` is untouched.
        self.levels = self.target_levels(num_envs, torch.Generator(self.device))
        self.state = self.initial_state(self.levels)
        self.elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    @abstractmethod
    def initial_state(self, levels: Tensor) -> Tensor:
        """Return the states [n, s] in which episodes at ``levels`` [n, d] start."""

    @abstractmethod
    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return next states [N, s], rewards [N] and terminated [N], without side effects."""

    @abstractmethod
    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return fresh observations [n, ...] of states [n, s] at levels [n, d]."""

    @abstractmethod
    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return the levels [n, d] of being in ``state`` [n, s] in an episode at ``levels``."""

    @abstractmethod
    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] levels from the task's own reset distribution (``rng`` on any device)."""

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] levels uniformly from the level box (``rng`` on any device)."""
        return uniform_levels(n, self.level_low, self.level_high, rng)

    def heldout(self) -> dict[str, Tensor]:
        """Return sets of fixed levels [m, d] by name; by default there are none."""
        return {}

    def in_bounds(self, levels: Tensor) -> Tensor:
        """Mask [n] of finite levels inside the level box, up to float rounding."""
        return in_bounds(levels, self.level_low, self.level_high)

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the levels [n, d] at which an episode can start."""
        return self.in_bounds(levels)

    @staticmethod
    def success(terminated: Tensor, truncated: Tensor) -> Tensor:
        """Whether episodes that end with this step are won; by default, if they terminated."""
        return terminated

    def current_levels(self) -> Tensor:
        """Return the level [N, d] of each env's present state; it may be out of bounds."""
        return self.visited_level(self.state, self.levels)

    def current_observations(self) -> Tensor:
        """Return the observations [N, ...] of the envs' present states."""
        return self.observe(self.state, self.levels)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: Restarts the environment's random stream.
            options: ``"levels"``: [N, d] levels to start at, in env units (absent: target
                levels); ``"reset_mask"``: bool [N], the envs to reset (absent: all). Rows of
                ``"levels"`` outside the mask are ignored.

        Returns:
            Observations [N, ...] of all envs, and an empty dict.

        Raises:
            ValueError: If an option is unknown or misshapen, or a level is out of bounds.
        """
        if seed is not None:
            self.rng.manual_seed(seed)
        options = options or {}
        if unknown := options.keys() - {"levels", "reset_mask"}:
            raise ValueError(
                f"options has the unknown key {min(unknown)!r}; use 'levels' and 'reset_mask'."
            )
        mask = check_mask(options.get("reset_mask"), self.num_envs, self.device)
        levels = options.get("levels")
        if levels is None:
            levels = self.target_levels(self.num_envs, self.rng)
        else:
            levels = check_levels(levels, self.level_low, self.level_high, mask)
        rows = mask.unsqueeze(-1)
        self.levels = torch.where(rows, levels, self.levels)
        self.state = torch.where(rows, self.initial_state(self.levels), self.state)
        self.elapsed = self.elapsed.masked_fill(mask, 0)
        return self.current_observations(), {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Advance every env by one env step.

        Args:
            actions: Actions [N], int64, numbered from 0. Their range is not checked, because
                an accelerator would have to wait for that.

        Returns:
            Observations [N, ...], rewards [N] float32, terminated [N], truncated [N] (true at
            the time limit even if terminated, as in Gymnasium's ``TimeLimit``), and
            ``{"success": bool [N]}``, which counts where an episode ends.

        Raises:
            ValueError: If ``actions`` is not of shape [N].
        """
        if actions.shape != (self.num_envs,):
            raise ValueError(
                f"actions has shape {tuple(actions.shape)}, but one action for each of the "
                f"{self.num_envs} envs is needed, shape ({self.num_envs},)."
            )
        return self.take(self.advanced(self.state, self.levels, self.elapsed, actions))

    def advanced(
        self, state: Tensor, levels: Tensor, elapsed: Tensor, actions: Tensor
    ) -> tuple[Tensor, ...]:
        """Compute one step of any number of envs, without side effects.

        Returns:
            Next states and clocks, observations, rewards, terminated, truncated, success.
        """
        state, reward, terminated = self.dynamics(state, levels, actions)
        elapsed = elapsed + 1
        truncated = elapsed >= self.max_episode_steps
        success = self.success(terminated, truncated)
        return state, elapsed, self.observe(state, levels), reward, terminated, truncated, success

    def take(
        self, advanced: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Move the envs to the states that ``advanced`` computed, and return what ``step`` does."""
        # The state is replaced, never written in place: tensors handed out before must not change.
        self.state, self.elapsed, obs, reward, terminated, truncated, success = advanced
        return obs, reward, terminated, truncated, {"success": success}

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all that is needed to continue exactly."""
        return {
            "state": self.state.clone(),
            "levels": self.levels.clone(),
            "elapsed": self.elapsed.clone(),
            "rng": self.rng.get_state().clone(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict()`` of an equally shaped environment.

        Raises:
            ValueError: If the number of envs, or the size of states or levels, differs.
        """
        for name in ("state", "levels", "elapsed"):
            present, loaded = getattr(self, name), state[name]
            if present.shape != loaded.shape:
                raise ValueError(
                    f"{name!r} in the state has shape {tuple(loaded.shape)}, but this "
                    f"environment has {tuple(present.shape)}; build it with the same settings."
                )
            setattr(self, name, loaded.to(self.device, present.dtype, copy=True))
        self.rng.set_state(state["rng"].cpu())

    def draw_level_plane(self, axes: Axes) -> None:
        """Draw the task's picture on the ``level_plane`` axes, under a scatter of levels."""
        draw_box(axes, self.level_space, self.level_names, self.level_plane)


def has_pure_step(env: object) -> TypeGuard[BatchedEnv]:
    """Whether ``step`` is ``BatchedEnv.step``, so that ``advanced`` and ``take`` can replace it."""
    return isinstance(env, BatchedEnv) and type(env).step is BatchedEnv.step


def has_pure_reset(env: BatchedEnv) -> bool:
    """Whether ``reset`` is ``BatchedEnv.reset``, so that ``initial_state`` can replace it."""
    plain = (BatchedEnv.reset, BatchedEnv.current_observations)
    return (type(env).reset, type(env).current_observations) == plain
