"""What the replay costs by its size: storing a step, a stack of minibatches, by priority or not.

Run it alone on one core: ``OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/replay.py``.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from gymnasium.spaces import Box

from lit_crl.dqn.replay.buffer import ReplayBuffer

CAPACITIES = (10_000, 100_000, 1_000_000)
NUM_ENVS, N_STEPS, ALPHA, BETA = 32, 3, 0.6, 0.4
STACK = (16, 256)


def filled(capacity: int, priority_exponent: float) -> ReplayBuffer:
    """A full buffer of CartPole's size, with episodes of about 100 steps and uneven priorities."""
    space = Box(-np.inf, np.inf, (4,), np.float32)
    replay = ReplayBuffer(
        capacity, NUM_ENVS, space, n_steps=N_STEPS, priority_exponent=priority_exponent
    )
    rng = torch.Generator().manual_seed(0)
    while int(replay.cursor.min()) < replay.length:
        obs = torch.randn(NUM_ENVS, 4, generator=rng)
        done = torch.rand(NUM_ENVS, generator=rng) < 0.01
        replay.add(obs, torch.zeros(NUM_ENVS), torch.ones(NUM_ENVS), 0.99 * ~done)
        replay.add_final(obs, done)
    if replay.priorities is not None:
        rows = replay.startable.nonzero().squeeze(1)
        replay.priorities.update(rows, torch.randn(len(rows), generator=rng))
    return replay


def actions(capacity: int) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    uniform, prioritized = filled(capacity, 0.0), filled(capacity, ALPHA)
    priorities = prioritized.priorities
    assert priorities is not None
    rng = torch.Generator().manual_seed(1)
    step = torch.zeros(NUM_ENVS, 4), torch.zeros(NUM_ENVS, dtype=torch.int64)
    numbers = torch.zeros(NUM_ENVS), torch.ones(NUM_ENVS)
    errors = torch.randn(STACK, generator=rng)
    rows = itertools.cycle([priorities.draw(STACK, rng)[0] for _ in range(20)])
    return {
        "add": lambda: uniform.add(*step, *numbers),
        "sample": lambda: uniform.sample(STACK, rng),
        "prioritized add": lambda: prioritized.add(*step, *numbers),
        "prioritized sample": lambda: prioritized.sample_prioritized(STACK, rng, BETA),
        "update": lambda: priorities.update(next(rows), errors),
    }


def measured(repeats: int) -> dict[tuple[int, str], float]:
    """Median µs of CPU time of each action at each capacity; all take turns: noise is shared."""
    todo = {
        (capacity, name): action
        for capacity in CAPACITIES
        for name, action in actions(capacity).items()
    }
    seconds: dict[tuple[int, str], list[float]] = {key: [] for key in todo}
    for _ in range(repeats):
        for key, action in todo.items():
            start = time.thread_time()
            action()
            seconds[key].append(time.thread_time() - start)
    return {key: 1e6 * median(times) for key, times in seconds.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    found = measured(parser.parse_args().repeats)
    names = list(dict.fromkeys(name for _, name in found))
    print(f"µs, medians; {NUM_ENVS} environments, {N_STEPS}-step transitions, stacks of {STACK}")
    print("capacity", *names, "prioritized sample / sample", sep=" | ")
    for capacity in CAPACITIES:
        row = [f"{found[capacity, name]:.0f}" for name in names]
        ratio = found[capacity, "prioritized sample"] / found[capacity, "sample"]
        print(f"{capacity:,}", *row, f"{ratio:.2f}", sep=" | ")


if __name__ == "__main__":
    main()
