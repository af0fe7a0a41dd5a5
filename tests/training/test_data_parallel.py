"""Several processes: equal weights everywhere, the gradients of one process, and no hang."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import prepare_run
from two_processes import units, work

from lit_crl.core.checks import ConfigError
from lit_crl.core.tensor_files import newest_whole

SCRIPT = Path(__file__).parents[1] / "two_processes.py"
Difference = Callable[[Any, Any], str | None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(tasks: dict[str, Path]) -> subprocess.CompletedProcess[str]:
    """Do the tasks one after the other, each in its folder, in two processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--master-port", str(free_port()), str(SCRIPT)]  # fmt: skip
    command += [str(word) for task in tasks.items() for word in task]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def results(folder: Path, processes: int) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(processes)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave of each task, in a folder of its name.

    Starting them takes longer than most tasks, so all share two processes.
    """
    root = tmp_path_factory.mktemp("done")
    tasks = ("train", "descend", "evaluate", "imagine", "best", "rainbow", "memory")
    of_one_run = dict.fromkeys(("crash", "signal", "resume"), root / "crashed")
    both = start(of_one_run | {task: root / task for task in tasks})
    assert both.returncode == 0, both.stderr
    return root


@pytest.fixture(scope="module")
def trained(done: Path) -> list[dict[str, Any]]:
    return results(done / "train", 2)


def test_all_processes_have_the_same_weights_and_optimizers(
    trained: list[dict[str, Any]], difference: Difference
) -> None:
    first, second = trained
    assert first["learner"]["updates"] >= 100 and first["learner"]["gan_updates"] > 4
    assert difference(first["weights"], second["weights"]) is None
    assert difference(first["optimizers"], second["optimizers"]) is None
    assert not any(w.isnan().any() for w in first["weights"].values() if w.is_floating_point())


def test_each_process_explores_and_draws_for_itself(
    trained: list[dict[str, Any]], difference: Difference
) -> None:
    first, second = trained
    for mine, other in zip(first["drawn"], second["drawn"], strict=True):
        assert not torch.equal(mine, other)
    for mine, other in zip(first["noise"], second["noise"], strict=True):
        assert not torch.equal(mine, other)
    for name in ("obs", "action"):
        replays = (first["data"]["replay"][name], second["data"]["replay"][name])
        assert not torch.equal(*replays)
    assert not torch.equal(first["data"]["rng"], second["data"]["rng"])


def test_noisy_distributions_are_the_same_in_all_processes_and_their_noise_is_not(
    done: Path, difference: Difference
) -> None:
    first, second = results(done / "rainbow", 2)
    assert first["learner"]["updates"] >= 30
    assert difference(first["weights"], second["weights"]) is None
    assert difference(first["optimizers"], second["optimizers"]) is None
    assert first["weights"]["q_network.atoms"].tolist() == pytest.approx(
        torch.linspace(-100, 0, 11).tolist(), abs=1e-3
    )
    for stream in ("noise", "exploration"):
        mine, other = (result["data"]["streams"][stream] for result in (first, second))
        assert not torch.equal(mine, other)


def test_a_network_with_memory_is_the_same_in_all_processes(
    done: Path, difference: Difference
) -> None:
    first, second = results(done / "memory", 2)
    assert first["learner"]["updates"] >= 30
    assert difference(first["weights"], second["weights"]) is None
    assert difference(first["optimizers"], second["optimizers"]) is None
    memories = (result["data"]["replay"]["memory"] for result in (first, second))
    assert not torch.equal(*memories)


def test_outcomes_are_shared_and_env_steps_counted_over_all_processes(
    done: Path, trained: list[dict[str, Any]], difference: Difference
) -> None:
    first, second = (result["data"]["archive"] for result in trained)
    for field in ("tried.levels", "tried.values", "tried.written"):
        assert difference(first["rings"][field], second["rings"][field]) is None
    assert not torch.equal(first["rings"]["visited.levels"], second["rings"]["visited.levels"])
    for result in trained:
        assert 2 * result["data"]["rollout"]["env_steps"] == 1_488  # 1 500, in whole vector steps
    saved = torch.load(done / "train" / "last.ckpt", weights_only=True)["lit_crl"]
    assert saved["env_steps"] == 1_488 and saved["world_size"] == 2


def test_a_resumed_run_equals_the_uninterrupted_one(
    done: Path, trained: list[dict[str, Any]], tmp_path: Path, difference: Difference
) -> None:
    saved = torch.load(done / "crashed" / "crashed.ckpt", weights_only=True)["lit_crl"]
    assert 0 < saved["env_steps"] < 1_000
    for whole, again in zip(trained, results(done / "crashed", 2), strict=True):
        for part in ("weights", "optimizers", "learner", "data"):
            assert difference(whole[part], again[part]) is None
    alone = tmp_path / "alone"
    shutil.copytree(done / "crashed", alone)
    with pytest.raises(ConfigError, match="was saved by 2 processes, but this run has 1"):
        work("resume", alone)


def test_a_signal_to_one_process_saves_and_stops_both(done: Path) -> None:
    """The run above was stopped so, and went on."""
    first, second = ((done / "crashed" / f"stopped{rank}").read_text() for rank in range(2))
    assert first == second
    assert first.startswith("Stopped by SIGTERM after ") and "all is saved. Go on with" in first


def test_the_gradients_are_those_of_one_process_on_the_concatenated_batch(
    done: Path, tmp_path: Path
) -> None:
    work("descend", tmp_path)
    (alone,), (first, second) = results(tmp_path, 1), results(done / "descend", 2)
    for name, weights in alone.items():
        assert torch.equal(first[name], second[name]), name
        error = (first[name] - weights).norm() / weights.norm().clamp(min=1e-6)
        assert error < 1e-6, (name, error)


def test_processes_share_an_evaluation_and_find_what_one_finds(done: Path, tmp_path: Path) -> None:
    work("evaluate", tmp_path)
    (alone,), (first, second) = results(tmp_path, 1), results(done / "evaluate", 2)
    assert first.keys() == alone.keys() and len(first) == 6
    for name, numbers in alone.items():
        assert first[name] == second[name], name
        assert first[name].keys() == numbers.keys(), name
        assert first[name] == pytest.approx(numbers, rel=1e-4, abs=1e-4), name
        allowance = int(name.split()[1])
        assert numbers["evaluation_env_steps"] <= allowance
    assert "p_hat_brier" in first["test 40000"] and "heldout_cvar10" in first["test 40000"]


def test_processes_train_one_world_and_dream_for_themselves(
    done: Path, difference: Difference
) -> None:
    """The second has nothing for its members to learn from at first: the first one waits."""
    first, second = (result["whole"] for result in results(done / "imagine", 2))
    assert difference(first["weights"], second["weights"]) is None  # buffers are among them
    assert first["phases"] == second["phases"] >= 10
    for name in ("gate", "error", "scale"):
        assert difference(first[name], second[name]) is None, name
    assert first["gate"].isfinite() and first["error"]["is_met"]
    dreams, others = (one["dreams"]["dreams"] for one in (first, second))
    assert dreams["steps"] == others["steps"] > 0
    for mine, other in zip(dreams["store"][:2], others["store"][:2], strict=True):
        assert not torch.equal(mine, other)
    assert not torch.equal(first["replay"]["action"], second["replay"]["action"])


def test_the_units_of_a_world_are_those_of_the_rows_of_all_processes(
    done: Path, difference: Difference
) -> None:
    first, second = (result["units"] for result in results(done / "imagine", 2))
    assert difference(first, second) is None
    for name, expected in units(range(2)).items():
        torch.testing.assert_close(first[name], expected, rtol=1e-6, atol=1e-6, msg=name)


def test_a_resumed_run_with_a_world_equals_the_uninterrupted_one(
    done: Path, difference: Difference
) -> None:
    for result in results(done / "imagine", 2):
        assert difference(result["whole"], result["resumed"]) is None


def test_processes_agree_on_the_best_policy_and_the_first_one_keeps_it(
    done: Path, tmp_path: Path
) -> None:
    first, second = results(done / "best", 2)
    assert first == second
    stopped, resumed = first["stopped"], first["resumed"]
    assert resumed["best"][0] >= stopped["best"][0]
    assert not (done / "best" / "elsewhere").exists()
    path = done / "best" / "best.ckpt"
    saved = torch.load(path, weights_only=True)["lit_crl"]
    assert resumed["best"] == [saved["score"], saved["env_steps"]]
    # One process that tests the file finds the same.
    alone = prepare_run(env_steps=1_600, validate_every=240)
    alone.trainer.test(alone.learner, datamodule=alone.data, ckpt_path=str(path), verbose=False)
    for name, number in alone.trainer.callback_metrics.items():
        if f"best_{name}" in resumed["numbers"]:
            assert resumed["numbers"][f"best_{name}"] == pytest.approx(float(number), rel=1e-6)
    assert len(resumed["numbers"]) == 5


TINY = [
    "--data.collect.env_steps=60000",
    "--data.collect.warmup=500",
    "--data.evaluation.every=20000",
    "--data.collect.num_envs=8",
    "--data.replay.batch_size=16",
    "--data.replay.updates_per_batch=2",
    "--data.evaluation.test_episodes=5",
    "--data.evaluation.episodes=2",
    "--model.network.hidden=[16,16]",
]


CONFIG = [
    "--config",
    "conf/experiment/mountain_car_levels.yaml",
    "--config",
    "conf/trainer/ddp.yaml",
]


def fit_in_two_processes(folder: Path, *flags: str) -> tuple[subprocess.Popen[str], int]:
    """Start the command line as a user would; returns the first process and the second's pid."""
    command = [sys.executable, "-m", "lit_crl", "fit", *flags,
               "--trainer.accelerator", "cpu", "--name", "a", *TINY]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not (folder / "runs" / "mountain_car_levels" / "a" / "config.yaml").is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1.0)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (child,) = [c for c in children if b"lit_crl" in Path(f"/proc/{c}/cmdline").read_bytes()]
    return process, int(child)


