"""The mathematics of the DQN: pure tensor functions, one equation each.

Notation: ``q`` holds action values ``[..., A]``, ``action`` integer actions ``[...]``, ``reward``
(n-step) rewards, ``discount`` is γⁿ, or 0 where the episode *terminated*. It stays γⁿ at a
truncation, so that a time limit is never mistaken for the end of the task.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_crl.core.mlp import is_fused

TDLoss = Literal["huber", "mse"]

#: How far a target may lie beyond every return, as a share of their range, and still be sound.
MARGIN = 0.05


class Transitions(NamedTuple):
    """A batch of (n-step) transitions; every field has the same leading dimensions."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_obs: Tensor


def epsilon_ladder(num_envs: int, base: float = 0.4, exponent: float = 7.0) -> Tensor:
    """Exploration rate of each environment, from exploratory to nearly greedy, ``[num_envs]``.

    ε_i = base^(1 + exponent · i / (N − 1)), Horgan et al. 2018 (Ape-X), §4. A single environment
    gets the ladder's greedy end: with the other end no episode would show what the policy can do.

    >>> epsilon_ladder(3)
    tensor([0.4000, 0.0162, 0.0007])
    """
    position = torch.linspace(0, 1, num_envs) if num_envs > 1 else torch.ones(1)
    return torch.pow(torch.tensor(base), 1 + exponent * position)


