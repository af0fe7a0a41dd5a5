"""Checks of a log's arrays: each raises one sentence with key, row and remedy."""

from typing import Any

import numpy as np

from lit_crl.dqn.logs.log import Array, Columns, refused

#: Kinds of NumPy types that can be observations: truth values, whole numbers and others.
NUMBERS = "biuf"
#: How far, relative to a bound, an observation may lie beyond it: rounding to float32.
ROUNDING = 1e-6


def check_type(key: str, name: str, dtype: np.dtype[Any], kinds: str, wanted: str) -> None:
    """An array has a type of one of the ``kinds``; ``wanted`` says so in words.

    Raises:
        ConfigError: If not.
    """
    if dtype.kind not in kinds:
        raise refused(key, f"{name} has type {dtype}", f"give {wanted}")


def is_finite(values: Array) -> Array:
    """Which numbers are finite in float32, as everything here is computed.

    >>> is_finite(np.array([1.0, 1e300, np.nan]))
    array([ True, False, False])
    """
    with np.errstate(over="ignore"):
        finite: Array = np.isfinite(values.astype(np.float32, copy=False))
    return finite


def check_columns(key: str, columns: Columns, num_actions: int) -> None:
    """Actions are in range, and rewards finite.

    Raises:
        ConfigError: If not.
    """
    action, reward = columns.action, columns.reward
    if (wrong := (action < 0) | (action >= num_actions)).any():
        row = int(wrong.argmax())
        raise refused(
            key,
            f"action is {action[row]} in row {row}",
            f"there are {num_actions} actions, numbered from 0, so give 0 to {num_actions - 1}",
        )
    if (wrong := ~is_finite(reward)).any():
        row = int(wrong.argmax())
        raise refused(
            key, f"reward is {reward[row]} in row {row}", "leave that episode out, or repair it"
        )


class ObservationChecks:
    """Checks the observations of a log, part after part in the order of the steps."""

    def __init__(self, key: str, ended: Array, low: Array, high: Array) -> None:
        """Check against the last steps of episodes ``ended [T]`` and the bounds of a value."""
        self._key, self._ended = key, ended
        self._low = low - ROUNDING * np.maximum(np.abs(low), 1)
        self._high = high + ROUNDING * np.maximum(np.abs(high), 1)
        self._row = 0
        #: Steps within episodes whose next observation is not the observation of the next step.
        self._astray, self._first_astray = 0, -1
        self._last: Array | None = None

    def see(self, obs: Array, next_obs: Array) -> None:
        """Check the next steps, ``[n, ...]`` each.

        Raises:
            ConfigError: If a value is not finite, or out of bounds.
        """
        self._check_values("obs", obs)
        self._check_values("next_obs", next_obs)
        if self._last is not None:
            self._compare(self._last[None], obs[:1], self._row - 1)
        self._compare(next_obs[:-1], obs[1:], self._row)
        self._last = next_obs[-1].copy()
        self._row += len(obs)

    def _check_values(self, name: str, values: Array) -> None:
        axes = tuple(range(1, values.ndim))
        if values.dtype.kind == "f" and (wrong := ~is_finite(values).all(axes)).any():
            row = int(wrong.argmax())
            raise refused(
                self._key,
                f"{name} has NaN or an infinite number in row {self._row + row}",
                "leave that episode out, or repair it",
            )
        if (wrong := ((values < self._low) | (values > self._high)).any(axes)).any():
            row = int(wrong.argmax())
            raise refused(
                self._key,
                f"{name} lies outside obs_low and obs_high in row {self._row + row}",
                "correct the bounds or the row",
            )

    def _compare(self, next_obs: Array, following: Array, row: int) -> None:
        """Compare next observations from ``row`` on with the observations that follow."""
        within = ~self._ended[row : row + len(next_obs)]
        differ = within & (next_obs != following).any(tuple(range(1, following.ndim)))
        if differ.any() and not self._astray:
            self._first_astray = row + int(differ.argmax())
        self._astray += int(differ.sum())

    def conclude(self) -> None:
        """All parts were seen.

        Raises:
            ConfigError: If rows are out of step.
        """
        within = int((~self._ended).sum())
        if self._astray:
            raise refused(
                self._key,
                f"in {self._astray / within:.1%} of the rows within episodes (first in row "
                f"{self._first_astray}) next_obs is not the obs of the next row",
                "give each episode's steps one after another, move no array against the others, "
                "and mark the last step of each episode in terminated or truncated",
            )
