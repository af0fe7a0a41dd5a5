"""An id's own vector environment, which steps all copies in one call.

It is another task than the single environments of the same id unless it is told otherwise: that of
the Arcade Learning Environment clips rewards and presses FIRE at resets by default. So it is made
only with every setting given, and it is used only if each copy can be reset by itself.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs.gym import returned
from lit_crl.envs.gym.game import game_of_vector_entry, with_version
from lit_crl.envs.gym.making import import_module_of, why_not_made
from lit_crl.envs.gym.returned import Array, raise_named, told
from lit_crl.envs.gym.vectorized import Kind, check_finite, check_in_bounds

#: Arguments that say how copies are stepped and not what is played.
_STEPPING = ("num_envs", "batch_size", "num_threads", "thread_affinity_offset", "autoreset_mode",
             "render_mode", "continuous_action_threshold", "continuous")  # fmt: skip
#: Arguments that would change what evaluation measures, and what to set in their place.
_SPOIL = {
    "reward_clipping": "clip_rewards of the environment to 1.0",
    "episodic_life": "terminal_on_life_loss of the environment to true",
    "life_loss_info": "terminal_on_life_loss of the environment to true",
}
#: Classes that reset by themselves only in the step after an end, and not if they were reset by
#: hand before; of others nothing is known. ale-py does since 0.12.1.
_RESETS_BY_HAND = ("ale_py.vector_env.AtariVectorEnv",)
#: Seconds that the first reset of a part of the copies may take.
_SECONDS = 20


class VectorEntry:
    """Copies in the id's own vector environment; see ``vectorized.Vectorized``."""

    def __init__(
        self,
        id: str,
        count: int,
        env_kwargs: Mapping[str, Any],
        kept_space: Callable[[Box], Box],
        counts_lives: bool,
    ) -> None:
        """Make them.

        Args:
            id: Gymnasium id, or ``module:id``.
            count: Number of copies N.
            env_kwargs: Every setting of the vector environment that the id does not give.
            kept_space: Gives the space in which observations are kept.
            counts_lives: Read from the infos of each step whether a life was lost.

        Raises:
            ConfigError: If there is none, or it cannot be used.
        """
        import_module_of(id)
        try:
            spec = gymnasium.spec(id.rpartition(":")[2])
        except gymnasium.error.Error as error:
            raise ConfigError(why_not_made(id, error)) from error
        self._name, entry = id, _entry_of(spec, id)
        kwargs = {**spec.kwargs, **env_kwargs}
        _check_arguments(entry, kwargs, id)
        self._env = _made(entry, count, kwargs, id)
        space, actions = self._env.single_observation_space, self._env.single_action_space
        if not isinstance(space, Box) or not isinstance(actions, Discrete):
            raise ConfigError(
                f"{id!r} has the spaces {space} and {actions} in its vector environment, but a DQN "
                "needs numbers and Discrete actions: use vectorization sync"
            )
        self.space = kept_space(space)
        game = game_of_vector_entry(entry, kwargs, int(actions.n))
        metadata = dict(self._env.metadata)
        self.kind = Kind(self.space, int(actions.start), int(actions.n), spec, metadata, game)
        #: Frames in a stack along the first axis; 1 where nothing is stacked.
        self._stack = int(kwargs.get("stack_num", 1))
        self._steps = np.zeros(count, np.int64)
        self.observations = np.zeros((count, *space.shape), self.space.dtype)
        self.running, self.terminated, self.truncated, self.lost_life = np.zeros((4, count), bool)
        self.reported = np.full(count, -1, np.int8)
        self.reports_success = self.has_lives = False
        self._lives, self._counts_lives = np.zeros(count, np.int64), counts_lives

    def try_out(self, levels: Array | None) -> None:
        """Reset all copies, then one of them, and step: is each reset on its own?

        Raises:
            ConfigError: If a reset of one copy changes another one, or takes for ever.
        """
        everyone = np.ones(len(self.running), bool)
        self.reset(everyone, seed=0)
        check_in_bounds(self.observations, self.space, f"{self._name}: reset()")
        self.step(np.full(len(everyone), self.kind.first_action))
        before = self.observations.copy()
        only = np.arange(len(everyone)) == 0
        within(_SECONDS, lambda: self.reset(only), self._name)
        changed = [not np.array_equal(*pair) for pair in zip(before, self.observations)]  # noqa: B905
        if any(changed[1:]):
            raise ConfigError(
                f"{self._name}: its vector environment does not reset copies one by one "
                f"({_remedy(type(self._env))})"
            )
        self.running[:] = False

    def reset(
        self,
        chosen: Array,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
        levels: Array | None = None,
    ) -> None:
        """Start new episodes; see ``copies.Copies.reset``."""
        assert levels is None, "the adapter refuses levels"
        where = f"{self._name}: reset()"
        if not chosen.any():
            return
        given = dict(options or {})
        seeds: Any = seed
        if not chosen.all():
            given["reset_mask"] = chosen.copy()
            seeds = None if seed is None else seed + np.flatnonzero(chosen)
        try:
            observations, infos = self._env.reset(seed=seeds, options=given or None)
        except Exception as error:
            raise_named(error, where, f"; {_remedy(type(self._env))}")
        self._steps[chosen] = 0
        self._put(chosen, observations, where)
        self._read(chosen, infos, where, is_reset=True)
        self.running[chosen] = True
        self.terminated[chosen] = self.truncated[chosen] = self.lost_life[chosen] = False

    def step(self, actions: Array) -> Array:
        """Advance every copy whose episode is running; see ``copies.Copies.step``.

        The others are stepped, too, and what they do until their next reset is ignored.
        """
        where, moved = f"{self._name}: step()", self.running.copy()
        try:
            result = self._env.step(actions)
        except Exception as error:
            raise_named(error, where)
        observations, rewards, terminated, truncated, infos = result
        self._steps[moved] += 1
        self._put(moved, observations, where)
        self._read(moved, infos, where, is_reset=False)
        self.terminated[moved], self.truncated[moved] = terminated[moved], truncated[moved]
        self.running = moved & ~self.terminated & ~self.truncated
        found = np.where(moved, np.asarray(rewards, np.float64), 0.0)
        check_finite(found, where, "a reward")
        return found

    def _put(self, which: Array, observations: Array, where: str) -> None:
        """Keep the observations of some copies, stacks with their first frame before the start."""
        new = np.asarray(observations)[which]
        if new.shape[1:] != self.observations.shape[1:]:
            raise RunError(
                f"{where} returned observations of shape {new.shape[1:]}, but its observation "
                f"space declares {self.observations.shape[1:]}"
            )
        if self._stack > 1:
            new = first_frame_before(new, self._steps[which], self._stack)
        self.observations[which] = new
        check_finite(self.observations, where, "an observation")

    def _read(self, which: Array, infos: Mapping[str, Any], where: str, is_reset: bool) -> None:
        """Take lives and success of some copies from the infos."""
        if (lives := infos.get("lives")) is not None:
            left = np.asarray(lives, np.int64)
            lost = (left < self._lives) & (not is_reset)
            self.lost_life = np.where(which, lost, self.lost_life)
            self._lives = np.where(which, left, self._lives)
            self.has_lives |= bool((left > 0).any())
        elif self._counts_lives:
            raise RunError(returned.without_lives(where))
        self.reported[which & is_reset] = -1
        for key in returned.SUCCESS_KEYS:
            if (found := infos.get(key)) is not None:
                says = which & np.asarray(infos.get(f"_{key}", True))
                self.reported[says] = np.asarray(found, bool)[says]
                self.reports_success = True
                return

    def why_not_saved(self) -> str | None:
        """Why running episodes cannot be saved: vector environments have no way to."""
        return "its vector environment has no way to save its state (vectorization sync has)"

    def state_dict(self) -> dict[str, Any]:
        """Raise: nothing can be saved."""
        raise RunError(f"{self._name}: {self.why_not_saved()}")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raise: nothing was saved."""
        raise RunError(f"{self._name}: {self.why_not_saved()}")

    def kept_state(self, i: int) -> bytes:
        """Raise: nothing can be saved."""
        raise RunError(f"{self._name}: {self.why_not_saved()}")

    def start_from(self, i: int, kept: bytes) -> None:
        """Raise: nothing was saved."""
        raise RunError(f"{self._name}: {self.why_not_saved()}")

    def render(self) -> tuple[Any, ...]:
        """Return an image of every copy."""
        return tuple(self._env.render() or ())

    def close(self) -> None:
        """Close them."""
        try:
            self._env.close()
        except Exception as error:
            raise RunError(f"{self._name}: close() raised {told(error)}") from error


def first_frame_before(stacks: Array, steps: Array, stack: int) -> Array:
    """Stacks [n, F, ...] in which frames from before an episode are its first one.

    Args:
        stacks: The newest frame of each stack is its last one.
        steps: Steps of each episode so far [n].
        stack: Frames in a stack.

    >>> first_frame_before(np.array([[7, 0, 1, 2], [1, 2, 3, 4]]), np.array([1, 3]), 4)
    array([[1, 1, 1, 2],
           [1, 2, 3, 4]])
    """
    first = np.maximum(stack - 1 - steps, 0)
    places = np.maximum(np.arange(stack), first[:, None])
    taken: Array = stacks[np.arange(len(stacks))[:, None], places]
    return taken


def within(seconds: float, act: Callable[[], None], name: str) -> None:
    """Do something that must not take for ever.

    Raises:
        ConfigError: If it takes longer.
    """
    failed: list[BaseException] = []

    def tried() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=tried, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise ConfigError(
            f"{name}: its vector environment did not reset one of several copies within "
            f"{seconds:g} seconds: update its package (ale-py to 0.12.1 or newer), or use "
            "vectorization sync or async"
        )
    if failed:
        raise failed[0]


def _entry_of(spec: EnvSpec, id: str) -> type:
    if spec.vector_entry_point is None:
        raise ConfigError(
            f"vectorization is vector_entry_point, but {id!r} has none: use sync or async"
        )
    entry: Any = spec.vector_entry_point
    if isinstance(entry, str):
        try:
            entry = load_env_creator(entry)
        except ImportError as error:
            raise ConfigError(f"{id!r} needs a package that is missing ({told(error)})") from error
    return entry  # type: ignore[no-any-return]


def _check_arguments(entry: type, kwargs: Mapping[str, Any], id: str) -> None:
    """Every setting is given, and none changes what evaluation measures.

    Raises:
        ConfigError: If one is missing, or does.
    """
    lacking = {
        name: parameter.default
        for name, parameter in inspect.signature(entry).parameters.items()
        if parameter.default is not inspect.Parameter.empty
        and name not in kwargs
        and name not in _STEPPING
    }
    if lacking:
        named = ", ".join(f"{name}: {value}" for name, value in lacking.items())
        raise ConfigError(
            f"vectorization is vector_entry_point, and that of {id!r} would choose by itself what "
            f"is played ({named}): give each of these in env_kwargs"
        )
    for name, remedy in _SPOIL.items():
        if kwargs.get(name):
            raise ConfigError(
                f"env_kwargs.{name} is {kwargs[name]}, which evaluation would see, too: set it to "
                f"false, and {remedy}"
            )


def _made(entry: type, count: int, kwargs: Mapping[str, Any], id: str) -> VectorEnv[Any, Any, Any]:
    takes_mode = "autoreset_mode" in inspect.signature(entry).parameters
    resets_by_hand = f"{entry.__module__}.{entry.__qualname__}" in _RESETS_BY_HAND
    # ALE has no DISABLED. It resets in the step after an end, unless that copy was reset before.
    mode = AutoresetMode.NEXT_STEP if resets_by_hand else AutoresetMode.DISABLED
    try:
        made = entry(num_envs=count, **kwargs, **({"autoreset_mode": mode} if takes_mode else {}))
    except Exception as error:
        raise ConfigError(f"{id!r} cannot be made: {told(error)}") from error
    if not isinstance(made, VectorEnv):
        raise ConfigError(f"{id!r} gave {returned.described(made)} as its vector environment")
    if made.metadata.get("autoreset_mode") != mode:
        made.close()
        raise ConfigError(
            f"{id!r} has a vector environment that resets copies by itself "
            f"({made.metadata.get('autoreset_mode')}), but the caller chooses when and how an "
            "episode starts (AutoresetMode.DISABLED): use vectorization sync or async"
        )
    return made


def _remedy(entry: type) -> str:
    if entry.__module__.startswith("ale_py."):
        return f"{with_version('ale-py')} is installed, 0.12.1 or newer is needed"
    return "use vectorization sync or async"
