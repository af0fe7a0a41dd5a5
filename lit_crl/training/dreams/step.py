"""One step of all dreams, in shapes that depend on no number: one by one, or in a graph."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_crl.dqn.equations import greedy_unless, toss
from lit_crl.world.imagined_env import Dreamt, ImaginedEnv


class ImaginedSteps(NamedTuple):
    """What is kept of N dreams' steps, ``[N, ...]``, or of T such steps, ``[T, N, ...]``."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_obs: Tensor
    #: The world's disagreement.
    disagreement: Tensor

    @classmethod
    def room(cls, steps: int, env: ImaginedEnv, device: torch.device) -> "ImaginedSteps":
        """Room for so many steps of all dreams of ``env``; nothing is in it yet."""
        shape = (steps, env.num_envs)
        obs, next_obs = (
            torch.empty(*shape, *env.obs.shape[1:], dtype=env.obs.dtype, device=device)
            for _ in range(2)
        )
        action = torch.empty(shape, dtype=torch.int64, device=device)
        reward, discount, disagreement = (torch.empty(shape, device=device) for _ in range(3))
        return cls(obs, action, reward, discount, next_obs, disagreement)

    def put(self, at: Tensor, step: "ImaginedSteps") -> None:
        """Write one step of all dreams at the place ``at [1]``."""
        for mine, given in zip(self, step, strict=True):
            mine.index_copy_(0, at, given[None])


def imagine_step(
    env: ImaginedEnv,
    action_values: Callable[[Tensor], Tensor],
    epsilon: Tensor,
    gamma: float,
    rng: torch.Generator,
) -> tuple[ImaginedSteps, Dreamt]:
    """An ε-greedy step of all dreams from where they are; they stay there.

    Args:
        env: The dreams.
        action_values: Q of who dreams, ``[N, ...] -> [N, A]``.
        epsilon: ε of each dream, ``[N]``.
        gamma: Discount factor of one step.
        rng: Draws random actions.
    """
    explore, random = toss(env.num_envs, env.num_actions, epsilon, rng)
    action = greedy_unless(explore, random, action_values(env.obs))
    after = env.advanced(env.obs, env.elapsed, action)
    discount = gamma * (~after.terminated).float()
    kept = (env.obs, action, after.reward, discount, after.obs, after.disagreement)
    return ImaginedSteps(*kept), after
