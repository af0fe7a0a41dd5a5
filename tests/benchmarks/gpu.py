"""Training on a GPU: env steps and updates a second, how long the GPU waits, and what is learnt.

``python tests/benchmarks/gpu.py`` on a machine with a CUDA device takes some minutes and writes
gpu.json beside it. Environments, replay and networks live on the device. Each row trains for a few
seconds, which begin when all graphs are there. With 1,024 environments there are 16 updates of 256
transitions for each vector step; beside them is a whole loop in JAX of the same sizes. Dreams are
measured by themselves: 4,096 at a time, one operation at a time and as a graph of a step.
"""

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import dreams
import numpy as np
import torch
from gymnasium.spaces import Box
from lightning.pytorch import Callback, Trainer

from lit_crl import CreativeLearner, ReplayDataModule
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.networks import QNetwork
from lit_crl.dqn.settings import DqnSettings
from lit_crl.envs import CartPole, MountainCar
from lit_crl.envs.images import with_layout
from lit_crl.training.batches import DqnMinibatch
from lit_crl.training.flat.engine import FlatEngine
from lit_crl.training.graphs.capture import cuda_graph
from lit_crl.training.graphs.phase import GraphedPhase
from lit_crl.training.updates import dqn_update

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
ACCELERATOR, DEVICE = "gpu", torch.device("cuda")
#: Vector steps and updates of one batch, and transitions of one update.
STEPS, UPDATES, BATCH = 4, 64, 256
Adam = functools.partial(torch.optim.Adam, lr=2.5e-4, fused=True)

#: Batches from one phase of a world to the next, and its dreams for each environment.
WORLD_EVERY, DREAMS = 16, 4

#: The settings of each task: MountainCar with its level GAN as it is by default, with Polyak
#: updates; the same with a world in its place; and CartPole by a plain DQN with hard copies, which
#: is what the JAX program trains. All is recorded and compiled after the ``first`` batches: a car's
#: episodes take 50 of them, and the GAN learns of what they came to.
TASKS: dict[str, dict[str, Any]] = {
    "MountainCar, level GAN, Polyak": {"env": MountainCar, "first": 82, "data": {}, "model": {}},
    "MountainCar, world, Polyak": {
        "env": MountainCar,
        "first": 82,
        "data": {"curriculum": {"arm": "target"}, "gan": {"updates": 0}},
        "world": {"updates": 64, "first_updates": 64, "horizon": 32, "error_bound": 1e9},
        "model": {"world": {"loss": "gan"}},
    },
    "CartPole, plain DQN, hard copies": {
        "env": CartPole,
        "first": 18,
        "data": {"curriculum": {"arm": "target"}, "gan": {"updates": 0}},
        "model": {
            "network": {"layer_norm": False, "scale_obs": False},
            "dqn": {
                "double": False, "td_loss": "mse", "target_rate": 1.0, "target_period": 800,
                "final_lr": 1.0, "max_grad_norm": 1e9, "optimizer": Adam,
            },
        },
    },
}  # fmt: skip


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
            found = subprocess.run(command, capture_output=True, text=True)
            if not found.returncode:
                self.samples.append((time.time(), float(found.stdout.split()[0]) / 100))

    def share(self, begin: float, end: float) -> float | None:
        """The mean share between two times; the driver's own window is up to a second long."""
        shares = [share for when, share in self.samples if begin + 1 <= when <= end]
        return mean(shares) if shares else None


class Timed(Callback):
    """Stops a run after some seconds, which begin when all graphs are there."""

    def __init__(self, first: int, seconds: float) -> None:
        self.first, self.seconds, self.batches = first, seconds, 0
        self.begin: tuple[float, int, int] | None = None
        self.end = (0.0, 0, 0)

    def on_train_batch_end(self, trainer: Trainer, learner: Any, *_: object) -> None:
        """Look at the clock now and then: for that all work must be done."""
        self.batches += 1
        if self.batches < self.first or self.batches % 16:
            return
        torch.cuda.synchronize()
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        now = (time.time(), data.env_steps, learner.updates)
        self.begin, self.end = self.begin or now, now
        trainer.should_stop = now[0] - self.begin[0] >= self.seconds


