"""Copies of one Gymnasium environment, stepped one after another.

Gymnasium's ``SyncVectorEnv`` does more: it merges all that the environments say in their infos,
which fails where these differ, and steps all of them. Here only success is read from the infos,
and a copy whose episode has ended stays put until it is reset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs.gym import returned
from lit_crl.envs.gym.guard import Env, Guard, SetLevel
from lit_crl.envs.gym.returned import Array, told


class Copies:
    """Single environments of one kind, in arrays.

    Attributes:
        envs: The environments, all wrappers included.
        space: Space of one observation as it is kept.
        observations: Where each is now [N, ...], bytes or float32; always the same array.
        terminated: Whether each one's episode has terminated [N].
        truncated: Whether each one's episode was cut off [N].
        said: What the infos of each one's episode last said of success [N]: 1 or 0; -1: nothing.
        speaks: Whether infos have ever said anything of success.
    """

    def __init__(
        self,
        make: Callable[[], Env],
        count: int,
        name: str,
        keep: Callable[[Env], Box],
        set_level: SetLevel | None = None,
    ) -> None:
        """Make the environments; where that fails, close those made so far.

        Args:
            make: Makes one environment with Discrete actions and ``Box`` observations.
            count: How many are made, N.
            name: What sentences call the environment.
            keep: From an environment, the space of its observations as they are kept.
            set_level: Puts one at a level, and returns the first observation there.

        Raises:
            ConfigError: If they are not of one kind, or not all objects of their own.
        """
        self.envs: list[Env] = []
        self._name = name
        try:
            for _ in range(count):
                self.envs.append(make())
                _check_alike(self.envs, name)
        except Exception:
            self.close()
            raise
        self._guards = [Guard(env, name, set_level) for env in self.envs]
        space = self.envs[0].observation_space
        assert isinstance(space, Box)
        self._declares = space.shape, space.dtype
        self.space = keep(self.envs[0])
        #: Whether whole numbers of another type are kept as bytes.
        self._narrows = self.space.dtype == np.uint8 and np.dtype(space.dtype).kind in "iu"
        self._narrows &= space.dtype != np.uint8
        self.observations = np.zeros((count, *space.shape), self.space.dtype)
        self._running = np.zeros(count, bool)
        self.terminated, self.truncated = np.zeros(count, bool), np.zeros(count, bool)
        self.said = np.full(count, -1, np.int8)
        self.speaks = False

    def reset(
        self,
        chosen: Array,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
        levels: Array | None = None,
    ) -> None:
        """Start new episodes.

        Args:
            chosen: Which copies are reset, bool [N].
            seed: Copy i is seeded with ``seed + i``; None: no seed is given.
            options: Given to every one.
            levels: Levels [N, d] to start at, a NaN row for the environment's own reset; None: no
                levels.

        Raises:
            RunError: If an environment fails.
        """
        where = self._name + ": reset()"
        for i in np.flatnonzero(chosen).tolist():
            guard = self._guards[i]
            if levels is not None and not np.isnan(levels[i]).any():
                guard.level = levels[i]
            try:
                result = self.envs[i].reset(
                    seed=None if seed is None else seed + i, options=dict(options or {}) or None
                )
            except (RunError, MemoryError):
                raise
            except Exception as error:
                raise self._wrapper_failed(where, error) from error
            finally:
                guard.level = None
            observation, info = returned.reset_result(result, where)
            self._put(i, observation, where)
            self.speaks = self.speaks or returned.success(info, where) is not None
        self._running[chosen] = True
        self.terminated[chosen] = self.truncated[chosen] = False
        self.said[chosen] = -1
        _check_finite(self.observations, where, "an observation")

    def step(self, actions: Array) -> Array:
        """Advance every copy whose episode runs by one env step.

        Args:
            actions: Actions [N], as the environment numbers them.

        Returns:
            Rewards [N]; 0 where an episode had ended before.

        Raises:
            RunError: If an environment fails.
        """
        where = f"{self._name}: step()"
        rewards = np.zeros(len(self.envs))
        envs = self.envs
        for i in np.flatnonzero(self._running).tolist():
            try:
                result = envs[i].step(actions[i])
            except (RunError, MemoryError):
                raise
            except Exception as error:
                raise self._wrapper_failed(where, error) from error
            obs, rewards[i], terminated, truncated, info = returned.step_result(result, where)
            self._put(i, obs, where)
            if terminated or truncated:
                self.terminated[i], self.truncated[i] = terminated, truncated
                self._running[i] = False
            if info and (said := returned.success(info, where)) is not None:
                self.said[i], self.speaks = said, True
        _check_finite(self.observations, where, "an observation")
        _check_finite(rewards, where, "a reward")
        return rewards

    @property
    def running(self) -> Array:
        """Whether each copy's episode runs [N]."""
        return self._running.copy()

    def restore(
        self, observations: Array, terminated: Array, truncated: Array, said: Array
    ) -> None:
        """Continue from where the environments were: their own states are restored elsewhere."""
        self.observations[:], self.said[:] = observations, said
        self.terminated[:], self.truncated[:] = terminated, truncated
        self._running[:] = ~(terminated | truncated)

    def stop(self) -> None:
        """End all episodes: nothing is stepped before it has been reset."""
        self._running[:] = False

    def render(self) -> tuple[Any, ...]:
        """Return a picture of every copy."""
        return tuple(env.render() for env in self.envs)

    def close(self) -> None:
        """Close every copy once, even if one of them fails.

        Raises:
            RunError: If one fails.
        """
        failed: Exception | None = None
        for env in {id(env.unwrapped): env for env in self.envs}.values():
            try:
                env.close()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise RunError(f"{self._name}: close() raised {told(failed)}") from failed

    def _put(self, i: int, observation: Any, where: str) -> None:
        checked = returned.observation(observation, *self._declares, where)
        if self._narrows:
            returned.check_bytes(checked, where)
        self.observations[i] = checked

    def _wrapper_failed(self, where: str, error: Exception) -> RunError:
        """The environment's own errors have been told by its guard."""
        space = self.envs[0].unwrapped.observation_space
        return RunError(
            f"{where}: a wrapper around the environment raised {told(error)}; see whether what the "
            f"environment returns fits its observation space {space}"
        )


def _check_finite(array: Array, where: str, what: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = array[~np.isfinite(array)][0]
        raise RunError(
            f"{where} returned {what} that holds {wrong}, which nothing can be learnt from: give "
            "finite numbers that fit float32"
        )


def _check_alike(envs: list[Env], name: str) -> None:
    """The newest environment is an object of its own, and of the first one's kind."""
    *others, newest = envs
    if any(newest.unwrapped is other.unwrapped for other in others):
        raise ConfigError(
            f"{name}: the same environment was made twice: make a new one at every call"
        )
    for what in ("observation_space", "action_space"):
        its, first = getattr(newest, what), getattr(envs[0], what)
        if (its.shape, its.dtype, getattr(its, "n", 0)) != (
            first.shape, first.dtype, getattr(first, "n", 0)
        ):  # fmt: skip
            raise ConfigError(
                f"{name}: copies have different {what.replace('_', ' ')}s, {first} and {its}: all "
                "must have the same"
            )
