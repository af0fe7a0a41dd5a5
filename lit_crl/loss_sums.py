"""Running means of losses that no update has to wait for, and the watch for NaN in them."""

from typing import Any

import torch
from torch import Tensor

from lit_crl.checks import RunError


class LossSums:
    """Running sums of losses, kept as tensors so that no update waits for a number."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._unchecked: list[tuple[str, int, Tensor]] = []

    def add(self, losses: dict[str, Tensor], update: int) -> None:
        """Add the losses of the update of that number."""
        for name, loss in losses.items():
            detached = loss.detach()
            self._unchecked.append((name, update, detached))
            if name in self._sums:
                self._sums[name] += detached
                self._counts[name] += 1
            else:
                self._sums[name], self._counts[name] = detached.clone(), 1

    def check_finite(self) -> None:
        """Look at everything that was added since the last look: one wait for the device.

        Raises:
            RunError: If a number was not finite; names the first one and its update.
        """
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked or torch.stack([loss for *_, loss in unchecked]).isfinite().all():
            return
        name, update, loss = next(entry for entry in unchecked if not entry[2].isfinite())
        raise RunError(
            f"{name} became {loss.item()} at its update {update:,}: try a smaller learning rate, "
            "look for rewards or observations that are not finite, or use --trainer.precision "
            "32-true"
        )

    def pop_means(self) -> dict[str, float]:
        """The means since the last call, which this forgets."""
        means = {name: total.item() / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
