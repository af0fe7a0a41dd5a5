"""Runs in other processes: signals stop them, kill -9 ends them, the command line resumes them."""

import contextlib
import csv
import io
import json
import os
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_crl.runs.cli import entry
from lit_crl.runs.cli import main as cli
from lit_crl.training.datamodule import ReplayDataModule

TINY = [
    "--data.collect.env_steps=4000",
    "--data.collect.warmup=500",
    "--data.evaluation.every=1000",
    "--data.env.max_episode_steps=60",
    "--data.collect.num_envs=16",
    "--data.curriculum.min_outcomes=5",
    "--data.curriculum.label_epsilon=1",
    "--data.gan.every=8",
    "--data.gan.updates=2",
    "--data.gan.batch_size=32",
    "--data.replay.batch_size=32",
    "--data.replay.updates_per_batch=2",
    "--data.evaluation.episodes=2",
    "--data.evaluation.test_episodes=5",
    "--data.evaluation.generated_levels=2",
    "--model.network.hidden=[16,16]",
    "--model.gan.hidden=[16,16]",
    "--trainer.log_every_n_steps=5",
]

EXPERIMENTS = {
    "mountain_car_levels": [],
    # The capacity is below the budget: at many of the kills the ring has wrapped around.
    "point_mass": ["--data.replay.capacity=2000", "--data.collect.num_envs=16"],
    "plain_dqn": [],
    # A world learns and dreams every 200 env steps.
    "mountain_car": [
        "--data.gan.updates=0",
        "--data.world.updates=2",
        "--data.world.first_updates=4",
        "--data.world.batch_size=16",
        "--data.world.dreams=8",
        "--data.world.horizon=4",
        "--data.world.error_bound=100",
        "--model.world.hidden=[16]",
        "--model.world.members=2",
    ],
}
#: A run of the name ``a``, which most tests interrupt.
LEVELS = ["--experiment=mountain_car_levels", "--name=a", *TINY]


def fit(folder: Path, *args: str) -> subprocess.Popen[str]:
    """Start a fit in ``folder``."""
    command = [sys.executable, "-m", "lit_crl", "fit", *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def fit_here(folder: Path, *args: str) -> str:
    """Fit in this process, which starts at once, where no signal is meant for it."""
    output = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(output):
        cli.main(["fit", *args])
    return output.getvalue()


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=240)
    finally:
        process.kill()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def left_behind(run: Path) -> dict[str, Any]:
    """What a run leaves behind, which must not depend on interruptions."""
    last = run / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    (collected,) = run.glob(f"checkpoints/collected-*-{saved['lit_crl'].pop('token')}-rank0.pt")
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Clocks differ, and how the loops count their restarts does not matter.
    del saved["loops"], saved["callbacks"]
    return {
        "saved": saved,
        "collected": torch.load(collected, weights_only=True),
        "rows": rows,
        "test": json.loads((run / "test.json").read_text()),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Each experiment, uninterrupted; filled on first use."""
    return {}


def uninterrupted(
    whole: dict[str, dict[str, Any]], experiment: str, tmp_path: Path
) -> dict[str, Any]:
    if experiment not in whole:
        folder = tmp_path / "whole"
        folder.mkdir()
        args = ["--experiment", experiment, "--name", "a", *TINY, *EXPERIMENTS[experiment]]
        fit_here(folder, *args)
        whole[experiment] = left_behind(folder / "runs" / experiment / "a")
    return whole[experiment]


@pytest.mark.parametrize(
    "signum",
    [
        pytest.param(signal.SIGINT, id="SIGINT"),
        # test_interruption.py sends it at every stage; test_data_parallel.py to two processes
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_the_printed_command_goes_on(
    signum: int, tmp_path: Path, whole: Any, difference: Any
) -> None:
    expected = uninterrupted(whole, "mountain_car_levels", tmp_path)
    process = fit(tmp_path, *LEVELS)
    run = tmp_path / "runs" / "mountain_car_levels" / "a"
    wait_for(run / "checkpoints" / "last.ckpt", process)  # while the replay warms up, none is saved
    sent = time.monotonic()
    process.send_signal(signum)
    output, errors = finish(process)
    assert process.returncode == 128 + signum, (output, errors)
    assert time.monotonic() - sent < 20
    assert "Traceback" not in errors
    command = re.search(r"Go on with: (python -m lit_crl .*)", output)
    assert command is not None, output
    words = shlex.split(command[1])[4:]
    assert "Resuming from" in fit_here(tmp_path, *words)
    assert difference(expected, left_behind(run)) is None


def test_slurm_requeues_and_the_same_command_goes_on(
    tmp_path: Path, whole: Any, difference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = uninterrupted(whole, "mountain_car_levels", tmp_path)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    job = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0",
           "NODEID": "0", "JOB_NAME": "train"}  # fmt: skip
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    args = [*LEVELS, "--ckpt_path=last"]
    run = tmp_path / "runs" / "mountain_car_levels" / "a"
    steps = [0]

    def step_and_signal(data: ReplayDataModule, *given: Any) -> None:
        steps[0] += 1
        if steps[0] == 100:  # of 250
            os.kill(os.getpid(), signal.SIGUSR1)
        usual(data, *given)

    usual = ReplayDataModule._step
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(ReplayDataModule, "_step", step_and_signal)
        patch.setattr(sys, "argv", ["lit_crl", "fit", *args])
        with pytest.raises(SystemExit) as stop:
            entry.run()
    assert stop.value.code == 128 + signal.SIGUSR1
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert not (run / "test.json").exists()
    assert "Resuming from" in fit_here(tmp_path, *args)
    assert difference(expected, left_behind(run)) is None


def kill_and_resume(
    experiment: str, folder: Path, draw: random.Random, extra: Sequence[str] = ()
) -> None:
    """One kill -9 at a random moment of training, then the same command with --ckpt_path last."""
    args = ["--experiment", experiment, "--name", "a", "--ckpt_path", "last",
            "--checkpoint.every_env_steps", "300", *TINY, *EXPERIMENTS[experiment]]  # fmt: skip
    process = fit(folder, *args)
    wait_for(folder / "runs" / experiment / "a" / "config.yaml", process)
    time.sleep(draw.uniform(0.0, 6.0))
    process.kill()
    process.communicate()
    output = fit_here(folder, *args, *extra)
    assert "Resuming from" in output or "starting afresh" in output


@pytest.mark.slow
def test_a_killed_run_ends_like_one_that_was_not(
    tmp_path: Path, whole: Any, difference: Any
) -> None:
    expected = uninterrupted(whole, "mountain_car_levels", tmp_path)
    kill_and_resume("mountain_car_levels", tmp_path, random.Random(1))
    run = tmp_path / "runs" / "mountain_car_levels" / "a"
    assert difference(expected, left_behind(run)) is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_ten_kills_of_each_experiment(
    experiment: str, seed: int, tmp_path: Path, whole: Any, difference: Any
) -> None:
    expected = uninterrupted(whole, experiment, tmp_path)
    kill_and_resume(experiment, tmp_path, random.Random(seed))
    assert difference(expected, left_behind(tmp_path / "runs" / experiment / "a")) is None


def test_a_full_disk_stops_the_run_and_spares_the_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = [*LEVELS, "--checkpoint.every_env_steps=300", "--data.collect.env_steps=6000"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lit_crl", "fit", *args])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        with pytest.raises(SystemExit) as stop:
            entry.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    errors = capsys.readouterr().err
    assert stop.value.code == 1, errors
    assert "Traceback" not in errors
    assert "cannot write" in errors.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("*.partial"))
