"""Running means of losses that no update has to wait for."""

from typing import Any

from torch import Tensor


class LossSums:
    """Running sums of losses, kept as tensors so that no update waits for a number."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add one update's losses."""
        for name, loss in losses.items():
            detached = loss.detach()
            if name in self._sums:
                self._sums[name] += detached
                self._counts[name] += 1
            else:
                self._sums[name], self._counts[name] = detached.clone(), 1

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
