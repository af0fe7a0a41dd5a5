"""Copies of one Gymnasium environment, stepped one after another.

Gymnasium's ``SyncVectorEnv`` merges the infos of all environments, which fails where they differ,
and steps every environment. Here only success is read from the infos, and a copy whose episode has
ended waits until it is reset.

Torch is imported when running episodes are saved: processes that only step copies do without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from gymnasium.spaces import Box, Discrete

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs.gym import returned
from lit_crl.envs.gym.game import emulated, game_of
from lit_crl.envs.gym.guard import Env, Guard, SetLevel
from lit_crl.envs.gym.returned import Array, raise_named, told
from lit_crl.envs.gym.vectorized import Kind, check_finite, check_in_bounds


class Copies:
    """Environments of one kind, with what they return in arrays; see ``vectorized.Vectorized``.

    Attributes:
        envs: The environments, all wrappers included.
    """

    def __init__(
        self,
        make: Callable[[], Env],
        count: int,
        name: str,
        kept_space: Callable[[Env], Box],
        set_level: SetLevel | None = None,
        counts_lives: bool = False,
    ) -> None:
        """Make the environments; if one cannot be made, close the others.

        Args:
            make: Makes one environment with Discrete actions and ``Box`` observations.
            count: Number of environments N.
            name: What messages call the environment.
            kept_space: Gives the space in which an environment's observations are kept.
            set_level: Puts an environment at a level, and returns the first observation there.
            counts_lives: Read from the infos of each step whether a life was lost.

        Raises:
            ConfigError: If they are not of one kind, or not separate objects.
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
        declared = self.envs[0].observation_space
        assert isinstance(declared, Box) and declared.dtype is not None
        self._declared = declared.shape, declared.dtype
        self.space = kept_space(self.envs[0])
        self.kind = _kind_of(self.envs[0], self.space)
        #: Whether integers of another type are kept as bytes, so that each one must fit.
        self._must_fit = declared.dtype.kind in "iu" and declared.dtype != self.space.dtype
        self._must_fit &= self.space.dtype == np.uint8
        self.observations = np.zeros((count, *declared.shape), self.space.dtype)
        self.running, self.terminated, self.truncated, self.lost_life = np.zeros((4, count), bool)
        self.reported = np.full(count, -1, np.int8)
        self.reports_success = self.has_lives = False
        self._counts_lives = counts_lives
        #: Lives that infos last reported.
        self.lives = np.zeros(count, np.int64)

    def try_out(self, levels: Array | None) -> None:
        """Reset and step the first environment once; see what it returns.

        Args:
            levels: Levels [N, d] that are as good as any; None: it takes none.

        Raises:
            RunError: If it fails or returns something that it should not.
        """
        first = np.arange(len(self.envs)) == 0
        self.reset(first, seed=0, levels=levels)
        check_in_bounds(self.observations[:1], self.space, f"{self._name}: reset()")
        self.step(np.full(len(self.envs), self.kind.first_action))
        check_in_bounds(self.observations[:1], self.space, f"{self._name}: step()")
        self.running[:] = False

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
            options: Passed on to every copy.
            levels: Levels [N, d] to start at; a NaN row is the environment's own reset. None: no
                levels.

        Raises:
            RunError: If an environment fails.
        """
        where = f"{self._name}: reset()"
        for i in np.flatnonzero(chosen).tolist():
            seed_of_copy = None if seed is None else seed + i
            guard = self._guards[i]
            # Only this reset starts at the level: a wrapper may reset the environment again later.
            if levels is not None and not np.isnan(levels[i]).any():
                guard.level = levels[i]
            try:
                result = self.envs[i].reset(seed=seed_of_copy, options=dict(options or {}) or None)
            except Exception as error:
                self._wrapper_failed(error, where)
            finally:
                guard.level = None
            observation, info = returned.reset_result(result, where)
            self._put(i, observation, where)
            self.reports_success |= returned.success(info, where) is not None
            self.lives[i] = lives = returned.lives(info, where) or 0
            self.has_lives |= lives > 0
        self.running[chosen] = True
        self.terminated[chosen] = self.truncated[chosen] = self.lost_life[chosen] = False
        self.reported[chosen] = -1
        check_finite(self.observations, where, "an observation")

    def step(self, actions: Array) -> Array:
        """Advance every copy whose episode is running by one env step.

        Args:
            actions: Actions [N], as the environment numbers them.

        Returns:
            Rewards [N]; 0 for copies that wait for a reset.

        Raises:
            RunError: If an environment fails.
        """
        where, envs = f"{self._name}: step()", self.envs
        rewards = np.zeros(len(envs))
        # Other copies wait for a reset: what a step after an episode's end does is undefined.
        for i in np.flatnonzero(self.running).tolist():
            try:
                result = envs[i].step(actions[i])
            except Exception as error:
                self._wrapper_failed(error, where)
            obs, rewards[i], terminated, truncated, info = returned.step_result(result, where)
            self._put(i, obs, where)
            if terminated or truncated:
                self.terminated[i], self.truncated[i] = terminated, truncated
                self.running[i] = False
            if info and (success := returned.success(info, where)) is not None:
                self.reported[i], self.reports_success = success, True
            if self._counts_lives:
                left = returned.lives(info, where)
                if left is None:
                    raise RunError(returned.without_lives(where))
                self.lost_life[i], self.lives[i] = left < self.lives[i], left
        check_finite(self.observations, where, "an observation")
        check_finite(rewards, where, "a reward")
        return rewards

    def why_not_saved(self) -> str | None:
        """Why ``state_dict`` cannot hold the running episodes, in words; None: it can."""
        from lit_crl.envs.gym import snapshots

        return snapshots.why_not_saved(self.envs[0])

    def state_dict(self) -> dict[str, Any]:
        """Return the running episodes, if they can be saved."""
        from lit_crl.envs.gym import snapshots

        arrays = snapshots.tensors({name: getattr(self, name) for name in SAVED})
        return {"envs": [snapshots.snapshot(env) for env in self.envs], **arrays}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        from lit_crl.envs.gym import snapshots

        for env, saved in zip(self.envs, state["envs"], strict=True):
            snapshots.restore(env, saved)
        for name in SAVED:
            if name in state:  # checkpoints of earlier versions have no lives
                getattr(self, name)[:] = state[name].numpy()

    def kept_state(self, i: int) -> bytes:
        """The running episode of copy ``i``, if it can be saved, to start from it later."""
        from lit_crl.envs.gym import snapshots

        arrays = snapshots.tensors({name: getattr(self, name)[i] for name in SAVED})
        return snapshots.in_bytes({"env": snapshots.snapshot(self.envs[i]), **arrays})

    def start_from(self, i: int, kept: bytes) -> None:
        """Start an episode of copy ``i`` in a state that ``kept_state`` gave, of any copy."""
        from lit_crl.envs.gym import snapshots

        state = snapshots.from_bytes(kept)
        snapshots.restore(self.envs[i], state["env"])
        for name in SAVED:
            getattr(self, name)[i] = state[name].numpy()
        self.lost_life[i] = False

    def render(self) -> tuple[Any, ...]:
        """Return an image of every copy."""
        return tuple(env.render() for env in self.envs)

    def close(self) -> None:
        """Close every copy once, even if one of them fails.

        Raises:
            RunError: If one fails.
        """
        failed: Exception | None = None
        # Where one environment was made twice, it is closed once.
        for env in {id(env.unwrapped): env for env in self.envs}.values():
            try:
                env.close()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise RunError(f"{self._name}: close() raised {told(failed)}") from failed

    def _put(self, i: int, observation: Any, where: str) -> None:
        checked = returned.observation(observation, *self._declared, where)
        if self._must_fit:
            returned.check_bytes(checked, where)
        self.observations[i] = checked

    def _wrapper_failed(self, error: Exception, where: str) -> NoReturn:
        """Name an error of a wrapper; the environment's own errors were named by its guard."""
        space = self.envs[0].unwrapped.observation_space
        remedy = f"; see whether what the environment returns fits its observation space {space}"
        raise_named(error, f"{where}: a wrapper around the environment", remedy)


#: The arrays of a checkpoint.
SAVED = ("observations", "running", "terminated", "truncated", "reported", "lives")


def _kind_of(env: Env, space: Box) -> Kind:
    actions = env.action_space
    assert isinstance(actions, Discrete)
    numbers = int(actions.start), int(actions.n)
    metadata = dict(env.metadata or {})
    return Kind(space, *numbers, env.spec, metadata, game_of(env), emulated(env))


def _check_alike(envs: list[Env], name: str) -> None:
    """The newest environment is a separate object, and of the same kind as the first."""
    *others, newest = envs
    if any(newest.unwrapped is other.unwrapped for other in others):
        raise ConfigError(
            f"{name}: the same environment was made twice: make a new one at every call"
        )
    for what in ("observation_space", "action_space"):
        its, first = getattr(newest, what), getattr(envs[0], what)
        its_kind, kind = ((s.shape, s.dtype, getattr(s, "n", 0)) for s in (its, first))
        if its_kind != kind:
            raise ConfigError(
                f"{name}: copies have different {what.replace('_', ' ')}s, {first} and {its}: all "
                "must have the same"
            )
