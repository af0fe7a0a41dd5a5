"""Where dreams start: in first states, in visited states, and in states of generated levels."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError, RunError
from lit_crl.dqn.replay.buffer import ReplayBuffer

#: Gives ``n`` observations ``[n, ...]`` from which a step can be taken.
DrawObservations = Callable[[int, torch.Generator], Tensor]


class StartShares(NamedTuple):
    """Shares of the dreams by where they start; only their proportions count."""

    #: Right after a reset of the real environment.
    first: float = 0.25
    #: Anywhere that the real environment has been, except where an episode had ended.
    visited: float = 0.75
    #: Where an episode at a generated level starts.
    generated: float = 0.0


def shares_now(wanted: Sequence[float], available: Sequence[bool]) -> tuple[float, ...]:
    """Shares that add up to 1, and are 0 where nothing is available.

    The share of a source that has nothing yet goes to the others, in proportion to theirs. If those
    have no share, they get equal ones.

    Raises:
        RunError: If no source has anything.

    >>> shares_now((0.25, 0.75, 1.0), (True, True, False))
    (0.25, 0.75, 0.0)
    >>> shares_now((0.0, 0.0, 1.0), (True, True, False))
    (0.5, 0.5, 0.0)
    """
    left = [share * has for share, has in zip(wanted, available, strict=True)]
    if not any(left):
        left = [float(has) for has in available]
    if not any(left):
        raise RunError("no dream can start: collect real steps first, or give generated levels")
    return tuple(share / sum(left) for share in left)


def draw_sources(shares: Sequence[float], n: int, rng: torch.Generator) -> Tensor:
    """The source of each of ``n`` starts, drawn by shares that add up to 1, ``[n]`` int64.

    A source whose share is 0 is never drawn:

    >>> draw_sources((0.0, 1.0, 0.0), 1_000, torch.Generator().manual_seed(0)).unique()
    tensor([1])
    """
    # In float64 the sums are exact enough; the last source with a share takes what rounding left.
    upper = torch.tensor(shares, dtype=torch.float64, device=rng.device).cumsum(0)
    last = max(index for index, share in enumerate(shares) if share > 0)
    uniform = torch.rand(n, generator=rng, dtype=torch.float64, device=rng.device)
    return torch.searchsorted(upper, uniform, right=True).clamp_max(last)


def draw_starts(sources: Sequence[DrawObservations], which: Tensor, rng: torch.Generator) -> Tensor:
    """Observations ``[n, ...]``, each from the source that ``which [n]`` says.

    Only sources from which something is wanted are asked.
    """
    row, found = [], []
    for index, draw in enumerate(sources):
        wanted = (which == index).nonzero().squeeze(1)
        if len(wanted):
            row.append(wanted)
            found.append(draw(len(wanted), rng))
    return torch.cat(found).index_select(0, torch.cat(row).argsort())


class FirstStates:
    """The newest observations that followed a reset, in a ring of fixed size."""

    def __init__(
        self, capacity: int, space: Box, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        """Make room for ``capacity`` observations of ``space``, stored as ``dtype``."""
        checks.positive(capacity=capacity)
        self.obs = torch.zeros(capacity, *space.shape, dtype=dtype, device=device)
        self.written = 0

    def __len__(self) -> int:
        """How many observations it holds now."""
        return min(self.written, len(self.obs))

    def add(self, obs: Tensor) -> None:
        """Append observations ``[n, ...]``; the oldest make room."""
        # Of more than the ring holds, the first would be overwritten at once. On a GPU the order of
        # writes to one row is undefined, so they must not be written at all.
        overrun = max(0, len(obs) - len(self.obs))
        row = torch.arange(self.written + overrun, self.written + len(obs), device=self.obs.device)
        self.obs.index_copy_(0, row % len(self.obs), obs[overrun:].to(self.obs.dtype))
        self.written += len(obs)

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """``n`` observations, uniformly with replacement."""
        row = torch.randint(len(self), (n,), generator=rng, device=self.obs.device)
        return self.obs.index_select(0, row)

    def state_dict(self) -> dict[str, Any]:
        """What it holds, and how much was ever written."""
        return {"obs": self.obs[: len(self)].clone(), "written": self.written}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()`` of a ring of the same size.

        Raises:
            ConfigError: If the saved ring had another size.
        """
        saved: Tensor = state["obs"]
        fits = len(saved) == min(state["written"], len(self.obs))
        if not fits or saved.shape[1:] != self.obs.shape[1:]:
            raise ConfigError(
                f"the saved first states have shape {tuple(saved.shape)} after {state['written']} "
                f"resets, this run has room for {tuple(self.obs.shape)}: resume with the settings "
                "it was saved with"
            )
        self.obs[: len(saved)].copy_(saved)
        self.written = state["written"]