@contextmanager
def mode(name: str) -> Iterator[None]:
    """Without graphs for ``eager`` and ``compiled``, which launch kernel after kernel."""
    with ExitStack() as stack:
        if name in ("eager", "compiled"):
            for module in ("graphs.choice", "datamodule"):
                where = f"lit_crl.training.{module}.capture_on"
                stack.enter_context(patch(where, lambda device: None))
        yield


def trained(
    task: str, how: str, num_envs: int, steps: int, updates: int, seconds: float
) -> dict[str, Any]:
    """The speed of one run."""
    torch.compiler.reset()
    spec = TASKS[task]
    world = dict(spec.get("world", {}))
    if world:
        world |= {"every": WORLD_EVERY * num_envs * steps, "dreams": DREAMS * num_envs}
    data = ReplayDataModule(
        spec["env"],
        **{
            "collect": {
                "num_envs": num_envs, "warmup": 4 * num_envs, "steps_per_batch": steps,
                "env_steps": 10**12,
            },
            "replay": {
                "updates_per_batch": updates, "capacity": 128 * num_envs, "batch_size": BATCH,
            },
            "evaluation": {"every": 10**11},
            "world": world,
            **spec["data"],
        },
    )  # fmt: skip
    learner = CreativeLearner(**spec["model"], compile="compiled" in how)
    timed, busy = Timed(spec["first"], seconds), Busy()
    unwanted = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    trainer = Trainer(
        accelerator=ACCELERATOR,
        devices=1,
        max_epochs=-1,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        inference_mode=False,
        callbacks=[timed],
        **dict.fromkeys(unwanted, False),
    )
    busy.start()
    started = time.time()
    with mode(how):
        trainer.fit(learner, datamodule=data)
    busy.done.set()
    assert timed.begin is not None
    (begin, first_step, first_update), (end, last_step, last_update) = timed.begin, timed.end
    share = busy.share(begin, end)
    return {
        "env_steps_per_second": round((last_step - first_step) / (end - begin), 1),
        "updates_per_second": round((last_update - first_update) / (end - begin), 1),
        "gpu_idle_share": None if share is None else round(1 - share, 3),
        "seconds": round(end - begin, 2),
        "seconds_before": round(begin - started, 2),
        "compile_seconds": round(learner.clock.seconds.get("compile", 0.0), 2),
        "memory_mb": round(torch.cuda.max_memory_allocated() / 1e6),
    }


def convolutional(
    side: int, hidden: int, how: str, seconds: float, batch: int = 32, updates: int = 16
) -> dict[str, Any]:
    """Updates a second of a convolutional network on square images with 4 channels."""
    torch.compiler.reset()
    device, shape = DEVICE, (4, side, side)
    space = with_layout(Box(0, 255, shape, np.uint8), "CHW")
    q, target = (QNetwork(space, 6, (hidden,), layer_norm=False).to(device) for _ in range(2))
    update = functools.partial(dqn_update, q, target.requires_grad_(False), DqnSettings())
    optimizer: Any = SimpleNamespace(optimizer=Adam(q.parameters()))
    engine: FlatEngine[DqnMinibatch] = FlatEngine(update, {q: optimizer, target: None})
    step: Callable[..., Any] = engine.updates
    if "compiled" in how:
        step = torch.compile(step, fullgraph=True, dynamic=False)
    size = (updates, batch)
    obs = torch.randint(256, (2, *size, *shape), dtype=torch.uint8, device=device)
    numbers = torch.randn(size, device=device), torch.full(size, 0.99, device=device)
    actions = torch.randint(6, size, device=device)
    stack = DqnMinibatch(Transitions(obs[0], actions, *numbers, obs[1]))
    with patch("lit_crl.training.graphs.phase.count_steps"):
        trainer: Any = None
        phase = GraphedPhase(trainer, engine, step, cuda_graph, Stopwatch())
        rates, done = [0.01] * updates, 0
        for _ in range(3):
            phase(rates, stack)
        torch.cuda.synchronize()
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            for _ in range(8):
                phase(rates, stack)
                done += updates
            torch.cuda.synchronize()
    return {"updates_per_second": round(done / (time.perf_counter() - started))}


