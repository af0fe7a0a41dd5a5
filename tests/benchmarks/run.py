"""Measure DQN training side by side: ours, other libraries, and a whole loop in JAX.

Every run is a process of its own on one core and one thread; the runs of the contenders are
interleaved, so that what else the machine does hits all alike. Needs pip install -e '.[bench]'.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, contenders_of
from protocol import Run
from results import rates, summarise
from rich.console import Console
from table import RESULTS, rich_tables
from tasks import TASKS

FOLDER = Path(__file__).parent

#: One thread each, on the CPU, and no warnings of others' code.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``peers`` and ``tasks`` become lists of names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tasks", default=",".join(TASKS), help="tasks, with commas between (%(default)s)"
    )
    parser.add_argument(
        "--env-steps", type=int, default=10**9, help="how much of each schedule is run at most"
    )
    parser.add_argument(
        "--peer-env-steps",
        type=int,
        default=50_000,
        help="how much of it the slow ones run: "
        + ", ".join(n for n, c in CONTENDERS.items() if c.slow),
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender")
    parser.add_argument(
        "--peers",
        default=",".join(CONTENDERS),
        help="contenders, with commas between (%(default)s)",
    )
    parser.add_argument("--core", type=int, help="the core to run on; default: the last")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    args = parser.parse_args(argv)
    args.peers, args.tasks = args.peers.split(","), args.tasks.split(",")
    for given, there in ((args.peers, CONTENDERS), (args.tasks, TASKS)):
        if unknown := [name for name in given if name not in there]:
            parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(there)}")
    warmup = max(TASKS[name].schedule.warmup for name in args.tasks)
    if args.runs < 1 or min(args.env_steps, args.peer_env_steps) <= warmup:
        parser.error(f"at least one run of more than the warm-up's {warmup} env steps")
    return args


def check_installed(names: Sequence[str]) -> None:
    """Say in one sentence what is missing.

    Raises:
        SystemExit: If a package is.
    """
    packages = dict.fromkeys(CONTENDERS[name].package for name in names)
    if missing := [package for package in packages if find_spec(package) is None]:
        raise SystemExit(
            f"Not installed: {', '.join(missing)}. Run pip install -e '.[bench]', or leave out "
            "with --peers who needs it."
        )


def pin(core: int | None) -> None:
    """Keep this process and its children on one core."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("The benchmark pins itself to one core, which needs Linux.")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core is None else core})


def last_json(*command: str, task: str = "cartpole") -> dict[str, Any]:
    """Run a module of this folder for a task, and read the last line that it prints.

    Raises:
        SystemExit: If it fails; with the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=FOLDER,
        env=os.environ | ENVIRONMENT | {"TASK": task},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(task: str, name: str, at_most: int, seed: int) -> Run:
    """One run of one contender, of ``at_most`` so many env steps."""
    contender = CONTENDERS[name]
    env_steps = min(at_most, TASKS[task].schedule.env_steps)
    options = ("--env-steps", str(env_steps), "--seed", str(seed), *contender.arguments)
    return Run(**last_json(f"contenders.{contender.module}", *options, task=task))


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that names the host."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "cores_used": 1,
        "load_at_start": round(os.getloadavg()[0], 1),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def git_commit() -> str | None:
    """The checkout's commit, marked if files have changed since; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
    return done.stdout.strip() or None


def main() -> None:
    """Run all rounds; after each, write what there is."""
    args = parse()
    check_installed(args.peers)
    pin(args.core)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    origin: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "git_commit": git_commit(),
        "machine": machine(),
    }
    if origin["machine"]["load_at_start"] > 0.5:
        console.print("This machine is busy: the figures will be too low.")
    runs: dict[str, dict[str, list[Run]]] = {
        task: {name: [] for name in contenders_of(task, args.peers)} for task in args.tasks
    }
    ceilings: list[dict[str, float]] = []
    for seed in range(1, args.runs + 1):
        ceilings.append(last_json("ceiling"))
        for task, name in ((task, name) for task, names in runs.items() for name in names):
            limits = [args.env_steps, *[args.peer_env_steps] * CONTENDERS[name].slow]
            run = measure(task, name, min(limits), seed)
            runs[task][name].append(run)
            speed = rates(run, TASKS[task].schedule).env_steps
            console.print(
                f"run {seed} of {args.runs}  {task:<16} {CONTENDERS[name].label:<30} "
                f"{speed:>8,.0f} env-steps/s",
            )
        results = origin | summarise(runs, ceilings)
        partial = args.results.with_name(args.results.name + ".partial")
        partial.write_text(json.dumps(results, indent=2) + "\n")
        partial.replace(args.results)
    for table in rich_tables(results):
        console.print(table)
    console.print(f"Written to {args.results}")


if __name__ == "__main__":
    main()
