"""Training on a GPU: env steps and updates a second, and how long the GPU waits.

``python tests/benchmarks/gpu.py`` on a machine with a CUDA device; writes gpu.json beside it.
Environments, replay and networks live on the device. For each vector step there are 16 updates of
256 transitions, so that more environments mean more experience for as many updates.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch

FOLDER = Path(__file__).parent
EXPERIMENT = FOLDER.parents[1] / "conf" / "experiment" / "mountain_car_levels.yaml"
#: Vector steps and updates of one batch.
STEPS, UPDATES = 4, 64


class Busy(threading.Thread):
    """Asks the driver now and then for which share of the time the GPU was at work."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, float]] = []
        self.done = threading.Event()

    def run(self) -> None:
        """Sample until done."""
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self.done.wait(0.2):
            found = subprocess.run(command, capture_output=True, text=True, check=True)
            self.samples.append((time.time(), float(found.stdout.split()[0]) / 100))


def train(*options: str) -> tuple[dict[str, Any], float]:
    """The summary of a run, and the GPU's busy share over the last third of it."""
    with TemporaryDirectory() as root:
        command = [sys.executable, "-m", "lit_crl", "fit", f"--config={EXPERIMENT}", *options]
        command += [
            "--trainer.accelerator=gpu",
            "--trainer.devices=1",
            "--data.evaluation.test_episodes=2",
        ]
        command += [f"--trainer.default_root_dir={root}", "--data.evaluation.every=1000000000"]
        command += ["--data.evaluation.episodes=2", "--data.evaluation.generated_levels=2"]
        busy = Busy()
        busy.start()
        started = time.time()
        done = subprocess.run(command, cwd=FOLDER.parents[1], capture_output=True, text=True)
        ended = time.time()
        busy.done.set()
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        (path,) = Path(root).rglob("summary.json")
        found = json.loads(path.read_text())
    # Start-up and compilation come first, two test episodes last.
    first, last = ended - 2 - (ended - started) / 3, ended - 4
    shares = [share for when, share in busy.samples if first <= when <= last]
    return found, mean(shares) if shares else float("nan")


def rates(found: dict[str, Any], busy: float) -> dict[str, float]:
    """Speed of a run without compiling and evaluating."""
    compiling, evaluating = (found[f"seconds_{part}"] or 0.0 for part in ("compile", "evaluation"))
    seconds = found["wall_seconds"] - compiling - evaluating
    return {
        "env_steps_per_second": round(found["env_steps"] / seconds, 1),
        "updates_per_second": round(found["updates"] / seconds, 1),
        "seconds": round(seconds, 2),
        "compile_seconds": round(compiling, 2),
        "gpu_idle_share": round(1 - busy, 3),
    }


def measured(num_envs: int, mode: str, batches: int) -> dict[str, float]:
    """One run."""
    warmup = 2 * STEPS * num_envs
    options = [
        f"--data.collect.num_envs={num_envs}",
        f"--data.collect.warmup={warmup}",
        f"--data.collect.env_steps={warmup + batches * STEPS * num_envs}",
        f"--data.collect.steps_per_batch={STEPS}",
        f"--data.replay.updates_per_batch={UPDATES}",
        f"--data.replay.capacity={max(100_000, 64 * num_envs)}",
        f"--model.compile={str(mode == 'compiled').lower()}",
    ]
    return rates(*train(*options))


def main() -> None:
    """Measure all settings; write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER / "gpu.json")
    parser.add_argument("--batches", type=int, default=400, help="of a run; 16 to a GAN phase")
    parser.add_argument("--num-envs", type=int, nargs="*", default=(64, 1_024, 16_384))
    parser.add_argument("--modes", nargs="*", default=("eager", "compiled"))
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device.")
    results: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "cuda": torch.version.cuda,
        "runs": [],
    }
    if args.results.exists():
        results["runs"] = json.loads(args.results.read_text())["runs"]
    for setting in itertools.product(args.num_envs, args.modes):
        num_envs, mode = setting
        found = {"num_envs": num_envs, "mode": mode, "batches": args.batches}
        found |= measured(num_envs, mode, args.batches)
        print(json.dumps(found), flush=True)
        names = ("num_envs", "mode")
        others = [run for run in results["runs"] if tuple(run[n] for n in names) != setting]
        results["runs"] = [*others, found]
        args.results.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
