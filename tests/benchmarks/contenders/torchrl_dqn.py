"""TorchRL's components, put together in the order of its own CartPole example.

Like there, 1000 env steps are collected and then all their updates follow: larger batches of
experience cost TorchRL less.
"""

import time
from argparse import Namespace

import numpy as np
import torch
from protocol import SCHEDULE, Run, greedy_return, main, versions
from tensordict.nn import TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase, GymEnv, SerialEnv
from torchrl.modules import MLP, EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, HardUpdate, SoftUpdate

COLLECTED = 1_000  # env steps between two phases of updates


def make_envs(num_envs: int) -> EnvBase:
    """One environment, or many in one process."""
    if num_envs == 1:
        return GymEnv("CartPole-v1")
    return SerialEnv(num_envs, lambda: GymEnv("CartPole-v1"))


def train(args: Namespace) -> Run:
    """Build, learn and evaluate."""
    torch.manual_seed(args.seed)
    envs = make_envs(args.num_envs)
    envs.set_seed(args.seed)
    observation, *hidden, actions = SCHEDULE.layers
    network = MLP(observation, actions, num_cells=hidden, activation_class=torch.nn.ReLU)
    actor = QValueActor(network, in_keys=["observation"], spec=envs.action_spec)
    greedy = EGreedyModule(
        actor.spec,
        eps_init=SCHEDULE.epsilon_start,
        eps_end=SCHEDULE.epsilon_end,
        annealing_num_steps=SCHEDULE.epsilon_steps,
    )
    collector = Collector(
        envs,
        TensorDictSequential(actor, greedy),
        frames_per_batch=COLLECTED,
        total_frames=args.env_steps,
        init_random_frames=SCHEDULE.warmup,
    )
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(SCHEDULE.capacity), batch_size=SCHEDULE.batch
    )
    loss = DQNLoss(actor, loss_function="l2", delay_value=True)
    loss.make_value_estimator(gamma=SCHEDULE.gamma)
    interval = SCHEDULE.target_period // SCHEDULE.steps_per_update
    if SCHEDULE.target_rate < 1:
        target = SoftUpdate(loss, tau=SCHEDULE.target_rate)  # at every step
    else:  # it copies at every (interval + 1)-th step
        target = HardUpdate(loss, value_network_update_interval=interval - 1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=SCHEDULE.learning_rate)
    env_steps = updates = 0

    started = time.perf_counter()
    for data in collector:
        replay.extend(data.reshape(-1))
        env_steps += data.numel()
        greedy.step(data.numel())
        if env_steps <= SCHEDULE.warmup:
            warm = time.perf_counter()
            continue
        for _ in range(data.numel() // SCHEDULE.steps_per_update):
            optimizer.zero_grad()
            loss(replay.sample())["loss"].backward()
            optimizer.step()
            target.step()
            updates += 1
        collector.update_policy_weights_()
    ended = time.perf_counter()

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(obs)).argmax(1).numpy()

    return Run(
        env_steps=env_steps,
        updates=updates,
        seconds=ended - started,
        compile_seconds=0.0,
        greedy_return=greedy_return(act, args.env_steps, args.seed),
        versions=versions("torchrl", "tensordict", "torch"),
        warmup_seconds=warm - started,
    )


if __name__ == "__main__":
    main(train, "--num-envs")
