"""What every contender trains and reports: one schedule, one line of JSON, one evaluation."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version

import gymnasium as gym
import numpy as np

EPISODES = 20
LEARNED = 475.0  # greedy return below which speed does not count


@dataclass(frozen=True)
class Schedule:
    """The schedule of CleanRL's dqn.py for CartPole-v1; cartpole.yaml says the same for lit_crl.

    Args:
        env_steps: Length of the run, warm-up included.
        warmup: Env steps before the first update.
        steps_per_update: Env steps for each update.
        target_period: Env steps between two hard copies into the target network.
        capacity: Transitions in the replay buffer.
        batch: Transitions in a minibatch.
        layers: Widths of the Q-network, which has ReLU between its layers.
        learning_rate: Of Adam.
        gamma: Discount.
        epsilon_start: Exploration rate at the first env step.
        epsilon_end: Exploration rate from ``epsilon_steps`` on, falling linearly until then.
        epsilon_steps: Env steps until ``epsilon_end``.
    """

    env_steps: int = 500_000
    warmup: int = 10_000
    steps_per_update: int = 10
    target_period: int = 500
    capacity: int = 10_000
    batch: int = 128
    layers: tuple[int, ...] = (4, 120, 84, 2)
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_steps: int = 250_000

    def epsilon(self, env_step: int) -> float:
        """Exploration rate after ``env_step`` env steps."""
        progress = min(env_step / self.epsilon_steps, 1.0)
        return self.epsilon_start + progress * (self.epsilon_end - self.epsilon_start)


SCHEDULE = Schedule()


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
    """Mean return of ``act`` over fresh episodes of Gymnasium's CartPole-v1.

    Args:
        act: Observations [N, 4] to greedy actions [N].
        env_steps: How much of the schedule was trained; a slice is not evaluated.
        seed: Seed of the training run; the episodes have others.
    """
    if env_steps < SCHEDULE.env_steps:
        return None
    envs = gym.make_vec("CartPole-v1", num_envs=EPISODES, vectorization_mode="sync")
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
