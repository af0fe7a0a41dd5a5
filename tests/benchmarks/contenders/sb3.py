"""Stable-Baselines3's DQN, with one or with many environments.

Its loss is Huber's, which has no option, and with it this schedule does not teach it CartPole
(with the squared error patched in, one run of 100 environments reached a return of 500). The
limit on the gradient's norm is put out of reach, and nothing is logged.
"""

import time
from argparse import Namespace

import gymnasium as gym
import numpy as np
from protocol import SCHEDULE, Run, greedy_return, main, versions
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from tasks import TASK
from torch import Tensor, nn


class Convolutions(BaseFeaturesExtractor):
    """The convolutions of the schedule, and its first dense layer."""

    def __init__(self, observation_space: gym.Space) -> None:
        features, width = SCHEDULE.layers[:2]
        super().__init__(observation_space, width)
        layers: list[nn.Module] = []
        channels = observation_space.shape[0]
        for filters, side, stride in SCHEDULE.convolutions:
            layers += [nn.Conv2d(channels, filters, side, stride), nn.ReLU()]
            channels = filters
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, width), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)


def policy() -> tuple[str, dict[str, object]]:
    """The network of the schedule: a name, and its arguments."""
    if not SCHEDULE.convolutions:
        return "MlpPolicy", {"net_arch": list(SCHEDULE.layers[1:-1])}
    return "CnnPolicy", {
        "net_arch": list(SCHEDULE.layers[2:-1]),
        "features_extractor_class": Convolutions,
    }


def train(args: Namespace) -> Run:
    """Build, learn and evaluate."""
    steps = max(SCHEDULE.steps_per_update, args.num_envs)  # env steps between two phases of updates
    name, network = policy()
    model = DQN(
        name,
        make_vec_env(TASK.env_id, args.num_envs, seed=args.seed),
        learning_rate=SCHEDULE.learning_rate,
        buffer_size=SCHEDULE.capacity,
        learning_starts=SCHEDULE.warmup,
        batch_size=SCHEDULE.batch,
        gamma=SCHEDULE.gamma,
        train_freq=steps // args.num_envs,
        gradient_steps=steps // SCHEDULE.steps_per_update,
        target_update_interval=SCHEDULE.target_period,
        tau=SCHEDULE.target_rate,
        # A fraction of this run, which may be a slice.
        exploration_fraction=SCHEDULE.epsilon_steps / args.env_steps,
        exploration_initial_eps=SCHEDULE.epsilon_start,
        exploration_final_eps=SCHEDULE.epsilon_end,
        max_grad_norm=float("inf"),
        policy_kwargs=network,
        seed=args.seed,
        device="cpu",
    )
    started = time.perf_counter()
    model.learn(args.env_steps, log_interval=2**62)
    ended = time.perf_counter()

    def act(obs: np.ndarray) -> np.ndarray:
        return model.predict(obs, deterministic=True)[0]

    return Run(
        env_steps=model.num_timesteps,
        updates=model._n_updates,
        seconds=ended - started,
        compile_seconds=0.0,
        greedy_return=greedy_return(act, args.env_steps, args.seed),
        versions=versions("stable-baselines3", "torch"),
    )


if __name__ == "__main__":
    main(train, "--num-envs")
