"""What every contender reports: one line of JSON, after one evaluation."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version

import gymnasium as gym
import numpy as np
from tasks import TASK

EPISODES = 20
SCHEDULE = TASK.schedule


@dataclass(frozen=True)
class Run:
    """What one run of one contender took and reached.

    Args:
        env_steps: How much of the schedule was run.
        updates: Gradient steps in it.
        seconds: Wall time of training, without process start, imports and compilation.
        compile_seconds: What compilation took besides.
        greedy_return: Mean over the episodes of the evaluation; None: only a slice was run.
        versions: Of the contender's own packages.
        warmup_seconds: What of ``seconds`` passed before the first update; None: not measured.
    """

    env_steps: int
    updates: int
    seconds: float
    compile_seconds: float
    greedy_return: float | None
    versions: dict[str, str]
    warmup_seconds: float | None = None


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package."""
    return {package: version(package) for package in packages}


def greedy_return(
    act: Callable[[np.ndarray], np.ndarray], env_steps: int, seed: int
) -> float | None:
    """Mean return of ``act`` over fresh episodes of the task.

    Args:
        act: Observations [N, ...] to greedy actions [N].
        env_steps: How much of the schedule was trained; a slice is not evaluated.
        seed: Seed of the training run; the episodes have others.
    """
    if env_steps < SCHEDULE.env_steps:
        return None
    envs = gym.make_vec(TASK.env_id, num_envs=EPISODES, vectorization_mode="sync")
    obs, _ = envs.reset(seed=1_000_000 + EPISODES * seed)
    returns, running = np.zeros(EPISODES), np.ones(EPISODES, bool)
    while running.any():
        obs, reward, terminated, truncated, _ = envs.step(act(obs))
        returns += reward * running
        running &= ~(terminated | truncated)
    envs.close()
    return float(returns.mean())


def main(train: Callable[[argparse.Namespace], Run], *options: str) -> None:
    """Run one contender from the command line, and print its ``Run`` as the last line.

    Args:
        train: Trains ``args.env_steps`` of the schedule with ``args.seed``.
        options: Further integer options, such as ``--num-envs``.
    """
    parser = argparse.ArgumentParser()
    for option in ("--env-steps", "--seed", *options):
        parser.add_argument(option, type=int, required=True)
    print(json.dumps(asdict(train(parser.parse_args()))))
