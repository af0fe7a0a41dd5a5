"""Tianshou's DQN and off-policy trainer: every environment steps, then one update follows."""

import time
from argparse import Namespace

import gymnasium as gym
import numpy as np
import torch
from protocol import SCHEDULE, Run, greedy_return, main, versions
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net


def train(args: Namespace) -> Run:
    """Build, learn and evaluate."""
    np.random.seed(args.seed)  # noqa: NPY002, which Tianshou draws from
    torch.manual_seed(args.seed)
    envs = DummyVectorEnv([lambda: gym.make("CartPole-v1")] * args.num_envs)
    envs.seed(args.seed)
    observation, *hidden, actions = SCHEDULE.layers
    policy = DiscreteQLearningPolicy(
        model=Net(state_shape=observation, action_shape=actions, hidden_sizes=hidden),
        action_space=envs.action_space[0],
    )
    algorithm = DQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=SCHEDULE.learning_rate),
        gamma=SCHEDULE.gamma,
        target_update_freq=SCHEDULE.target_period // SCHEDULE.steps_per_update,
        is_double=False,
    )
    collector = Collector(
        algorithm,
        envs,
        VectorReplayBuffer(SCHEDULE.capacity, args.num_envs),
        exploration_noise=True,
    )
    training = OffPolicyTrainerParams(
        training_collector=collector,
        training_fn=lambda _, env_step: policy.set_eps_training(
            SCHEDULE.epsilon(SCHEDULE.warmup + env_step)
        ),
        max_epochs=1,
        epoch_num_steps=args.env_steps - SCHEDULE.warmup,
        collection_step_num_env_steps=max(SCHEDULE.steps_per_update, args.num_envs),
        update_step_num_gradient_steps_per_sample=1 / SCHEDULE.steps_per_update,
        batch_size=SCHEDULE.batch,
        verbose=False,
        show_progress=False,
    )
    started = time.perf_counter()
    collector.reset()
    collector.collect(n_step=SCHEDULE.warmup, random=True)
    warm = time.perf_counter()
    algorithm.run_training(training)
    ended = time.perf_counter()

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return policy.model(obs)[0].argmax(1).numpy()

    return Run(
        env_steps=SCHEDULE.warmup + collector.collect_step,  # the trainer counts from its own start
        updates=algorithm._iter,
        seconds=ended - started,
        compile_seconds=0.0,
        greedy_return=greedy_return(act, args.env_steps, args.seed),
        versions=versions("tianshou", "torch"),
        warmup_seconds=warm - started,
    )


if __name__ == "__main__":
    main(train, "--num-envs")
