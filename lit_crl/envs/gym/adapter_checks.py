"""Arguments of the adapter that do not fit together: refused before anything is made."""

from collections.abc import Sequence
from typing import get_args

from gymnasium.spaces import Box

from lit_crl.core.checks import ConfigError
from lit_crl.envs.gym.guard import SetLevel
from lit_crl.envs.gym.levels import Bounds, TargetLevels
from lit_crl.envs.gym.vectorized import Vectorization
from lit_crl.envs.gym.wrapping import Wrapper


def check_numbers(num_envs: int, clip_rewards: float | None) -> None:
    """Refuse numbers that make no sense.

    Raises:
        ConfigError: If one does not.
    """
    if num_envs < 1:
        raise ConfigError(f"num_envs is {num_envs}, but must be at least 1.")
    if clip_rewards is not None and not clip_rewards > 0:
        raise ConfigError(f"clip_rewards is {clip_rewards}: give a bound above 0, or null")


def check_levels(
    level_space: Box | Bounds | None,
    set_level: SetLevel | None,
    target_levels: TargetLevels | None,
    visited_levels: int | None,
) -> None:
    """Refuse levels of which a part is missing, or of two kinds at once.

    Raises:
        ConfigError: If they are so.
    """
    if (level_space is None) != (set_level is None):
        raise ConfigError("level_space and set_level belong together: give both or neither.")
    if visited_levels is None:
        return
    if visited_levels < 1:
        raise ConfigError(f"visited_levels is {visited_levels}: give how many are kept, or null")
    given = [("level_space", level_space), ("target_levels", target_levels)]
    for key, value in given:
        if value is not None:
            raise ConfigError(
                f"visited_levels is {visited_levels:,}, but {key} is given, too: visited states "
                "are levels of their own, so leave one of them out"
            )


def check_vectorization(
    vectorization: Vectorization,
    id: str | None,
    wrappers: Sequence[Wrapper] | None,
    set_level: SetLevel | None,
    max_episode_steps: int | None,
) -> None:
    """Refuse an unknown way to step copies, and what an id's own vector environment cannot do.

    Raises:
        ConfigError: If a setting asks for it.
    """
    if vectorization not in (known := get_args(Vectorization)):
        raise ConfigError(f"vectorization is {vectorization!r}: give one of {', '.join(known)}")
    if vectorization != "vector_entry_point":
        return
    problems = (
        (id is None, "make", "makes single environments"),
        (bool(wrappers), "wrappers", "go around single environments"),
        (set_level is not None, "set_level", "sets single environments to levels"),
        (
            max_episode_steps is not None,
            "max_episode_steps",
            "is no setting of the vector environment, which may have one in env_kwargs",
        ),
    )
    for asked, key, why in problems:
        if asked:
            raise ConfigError(
                f"vectorization is vector_entry_point, but {key} is given, which {why}: leave it "
                "out, or use sync or async"
            )
