"""Several processes: equal weights everywhere, the gradients of one process, and no hang."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_processes.py")
Difference = Callable[[Any, Any], str | None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(task: str, folder: Path, processes: int) -> subprocess.CompletedProcess[str]:
    """Run the script in so many processes on this machine."""
    folder.mkdir(exist_ok=True)
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes),
                "--master-port", str(free_port())]  # fmt: skip
    command = [sys.executable, *(torchrun if processes > 1 else []), str(SCRIPT), task, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def results(folder: Path, processes: int) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(processes)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("trained")
    done = start("train", folder, 2)
    assert done.returncode == 0, done.stderr
    return folder, results(folder, 2)


def test_all_processes_have_the_same_weights_and_optimizers(
    trained: tuple[Path, list[dict[str, Any]]], difference: Difference
) -> None:
    first, second = trained[1]
    assert first["learner"]["updates"] >= 1_000 and first["learner"]["gan_updates"] > 20
    assert difference(first["weights"], second["weights"]) is None
    assert difference(first["optimizers"], second["optimizers"]) is None
    assert not any(w.isnan().any() for w in first["weights"].values() if w.is_floating_point())


def test_each_process_explores_and_draws_for_itself(
    trained: tuple[Path, list[dict[str, Any]]], difference: Difference
) -> None:
    first, second = trained[1]
    for mine, other in zip(first["drawn"], second["drawn"], strict=True):
        assert not torch.equal(mine, other)
    for mine, other in zip(first["noise"], second["noise"], strict=True):
        assert not torch.equal(mine, other)
    for name in ("obs", "action"):
        replays = (first["data"]["replay"][name], second["data"]["replay"][name])
        assert not torch.equal(*replays)
    assert not torch.equal(first["data"]["rng"], second["data"]["rng"])


def test_outcomes_are_shared_and_env_steps_counted_over_all_processes(
    trained: tuple[Path, list[dict[str, Any]]], difference: Difference
) -> None:
    first, second = (result["data"]["archive"] for result in trained[1])
    for field in ("tried.levels", "tried.values", "tried.written"):
        assert difference(first["rings"][field], second["rings"][field]) is None
    assert not torch.equal(first["rings"]["visited.levels"], second["rings"]["visited.levels"])
    for result in trained[1]:
        assert 2 * result["data"]["rollout"]["env_steps"] == 8_992  # 9 000, in whole vector steps
    saved = torch.load(trained[0] / "last.ckpt", weights_only=True)["lit_crl"]
    assert saved["env_steps"] == 8_992 and saved["world_size"] == 2


def test_a_resumed_run_equals_the_uninterrupted_one(
    trained: tuple[Path, list[dict[str, Any]]], tmp_path: Path, difference: Difference
) -> None:
    began = time.monotonic()
    died = start("die", tmp_path, 2)
    assert died.returncode != 0 and time.monotonic() - began < 60
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["lit_crl"]
    assert 0 < saved["env_steps"] < 8_000
    alone = tmp_path / "alone"
    shutil.copytree(tmp_path, alone)
    resumed = start("resume", tmp_path, 2)
    assert resumed.returncode == 0, resumed.stderr
    for whole, again in zip(trained[1], results(tmp_path, 2), strict=True):
        for part in ("weights", "optimizers", "learner", "process", "data"):
            assert difference(whole[part], again[part]) is None
    # One process takes over what two had collected.
    resumed = start("resume", alone, 1)
    assert resumed.returncode == 0, resumed.stderr
    (result,) = results(alone, 1)
    assert 8_900 < result["data"]["rollout"]["env_steps"] <= 9_000
    assert result["learner"]["updates"] > trained[1][0]["learner"]["updates"]  # smaller batches


def test_the_gradients_are_those_of_one_process_on_the_concatenated_batch(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for processes, folder in enumerate(folders, start=1):
        done = start("descend", folder, processes)
        assert done.returncode == 0, done.stderr
    (alone,), (first, second) = results(folders[0], 1), results(folders[1], 2)
    for name, weights in alone.items():
        assert torch.equal(first[name], second[name]), name
        error = (first[name] - weights).norm() / weights.norm().clamp(min=1e-6)
        assert error < 1e-6, (name, error)