def imagined(how: str, seconds: float, number: int = 4_096, horizon: int = 100) -> dict[str, Any]:
    """Imagined steps a second of so many dreams, in a world GAN of the usual sizes."""
    capture = cuda_graph if how == "graphs" else None
    dreaming, policy = dreams.prepared(number, horizon, DEVICE, capture)
    for _ in range(2):
        dreaming.dreams.play(policy)
    torch.cuda.synchronize()
    before, started = dreaming.imagined_steps, time.perf_counter()
    while time.perf_counter() - started < seconds:
        dreaming.dreams.play(policy)
        torch.cuda.synchronize()
    steps = dreaming.imagined_steps - before
    return {"imagined_steps_per_second": round(steps / (time.perf_counter() - started))}


def learnt(precision: str) -> dict[str, Any]:
    """What the mountain car's experiment reaches, and how long it takes."""
    root = Path(os.environ.get("TMPDIR", "/tmp")) / f"gpu-benchmark-{os.getpid()}-{precision}"
    config = ["conf/experiment/mountain_car_levels.yaml", "conf/trainer/gpu.yaml"]
    command = [sys.executable, "-m", "lit_crl", "fit", *(f"--config={path}" for path in config)]
    command += [f"--trainer.default_root_dir={root}", f"--trainer.precision={precision}"]
    started = time.time()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr[-1_000:]}
    (path,) = root.rglob("summary.json")
    found = json.loads(path.read_text())
    return {
        "target_return_mean": found["target_return_mean"],
        "env_steps": found["env_steps"],
        "seconds": round(time.time() - started, 1),
        "is_solved": found["target_return_mean"] >= -110,
    }


def yardstick(seconds: float) -> dict[str, Any]:
    """The whole loop in JAX, in a process of its own."""
    sizes = ["1024", str(UPDATES // STEPS), str(BATCH), str(seconds)]
    command = [sys.executable, str(FOLDER / "gpu_jax.py"), *sizes]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr[-1_000:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(seconds: float, modes: list[str]) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The name of each measurement, and what makes it."""
    yield "JAX, whole loop, 1,024 environments", functools.partial(yardstick, seconds)
    for task in reversed(TASKS):
        for how in modes:
            run = functools.partial(trained, task, how, 1_024, STEPS, UPDATES, seconds)
            yield f"{task}, 1,024 environments, {how}", run
    collecting = functools.partial(trained, next(reversed(TASKS)), "graphs", 16_384, 64, 1, seconds)
    yield "16,384 environments, collection, graphs", collecting
    for how in modes:
        if "graphs" in how:
            for side, hidden in ((10, 128), (84, 512)):
                run = functools.partial(convolutional, side, hidden, how, seconds)
                yield f"{side}×{side}×4, batch 32, {how}", run
    for how in modes:
        if "compiled" not in how:
            yield f"4,096 dreams of 100 steps, {how}", functools.partial(imagined, how, seconds)
    for precision in ("32-true", "bf16-mixed"):
        yield f"mountain_car_levels, {precision}", functools.partial(learnt, precision)


def main() -> None:
    """Measure all rows; write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER / "gpu.json")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each row")
    parser.add_argument("--modes", nargs="*", default=["eager", "graphs", "graphs, compiled"])
    parser.add_argument("--only", default="", help="rows with this in their name")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device.")
    # As in JAX, which rounds the factors of matrix products, too.
    torch.set_float32_matmul_precision("high")
    results: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "lightning": version("lightning"),
        "cuda": torch.version.cuda,
        "runs": {},
    }
    for name, run in rows(args.seconds, args.modes):
        if args.only not in name:
            continue
        try:
            found = run()
        except Exception as error:  # the other rows are worth having
            found = {"failed": f"{type(error).__name__}: {error}"[:1_000]}
        results["runs"][name] = found
        print(json.dumps({name: found}), flush=True)
        args.results.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
