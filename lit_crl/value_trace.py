"""What the Q-network thought along each running episode."""

from collections.abc import Callable

import torch
from torch import Tensor


class ValueTrace:
    """Means of V(s) = max_a Q(s, a) and of |δ| = |r + γ V(s') − Q(s, a)| over running episodes."""

    def __init__(self, num_envs: int, gamma: float, device: torch.device) -> None:
        """Start with fresh episodes of ``num_envs`` environments."""
        self.gamma = gamma
        #: Sums of V and of |δ|, and the number of steps, ``[3, N]``.
        self.sums = torch.zeros(3, num_envs, device=device)

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
            step: Observations after it, rewards and terminated.
        """
        next_obs, reward, terminated = step
        q = action_values(obs)
        target = reward + self.gamma * ~terminated * action_values(next_obs).amax(dim=1)
        td_error = (target - q.gather(1, action[:, None]).squeeze(1)).abs()
        self.sums += torch.stack([q.amax(dim=1), td_error, torch.ones_like(td_error)])

    def finish(self, ended: Tensor) -> tuple[Tensor, Tensor]:
        """Means of V and |δ| of the episodes of environments ``ended [m]``, which start afresh."""
        value, td_error, steps = self.sums[:, ended].unbind()
        self.sums[:, ended] = 0
        return value / steps.clamp(min=1), td_error / steps.clamp(min=1)
