"""Any Gymnasium environment with discrete actions, behind the package's environment interface.

Copies of the environment are stepped one after another in Python. With a ``level_space`` and a
function ``set_level`` they take levels; without, the ``target`` arm trains.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs.gym import returned, snapshots
from lit_crl.envs.gym.copies import Copies
from lit_crl.envs.gym.guard import Env
from lit_crl.envs.gym.making import (
    make_env,
    make_env_with,
    named_space,
    time_limit,
)
from lit_crl.envs.gym.returned import Array
from lit_crl.envs.images import SaidLayout, gymnasium_space, layout_in
from lit_crl.envs.interface import (
    check_levels,
    check_mask,
    draw_box,
    in_bounds,
    uniform_levels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class GymnasiumEnv(VectorEnv[Tensor, Tensor, Tensor]):
    """``num_envs`` copies of one Gymnasium environment, tensors in and out.

    ``uint8`` observations stay ``uint8``, images of other numbers that fit it become so, and all
    else becomes float32. Actions are numbered from 0 whatever the environment's ``start``. A copy
    whose episode has ended stays where it is until it is reset.

    Success of an episode is what the infos of its steps last said in ``is_success`` or
    ``success``: in most environments the last step says it, and where only the step in which the
    goal is reached says so, that step counts. Episodes whose infos say nothing (or None) succeed
    if their return reaches ``success_return``. Without that, their success is not known, so an
    environment should say False as well as True.

    Gymnasium's classic-control and toy-text environments are saved as they are. Others cannot be
    (``resumable`` is false): there ``load_state_dict`` starts new episodes, from a seed that
    depends on the saved run alone.

    Attributes:
        name: What messages call the environment.
        first_action: The environment's own number of action 0.
        image_layout: How the axes of images lie; None where observations are vectors.
        levels: Levels [N, d] at which the running episodes started, NaN rows for the task's
            own resets; None without a level space.
    """

    single_observation_space: Box
    single_action_space: Discrete[Any]
    tracks_visited: bool = False

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        id: str | None = None,
        make: Callable[..., gymnasium.Env[Any, Any]] | None = None,
        level_space: Box | Mapping[str, Sequence[float]] | None = None,
        set_level: Callable[[Any, Array], Any] | None = None,
        target_levels: Callable[[int, np.random.Generator], Array] | None = None,
        success_return: float | None = None,
        max_episode_steps: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
        image_layout: SaidLayout | None = None,
    ) -> None:
        """Build the environments, and try the first one out: one reset and one step.

        Args:
            num_envs: Number of environments N that step together.
            device: Where the tensors that come out live; the environments run on the CPU.
            id: Gymnasium id with a Discrete action space, or ``module:id``.
            make: In place of an id: a ``gymnasium.Env`` class, or a function that makes one
                environment.
            level_space: Box of shape (d,) with finite bounds, or the low and high bound of each
                coordinate by its name (what YAML can say); needs ``set_level``.
            set_level: Called as ``set_level(env.unwrapped, level [d])`` after ``env.reset()``;
                puts the env at the level and returns the first observation, unwrapped.
            target_levels: Draws [n, d] levels from the task's own reset distribution; None:
                target levels are NaN rows, which stand for the task's own reset.
            success_return: Episode return that counts as success where infos say nothing; None:
                the id's threshold.
            max_episode_steps: Time limit in env steps; None: the environment's own.
            env_kwargs: Further arguments of ``gymnasium.make`` or ``make``.
            image_layout: How the axes of images lie: HWC, channels last; CHW, channels first; HW,
                grey; or vector, which is no image. One axis more is a stack of frames, along the
                first. None: as Gymnasium's conventions are, see ``images.gymnasium_space``.

        Raises:
            ConfigError: If the environment cannot be used, or the arguments do not fit together.
        """
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}, but must be at least 1.")
        names, level_space = named_space(level_space, set_level)
        self.name, make_one = _maker(id, make, max_episode_steps, env_kwargs or {})
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.gymnasium_id: str | None = id
        self.envs = Copies(
            make_one, num_envs, self.name, partial(gymnasium_space, said=image_layout), set_level
        )
        self.single_observation_space = self.envs.space
        self.image_layout = layout_in(self.envs.space)
        first = self.envs.envs[0]
        self._target_levels = target_levels
        self.resumable = all(map(snapshots.can_be_saved, self.envs.envs))
        self.metadata = {**first.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.spec = first.spec
        self.max_episode_steps = time_limit(first)
        assert isinstance(first.action_space, Discrete)
        self.single_action_space = Discrete(int(first.action_space.n))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.level_space: Box | None = level_space
        size = level_space.shape[0] if level_space else 0
        self.level_names = names or tuple(f"level {axis + 1}" for axis in range(size))
        self.level_plane = (0, min(1, max(size - 1, 0)))
        self.levels = (
            None if level_space is None else torch.full((num_envs, size), torch.nan, device=device)
        )
        if success_return is None and first.spec is not None:
            success_return = first.spec.reward_threshold
        self.success_return = success_return
        self.first_action = int(first.action_space.start)
        self.rng = torch.Generator()
        self._seed, self._resets, self._returns = 0, 0, np.zeros(num_envs)
        self._is_reset, self._is_warned = False, False
        self._try_out()

    def _try_out(self) -> None:
        """Reset and step the first environment once: most slips show before anything trains.

        Raises:
            ConfigError: If it fails or returns something else than it should.
        """
        levels = None
        if self.level_space is not None:
            middle = (self.level_space.low + self.level_space.high) / 2
            levels = np.tile(middle.astype(np.float32), (self.num_envs, 1))
        try:
            self.envs.reset(np.arange(self.num_envs) == 0, seed=0, levels=levels)
            self.envs.step(np.full(self.num_envs, self.first_action))
        except RunError as error:
            self.close()
            raise ConfigError(str(error)) from error
        self.envs.stop()

    @property
    def has_success(self) -> bool:
        """Whether there is a threshold, or an environment has said whether it succeeded."""
        return self.success_return is not None or self.envs.speaks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: Env i is seeded with ``seed + i``, as Gymnasium does.
            options: ``"levels"`` [N, d] (a NaN row: the task's own reset; absent: target
                levels) and ``"reset_mask"`` bool [N] (absent: all); the rest goes to the id.

        Returns:
            Observations [N, ...] of all envs, and an empty dict.

        Raises:
            ValueError: If the levels or the mask are misshapen or out of bounds.
            RunError: If an environment fails or returns something else than it should.
        """
        if seed is not None:
            self._seed, self._resets = seed, 0
            self.rng.manual_seed(seed)
        self._resets += 1
        rest = dict(options or {})
        given = check_mask(rest.pop("reset_mask", None), self.num_envs, torch.device("cpu"))
        mask = torch.ones(self.num_envs, dtype=torch.bool) if given is None else given
        levels = self._levels_at_reset(rest.pop("levels", None), mask)
        chosen: Array = mask.numpy()
        if not self._is_reset and not chosen.all():
            raise ValueError("options['reset_mask'] must hold all envs at the first reset.")
        rows = None if levels is None else levels.numpy()
        self.envs.reset(chosen, seed=seed, options=rest, levels=rows)
        self._is_reset = True
        self._returns[chosen] = 0
        if self.levels is not None and levels is not None:
            self.levels = torch.where(
                mask.unsqueeze(-1).to(self.device), levels.to(self.device), self.levels
            )
        return self.current_observations(), {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Advance every env whose episode runs by one env step.

        Args:
            actions: Actions [N], int64, numbered from 0.

        Returns:
            Observations [N, ...], rewards [N] float32 (0 where the episode had ended before),
            terminated [N], truncated [N], and ``"success"`` and ``"success_known"``, bool [N],
            which mean the running episodes as far as they have come.

        Raises:
            RunError: If an environment fails or returns something else than it should.
        """
        if not self._is_reset:
            raise ResetNeeded("call reset() before step().")
        numbers = actions.cpu().numpy()
        rewards = self.envs.step(numbers + self.first_action if self.first_action else numbers)
        self._returns += rewards
        said = self.envs.said
        known, success = said >= 0, said == 1
        if self.success_return is not None:
            success = np.where(known, success, self._returns >= self.success_return)
            known[:] = True
        elif self.envs.speaks and not self._is_warned:
            self._warn_of_silence(known)
        reward = torch.from_numpy(rewards).to(self.device, torch.float32)
        flags = np.array((self.envs.terminated, self.envs.truncated, success, known))
        ended, cut, won, sure = torch.from_numpy(flags).to(self.device).unbind()
        info = {"success": won, "success_known": sure}
        return self.current_observations(), reward, ended, cut, info

    def _warn_of_silence(self, known: Array) -> None:
        """Say once that episodes are left out because only others say whether they succeed."""
        if (~known & (self.envs.terminated | self.envs.truncated)).any():
            self._is_warned = True
            warnings.warn(
                f"{self.name}: some episodes say in their infos whether they succeeded, others do "
                "not and are left out of success rates: also say False, in the last step",
                stacklevel=3,
            )

    def current_observations(self) -> Tensor:
        """Return the observations [N, ...] of where the envs are now."""
        if not self._is_reset:
            raise ResetNeeded("call reset() before anything else.")
        return torch.from_numpy(self.envs.observations).to(self.device, copy=True)

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] target levels; NaN rows if they stand for the task's own resets."""
        space = self._levels_needed()
        if self._target_levels is None:
            return torch.full((n, space.shape[0]), torch.nan, device=self.device)
        seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))
        try:
            levels = self._target_levels(n, np.random.default_rng(seed))
        except Exception as error:
            raise RunError(
                f"{self.name}: target_levels() raised {returned.told(error)}; it is called as "
                "target_levels(n, rng) with a NumPy generator"
            ) from error
        drawn = returned.as_array(levels)
        if drawn is None or drawn.shape != (n, *space.shape) or drawn.dtype.kind not in "iuf":
            raise RunError(
                f"{self.name}: target_levels() returned {returned.described(levels)}, but must "
                f"return levels of shape {(n, *space.shape)}"
            )
        return torch.as_tensor(drawn, dtype=torch.float32, device=self.device)

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] levels uniformly from the level space."""
        low, high = self._bounds()
        return uniform_levels(n, low, high, rng).to(self.device)

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the levels in bounds; NaN rows can be reset to, but are no levels."""
        low, high = (bound.to(levels.device) for bound in self._bounds())
        return in_bounds(levels, low, high)

    def heldout(self) -> dict[str, Tensor]:
        """Return no held-out levels: none are known for an arbitrary id."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the running episodes, or what fixes those that come after them."""
        state: dict[str, Any] = {
            "seed": torch.tensor(self._seed),
            "resets": torch.tensor(self._resets),
            "rng": self.rng.get_state().clone(),
        }
        if self.resumable:
            envs = self.envs
            ended = envs.terminated | envs.truncated
            vector = (envs.observations, ended, self._returns, envs.truncated, envs.said)
            state["episodes"] = {
                "envs": [snapshots.snapshot(env) for env in envs.envs],
                "vector": [torch.tensor(array) for array in vector],
                "levels": self.levels,
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the saved episodes, or start new ones, seeded by what was saved."""
        seed, resets = int(state["seed"]), int(state["resets"])
        self.reset(seed=seed + self.num_envs * resets)
        self._seed, self._resets = seed, resets + 1
        self.rng.set_state(state["rng"].cpu())
        if self.resumable:
            self._resets = resets
            self._load_episodes(state["episodes"])

    def _load_episodes(self, episodes: dict[str, Any]) -> None:
        observations, ended, returns, *later = (tensor.numpy() for tensor in episodes["vector"])
        # Older checkpoints have neither: what has ended is reset before anything asks why.
        truncated, said = later or (np.zeros_like(ended), np.full(ended.shape, -1))
        for env, saved in zip(self.envs.envs, episodes["envs"], strict=True):
            snapshots.restore(env, saved)
        self.envs.restore(observations, ended & ~truncated, truncated, said)
        self._returns[:] = returns
        if self.levels is not None:
            self.levels.copy_(episodes["levels"])

    def draw_level_plane(self, axes: Axes) -> None:
        """Label ``axes`` with the two level axes and limit them to the level space."""
        draw_box(axes, self._levels_needed(), self.level_names, self.level_plane)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        if hasattr(self, "envs"):
            self.envs.close()

    def _levels_needed(self) -> Box:
        if self.level_space is None:
            raise ValueError(
                f"{self.name} takes no levels; give level_space and set_level, or use "
                "the target curriculum."
            )
        return self.level_space

    def _bounds(self) -> tuple[Tensor, Tensor]:
        space = self._levels_needed()
        low, high = (torch.as_tensor(x, dtype=torch.float32) for x in (space.low, space.high))
        return low, high

    def _levels_at_reset(self, levels: Any, mask: Tensor) -> Tensor | None:
        if levels is None and self.level_space is None:
            return None
        low, high = self._bounds()
        if levels is None:
            levels = self.target_levels(self.num_envs, self.rng)
        return check_levels(levels, self.num_envs, low, high, mask, allow_nan=True)


def _maker(
    id: str | None,
    make: Callable[..., Env] | None,
    max_episode_steps: int | None,
    env_kwargs: Mapping[str, Any],
) -> tuple[str, Callable[[], Env]]:
    """What messages call the environment, and what makes one.

    Raises:
        ConfigError: If the arguments do not fit together.
    """
    if (id is None) == (make is None):
        raise ConfigError("give either id or make, to say which environment it is")
    kwargs = dict(env_kwargs)
    limit = kwargs.pop("max_episode_steps", None) if id is not None else None
    if limit is not None and max_episode_steps not in (None, limit):
        raise ConfigError(
            f"max_episode_steps is {max_episode_steps}, but {limit} in env_kwargs: give it once"
        )
    limit = max_episode_steps if limit is None else limit
    if limit is not None and limit < 1:
        raise ConfigError(f"max_episode_steps is {limit}: give at least 1, or null for its own")
    if id is not None:
        return id, lambda: make_env(id, max_episode_steps=limit, **kwargs)
    assert make is not None
    name = _name_of(make)
    return name, lambda: make_env_with(make, name, limit, **kwargs)


def _name_of(make: Any) -> str:
    """The name of a class or function, through ``functools.partial``."""
    while hasattr(make, "func"):
        make = make.func
    return str(getattr(make, "__qualname__", type(make).__name__))
