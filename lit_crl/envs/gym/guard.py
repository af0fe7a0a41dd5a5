"""Checks everything that a user's environment returns, and starts its episodes at levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import seeding

from lit_crl.envs.gym import returned
from lit_crl.envs.gym.returned import Array, raise_named

Env = gymnasium.Env[Any, Any]
SetLevel = Callable[[Any, Array], Any]


class Guard:
    """Replaces ``reset`` and ``step`` of a user's environment, below all its wrappers.

    Wrappers therefore see a level's first observation as that of a plain reset: their stacks,
    counters and statistics start with it. The environment remains the same object, so wrappers
    still find all its attributes.

    Attributes:
        level: Level [d] at which the next resets start; None: the environment's own start.
    """

    level: Array | None = None

    def __init__(self, env: Env, name: str, set_level: SetLevel | None = None) -> None:
        """Replace ``reset`` and ``step`` of ``env.unwrapped``.

        Args:
            env: The environment, wrapped or not.
            name: What messages call it.
            set_level: Puts it at a level, and returns the first observation there.
        """
        self._env = env.unwrapped
        self._set_level = set_level
        self._reset, self._step = self._env.reset, self._env.step
        self._in_reset, self._in_step = f"{name}: reset()", f"{name}: step()"
        self._in_set_level = f"{name}: set_level {getattr(set_level, '__name__', '')}()"
        space = self._env.observation_space
        self._shape, self._dtype = space.shape or (), space.dtype or np.dtype(np.float32)
        self._checks_observations = isinstance(space, Box)
        # Bound methods, not functions: deepcopy then gives the environment's copy its own guard.
        setattr(self._env, "reset", self.reset)  # noqa: B010
        setattr(self._env, "step", self.step)  # noqa: B010

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, at ``level`` if there is one; a mistake of the user is a RunError."""
        where = self._in_reset
        if seed is not None:
            # Some environments (MinAtar's) never seed it, but wrappers draw from it. Those that
            # call super().reset(seed=seed) seed it alike.
            self._env.np_random, _ = seeding.np_random(seed)
        try:
            result = self._reset(seed=seed, options=options)
        except Exception as error:
            raise_named(error, where, _signature_needed(error))
        obs, info = returned.reset_result(result, where)
        if self.level is not None:
            obs, where = self._placed(self.level), self._in_set_level
        return self._checked(obs, where), info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Advance the environment by one env step; a mistake of the user is a RunError."""
        where = self._in_step
        try:
            result = self._step(action)
        except Exception as error:
            raise_named(error, where)
        obs, reward, terminated, truncated, info = returned.step_result(result, where)
        return self._checked(obs, where), reward, terminated, truncated, info

    def _placed(self, level: Array) -> Any:
        assert self._set_level is not None
        try:
            result = self._set_level(self._env, level.copy())
        except Exception as error:
            remedy = f"; it is called as set_level(env, level) with a level of shape {level.shape}"
            raise_named(error, self._in_set_level, remedy)
        return returned.level_observation(result, self._in_set_level)

    def _checked(self, obs: Any, where: str) -> Any:
        if not self._checks_observations:
            return obs
        # A copy: wrappers keep it, while the environment may write into its own array again.
        return returned.observation(obs, self._shape, self._dtype, where).copy()


def _signature_needed(error: Exception) -> str:
    """The remedy where ``reset`` does not take the arguments that Gymnasium passes."""
    words = ("argument 'seed'", "argument 'options'")
    if isinstance(error, TypeError) and any(word in str(error) for word in words):
        return "; it must be `def reset(self, *, seed=None, options=None)`"
    return ""


def layers(env: Env) -> list[Env]:
    """Return an environment's wrappers from the outermost to the innermost, then the environment.

    >>> [type(layer).__name__ for layer in layers(gymnasium.make("CartPole-v1"))]
    ['TimeLimit', 'OrderEnforcing', 'PassiveEnvChecker', 'CartPoleEnv']
    """
    found = [env]
    while isinstance(found[-1], gymnasium.Wrapper):
        found.append(found[-1].env)
    return found
