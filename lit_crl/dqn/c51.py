"""The distribution of returns in the place of their mean (C51): pure functions.

Bellemare et al. 2017, "A distributional perspective on reinforcement learning". A distribution has
N atoms, evenly spaced over the *support*, and an action's value is its mean.

The support follows from γ and the rewards. If each reward lies between r and R, each return lies
between r / (1 − γ) and R / (1 − γ). An n-step target lies there, too, whatever n is:
(1 − γⁿ) · r / (1 − γ) + γⁿ · r / (1 − γ) = r / (1 − γ). ``possible_returns`` has this range for the
rewards seen so far, and knows that nothing follows an end. It clips the targets here as it clips
those of plain values, and the support is made from it: from 0 to its far end or, where returns of
both signs are possible, equally far to both sides. When a larger reward is met, the support widens.
Because 0 keeps its place, a network that predicted 0 then goes on predicting 0; its other
predictions grow with the support, until they are learnt anew. The first reward of another sign
moves 0 as well. A support that the user gives stays as it is.

Notation as in ``equations``; ``logits [..., A, N]`` and ``probability [..., N]`` are distributions.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_crl.core.categorical import projected

#: How far beyond the support an atom may be moved without being counted, in distances of atoms.
ROUNDING = 1e-3


def support_of(returns: Tensor) -> Tensor:
    """The support ``[2]`` of the possible ``returns [2]``: [0, V], [−V, 0] or [−V, V].

    V is their largest size, and 1 if all are 0.

    >>> returns = [[0.0, 4.0], [-4.0, -1.0], [-4.0, 1.0], [0.0, 0.0]]
    >>> [support_of(torch.tensor(pair)).tolist() for pair in returns]
    [[0.0, 4.0], [-4.0, 0.0], [-4.0, 4.0], [0.0, 1.0]]
    """
    low, high = returns.unbind()
    reach = returns.abs().amax()
    below, above = torch.where(low < 0, -reach, 0.0), torch.where(high > 0, reach, 0.0)
    return torch.stack([below, torch.where(reach > 0, above, 1.0)])


def evenly_spaced(support: Tensor, atoms: int) -> Tensor:
    """The atoms z_i = low + i · (high − low) / (N − 1), ``[N]``, Bellemare et al. 2017, §4.

    >>> evenly_spaced(torch.tensor([-10.0, 10.0]), atoms=5)
    tensor([-10.,  -5.,   0.,   5.,  10.])
    """
    low, high = support.unbind()
    return low + (high - low) * torch.linspace(0, 1, atoms, device=support.device)


def of_action(logits: Tensor, action: Tensor) -> Tensor:
    """The distribution of the action that was taken: ``[..., A, N], [...] -> [..., N]``.

    >>> of_action(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([1]))
    tensor([[3., 4.]])
    """
    index = action[..., None, None].expand(*action.shape, 1, logits.shape[-1])
    return logits.gather(-2, index).squeeze(-2)


def moved_atoms(reward: Tensor, discount: Tensor, atoms: Tensor) -> Tensor:
    """Where each atom goes: r + discount · z_j, ``[B, N]``, Bellemare et al. 2017, algorithm 1.

    Each row has the discount of the steps that it folds; where the task ended, all atoms go to r.

    >>> moved_atoms(torch.ones(2), torch.tensor([0.5, 0.0]), torch.tensor([-2.0, 2.0]))
    tensor([[0., 2.],
            [1., 1.]])
    """
    return reward.unsqueeze(-1) + discount.unsqueeze(-1) * atoms


def categorical_td_target(
    reward: Tensor,
    discount: Tensor,
    next_probability: Tensor,
    atoms: Tensor,
    returns: Tensor | None = None,
) -> Tensor:
    """The distribution of r + discount · Z⁻(s', a*), projected onto the atoms, ``[B, N]``.

    Bellemare et al. 2017, eq. 7.

    Args:
        reward: ``[B]``.
        discount: ``[B]``.
        next_probability: The target network's distribution for the best next action, ``[B, N]``.
        atoms: ``[N]``.
        returns: The possible returns ``[2]``, to which what the atoms move to is clipped.

    >>> reward, discount, next_probability = torch.zeros(1), torch.ones(1) / 2, torch.ones(1, 3) / 3
    >>> categorical_td_target(reward, discount, next_probability, torch.tensor([-2.0, 0.0, 2.0]))
    tensor([[0.1667, 0.6667, 0.1667]])
    """
    moved = moved_atoms(reward, discount, atoms)
    moved = moved if returns is None else moved.clamp(*returns)
    return projected(next_probability, moved, atoms)


def clipped_share(
    reward: Tensor, discount: Tensor, next_probability: Tensor, atoms: Tensor
) -> Tensor:
    """Share of the targets' probability that lies beyond the support, and goes to its ends.

    >>> next_probability = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
    >>> atoms = torch.tensor([-2.0, 0.0, 2.0])
    >>> clipped_share(torch.ones(2), torch.ones(2), next_probability, atoms)
    tensor(0.5000)
    """
    moved = moved_atoms(reward, discount, atoms)
    margin = ROUNDING * (atoms[1] - atoms[0])
    is_beyond = (moved < atoms[0] - margin) | (moved > atoms[-1] + margin)
    return (next_probability * is_beyond).sum(-1).mean()


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """D_KL(target ‖ softmax(logits)), the loss of C51, ``[..., N], [..., N] -> [...]``.

    Bellemare et al. 2017, §4.1. Its gradient is the cross-entropy's, and where nothing is left to
    learn it is 0: so it is also the TD error by which Rainbow prioritizes (Hessel et al. 2018).

    >>> divergence(torch.tensor([1.0, 0.0]), torch.zeros(2))
    tensor(0.6931)
    """
    return F.kl_div(logits.float().log_softmax(-1), target, reduction="none").sum(-1)
