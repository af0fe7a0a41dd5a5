"""The door to a user's environment: what comes out is checked, and episodes start at levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from lit_crl.core.checks import RunError
from lit_crl.envs.gym import returned
from lit_crl.envs.gym.returned import Array, told

Env = gymnasium.Env[Any, Any]
SetLevel = Callable[[Any, Array], Any]


class Guard:
    """Stands in for ``reset`` and ``step`` of an environment that no wrapper hides any more.

    Wrappers around the environment call these two as ever. So they see a level's first
    observation as that of a plain reset, and start their stacks, counters and statistics with it.
    The environment stays the same object: wrappers still find all its attributes.

    Attributes:
        level: Level [d] at which the next resets start; None: where the environment starts itself.
    """

    level: Array | None = None

    def __init__(self, env: Env, name: str, set_level: SetLevel | None = None) -> None:
        """Take over ``reset`` and ``step`` of ``env.unwrapped``.

        Args:
            env: The environment, wrapped or not.
            name: What sentences call it.
            set_level: Puts it at a level, and returns the first observation there.
        """
        self._env = env.unwrapped
        self._name, self._set_level = name, set_level
        self._reset, self._step = self._env.reset, self._env.step
        self._where = f"{name}: step()"
        space = self._env.observation_space
        self._shape, self._dtype = space.shape or (), space.dtype or np.dtype(np.float32)
        self._checks_observations = isinstance(space, Box)
        # Methods, not functions: an environment that copies itself is copied with its guard.
        setattr(self._env, "reset", self.reset)  # noqa: B010
        setattr(self._env, "step", self.step)  # noqa: B010

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, at ``level`` if there is one.

        Raises:
            RunError: If the environment's own ``reset`` or ``set_level`` fails or returns
                something else than it should.
        """
        where = f"{self._name}: reset()"
        try:
            result = self._reset(seed=seed, options=options)
        except (RunError, MemoryError):
            raise
        except Exception as error:
            raise RunError(f"{where} raised {told(error)}{_keywords(error)}") from error
        obs, info = returned.reset_result(result, where)
        if self.level is not None:
            obs, where = self._placed(self.level), self._where_set_level
        if self._checks_observations:
            obs = returned.observation(obs, self._shape, self._dtype, where).copy()
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Advance the environment by one env step.

        Raises:
            RunError: If the environment's own ``step`` fails or returns something else than it
                should.
        """
        try:
            result = self._step(action)
        except (RunError, MemoryError):
            raise
        except Exception as error:
            raise RunError(f"{self._where} raised {told(error)}") from error
        obs, reward, terminated, truncated, info = returned.step_result(result, self._where)
        if self._checks_observations:
            # A copy, since wrappers keep it, and the environment may change its own.
            obs = returned.observation(obs, self._shape, self._dtype, self._where).copy()
        return obs, reward, terminated, truncated, info

    def _placed(self, level: Array) -> Any:
        assert self._set_level is not None
        try:
            result = self._set_level(self._env, level.copy())
        except (RunError, MemoryError):
            raise
        except Exception as error:
            raise RunError(
                f"{self._where_set_level} raised {told(error)}; it is called as "
                f"set_level(env, level) with a level of shape {level.shape}"
            ) from error
        return returned.level_observation(result, self._where_set_level)

    @property
    def _where_set_level(self) -> str:
        return f"{self._name}: set_level {getattr(self._set_level, '__name__', '')}()"


def _keywords(error: Exception) -> str:
    """What to do where ``reset`` does not take what Gymnasium gives it."""
    words = ("argument 'seed'", "argument 'options'")
    if isinstance(error, TypeError) and any(word in str(error) for word in words):
        return "; it must be `def reset(self, *, seed=None, options=None)`"
    return ""


def layers(env: Env) -> list[Env]:
    """Return an environment's wrappers from the outermost on, and last what they wrap."""
    found = [env]
    while isinstance(found[-1], gymnasium.Wrapper):
        found.append(found[-1].env)
    return found
