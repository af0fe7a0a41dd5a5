"""Which returns are possible, by the rewards that were seen: pure functions.

A value that feeds on itself through max_a Q can grow far beyond what any rewards add up to, above
all where a reward was met a few times only. Targets are therefore clipped to the possible returns
(Andrychowicz et al. 2017, HER, appendix A, does so for rewards of −1). Steps that go on and steps
that end the task are told apart: where a goal pays 1 and ends the task, no return is above 1.
"""

import torch
from torch import Tensor

#: Row of a range of rewards: steps after which the episode went on, and steps that ended the task.
GOING, ENDING = 0, 1
#: Its columns.
LOW, HIGH = 0, 1


def no_rewards(device: torch.device | str = "cpu") -> Tensor:
    """The range ``[2, 2]`` of no rewards at all: the lowest is ∞, and the highest is −∞."""
    return torch.tensor([[torch.inf, -torch.inf]], device=device).repeat(2, 1)


def reward_range(reward: Tensor, ended: Tensor, counts: Tensor) -> Tensor:
    """The range of rewards ``[n]``: lowest and highest where steps went on, and where they ended.

    Args:
        reward: One of each step.
        ended: Whether the step ended the task.
        counts: Which steps count.

    Returns:
        ``[2, 2]``, indexed by ``GOING`` or ``ENDING`` and by ``LOW`` or ``HIGH``.

    >>> ended = torch.tensor([False, False, True])
    >>> reward_range(torch.tensor([0.0, -1.0, 5.0]), ended, torch.tensor([True, True, True]))
    tensor([[-1.,  0.],
            [ 5.,  5.]])
    """
    found = []
    for kind in (counts & ~ended, counts & ended):
        low = torch.where(kind, reward, torch.inf).amin()
        found.append(torch.stack([low, torch.where(kind, reward, -torch.inf).amax()]))
    return torch.stack(found)


def joined(one: Tensor, other: Tensor) -> Tensor:
    """The ranges ``[n, 2]`` that hold two others."""
    low = torch.minimum(one[:, LOW], other[:, LOW])
    return torch.stack([low, torch.maximum(one[:, HIGH], other[:, HIGH])], 1)


def possible_returns(rewards: Tensor, gamma: float) -> Tensor:
    """Lowest and highest return ``[2]`` of any policy, if no reward leaves its range ``[2, 2]``.

    An episode that ends after k further steps returns at most (1 − γᵏ) · r_going / (1 − γ) +
    γᵏ · r_ending, which lies between r_going / (1 − γ) and r_ending for every k. An end may also
    pay what steps that went on did: where each step costs 1 and none has ended yet, an end is
    still to be hoped for.

    >>> goal, car, pole = [0.0, 0.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0]
    >>> [possible_returns(torch.tensor(r).view(2, 2), 0.75).tolist() for r in (goal, car, pole)]
    [[0.0, 1.0], [-4.0, -1.0], [1.0, 4.0]]
    """
    going = rewards[GOING]
    ending = joined(rewards[GOING, None], rewards[ENDING, None])[0]
    # Where γ is 1, nothing for ever is nothing.
    for_ever = torch.where(going == 0, going, going / (1 - gamma))
    low = torch.minimum(for_ever[LOW], ending[LOW])
    return torch.stack([low, torch.maximum(for_ever[HIGH], ending[HIGH])])
