"""Levels of a Gymnasium environment: the space that the user declares, and target levels."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs.gym import returned
from lit_crl.envs.gym.returned import Array, raise_named

#: What YAML can say: the low and the high bound of each coordinate by its name.
Bounds = Mapping[str, Sequence[float]]
TargetLevels = Callable[[int, np.random.Generator], Array]


def named_space(space: Box | Bounds | None) -> tuple[Box | None, tuple[str, ...]]:
    """Return the space of levels and the names of its coordinates.

    Raises:
        ConfigError: If it cannot be a space of levels.
    """
    names: tuple[str, ...] = ()
    if isinstance(space, Mapping):
        names, space = tuple(space), _box(space)
    if space is None:
        return None, ()
    if not (space.is_bounded() and len(space.shape) == 1):
        raise ConfigError(f"level_space is {space}, but needs finite bounds, shape (d,).")
    return space, names or tuple(f"level {axis + 1}" for axis in range(space.shape[0]))


def _box(bounds: Bounds) -> Box:
    for name, pair in bounds.items():
        if len(pair) != 2 or not pair[0] < pair[1]:
            raise ConfigError(
                f"level_space.{name} is {list(pair)}, but must be a low and a high bound."
            )
    low, high = np.array(list(bounds.values()), np.float32).T
    return Box(low, high)


def draw(
    target_levels: TargetLevels | None, n: int, space: Box, rng: torch.Generator, name: str
) -> Tensor:
    """Draw target levels [n, d], on the CPU.

    Args:
        target_levels: The user's function; None: rows are NaN, for the task's own resets.
        n: Number of levels.
        space: Space of one level.
        rng: Seeds the generator that the function gets.
        name: What messages call the environment.

    Raises:
        RunError: If the function fails or does not return levels.
    """
    if target_levels is None:
        return torch.full((n, *space.shape), torch.nan)
    seed = int(torch.randint(2**62, (), generator=rng, device=rng.device))
    where = f"{name}: target_levels()"
    remedy = "; it is called as target_levels(n, rng) with a NumPy generator"
    try:
        levels = target_levels(n, np.random.default_rng(seed))
    except Exception as error:
        raise_named(error, where, remedy)
    drawn = returned.as_array(levels)
    if drawn is None or drawn.shape != (n, *space.shape) or drawn.dtype.kind not in "iuf":
        raise RunError(
            f"{where} returned {returned.described(levels)}, but must return levels of shape "
            f"{(n, *space.shape)}"
        )
    return torch.as_tensor(drawn, dtype=torch.float32)
