"""What the Q-network predicted along each running episode, and what then came."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Traced(NamedTuple):
    """Means over the steps of finished episodes, each ``[m]``."""

    #: Of the discounted return from a step on, Σ_k≥t γ^(k−t) r_k. At a time limit V goes on.
    to_go: Tensor
    #: Of V(s) = max_a Q(s, a), which foretells that return.
    value: Tensor
    #: Of |δ| = |r + γ V(s') − Q(s, a)|.
    td_error: Tensor


class ValueTrace:
    """Running sums along the episodes of all environments.

    The returns from all steps on are added up without waiting for the episode's end: the reward of
    step k counts Σ_t≤k γ^(k−t) times among them, a weight that grows by w ← γ w + 1.
    """

    def __init__(self, num_envs: int, gamma: float, device: torch.device) -> None:
        """Start with fresh episodes of ``num_envs`` environments."""
        self.gamma = gamma
        #: Sums of returns, V and |δ|; steps; the weight w; what V adds to the sum of returns where
        #: the task goes on after the newest step. ``[6, N]``.
        self.sums = torch.zeros(6, num_envs, device=device)

    @torch.no_grad()
    def see(
        self,
        action_values: Callable[[Tensor], Tensor],
        obs: Tensor,
        action: Tensor,
        step: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Take a step of every environment into account.

        Args:
            action_values: Observations ``[N, ...]`` to Q ``[N, A]``.
            obs: Before the step, ``[N, ...]``.
            action: ``[N]``.
            step: Observations after it, rewards and terminated. An episode may go on after an
                end, as games do after a lost life: returns do not reach past it.
        """
        next_obs, reward, terminated = step
        q = action_values(obs)
        future = self.gamma * ~terminated * action_values(next_obs).amax(dim=1)
        td_error = (reward + future - q.gather(1, action[:, None]).squeeze(1)).abs()
        weight = self.gamma * self.sums[4] + 1
        self.sums[:4] += torch.stack(
            [weight * reward, q.amax(dim=1), td_error, torch.ones_like(td_error)]
        )
        self.sums[4], self.sums[5] = weight * ~terminated, weight * future

    def finish(self, ended: Tensor) -> Traced:
        """The episodes of environments ``ended [m]``, which start afresh."""
        returns, value, td_error, steps, _, beyond = self.sums[:, ended].unbind()
        self.sums[:, ended] = 0
        steps = steps.clamp(min=1)
        return Traced((returns + beyond) / steps, value / steps, td_error / steps)
