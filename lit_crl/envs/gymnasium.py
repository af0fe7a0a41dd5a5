"""Any Gymnasium id with a discrete action space, behind the package's environment interface.

Gymnasium's own ``SyncVectorEnv`` steps the environments one after another in Python. With a
``level_space`` and a function ``set_level`` they take levels; without, the ``target`` arm trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from lit_crl.envs import snapshots
from lit_crl.envs.interface import check_levels, check_mask, draw_box, in_bounds, uniform_levels
from lit_crl.envs.making import make_env, named_space, wrapped_observation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]


class _Ended:
    """Stands for a copy whose episode has ended: it stays where it is."""

    def __init__(self, observation: Any, terminated: Any, truncated: Any) -> None:
        self.result: tuple[Any, float, bool, bool, dict[str, Any]] = (
            observation,
            0.0,
            terminated,
            truncated,
            {},
        )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.result


class _Copies(SyncVectorEnv):
    """Steps only the copies whose episodes run."""

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        copies, over = self.envs, self._autoreset_envs.copy()
        rows = zip(copies, over, self._env_obs, self._terminations, self._truncations, strict=True)
        stand_ins: list[Any] = [_Ended(*rest) if ended else env for env, ended, *rest in rows]
        self._autoreset_envs[:] = False
        try:
            self.envs = stand_ins
            return super().step(actions)
        finally:
            self.envs = copies


class GymnasiumEnv(VectorEnv[Tensor, Tensor, Tensor]):
    """``num_envs`` copies of one Gymnasium environment, tensors in and out.

    ``uint8`` observations stay ``uint8``, all others become float32. Actions are numbered from
    0 whatever the id's ``start``. Success is the id's own ``info["is_success"]``, else an
    episode return of at least ``success_return``, else always false (``has_success``).

    Gymnasium's classic-control and toy-text environments are saved as they are. Others cannot be
    (``resumable`` is false): there ``load_state_dict`` starts new episodes, from a seed that
    depends on the saved run alone.

    Attributes:
        first_action: The id's own number of action 0.
        has_success: Whether success is known at all.
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
        id: str,
        level_space: Box | Mapping[str, Sequence[float]] | None = None,
        set_level: Callable[[Any, Array], Any] | None = None,
        target_levels: Callable[[int, np.random.Generator], Array] | None = None,
        success_return: float | None = None,
        max_episode_steps: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Build the environments.

        Args:
            num_envs: Number of environments N that step together.
            device: Where the tensors that come out live; the environments run on the CPU.
            id: Gymnasium id with a Discrete action space.
            level_space: Box of shape (d,) with finite bounds, or the low and high bound of each
                coordinate by its name (what YAML can say); needs ``set_level``.
            set_level: Called as ``set_level(env.unwrapped, level [d])`` after ``env.reset()``;
                puts the env at the level and returns the first observation, unwrapped.
            target_levels: Draws [n, d] levels from the task's own reset distribution; None:
                target levels are NaN rows, which stand for the task's own reset.
            success_return: Episode return that counts as success; None: the id's threshold.
            max_episode_steps: Time limit in env steps; None: the id's own.
            env_kwargs: Further arguments of ``gymnasium.make``.

        Raises:
            ValueError: If the id cannot be used, or the arguments do not fit together.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}, but must be at least 1.")
        names, level_space = named_space(level_space, set_level)
        kwargs = {**(env_kwargs or {}), "max_episode_steps": max_episode_steps}
        first = make_env(id, **kwargs)  # clear errors before N environments exist
        rest = [lambda: make_env(id, **kwargs)] * (num_envs - 1)
        # copy=False: the arrays are copied once, on their way into tensors.
        self.envs = _Copies(
            [lambda: first, *rest], copy=False, autoreset_mode=AutoresetMode.DISABLED
        )
        self.resumable = all(map(snapshots.can_be_saved, self.envs.envs))
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.metadata = self.envs.metadata
        self.spec = first.spec
        self.gymnasium_id: str | None = id
        self.max_episode_steps = first.spec.max_episode_steps if first.spec else None
        space = self.envs.single_observation_space
        assert isinstance(space, Box) and isinstance(first.action_space, Discrete)
        if space.dtype != np.uint8:
            low, high = space.low.astype(np.float32), space.high.astype(np.float32)
            space = Box(low, high, dtype=np.float32)
        self.single_observation_space = space
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
        self.has_success = success_return is not None
        self._dtype = torch.uint8 if space.dtype == np.uint8 else torch.float32
        self.first_action = int(first.action_space.start)
        self._set_level, self._target_levels = set_level, target_levels
        self.rng = torch.Generator()
        self._seed, self._resets, self._returns = 0, 0, np.zeros(num_envs)
        self._observations: Array | None = None
        self._placed: dict[int, Any] = {}  # first observations of envs placed at a level

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: Env i is seeded with ``seed + i``, as Gymnasium does.
            options: ``"levels"`` [N, d] (a NaN row: the task's own reset; absent: target
                levels) and ``"reset_mask"`` bool [N] (absent: all); the rest goes to the id.

        Returns:
            Observations [N, ...] of all envs, and Gymnasium's infos.

        Raises:
            ValueError: If the levels or the mask are misshapen or out of bounds.
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
        if self._observations is None and not chosen.all():
            raise ValueError("options['reset_mask'] must hold all envs at the first reset.")
        infos: dict[str, Any] = {}
        if chosen.any():
            options = rest if chosen.all() else {**rest, "reset_mask": chosen}
            observations, infos = self.envs.reset(seed=seed, options=options or None)
            for row in np.flatnonzero(chosen).tolist():
                self._placed.pop(row, None)
                if self._set_level is None or levels is None or bool(levels[row].isnan().any()):
                    continue
                env = self.envs.envs[row]
                raw = self._set_level(env.unwrapped, levels[row].numpy())
                self._placed[row] = wrapped_observation(env, raw)
            # SyncVectorEnv has just written every env's last own observation, so those of the
            # envs that were placed and have not moved since go in again.
            for row, observation in self._placed.items():
                observations[row] = observation
            self._observations = observations
            self._returns[chosen] = 0
        if self.levels is not None and levels is not None:
            self.levels = torch.where(
                mask.unsqueeze(-1).to(self.device), levels.to(self.device), self.levels
            )
        return self.current_observations(), infos

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Advance every env by one env step.

        Args:
            actions: Actions [N], int64, numbered from 0.

        Returns:
            Observations [N, ...], rewards [N] float32, terminated [N], truncated [N], and
            Gymnasium's infos with ``"success": bool [N]``, meaningful where an episode ended.
        """
        chosen = actions.cpu().numpy() + self.first_action
        self._observations, rewards, terminated, truncated, infos = self.envs.step(chosen)
        self._placed.clear()
        self._returns += rewards
        if "is_success" in infos:
            self.has_success = True
            success = np.asarray(infos["is_success"]).astype(bool)
        elif self.success_return is not None:
            success = self._returns >= self.success_return
        else:
            success = np.zeros(self.num_envs, bool)
        reward = torch.as_tensor(rewards, dtype=torch.float32, device=self.device)
        flags = (terminated, truncated, success)
        ended, cut, won = (torch.as_tensor(flag, device=self.device) for flag in flags)
        return self.current_observations(), reward, ended, cut, {**infos, "success": won}

    def current_observations(self) -> Tensor:
        """Return the observations [N, ...] of where the envs are now."""
        if self._observations is None:
            raise ResetNeeded("call reset() before anything else.")
        observations = torch.from_numpy(self._observations)
        return observations.to(self.device, self._dtype, copy=True)

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] target levels; NaN rows if they stand for the task's own resets."""
        space = self._levels_needed()
        if self._target_levels is None:
            return torch.full((n, space.shape[0]), torch.nan, device=self.device)
        seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))
        levels = self._target_levels(n, np.random.default_rng(seed))
        return torch.as_tensor(levels, dtype=torch.float32, device=self.device)

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
            vector = (self._observations, self.envs._autoreset_envs, self._returns)
            state["episodes"] = {
                "envs": [snapshots.snapshot(env) for env in self.envs.envs],
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
        observations, ended, returns = (tensor.numpy() for tensor in episodes["vector"])
        for index, env in enumerate(self.envs.envs):
            snapshots.restore(env, episodes["envs"][index])
            self.envs._env_obs[index] = observations[index].copy()
        self._observations = observations.copy()
        self.envs._autoreset_envs[:], self._returns[:] = ended, returns
        if self.levels is not None:
            self.levels.copy_(episodes["levels"])

    def draw_level_plane(self, axes: Axes) -> None:
        """Label ``axes`` with the two level axes and limit them to the level space."""
        draw_box(axes, self._levels_needed(), self.level_names, self.level_plane)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        if hasattr(self, "envs"):
            self.envs.close(**kwargs)

    def _levels_needed(self) -> Box:
        if self.level_space is None:
            raise ValueError(
                f"{self.gymnasium_id!r} takes no levels; give level_space and set_level, or use "
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