def is_gone(pid: int) -> bool:
    """Whether a process ends within seconds: it may outlive the one that started it a little."""
    for _ in range(50):
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("signum", "patience"),
    [
        (signal.SIGKILL, 1800),
        pytest.param(signal.SIGSTOP, 30, marks=pytest.mark.slow),
    ],
    ids=["dies", "hangs"],
)
def test_when_one_process_dies_or_hangs_all_end_within_a_minute(
    signum: int, patience: int, tmp_path: Path
) -> None:
    timeout = f"--trainer.strategy.init_args.timeout_seconds={patience}"
    process, child = fit_in_two_processes(tmp_path, *CONFIG, timeout)
    os.kill(child, signum)
    output, errors = process.communicate(timeout=60)
    assert output.count("16 environments") == 1 and "2 × cpu" in output
    # Where a busy machine has not noticed after five seconds, Lightning kills all.
    assert process.returncode in (1, -signal.SIGKILL)
    if process.returncode == 1:
        assert "Traceback" not in errors
        assert "process 0 lost another one" in errors.strip().splitlines()[-1]
    time.sleep(1.0)
    assert is_gone(child)


@pytest.mark.slow  # as above, by the command line
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_signal_to_one_process_saves_and_stops_all(tmp_path: Path) -> None:
    process, child = fit_in_two_processes(
        tmp_path, "--experiment=mountain_car_levels", "--trainer.devices=2"
    )  # and no strategy
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert output.count("Go on with: python -m lit_crl fit") == 1
    assert "16 environments" in output and "2 × cpu" in output
    assert is_gone(child)
    folder = tmp_path / "runs" / "mountain_car_levels" / "a" / "checkpoints"
    path, problems = newest_whole(folder)
    assert path == folder / "last.ckpt" and not problems


