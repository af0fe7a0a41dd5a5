"""What is learnt in the benchmark: the tasks, and the schedule that all contenders follow in each.

``TASK=NAME python -m contenders.…`` trains one of ``TASKS``; without it that is ``cartpole``.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Schedule:
    """When to learn, and with which network; by default as in CleanRL's dqn.py for CartPole-v1.

    Args:
        env_steps: Length of the run, warm-up included.
        warmup: Env steps before the first update.
        steps_per_update: Env steps for each update.
        target_period: Env steps between two syncs of the target network.
        target_rate: Share of the online weights in each sync; 1: a hard copy.
        capacity: Transitions in the replay buffer.
        batch: Transitions in a minibatch.
        convolutions: Filters, side and stride of the Q-network's convolutions, if it has any.
        layers: Widths of its dense part: what comes in, hidden layers, and actions. There is a ReLU
            behind each layer but the last.
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
    target_rate: float = 1.0
    capacity: int = 10_000
    batch: int = 128
    convolutions: tuple[tuple[int, int, int], ...] = ()
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


@dataclass(frozen=True)
class Task:
    """Something to learn.

    Args:
        title: Its name in tables.
        env_id: Its Gymnasium id, with the module that registers it if that is not Gymnasium.
        schedule: What the contenders follow.
        learned: Greedy return below which speed does not count.
        config: lit_crl's settings of it.
    """

    title: str
    env_id: str
    schedule: Schedule
    learned: float
    config: Path


#: Catches the eye of a network: which quarter of a picture is bright (``contenders/pictures.py``).
#: Networks and updates are those of CleanRL's dqn_atari.py and of MinAtar's DQN.
_PICTURES = Schedule(
    steps_per_update=4, target_period=1_000, batch=32, gamma=0.9, learning_rate=1e-4,
    warmup=1_000, capacity=2_000, epsilon_steps=1_000,
)  # fmt: skip

TASKS = {
    "cartpole": Task(
        "DQN on CartPole-v1", "CartPole-v1", Schedule(), 475.0, FOLDER / "cartpole.yaml"
    ),
    # The target network follows after each update, as lit_crl's does by default.
    "cartpole_polyak": Task(
        "DQN on CartPole-v1, Polyak steps",
        "CartPole-v1",
        Schedule(target_rate=0.01, target_period=10),
        475.0,
        FOLDER / "cartpole.yaml",
    ),
    # The default run; its schedule is that of the file, and nobody else has a world.
    "mountain_car": Task(
        "DQN with a world on MountainCar-v0",
        "MountainCar-v0",
        Schedule(env_steps=3_000, warmup=200, layers=(2, 128, 128, 3)),
        -120.0,
        FOLDER.parents[1] / "conf" / "experiment" / "mountain_car.yaml",
    ),
    "pictures_10": Task(
        "Convolutional DQN on pictures of 10×10×4",
        "contenders.pictures:Pictures10-v0",
        replace(
            _PICTURES,
            env_steps=20_000,
            convolutions=((16, 3, 1), (32, 3, 1)),
            layers=(1_152, 128, 4),
        ),
        30.0,
        FOLDER / "pictures.yaml",
    ),
    "pictures_84": Task(
        "Convolutional DQN on pictures of 84×84×4",
        "contenders.pictures:Pictures84-v0",
        replace(
            _PICTURES,
            env_steps=5_000,
            convolutions=((32, 8, 4), (64, 4, 2), (64, 3, 1)),
            layers=(3_136, 512, 4),
        ),
        30.0,
        FOLDER / "pictures.yaml",
    ),
}

TASK = TASKS[os.environ.get("TASK", "cartpole")]