class Starts:
    """Draws where dreams start, in shares, and counts them.

    The final observation of an episode never starts a dream: the replay does not give it out, the
    ring of first states does not hold it, and generated levels must be valid ones.
    """

    def __init__(
        self,
        first: FirstStates,
        visited: ReplayBuffer,
        shares: StartShares,
        generated: DrawObservations | None = None,
    ) -> None:
        """Draw from what these hold at the time.

        Args:
            first: Observations that followed a reset.
            visited: Real transitions; dreams start at the observations from which they start.
            shares: Shares of the sources.
            generated: Observations in which episodes at generated levels start, or None while
                there are none; may be set later.

        Raises:
            ConfigError: If a share is negative, or none is above 0.
        """
        for name, share in zip(shares._fields, shares, strict=True):
            checks.non_negative(**{f"shares__{name}": share})
        if not sum(shares):
            raise ConfigError("shares are all 0: give at least one above 0, for instance visited")
        self.first, self.visited, self.generated = first, visited, generated
        self.wanted = shares
        self._has_visited = False
        #: How many dreams each source has started, ``[3]``, as in ``StartShares``.
        self.counts = torch.zeros(len(shares), dtype=torch.int64, device=first.obs.device)

    @property
    def shares(self) -> StartShares:
        """The shares as they are now, 0 where there is nothing yet.

        Raises:
            RunError: If there is nothing at all.
        """
        # A replay that once had something always has: a GPU is asked no more.
        self._has_visited = self._has_visited or self.visited.num_startable > 0
        available = (len(self.first) > 0, self._has_visited, self.generated is not None)
        return StartShares(*shares_now(self.wanted, available))

    def notice(self) -> str:
        """A sentence on shares that have no source now; empty if all have."""
        now = self.shares
        missing = [
            name
            for name, wanted, share in zip(now._fields, self.wanted, now, strict=True)
            if wanted > 0 and not share
        ]
        if not missing:
            return ""
        given = ", ".join(f"{share:.0%} {name}" for name, share in now._asdict().items() if share)
        return f"No dream can start from {' or '.join(missing)} states yet: now {given}."

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """``n`` observations ``[n, ...]`` at which dreams start.

        Raises:
            RunError: If there is nothing yet at which one could start.
        """
        obs, source = self.ahead(n, rng)
        self.count(source, torch.ones_like(source))
        return obs

    def ahead(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same and their sources ``[n]``, not yet counted: some may start no dream.

        Raises:
            RunError: As ``draw`` does.
        """
        source = draw_sources(self.shares, n, rng)
        draws = (self.first.draw, self.visited.sample_observations, self._draw_generated)
        return draw_starts(draws, source, rng), source

    def count(self, source: Tensor, started: Tensor) -> None:
        """Count the dreams that ``started [n]`` at states of a ``source [n]``."""
        self.counts.index_add_(0, source, started.long())

    def _draw_generated(self, n: int, rng: torch.Generator) -> Tensor:
        assert self.generated is not None  # its share is 0 otherwise
        return self.generated(n, rng)

    def state_dict(self) -> dict[str, Any]:
        """The first states and the counts; the replay is saved by its owner."""
        return {"first": self.first.state_dict(), "counts": self.counts.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.first.load_state_dict(state["first"])
        self.counts.copy_(state["counts"])