def toss(
    n: int, num_actions: int, epsilon: Tensor | float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Which of ``n`` environments explore, and a uniformly random action for each, ``[n]``.

    ``epsilon`` is one rate for all environments, or ``[n]``.
    """
    explore = torch.rand(n, generator=rng, device=rng.device) < epsilon
    return explore, torch.randint(num_actions, (n,), generator=rng, device=rng.device)


def greedy_unless(explore: Tensor, random: Tensor, q: Tensor) -> Tensor:
    """The ``random`` action where ``explore`` is true, else argmax_a Q; ``[..., A] -> [...]``.

    With ``toss`` it is the ε-greedy policy, Sutton & Barto 2018, §2.2.

    >>> q = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    >>> greedy_unless(torch.tensor([False, True]), torch.tensor([0, 0]), q)
    tensor([1, 0])
    """
    return torch.where(explore, random, q.argmax(dim=-1))


def epsilon_greedy(q: Tensor, epsilon: Tensor | float, rng: torch.Generator) -> Tensor:
    """The greedy action, or with probability ε a uniformly random one; ``[N, A] -> [N]``."""
    return greedy_unless(*toss(q.shape[0], q.shape[1], epsilon, rng), q)


def q_of(q: Tensor, action: Tensor) -> Tensor:
    """The value of the action that was taken, Q(s, a): ``[..., A], [...] -> [...]``.

    >>> q_of(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0]))
    tensor([2., 3.])
    """
    if is_fused(q):  # the gradient of a gather would be kernels of its own
        chosen = action.unsqueeze(-1) == torch.arange(q.shape[-1], device=q.device)
        return torch.where(chosen, q, 0.0).sum(-1)
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def td_target(reward: Tensor, discount: Tensor, next_q: Tensor) -> Tensor:
    """The target y = r + discount · max_a Q⁻(s', a), Mnih et al. 2015, eq. 2.

    >>> next_q = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    >>> td_target(torch.ones(2), torch.tensor([0.9, 0.0]), next_q)  # the second has terminated
    tensor([4.6000, 1.0000])
    """
    return reward + discount * next_q.max(dim=-1).values


def double_td_target(
    reward: Tensor, discount: Tensor, next_q: Tensor, next_q_online: Tensor
) -> Tensor:
    """The target y = r + discount · Q⁻(s', argmax_a Q(s', a)), van Hasselt et al. 2016, eq. 4.

    ``next_q`` comes from the target network, ``next_q_online`` (which only selects) from the
    online one.

    >>> next_q, online = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 1.0]])
    >>> double_td_target(torch.tensor([1.0]), torch.tensor([0.5]), next_q, online)
    tensor([2.5000])
    """
    return reward + discount * q_of(next_q, next_q_online.argmax(dim=-1))


def impossible_share(target: Tensor, returns: Tensor) -> Tensor:
    """Share of the targets ``[B]`` beyond every return, by more than a twentieth of their range.

    Such targets are a sign of values that feed on themselves. The twentieth is for the error of a
    network where the returns themselves are near the bounds.

    Args:
        target: Targets, before they are clipped.
        returns: The lowest and the highest return ``[2]``, see ``possible_returns``.

    >>> impossible_share(torch.tensor([10.4, -1.1, 3.0, torch.nan]), torch.tensor([0.0, 10.0]))
    tensor(0.5000)
    """
    low, high = torch.lerp(returns, returns.flip(0), -MARGIN)
    return torch.mean((target.clamp(low, high) != target).float())


def td_loss(
    q: Tensor, target: Tensor, kind: TDLoss = "huber", weight: Tensor | None = None
) -> Tensor:
    """Mean Huber loss (threshold 1) or mean squared error between Q(s, a) and its target.

    ``weight [B]`` multiplies each transition's loss (Schaul et al. 2016, §3.4).

    >>> td_loss(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 3.0]))  # mean of 0.5 and 2.5
    tensor(1.5000)
    """
    loss = F.huber_loss if kind == "huber" else F.mse_loss
    if weight is None:
        return loss(q, target)
    return (weight * loss(q, target, reduction="none")).mean()


def conservative_penalty(q: Tensor, action: Tensor) -> Tensor:
    """How far other actions are valued above the logged ones, 0 or more; ``[..., A], [...]``.

    E[log Σ_a exp Q(s, a) − Q(s, a_logged)], Kumar et al. 2020 (CQL), eq. 4 with R = H, without α.

    >>> q = torch.tensor([[0.0, 0.0], [0.0, 100.0]])
    >>> [conservative_penalty(q[i : i + 1], torch.tensor([i])) for i in range(2)]
    [tensor(0.6931), tensor(0.)]
    """
    return (q.logsumexp(dim=-1) - q_of(q, action)).mean()


def dueling(value: Tensor, advantage: Tensor) -> Tensor:
    """Q(s, a) = V(s) + A(s, a) − mean_a A(s, a), Wang et al. 2016, eq. 9.

    >>> dueling(torch.tensor([[10.0]]), torch.tensor([[1.0, 3.0]]))
    tensor([[ 9., 11.]])
    """
    return value + advantage - advantage.mean(dim=-1, keepdim=True)


def n_step(reward: Tensor, discount: Tensor, boundary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fold up to n consecutive steps into one transition.

    R = Σ_k (Π_{j<k} discount_j) · r_k, Sutton & Barto 2018, eq. 7.1, cut at the episode's end.

    Args:
        reward: Rewards of the window, ``[..., n]``.
        discount: γ, or 0 at a termination, ``[..., n]``.
        boundary: True where that row is an episode's final observation, from which no step was
            taken, ``[..., n]``. ``boundary[..., 0]`` is False: the window starts at a step.

    Returns:
        The n-step reward, the discount of the bootstrap value, and how many steps (1 … n) the
        folded transition spans, each ``[...]``.

    >>> reward, discount = torch.tensor([1.0, 1.0, 9.0]), torch.tensor([0.5, 0.5, 0.5])
    >>> n_step(reward, discount, torch.tensor([False, False, True]))  # the episode ended after two
    (tensor(1.5000), tensor(0.2500), tensor(2))
    """
    alive = (~boundary).long().cumprod(dim=-1)
    step_discount = torch.where(alive.bool(), discount, torch.ones_like(discount))
    weight = step_discount.cumprod(dim=-1)
    before = torch.cat([torch.ones_like(weight[..., :1]), weight[..., :-1]], dim=-1)
    folded = (before * reward * alive).sum(dim=-1)
    return folded, weight[..., -1], alive.sum(dim=-1)


@torch.no_grad()
def polyak_update(target: list[Tensor], online: list[Tensor], rate: float) -> None:
    """θ⁻ ← (1 − rate)·θ⁻ + rate·θ in place, Lillicrap et al. 2016; rate 1 is a hard copy.

    >>> target, online = [torch.zeros(1), torch.ones(2)], [torch.ones(1), torch.ones(2)]
    >>> polyak_update(target, online, rate=0.1)
    >>> target
    [tensor([0.1000]), tensor([1., 1.])]
    """
    # One multi-tensor kernel: a loop over parameters costs more than the update's arithmetic.
    torch._foreach_lerp_(target, online, rate)
