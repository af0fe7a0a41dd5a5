"""Dreams in a world GAN of the usual sizes: imagined steps a second, one operation at a time.

``OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/dreams.py`` measures one core; ``gpu.py``
measures the same dreams on a GPU. The world has learnt nothing: that costs as much.
"""

import argparse
import time
from statistics import median

import torch

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.dqn.networks import QNetwork
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import MountainCar
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.training.graphs.capture import Capture
from lit_crl.training.settings import DreamSettings
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan

#: Dreams that run at the same time, and the steps of each.
SIZES = ((256, 100), (4_096, 100))
NUM_ENVS, STEPS, GAMMA = 64, 100, 0.99


def prepared(
    dreams: int, horizon: int, device: torch.device, capture: Capture | None = None
) -> tuple[Dreaming, QNetwork]:
    """Dreams from a mountain car's real steps, and the policy that dreams."""
    env = MountainCar(NUM_ENVS, device)
    space, actions = env.single_observation_space, int(env.single_action_space.n)
    replay = ReplayBuffer(NUM_ENVS * STEPS, NUM_ENVS, space, device=device)
    rng = torch.Generator(device).manual_seed(0)
    obs = first = env.reset(seed=0)[0]
    for _ in range(STEPS):
        action = torch.randint(actions, (NUM_ENVS,), generator=rng, device=device)
        next_obs, reward, terminated, _, _ = env.step(action)
        replay.add(obs, action, reward, GAMMA * ~terminated)
        obs = next_obs
    world = TransitionGan(space.shape[0], actions, WorldSettings(loss="gan")).to(device)
    real = replay.sample((1_000,), rng)
    world.fit_normaliser(real.obs, real.reward, real.next_obs)
    world.fit_disagreement(real.obs, real.action)
    settings = DreamSettings(dreams=dreams, horizon=horizon)
    dreaming = Dreaming(
        settings, world, env, replay, GAMMA, seed=0, clock=Stopwatch(), capture=capture
    )
    dreaming.starts.first.add(first)
    return dreaming, QNetwork(space, actions, (128, 128)).to(device)


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    for dreams, horizon in SIZES:
        dreaming, policy = prepared(dreams, horizon, torch.device("cpu"))
        dreaming.dreams.play(policy)
        seconds = []
        for _ in range(repeats):
            started = time.process_time()
            dreaming.dreams.play(policy)
            seconds.append(time.process_time() - started)
        speed = dreams * horizon / median(seconds)
        print(f"{dreams:,} dreams of {horizon} steps: {speed:,.0f} imagined steps/s")


if __name__ == "__main__":
    main()
