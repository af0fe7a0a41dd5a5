"""Rewards as distributions over fixed atoms, for heads that classify: pure functions.

A squared error would be the worst of losses where one step in a thousand pays: in units of the
spread of such rewards the one that pays lies some thirty units away, and whatever is left of that
error is promised by every dreamed step. A head that tells *which* reward it is errs next to nothing
where it is sure, whatever the scale (the two-hot targets of Hafner et al. 2025, DreamerV3, "Critic
learning", with atoms in units of the largest reward instead of a fixed logarithm).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

#: Atoms on each side of 0, spaced evenly in the logarithm from ``LEAST`` to 1.
SIDE = 24
#: The smallest reward but 0 that has an atom, in units of the largest.
LEAST = 1e-3


def reward_atoms(device: torch.device | str = "cpu") -> Tensor:
    """The atoms ``[2 · SIDE + 1]`` in ascending order: −1 … −LEAST, 0, LEAST … 1."""
    side = torch.logspace(torch.tensor(LEAST).log10().item(), 0.0, SIDE, device=device)
    side[-1] = 1.0
    return torch.cat([-side.flip(0), side.new_zeros(1), side])


def two_hot(reward: Tensor, atoms: Tensor) -> Tensor:
    """The distribution ``[..., A]`` over ascending ``atoms [A]`` whose mean is ``reward [...]``.

    Only the two atoms beside the reward have weight. A reward beyond the atoms gets the outermost.

    >>> two_hot(torch.tensor([0.0, 0.25, 7.0]), torch.tensor([-1.0, 0.0, 1.0]))
    tensor([[0.0000, 1.0000, 0.0000],
            [0.0000, 0.7500, 0.2500],
            [0.0000, 0.0000, 1.0000]])
    """
    reward = reward.clamp(atoms[0], atoms[-1])
    upper = torch.searchsorted(atoms, reward).clamp(1, len(atoms) - 1)
    low, high = atoms[upper - 1], atoms[upper]
    share = ((reward - low) / (high - low)).unsqueeze(-1)
    below, above = (F.one_hot(place, len(atoms)) for place in (upper - 1, upper))
    return (1 - share) * below + share * above


def expected(logits: Tensor, atoms: Tensor) -> Tensor:
    """The mean ``[...]`` of the distributions over ``atoms [A]`` with ``logits [..., A]``.

    >>> expected(torch.zeros(3), torch.tensor([-1.0, 0.0, 7.0]))
    tensor(2.0000)
    """
    # A matrix product would have half the digits under mixed precision.
    return (logits.float().softmax(-1) * atoms).sum(-1)
