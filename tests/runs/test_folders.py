"""Run folders: no two runs share one, even if they start at the same time."""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from lit_crl.core.checks import ConfigError
from lit_crl.runs import folders

#: Settings of a fit that takes a second.
TINY = [
    "--experiment=mountain_car_levels",
    "--data.collect.env_steps=400",
    "--data.collect.num_envs=8",
    "--data.collect.warmup=200",
    "--data.replay.batch_size=8",
    "--data.replay.updates_per_batch=1",
    "--data.evaluation.test_episodes=1",
    "--data.evaluation.episodes=1",
    "--data.curriculum.arm=target",
    "--model.network.hidden=[8]",
]


def start(program: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *program], text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def claim_one(
    parent: Path, all_there: Barrier, all_done: Barrier, names: "SimpleQueue[str]"
) -> None:
    """Claim a folder together with the others, and hold it until all have one."""
    all_there.wait(60)
    names.put(folders.claim_run(parent, None, 0, resume=False).path.name)
    all_done.wait(60)


def claims(parent: Path, count: int) -> list[str]:
    """The folders that ``count`` processes claim at the same time."""
    forked = multiprocessing.get_context("fork")
    names = forked.SimpleQueue()
    shared = (parent, forked.Barrier(count), forked.Barrier(count), names)
    processes = [forked.Process(target=claim_one, args=shared) for _ in range(count)]
    for process in processes:
        process.start()
    found = [names.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def test_twenty_processes_claim_twenty_folders(tmp_path: Path) -> None:
    names = claims(tmp_path / "runs" / "a", 20)
    assert sorted(names) == sorted(["seed0", *(f"seed0-{number}" for number in range(2, 21))])


@pytest.mark.slow
def test_three_fits_at_once_give_three_whole_runs(tmp_path: Path) -> None:
    fit = ["-m", "lit_crl", "fit", *TINY, f"--trainer.default_root_dir={tmp_path}"]
    processes = [start(fit) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    runs = sorted((tmp_path / "mountain_car_levels").iterdir())
    assert [run.name for run in runs] == ["seed0", "seed0-2", "seed0-3"]
    for run in runs:
        assert {"config.yaml", "metrics.csv", "summary.json"} <= {p.name for p in run.iterdir()}
    assert len({(run / "metrics.csv").read_bytes() for run in runs}) == 1


def test_a_name_is_given_once(tmp_path: Path) -> None:
    first = folders.claim_run(tmp_path / "a", "mine", 0, resume=False)
    with pytest.raises(ConfigError, match="mine already holds a run: choose another --name"):
        folders.claim_run(tmp_path / "a", "mine", 0, resume=False)
    first.abandon()
    folders.claim_run(tmp_path / "a", "mine", 0, resume=False).close()


@pytest.mark.skipif(folders.fcntl is None, reason="no locks here")
def test_a_run_is_not_resumed_while_it_runs(tmp_path: Path) -> None:
    first = folders.claim_run(tmp_path, "mine", 0, resume=True)
    (first.path / "config.yaml").touch()
    with pytest.raises(ConfigError, match="another process is training the run"):
        folders.claim_run(tmp_path, "mine", 0, resume=True)
    first.close()
    folders.claim_run(tmp_path, "mine", 0, resume=True).close()


@pytest.mark.skipif(folders.fcntl is None, reason="no locks here")
def test_a_folder_that_a_crash_left_empty_is_taken(tmp_path: Path) -> None:
    (tmp_path / "seed0").mkdir()
    claim = folders.claim_run(tmp_path, None, 0, resume=False)
    assert claim.path == tmp_path / "seed0"
    claim.abandon()
    assert (tmp_path / "seed0").is_dir()  # this process did not create it


def test_what_is_abandoned_leaves_nothing(tmp_path: Path) -> None:
    claim = folders.claim_run(tmp_path / "runs" / "a", None, 0, resume=False)
    (claim.path / "config.yaml").touch()
    claim.abandon()
    assert list(tmp_path.iterdir()) == []


def test_the_newest_run_is_the_one_with_the_highest_number(
    tmp_path: Path,
) -> None:
    for name in ("seed0", "seed0-2", "seed0-10", "seed01", "seed0-x", "seed1-11"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    assert folders.newest_run(tmp_path, None, 0) == tmp_path / "seed0-10"
    assert folders.newest_run(tmp_path, None, 7) == tmp_path / "seed7"
