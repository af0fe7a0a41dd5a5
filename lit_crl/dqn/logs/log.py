"""What a log holds, whatever its format: columns of steps, observations in parts, and its task."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lit_crl.core.checks import ConfigError
from lit_crl.envs.images import ImageLayout

Array = npt.NDArray[Any]

#: Ends that must agree before they are taken for a time limit.
LEAST_ENDS = 3


class LogError(ConfigError):
    """A log that cannot be learnt from; the message is one sentence."""


class Columns(NamedTuple):
    """What a log holds of T steps besides observations, ``[T]`` each, in the order of the steps."""

    #: Actions, numbered from 0.
    action: Array
    reward: Array
    #: Whether the task ended with the step.
    terminated: Array
    #: Whether the episode was cut there, for instance by a time limit.
    truncated: Array

    @property
    def ended(self) -> Array:
        """The last steps of episodes, bool ``[T]``; the last step of a log always is one."""
        ended: Array = self.terminated | self.truncated
        return np.append(ended[:-1], True) if len(ended) else ended


@dataclass(frozen=True)
class Declared:
    """What a log declares about its task; None: it does not say.

    Attributes:
        num_actions: How many actions there are.
        bounds: Lowest and highest value of each number of an observation.
        first_action: The task's own number of action 0.
        image_layout: The axes of images; None if observations are vectors.
    """

    num_actions: int | None = None
    bounds: tuple[Array, Array] | None = None
    first_action: int = 0
    image_layout: ImageLayout | None = None


class Fingerprint(NamedTuple):
    """What tells a log from another one."""

    bytes: int
    #: SHA-256 of its content, in hexadecimal digits.
    sha256: str

    def __str__(self) -> str:
        """In words."""
        return f"a log of {self.bytes:,} bytes with SHA-256 {self.sha256}"


class Log(Protocol):
    """A log of T steps."""

    #: What messages call it: ``data.transitions`` and its path.
    key: str
    columns: Columns
    declared: Declared
    #: Shape and type of one observation.
    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype[Any]

    def observations(self) -> Iterator[tuple[Array, Array]]:
        """Observations and next observations of consecutive steps, ``[n, ...]`` each, in parts."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Its size and a hash of its content."""


class Counts(NamedTuple):
    """How much a log holds."""

    rows: int
    episodes: int
    #: Episodes that ended because the task did, and those that were cut.
    ends: int
    cuts: int
    longest: int

    def __str__(self) -> str:
        """In words.

        >>> print(Counts(10_000, 450, 449, 1, 81))
        10,000 rows in 450 episodes (449 ends, 1 cuts), the longest with 81 steps
        """
        return (
            f"{self.rows:,} rows in {self.episodes:,} episodes ({self.ends:,} ends, "
            f"{self.cuts:,} cuts), the longest with {self.longest:,} steps"
        )


def lengths(columns: Columns) -> Array:
    """The number of steps of each episode."""
    last = columns.ended.nonzero()[0]
    return np.diff(last, prepend=-1)


def counts(columns: Columns) -> Counts:
    """Count rows, episodes, ends and cuts. A step that both ended and was cut is an end."""
    of_episodes, ends = lengths(columns), int(columns.terminated.sum())
    episodes = len(of_episodes)
    return Counts(len(columns.reward), episodes, ends, episodes - ends, int(of_episodes.max()))


def notices(columns: Columns) -> list[str]:
    """Sentences about what a log may mean, or cannot teach."""
    ended = lengths(columns)[columns.terminated[columns.ended]]
    has_rewards = bool((columns.reward != columns.reward[0]).any())
    if not len(ended) and not has_rewards:
        return [
            "No step ends the task, and all rewards are the same: such a log can teach nothing, "
            "because every policy looks equally good in it. Record one with some successes or "
            "failures."
        ]
    if not len(ended):
        return ["No step ends the task: the world learns from it that nothing ever ends."]
    if len(ended) >= LEAST_ENDS and (ended == ended[0]).all():
        return [
            f"All {len(ended):,} ends are at step {ended[0]:,} of their episodes: this looks like "
            "a time limit. If it is one, mark these steps in truncated and not in terminated; as "
            "ends they teach that nothing follows."
        ]
    return []


def refused(key: str, problem: str, remedy: str) -> LogError:
    """The error about a log, in one sentence."""
    return LogError(f"{key}: {problem}: {remedy}")
