"""Visited states of running games as levels: the newest ones are kept, with an index of codes.

A level must be a vector of a box, so that archive, level GAN and p̂ can hold it, but the state of a
game is objects and random generators, which no vector sets. So a level is a code of what the
network sees in a state, and it stands for the kept state whose code is nearest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.core.free_ram import in_units
from lit_crl.envs.bits import is_bits

#: Coordinates of a level. A distance in the code has a relative error of about 1/√(2 · 32), 1/8.
CODE_SIZE = 32
#: Distance of observations, whose elements lie in [0, 1], at which codes begin to look unrelated.
#: Maps of bits that follow each other differ in a few cells, and are at a distance of 2 or 3.
WIDTH = 4.0


def fourier_code(x: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """Random Fourier features cos(xᵀω + b) of vectors ``x [n, D]``, in [−1, 1], ``[n, d]``.

    With ω ~ N(0, 1/w²) and b ~ U(0, 2π) the mean square of differences is 1 − exp(−‖x − y‖²/2w²):
    it grows with the distance of x and y (Rahimi & Recht 2007, algorithm 1, without its factor).

    Args:
        x: The vectors.
        frequency: ω, a column for each coordinate, ``[D, d]``.
        phase: b, ``[d]``.
    """
    return (x @ frequency + phase).cos()


def can_be_coded(space: Box) -> bool:
    """Whether observations are bytes or bits, whose bounds tell how far apart two of them are."""
    return space.dtype == np.uint8 or is_bits(space)


class VisitedStates:
    """The newest states by their codes: of two states with one code, the newer one is kept."""

    def __init__(self, capacity: int, space: Box) -> None:
        """Keep no states yet.

        Args:
            capacity: Most states that are kept.
            space: Space of observations, see ``can_be_coded``.
        """
        self.capacity = capacity
        self.level_space = Box(-1.0, 1.0, (CODE_SIZE,))
        low, high = (torch.from_numpy(bound).flatten().float() for bound in (space.low, space.high))
        self._low, self._width = low, (high - low).clamp(min=1.0)
        rng = torch.Generator().manual_seed(0)  # the same codes in every run
        self._frequency = torch.randn(len(low), CODE_SIZE, generator=rng) / WIDTH
        self._phase = 2 * math.pi * torch.rand(CODE_SIZE, generator=rng)
        #: States by the bytes of their codes, the oldest first.
        self._states: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """How many states are kept."""
        return len(self._states)

    @property
    def num_bytes(self) -> int:
        """What states and codes take."""
        return sum(len(code) + len(state) for code, state in self._states.items())

    @property
    def in_words(self) -> str:
        """One line on how many states are kept, and what they take."""
        most = self.capacity * self.num_bytes / max(len(self), 1)
        return (
            f"Levels are visited states: the newest {self.capacity:,} are kept, which take about "
            f"{in_units(most)}."
        )

    @property
    def codes(self) -> Tensor:
        """The levels of all kept states ``[n, d]``, the oldest first, on the CPU."""
        joined = bytearray().join(self._states)
        return torch.frombuffer(joined, dtype=torch.float32).view(-1, CODE_SIZE)

    def keep(self, observation: Tensor, state: bytes) -> Tensor:
        """Keep a state, and forget the oldest one if there are too many.

        Args:
            observation: What the network sees in it.
            state: Whatever restores it.

        Returns:
            Its level ``[d]``.
        """
        x = (observation.flatten().float() - self._low) / self._width
        level = fourier_code(x[None], self._frequency, self._phase)[0]
        key = level.numpy().tobytes()
        self._states.pop(key, None)
        self._states[key] = state
        if len(self) > self.capacity:
            del self._states[next(iter(self._states))]
        return level

    def nearest(self, levels: Tensor) -> Tensor:
        """The kept levels that are nearest to ``levels [n, d]``, ``[n, d]``; NaN rows stay so."""
        codes = self.codes.to(levels.device)
        # Products of matrices would be inexact: the level of a kept state is its own nearest one.
        distance = torch.cdist(levels, codes, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.where(levels.isfinite().all(1, True), codes[distance.argmin(1)], levels)

    def state_at(self, level: Tensor) -> bytes:
        """The state of a kept level ``[d]``."""
        return self._states[level.cpu().numpy().tobytes()]

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """``n`` levels of kept states ``[n, d]``, none twice before each has come once."""
        rounds = -(-n // len(self))
        orders = [
            torch.randperm(len(self), generator=rng, device=rng.device) for _ in range(rounds)
        ]
        pick = torch.cat(orders)[:n] if orders else torch.empty(0, dtype=torch.long)
        return self.codes[pick.cpu()]

    def state_dict(self) -> dict[str, Tensor]:
        """All kept states, as three tensors."""
        states = self._states.values()
        return {
            "levels": self.codes,
            "sizes": torch.tensor([len(state) for state in states]),
            "states": torch.frombuffer(bytearray().join(states), dtype=torch.uint8),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what ``state_dict`` had; of more states than there is room for, the newest."""
        parts = state["states"].split(state["sizes"].tolist())
        pairs = list(zip(state["levels"], parts, strict=True))[-self.capacity :]
        self._states = {code.numpy().tobytes(): part.numpy().tobytes() for code, part in pairs}
