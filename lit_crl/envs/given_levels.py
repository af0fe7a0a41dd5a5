"""Levels that a user gives: they take the place of an environment's own target levels.

This is the case of somebody who has some levels (maps made by hand, machines that were measured,
recorded days) and nothing that draws more of them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from lit_crl.core.distributed import print_once
from lit_crl.core.seeding import random_stream
from lit_crl.envs.factory import level_env
from lit_crl.envs.interface import LevelEnv, in_bounds
from lit_crl.envs.level_files import GivenError, read_levels

#: A ``.npz`` or ``.csv`` file of levels; how many of the environment's own target levels are drawn;
#: or the levels themselves, a row for each.
Given = str | int | Sequence[Sequence[float]] | npt.NDArray[Any] | Tensor
#: Held-out levels that are drawn where none are given, and their name among the held-out sets.
FRESH_LEVELS, FRESH = 256, "fresh"
#: The fewest levels that can be given.
LEAST = 2


@dataclass(frozen=True)
class LevelSet:
    """Levels ``[K, d]`` on the CPU, in the environment's units."""

    levels: Tensor

    def __str__(self) -> str:
        """In words, so that other levels have other words."""
        content = self.levels.numpy().tobytes()
        return f"{len(self.levels)} levels with SHA-256 {hashlib.sha256(content).hexdigest()}"


def distinct(levels: Tensor) -> Tensor:
    """Each of the levels ``[K, d]`` once, ``[k, d]``."""
    once: Tensor = torch.unique(levels, dim=0)
    return once


def contents(levels: Tensor) -> list[bytes]:
    """The bytes of each of the levels ``[K, d]`` on the CPU: equal levels have equal bytes."""
    return [level.tobytes() for level in (levels + 0.0).numpy()]  # −0 + 0 is 0


def has_given_levels(env: object) -> bool:
    """Whether a user has given the target levels of an environment."""
    return hasattr(env, "given_levels")


def given_levels(env: object) -> Tensor:
    """The levels ``[K, d]`` that a user has given.

    Raises:
        GivenError: If there are none.
    """
    levels: Tensor | None = getattr(env, "given_levels", None)
    if levels is None:
        raise GivenError("data.given is missing: give the levels that others shall be made from")
    return levels


