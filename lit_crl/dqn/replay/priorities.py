"""Priorities of the replay's rows: the larger the TD error, the more often the row is drawn.

Proportional prioritization, Schaul et al. 2016.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.replay.sampling import ROWS_PER_BLOCK, draw_proportional

#: Rows whose TD error is 0 are still drawn now and then (Schaul et al. 2016, §3.3).
MIN_TD_ERROR = 1e-6


class Prioritized(NamedTuple):
    """Transitions drawn by priority, every field with the same leading dimensions.

    ``row`` is where each one starts, for ``Priorities.update``; ``weight`` is the importance weight
    of its loss, at most 1.
    """

    transitions: Transitions
    row: Tensor
    weight: Tensor


def priority(td_error: Tensor, exponent: float) -> Tensor:
    """The priority (|δ| + ε)^α, Schaul et al. 2016, §3.3 and the numerator of eq. 1.

    >>> priority(torch.tensor([-4.0, 0.25]), exponent=0.5)
    tensor([2.0000, 0.5000])
    """
    return (td_error.abs() + MIN_TD_ERROR).pow(exponent)


def importance_weight(priority: Tensor, beta: float) -> Tensor:
    """The weight (1 / (n · P(i)))^β over its maximum, Schaul et al. 2016, §3.4.

    With P(i) = p_i / Σ_j p_j, eq. 1, both n and the sum cancel: (min_j p_j / p_i)^β.

    >>> importance_weight(torch.tensor([1.0, 4.0]), beta=0.5)
    tensor([1.0000, 0.5000])
    """
    return (priority.min() / priority).pow(beta)


class Priorities:
    """For each row (|δ| + ε)^α of its last TD error δ; 0 where no transition may start."""

    def __init__(self, rows: int, exponent: float, device: torch.device | str = "cpu") -> None:
        """Start with all ``rows`` at 0; ``exponent`` is α."""
        self.exponent = exponent
        # Only whole blocks: values past the last row stay at 0.
        self.values = torch.zeros(-(-rows // ROWS_PER_BLOCK), ROWS_PER_BLOCK, device=device)
        self.sums = torch.zeros(len(self.values), device=device)
        self.largest = torch.zeros((), device=device)

    def insert(self, rows: Tensor, ready: Tensor, spoilt: Tensor) -> None:
        """Give the ``rows [m]`` that are ``ready [m]`` the largest priority so far, at least 1.

        So every transition is soon drawn once (Schaul et al. 2016, algorithm 1, line 6). The other
        ``rows`` and the ``spoilt [s]`` ones get 0: no transition can start there.
        """
        flat = self.values.view(-1)
        flat.index_fill_(0, spoilt, 0)
        flat.index_copy_(0, rows, ready * self.largest.clamp(min=1))
        self._sum(torch.cat([spoilt, rows]))

    def update(self, rows: Tensor, td_errors: Tensor) -> None:
        """Set the priorities of ``rows [...]`` by their TD errors δ ``[...]``.

        If a row was drawn more than once, its largest error counts. Rows that have been overwritten
        in the meantime stay at 0. An error that is not finite changes nothing.
        """
        flat, row = self.values.view(-1), rows.reshape(-1)
        old = flat.index_select(0, row)
        new = priority(td_errors.detach().reshape(-1).float(), self.exponent)
        new = torch.where(new.isfinite() & (old > 0), new, old)
        flat.scatter_reduce_(0, row, new, "amax", include_self=False)
        self.largest.copy_(torch.maximum(self.largest, new.max()))
        self._sum(row)

    def _sum(self, rows: Tensor) -> None:
        """Sum the blocks of ``rows [m]`` anew: if differences were added, errors would pile up."""
        block = rows // ROWS_PER_BLOCK
        self.sums.index_copy_(0, block, self.values.index_select(0, block).sum(dim=1))

    def draw(self, shape: tuple[int, ...], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows for the minibatches of ``shape = [..., B]``, and their present priorities.

        Raises:
            RuntimeError: If every row is at 0.
        """
        row = draw_proportional(self.values, self.sums, shape, rng)
        return row, self.values.view(-1).index_select(0, row.view(-1)).view(shape)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes in use."""
        return {"priority": self.values, "priority_sum": self.sums, "largest": self.largest}
