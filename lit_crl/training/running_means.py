"""Running means of losses that no update has to wait for, and the watch for NaN in them."""

import math
from typing import Any

import torch
from torch import Tensor

from lit_crl.core.checks import RunError

#: Reports that are looked at together where a look makes the program wait for a GPU.
LOOK_EVERY = 32


class LossSums:
    """Running sums of losses, kept as tensors so that no update waits for a number."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._new: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, report: dict[str, Tensor], first: int) -> None:
        """Note the losses ``[K]`` of K consecutive updates, of which ``first`` is the number.

        They count from the next ``check_finite`` on.
        """
        self._new.append((first, report))

    def check_finite(self) -> None:
        """Add up everything noted since the last time: one wait for the device.

        On a GPU that is put off until there is more to add up.

        Raises:
            RunError: If a number was not finite; names the first one and its update.
        """
        is_on_gpu = any(number.is_cuda for _, report in self._new[:1] for number in report.values())
        if not is_on_gpu or len(self._new) >= LOOK_EVERY:
            self._add_up()

    def _add_up(self) -> None:
        new, self._new = self._new, []
        totals = [report[name].sum() for _, report in new for name in report]
        if totals and not torch.stack(totals).isfinite().all():
            for first, report in new:
                _refuse_infinite(report, first)
        for _, report in new:
            for name, losses in report.items():
                total = totals.pop(0)
                self._sums[name] = self._sums[name] + total if name in self._sums else total
                self._counts[name] = self._counts.get(name, 0) + len(losses)

    def pop_means(self) -> dict[str, float]:
        """The means since the last call, which this forgets.

        Raises:
            RunError: See ``check_finite``.
        """
        self._add_up()
        means = {name: total.item() / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts.

        Raises:
            RunError: See ``check_finite``.
        """
        self._add_up()
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


def _refuse_infinite(report: dict[str, Tensor], first: int) -> None:
    rows = zip(*(losses.tolist() for losses in report.values()), strict=True)
    for update, numbers in enumerate(rows, first):
        for name, number in zip(report, numbers, strict=True):
            if not math.isfinite(number):
                raise RunError(
                    f"{name} became {number} at its update {update:,}: try a smaller learning "
                    "rate, look for rewards or observations that are not finite, or use "
                    "--trainer.precision 32-true"
                )