def drawn(levels: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """``n`` of the ``levels [K, d]``, uniformly with replacement (``rng`` on any device)."""
    pick = torch.randint(len(levels), (n,), generator=rng, device=rng.device)
    return levels[pick.to(levels.device)]


class GivenLevels:
    """What ``data.given`` and ``data.given_heldout`` say, for environments of one task.

    Attributes:
        target: The given levels, once an environment was made; None: those of the environment.
    """

    def __init__(self, given: Given | None, heldout: Given | None, seed: int) -> None:
        """Read nothing yet: which numbers are levels only an environment can tell.

        Args:
            given: Levels to train on and to be evaluated on; None: the environment's own.
            heldout: Levels that are never trained on; None: where ``given`` is there, the
                environment's own target levels, if it can draw any.
            seed: The seed of the run, which draws levels where only their number is given.
        """
        self._given, self._heldout, self._seed = given, heldout, seed
        self.target: LevelSet | None = None
        self._fresh: LevelSet | None = None
        self._is_read = False

    def played_in(self, made: VectorEnv) -> VectorEnv:
        """The environment with the given levels as its target levels, and with held-out ones.

        Raises:
            GivenError: If there are no such levels, or episodes cannot start there.
        """
        if self._given is None and self._heldout is None:
            return made
        env = level_env(made)
        if not self._is_read:
            self._read(env)
        if self._fresh is not None:
            fresh, own = self._fresh.levels.to(env.device), env.heldout
            vars(env)["heldout"] = lambda: own() | {FRESH: fresh}
        if self.target is not None:
            given = self.target.levels.to(env.device)
            vars(env)["given_levels"] = given
            vars(env)["target_levels"] = partial(drawn, given)
            # Gymnasium has the task with other target levels.
            vars(env)["gymnasium_id"] = None
        return made

    def _read(self, env: LevelEnv) -> None:
        """Read the levels, or draw them, once for all environments of the run."""
        check_takes_levels(env, "data.given_heldout" if self._given is None else "data.given")
        if self._given is not None:
            self.target = level_set(self._given, env, "data.given", self._seed)
            print_once(told(self.target))
        if self._heldout is not None:
            fresh = level_set(self._heldout, env, "data.given_heldout", self._seed)
        else:
            fresh = LevelSet(own_levels(env, FRESH_LEVELS, "fresh levels", seed=0))
        self._fresh, self._is_read = self._unseen(fresh), True

    def _unseen(self, fresh: LevelSet) -> LevelSet | None:
        """The held-out levels that are not among the given ones.

        Raises:
            GivenError: If the user gives the same level for both.
        """
        given = set[bytes]() if self.target is None else set(contents(self.target.levels))
        is_new = torch.tensor([content not in given for content in contents(fresh.levels)])
        if not is_new.all() and not isinstance(self._heldout, int | None):
            raise GivenError(
                f"data.given_heldout has {int((~is_new).sum())} of the levels of data.given, but "
                "held-out levels must not be trained on: take them out of one of the two"
            )
        return LevelSet(fresh.levels[is_new.bool()]) if is_new.any() else None


def check_takes_levels(env: LevelEnv, key: str) -> None:
    """Check that a user can give levels of the environment.

    Raises:
        GivenError: If it has none, or they are codes of visited states.
    """
    if env.level_space is None:
        raise GivenError(
            f"{key} is set, but {env.gymnasium_id or type(env).__name__} has no level_space: give "
            "level_space and set_level, or take the setting away"
        )
    if getattr(env, "visited", None) is not None:
        raise GivenError(
            f"{key} is set, but with data.env.init_args.visited_levels levels are states that were "
            "visited, which no file can name: take one of the two settings away"
        )


def level_set(given: Given, env: LevelEnv, key: str, seed: int) -> LevelSet:
    """The levels that a user gives, after all checks.

    Args:
        given: See ``Given``.
        env: The environment, which knows what a level is.
        key: The setting.
        seed: Draws levels, where only their number is given.

    Raises:
        GivenError: If they are too few, or no levels of the environment.
    """
    if isinstance(given, int):
        key = f"{key} is {given}"
        if given < LEAST:
            raise GivenError(f"{key}: give at least {LEAST}")
        levels = own_levels(env, given, key.split()[0], seed)
        if not len(levels):
            raise GivenError(
                f"{key}, but the target levels of {env.gymnasium_id or type(env).__name__} are its "
                "own resets, which are no levels that could be drawn: give a file of levels"
            )
        return LevelSet(levels)
    if isinstance(given, str):
        key = f"{key} {given}"
        given = read_levels(Path(given), env.level_names, key)
    return LevelSet(checked(given, env, key))


def own_levels(env: LevelEnv, n: int, purpose: str, seed: int) -> Tensor:
    """Draw [n, d] of an environment's own target levels, on the CPU; [0, d] if it has none."""
    levels = env.target_levels(n, random_stream(seed, purpose)).cpu()
    return levels if bool(levels.isfinite().all()) else levels[:0]


def checked(given: Any, env: LevelEnv, key: str) -> Tensor:
    """Levels [K, d] of an environment, float32 on the CPU, from numbers [K, ...] of any kind.

    Raises:
        GivenError: If they are too few, or no episode can start at one of them.
    """
    space = env.level_space
    assert space is not None
    try:
        numbers = np.asarray(given, np.float64)
    except (ValueError, TypeError) as error:
        raise GivenError(f"{key} is no table of numbers ({error}): give a level a row") from error
    shapes = [space.shape, getattr(env, "level_shape", None)]
    if numbers.ndim < 2 or numbers.shape[1:] not in shapes:
        raise GivenError(
            f"{key} has shape {numbers.shape}, but {space.shape[0]} numbers are a level of this "
            f"environment: give shape {('K', *space.shape)}".replace("'", "")
        )
    if len(numbers) < LEAST:
        raise GivenError(f"{key} has {len(numbers)} levels: give at least {LEAST}")
    levels = torch.as_tensor(numbers.reshape(len(numbers), -1), dtype=torch.float32)
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    if not (fine := in_bounds(levels, low, high)).all():
        row = int((~fine).nonzero()[0])
        level = levels[row]
        axis = int((~in_bounds(level[:, None], low[:, None], high[:, None])).nonzero()[0])
        raise GivenError(
            f"{key}, level {row + 1}: {env.level_names[axis]} is {level[axis]:g}, but must be from "
            f"{low[axis]:g} to {high[axis]:g}: correct it, or leave the level out"
        )
    levels = levels.clamp(low, high)  # float rounding may lie outside
    if not (fine := env.valid(levels.to(env.device)).cpu()).all():
        rows = ", ".join(str(int(row) + 1) for row in (~fine).nonzero()[:5])
        raise GivenError(
            f"{key}: no episode can start at {int((~fine).sum())} of its {len(levels)} levels "
            f"({rows}{', …' if (~fine).sum() > 5 else ''}): correct them, or leave them out"
        )
    return levels


def told(given: LevelSet) -> str:
    """What a run says about the levels that it was given."""
    levels, once = len(given.levels), len(distinct(given.levels))
    again = f", {levels - once} of which repeat another one" if once < levels else ""
    return f"Target levels are the {levels} levels of data.given{again}."
