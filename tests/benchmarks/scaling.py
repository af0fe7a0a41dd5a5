"""How the time of an env step grows with the replay's size, the environments and dimensions.

Whole training runs under the Trainer, with collection, both phases and a replay that is full from
the start; the time of an env step is that of all this divided by the env steps. Run it alone on
one core: ``OMP_NUM_THREADS=1 taskset -c 1 python tests/benchmarks/scaling.py``.
"""

import argparse
import functools
import json
import logging
import time
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import torch
from lightning.pytorch import Callback, Trainer
from matplotlib.figure import Figure

from lit_crl import CreativeLearner, ReplayDataModule
from lit_crl.envs import PointMass

FOLDER = Path(__file__).parent
#: One update of 256 transitions for each 32 env steps, and a GAN phase every 2 048.
ENV_STEPS_PER_UPDATE, ENV_STEPS_PER_CYCLE = 32, 2_048
BASE = {"capacity": 100_000, "num_envs": 64, "dim": 6}
SWEEPS: dict[str, tuple[str, tuple[int, ...]]] = {
    "capacity": ("transitions in the replay", (10_000, 100_000, 1_000_000)),
    "num_envs": ("environments", (1, 8, 64, 512, 4_096, 16_384)),
    "dim": ("dimensions of the point mass", (2, 6, 10, 20)),
}


class Timed(Callback):
    """Fills the replay before training, and takes the time of all batches but the first ones."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Write random steps until the ring is full, 100 to an episode."""
        replay = trainer.datamodule.replay  # type: ignore[attr-defined]
        replay.obs.normal_()
        replay.reward.normal_()
        replay.discount.fill_(0.99)
        replay.boundary.view(replay.length, -1)[99::100] = True
        replay.startable.copy_(~replay.boundary)
        replay.startable.view(replay.length, -1)[-replay.n_steps :] = False
        replay.cursor.fill_(replay.length)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Take down when which env step was reached."""
        self.marks.append((time.perf_counter(), trainer.datamodule.env_steps))  # type: ignore[attr-defined]

    def microseconds(self) -> float:
        """Per env step."""
        (start, first), (end, last) = self.marks[0], self.marks[-1]
        return 1e6 * (end - start) / (last - first)


def env_step_time(env_steps: int, capacity: int, num_envs: int, dim: int) -> float:
    """Microseconds of one env step of training, everything included."""
    steps = max(1, 512 // num_envs)
    per_batch = steps * num_envs
    data = ReplayDataModule(
        functools.partial(PointMass, dim=dim),
        collect={
            "env_steps": max(env_steps, 8 * per_batch),
            "num_envs": num_envs,
            "warmup": 4 * num_envs,
            "steps_per_batch": steps,
        },
        replay={
            "capacity": max(capacity, 8 * num_envs),
            "updates_per_batch": per_batch // ENV_STEPS_PER_UPDATE,
        },
        curriculum={"min_outcomes": 1, "label_epsilon": 1.0},
        gan={
            "every": max(1, ENV_STEPS_PER_CYCLE // per_batch),
            "updates": max(1, 8 * per_batch // ENV_STEPS_PER_CYCLE),
        },
        evaluation={"every": 10**9},
    )
    timed = Timed()
    torch.manual_seed(0)
    trainer = Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, callbacks=[timed], limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(CreativeLearner(), datamodule=data)
    return timed.microseconds()


def measured(env_steps: int, runs: int) -> dict[str, dict[int, float]]:
    """Medians for each value of each sweep; the runs take turns, so that noise hits all alike."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in SWEEPS}
    for _ in range(runs):
        for name, (_, values) in SWEEPS.items():
            for value in values:
                settings = {**BASE, name: value}
                spent = env_step_time(env_steps, **settings)
                found[name].setdefault(value, []).append(spent)
                print(f"{name} {value:>9,}: {spent:8.1f} µs", flush=True)
    return {
        name: {value: round(median(times), 2) for value, times in sweep.items()}
        for name, sweep in found.items()
    }


def draw(found: dict[str, dict[int, float]]) -> Figure:
    """Three panels, one for each sweep."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
    for axis, (name, sweep) in zip(axes, found.items(), strict=True):
        axis.plot(list(map(int, sweep)), list(sweep.values()), color="#0072B2", marker="o")
        axis.set_xscale("linear" if name == "dim" else "log")
        axis.set_yscale("log")
        axis.set_xlabel(SWEEPS[name][0])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("µs per env step of training")
    axes[0].set_ylim(10, None)
    return figure


def main() -> None:
    """Measure, keep the numbers beside this file, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-steps", type=int, default=8_000, help="of each run, at least")
    parser.add_argument("--runs", type=int, default=3, help="runs of each setting")
    parser.add_argument("--figure", type=Path, default=FOLDER / "scaling.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    found = measured(args.env_steps, args.runs)
    (FOLDER / "scaling.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(found).savefig(args.figure, dpi=150)


if __name__ == "__main__":
    main()
