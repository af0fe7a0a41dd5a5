"""The watch for a support of returns that is too narrow."""

from collections.abc import Sequence

from torch import Tensor

from lit_crl.core import distributed

#: Share of the targets' probability beyond a support that is worth a sentence.
MUCH = 0.1


class ClippedTargets:
    """Says once if a support that was given clips much of the targets."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._shares: list[Tensor] = []
        self._is_said = False

    def add(self, shares: Tensor) -> None:
        """Note the clipped shares ``[K]`` of K updates, without waiting for the device."""
        if not self._is_said:
            self._shares.append(shares.mean())

    def look(self, support: Sequence[float]) -> None:
        """Say so if the mean share since the last time was large."""
        shares, self._shares = self._shares, []
        if not shares or (mean := sum(share.item() for share in shares) / len(shares)) <= MUCH:
            return
        self._is_said = True
        distributed.print_once(
            f"The support of returns from {support[0]:g} to {support[1]:g} clips {mean:.0%} of the "
            "targets: give a wider model.dqn.support, or null, so that it follows from the rewards."
        )
