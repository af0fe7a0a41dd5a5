"""What a world imagines under given actions, beside what really followed."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_crl.world.interface import World


class OpenLoop(NamedTuple):
    """Imagined steps of n episodes, which follow given actions."""

    #: Observations ``[n, T + 1, ...]``; the first ones are the real starts.
    obs: Tensor
    #: Rewards ``[n, T]``.
    reward: Tensor
    #: Whether the world would end the task with this step, ``[n, T]`` bool. It still goes on.
    ended: Tensor


@torch.no_grad()
def follow_actions(world: World, obs: Tensor, actions: Tensor, rng: torch.Generator) -> OpenLoop:
    """Imagine ``T`` steps from ``obs [n, ...]`` with ``actions [n, T]``; no error is corrected."""
    seen, rewards, ends = [obs], [], []
    for action in actions.unbind(1):
        step = world.imagine(seen[-1], action, rng)
        seen.append(step.next_obs)
        rewards.append(step.reward)
        ends.append(step.terminated)
    return OpenLoop(torch.stack(seen, 1), torch.stack(rewards, 1), torch.stack(ends, 1))
