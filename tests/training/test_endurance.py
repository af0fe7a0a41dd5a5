"""Long runs and many runs: nothing piles up."""

import gc
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.runs.cli import main as cli

Make = Callable[..., Any]


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Memory(Callback):
    """Resident memory every 100 000 env steps."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        mark = trainer.datamodule.env_steps // 100_000
        if mark not in self.seen:
            gc.collect()
            self.seen[mark] = resident_mib()


@pytest.mark.slow
def test_memory_is_flat_over_a_million_env_steps(make_run: Make) -> None:
    memory = Memory()
    run = make_run(
        callbacks=[memory], validate=False, env_steps=1_100_000, num_envs=64, capacity=20_000,
        steps_per_batch=32, gan_every=32, validate_every=200_000,
    )  # fmt: skip
    run.fit()
    assert run.learner.gan_updates > 20
    # The replay, the archive and the allocator's pools are full after 100 000.
    assert memory.seen[10] - memory.seen[1] < 8, memory.seen


@pytest.mark.slow
def test_twenty_fits_leave_no_file_and_no_thread_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [
        "--experiment=mountain_car_levels",
        "--data.collect.env_steps=600",
        "--data.collect.warmup=200",
        "--data.replay.batch_size=16",
        "--data.replay.updates_per_batch=2",
        "--data.evaluation.test_episodes=2",
        "--model.network.hidden=[8]",
    ]
    seen = []
    for number in range(20):
        cli.main(["fit", "--name", f"run{number}", *tiny])
        gc.collect()
        seen.append((len(os.listdir("/proc/self/fd")), threading.active_count(), resident_mib()))
    alive = [thing for thing in gc.get_objects() if type(thing) is ReplayBuffer]
    assert len(alive) <= 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    files, threads, memory = zip(*seen, strict=True)
    assert files[-1] <= files[2] and threads[-1] <= threads[2], seen
    assert memory[-1] - memory[4] < 20, memory
