"""The most RAM that runs ever take: the default one, one on images with a full replay, a world.

``OMP_NUM_THREADS=1 python tests/benchmarks/memory.py`` runs each in a process of its own, which
takes some minutes, and prints a table. What a process takes is resident memory; that of imports is
part of it.
"""

import contextlib
import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from lightning.pytorch import Trainer

import lit_crl
from lit_crl.envs import GymnasiumEnv, MountainCar

SIDE, STACK, EPISODE, POOL, ROWS = 84, 4, 1_000, 64, 100_000


class Frames(gym.Env[np.ndarray, np.int64]):
    """Stacks of the last four of random frames, which cost next to nothing."""

    observation_space = Box(0, 255, (STACK, SIDE, SIDE), np.uint8)
    action_space = Discrete(4)

    def __init__(self) -> None:
        self.pool = np.random.default_rng(0).integers(0, 256, (POOL, 1, SIDE, SIDE), np.uint8)
        self.stack, self.steps = np.repeat(self.pool[:1], STACK, 1)[0], 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin with four times the same frame, as ``FrameStackObservation`` does."""
        super().reset(seed=seed)
        self.stack, self.steps = np.repeat(self.pool[0], STACK, 0), 0
        return self.stack, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Show the next frame."""
        self.steps += 1
        self.stack = np.concatenate([self.stack[1:], self.pool[self.steps % POOL]])
        return self.stack, 0.0, False, self.steps >= EPISODE, {}


def default_run() -> None:
    """The default run with its whole replay, two phases of its world, test and figures."""
    rows = 20_000
    collect = {"env_steps": rows + 400, "warmup": rows}
    lit_crl.train(data={"collect": collect, "world": {"error_bound": 1e9}})


def images() -> None:
    """The DQN on stacks of four 84×84 frames, with a replay of 100,000 rows, which it fills."""
    _fit(
        functools.partial(GymnasiumEnv, make=Frames, image_layout="HW"),
        collect={"env_steps": ROWS + 1_280, "warmup": ROWS, "num_envs": 32, "steps_per_batch": 4},
        replay={"capacity": ROWS, "frame_stack": STACK, "batch_size": 32},
    )


def world() -> None:
    """A world GAN of the usual sizes: the updates of its first phase, then 4,096 dreams."""
    _fit(
        MountainCar,
        collect={"env_steps": 2_200, "warmup": 2_000, "num_envs": 2, "steps_per_batch": 50},
        replay={"capacity": 20_000, "updates_per_batch": 1},
        world={"dreams": 4_096, "error_bound": 1e9, "every": 2_100},
        model={"world": {"loss": "gan"}},
    )


def _fit(env: Any, model: dict[str, Any] | None = None, **data: Any) -> None:
    fixed = {"curriculum": {"arm": "target"}, "gan": {"updates": 0}, "evaluation": {"every": 10**9}}
    module = lit_crl.ReplayDataModule(env, **data, **fixed)
    unwanted = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        **dict.fromkeys(unwanted, False),
    )
    trainer.fit(lit_crl.CreativeLearner(**(model or {})), datamodule=module)
    if "world" in data:
        assert module.dreaming is not None and module.dreaming.imagined_steps
    else:
        assert int(module.replay.cursor.min()) >= module.replay.length


RUNS: dict[str, Callable[[], None]] = {
    "imports alone": lambda: None,
    "default run (`mountain_car`), replay of 20,000, 256 dreams": default_run,
    "84×84×4, replay of 100,000": images,
    "world GAN, its first 600 updates, 4,096 dreams of 100 steps": world,
}


def told() -> dict[str, float]:
    """The peaks in README.md, in MiB."""
    lines = Path(__file__).with_name("README.md").read_text().splitlines()
    rows = (line.strip("| ").split(" | ") for line in lines if line.startswith("| "))
    return {row[0]: float(row[1].replace(",", "")) for row in rows if row[0] in RUNS}


def peak() -> float:
    """The most that this process ever took, in MiB. (``ru_maxrss`` may be that of its parent.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 2**10


def measured(name: str) -> float:
    """The peak of a run in a process of its own, in MiB.

    Raises:
        RuntimeError: If the run fails.
    """
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the peak of one run, or a table of all of them."""
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            RUNS[sys.argv[1]]()
        print(peak())
        return
    print("| peak of resident memory | MiB |\n| --- | --: |")
    for name in RUNS:
        print(f"| {name} | {measured(name):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