@pytest.mark.slow
def test_the_others_wait_while_the_first_process_draws_or_uploads(tmp_path: Path) -> None:
    waited = start({"wait": tmp_path})
    assert waited.returncode == 0, waited.stderr


@pytest.fixture
def two_hosts() -> Iterator[list[str]]:
    """Two network namespaces that see each other as 10.77.0.1 and 10.77.0.2."""
    names = [f"litcrl{os.getpid()}{side}" for side in "ab"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces cannot be made here")
    try:
        ip("link", "add", "lc0", "netns", names[0], "type", "veth", "peer", "lc0", "netns",
           names[1])  # fmt: skip
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "lc0")
            ip("-n", name, "link", "set", "lc0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def start_on_hosts(hosts: list[str], task: str, folder: Path) -> None:
    """Do a task in one process on each host, as torchrun does on a cluster."""
    processes = [
        subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run",
             "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(node),
             "--master-addr", "10.77.0.1", "--master-port", "29511", str(SCRIPT), task,
             str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "NODES": "2", "GLOO_SOCKET_IFNAME": "lc0"},
            stderr=subprocess.PIPE, text=True,
        )
        for node, host in enumerate(hosts)
    ]  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert (process.returncode == 0) == (task != "die"), errors


@pytest.mark.slow
def test_two_hosts_do_what_two_processes_do(
    two_hosts: list[str],
    trained: list[dict[str, Any]],
    tmp_path: Path,
    difference: Difference,
) -> None:
    start_on_hosts(two_hosts, "train", tmp_path / "train")
    for local, remote in zip(trained, results(tmp_path / "train", 2), strict=True):
        assert difference(local, remote) is None
    start_on_hosts(two_hosts, "die", tmp_path / "die")
    start_on_hosts(two_hosts, "resume", tmp_path / "die")
    for whole, again in zip(trained, results(tmp_path / "die", 2), strict=True):
        for part in ("weights", "optimizers", "learner", "data"):
            assert difference(whole[part], again[part]) is None
    start_on_hosts(two_hosts, "descend", tmp_path / "descend")
    work("descend", tmp_path / "alone")
    (alone,), (first, second) = results(tmp_path / "alone", 1), results(tmp_path / "descend", 2)
    for name, weights in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], weights, rtol=1e-5, atol=1e-6), name
