"""What data-parallel training costs: one all-reduce of all gradients in each update.

``OMP_NUM_THREADS=1 python tests/benchmarks/processes.py`` trains with one process and with two, a
core (or a GPU) each, and then times the all-reduce alone, for vectors of several lengths.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch import multiprocessing

from lit_crl.core import distributed

#: Numbers in a gradient: those of an MLP 128-128, of a network for 84×84×4, and of a large one.
LENGTHS = (20_000, 1_700_000, 17_000_000)


def device_of(rank: int) -> torch.device:
    """Where a process works."""
    return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")


def trained(processes: int, env_steps: int, folder: Path) -> dict[str, float]:
    """Updates and env steps a second of a run, per process and in all."""
    arguments = {
        "experiment": "mountain_car_levels",
        "data.collect.env_steps": env_steps * processes,
        "data.evaluation.every": env_steps * processes,
        "data.evaluation.test_episodes": 1,
        "trainer.default_root_dir": folder,
        "trainer.devices": processes,
        "name": f"processes{processes}",
    }
    flags = [f"--{key}={value}" for key, value in arguments.items()]
    subprocess.run([sys.executable, "-m", "lit_crl", "fit", *flags], check=True, stdout=sys.stderr)
    (summary,) = folder.glob(f"**/processes{processes}/summary.json")
    found = json.loads(summary.read_text())
    microseconds = 1e6 * found["seconds_dqn"] / found["updates"]
    seconds = found["wall_seconds"] - found["seconds_evaluation"]
    return {
        "processes": processes,
        "microseconds_of_an_update": round(microseconds, 1),
        "env_steps_per_second": round(found["env_steps"] / seconds),
    }


def time_averages(rank: int, processes: int, meeting: str, found: Path) -> None:
    """One process of several: the median microseconds of an average, for each length."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, f"file://{meeting}", rank=rank, world_size=processes)
    times = {}
    for length in LENGTHS:
        gradients = [torch.randn(length, device=device_of(rank))]
        rounds = []
        for _ in range(20 if length > 1e6 else 500):
            start = time.perf_counter()
            distributed.average(gradients)
            if gradients[0].is_cuda:
                torch.cuda.synchronize()
            rounds.append(1e6 * (time.perf_counter() - start))
        times[f"{length:,}"] = round(median(rounds), 1)
    if rank == 0:
        found.write_text(json.dumps(times))
    dist.destroy_process_group()


def averages(processes: int, folder: Path) -> dict[str, float]:
    """Microseconds of an average over so many processes, by how many numbers."""
    found = folder / f"averages{processes}.json"
    meeting = str(folder / f"meeting{processes}")
    multiprocessing.spawn(time_averages, (processes, meeting, found), nprocs=processes)
    times: dict[str, float] = json.loads(found.read_text())
    return times


def main() -> None:
    """Measure, and print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--env_steps", type=int, default=20_000, help="of each process")
    chosen = parser.parse_args()
    results: dict[str, object] = {
        "torch": torch.__version__,
        "device": str(device_of(0)),
        "cores": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["training"] = [trained(n, chosen.env_steps, folder) for n in chosen.processes]
        several = [n for n in chosen.processes if n > 1]
        results["average_microseconds"] = {n: averages(n, folder) for n in several}
    print(json.dumps(results, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
