"""Distributions over fixed atoms: pure functions.

A number becomes a distribution whose mean it is, and a head of a network then tells the atoms apart
instead of regressing the number. The world does so with rewards (``world/rewards.py``), and a
distributional Q-network with returns (``dqn/c51.py``).
"""

import torch
from torch import Tensor


def one_hot(index: Tensor, size: int) -> Tensor:
    """The distribution ``[..., size]`` that is certain of an ``index [...]``, in float32.

    Unlike torch's ``one_hot`` it does not look at the numbers, so that it can be recorded.

    >>> one_hot(torch.tensor([2, 0]), 3)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    return (index.unsqueeze(-1) == torch.arange(size, device=index.device)).float()


def between(value: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Where each ``value [...]`` lies between two neighbours of ascending ``atoms [A]``.

    Returns:
        The index of the lower neighbour ``[...]``, and how far on the way to the upper one the
        value is, from 0 to 1, ``[...]``. A value beyond the atoms counts as the outermost.

    >>> between(torch.tensor([-5.0, 0.25, 1.0]), torch.tensor([-1.0, 0.0, 1.0]))
    (tensor([0, 1, 1]), tensor([0.0000, 0.2500, 1.0000]))
    """
    value = value.clamp(atoms[0], atoms[-1])
    upper = torch.searchsorted(atoms, value).clamp(1, len(atoms) - 1)
    low, high = atoms[upper - 1], atoms[upper]
    return upper - 1, (value - low) / (high - low)


def two_hot(value: Tensor, atoms: Tensor) -> Tensor:
    """The distribution ``[..., A]`` over ascending ``atoms [A]`` whose mean is ``value [...]``.

    Only the two atoms beside the value have weight. A value beyond the atoms gets the outermost.

    >>> two_hot(torch.tensor([0.0, 0.25, 7.0]), torch.tensor([-1.0, 0.0, 1.0]))
    tensor([[0.0000, 1.0000, 0.0000],
            [0.0000, 0.7500, 0.2500],
            [0.0000, 0.0000, 1.0000]])
    """
    lower, share = (each.unsqueeze(-1) for each in between(value, atoms))
    place = torch.arange(len(atoms), device=atoms.device)
    return torch.where(place == lower + 1, share, torch.where(place == lower, 1 - share, 0.0))


def projected(probability: Tensor, values: Tensor, atoms: Tensor) -> Tensor:
    """A distribution over other ``values`` as one over ``atoms``: Σ_j p_j · two_hot(v_j).

    So each value's probability goes to the two atoms beside it, in proportion to how near they are
    (Bellemare et al. 2017, eq. 7). None is lost, and the mean stays, unless values lie beyond the
    atoms.

    Args:
        probability: Of each value, ``[..., V]``.
        values: ``[..., V]``.
        atoms: Ascending, ``[A]``.

    Returns:
        ``[..., A]``.

    >>> probability, values = torch.tensor([0.5, 0.5]), torch.tensor([-7.0, 0.5])
    >>> projected(probability, values, torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.5000, 0.2500, 0.2500])
    """
    lower, share = between(values, atoms)
    found = probability.new_zeros(*probability.shape[:-1], len(atoms))
    found = found.scatter_add(-1, lower, probability * (1 - share))
    return found.scatter_add(-1, lower + 1, probability * share)


def expected(logits: Tensor, atoms: Tensor) -> Tensor:
    """The mean ``[...]`` of the distributions over ``atoms [A]`` with ``logits [..., A]``.

    >>> expected(torch.zeros(3), torch.tensor([-1.0, 0.0, 7.0]))
    tensor(2.0000)
    """
    # A matrix product would have half the digits under mixed precision.
    return (logits.float().softmax(-1) * atoms).sum(-1)
