"""Real episodes of a run's policy, played for its pictures."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_crl.core.seeding import stream_seed
from lit_crl.envs import LevelEnv
from lit_crl.runs.pictures.recording import LONGEST
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner


class Episode(NamedTuple):
    """A real episode of T steps."""

    #: Observations ``[T + 1, ...]``.
    obs: Tensor
    #: Actions ``[T]``.
    action: Tensor
    #: Rewards ``[T]``.
    reward: Tensor
    #: Whether the task ended it; if not, it was cut off.
    terminated: bool


def play_episode(
    act: Callable[[Tensor], Tensor], env: LevelEnv, seed: int, longest: int = LONGEST
) -> Episode:
    """Play one episode.

    Args:
        act: Maps observations ``[1, ...]`` to actions ``[1]``.
        env: One environment.
        seed: Seed of its reset.
        longest: Env steps after which it is cut off.
    """
    obs, _ = env.reset(seed=seed)
    seen, actions, rewards = [obs], [], []
    is_end = torch.zeros(1, dtype=torch.bool)
    for _ in range(env.max_episode_steps or longest):
        action = act(obs)
        obs, reward, is_end, is_cut, _ = env.step(action)
        seen.append(obs)
        actions.append(action)
        rewards.append(reward)
        if is_end | is_cut:
            break
    return Episode(torch.cat(seen), torch.cat(actions), torch.cat(rewards), bool(is_end))


def play_episodes(learner: CreativeLearner, data: ReplayDataModule, n: int) -> list[Episode]:
    """``n`` evaluation episodes of the greedy policy in the real task, on the learner's device.

    Random streams and environments are made for it, and nothing of the run changes.
    """
    device = learner.device
    env = data.evaluation_envs.target.copies(1)

    def act(obs: Tensor) -> Tensor:
        actions: Tensor = learner(obs.to(device))
        return actions.to(env.device)

    seed = stream_seed(data.seed, "played for pictures") % 2**31
    played = [play_episode(act, env, (seed + number) % 2**31) for number in range(n)]
    env.close()
    return [
        Episode(each.obs.to(device), each.action.to(device), each.reward, each.terminated)
        for each in played
    ]
