"""The atoms of rewards, for heads that classify (``core/categorical.py``).

A squared error would be the worst of losses where one step in a thousand pays: in units of the
spread of such rewards the one that pays lies some thirty units away, and whatever is left of that
error is promised by every dreamed step. A head that tells *which* reward it is errs next to nothing
where it is sure, whatever the scale (the two-hot targets of Hafner et al. 2025, DreamerV3, "Critic
learning", with atoms in units of the largest reward instead of a fixed logarithm).
"""

import torch
from torch import Tensor

#: Atoms on each side of 0, spaced evenly in the logarithm from ``LEAST`` to 1.
SIDE = 24
#: The smallest reward but 0 that has an atom, in units of the largest.
LEAST = 1e-3


def reward_atoms(device: torch.device | str = "cpu") -> Tensor:
    """The atoms ``[2 · SIDE + 1]`` in ascending order: −1 … −LEAST, 0, LEAST … 1."""
    side = torch.logspace(torch.tensor(LEAST).log10().item(), 0.0, SIDE, device=device)
    side[-1] = 1.0
    return torch.cat([-side.flip(0), side.new_zeros(1), side])
