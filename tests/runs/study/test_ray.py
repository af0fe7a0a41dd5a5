"""Studies on a Ray cluster of two nodes on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.runs.study import runner
from lit_crl.runs.study.jobs import Job

ray = pytest.importorskip("ray")
# Ray leaves sockets and files to the interpreter's end.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # The nodes cannot import this file, which defines another kind of job.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    yield str(cluster.address)
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def backend(address: str) -> Any:
    from lit_crl.runs.study.backends import connect

    before = signal.getsignal(signal.SIGTERM)
    found = connect("ray", None, address)
    assert signal.getsignal(signal.SIGTERM) is before
    return found


class Script(Job):
    """A job that runs a few lines of Python, with its folder as argument."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", *self.arguments, str(self.run_folder)]


HEAD = """
import os, pathlib, signal, sys, time
run = pathlib.Path(sys.argv[1])
run.mkdir(exist_ok=True)
(run / "began").write_text(str(time.time()))
"""
LEAVES_SUMMARY = HEAD + "time.sleep(2); (run / 'summary.json').write_text('{}')"
#: Is done only if another one runs at the same time.
MEETS_ANOTHER = (
    HEAD
    + """
latest = time.time() + 60
while len(list(run.parent.glob("*/began"))) < 2:
    assert time.time() < latest
    time.sleep(0.02)
(run / "summary.json").write_text("{}")
"""
)
SAVES_AT_SIGTERM = (
    HEAD
    + """
def save(*_):
    time.sleep(0.5)
    (run / "saved").write_text(str(os.getpid()))
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
(run / "ready").touch()
time.sleep(60)
"""
)


def jobs(folder: Path, *codes: str) -> list[Job]:
    return [Script("arm", i, folder / f"arm-seed{i}", (code,), 10) for i, code in enumerate(codes)]


def test_jobs_run_on_both_nodes_at_once_and_in_the_studys_folder(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = jobs(Path("relative"), MEETS_ANOTHER, MEETS_ANOTHER)
    runner.run(given, backend, Console(quiet=True))
    began = [float((job.run_folder / "began").read_text()) for job in given]
    assert all(job.is_done for job in given)
    runner.run(given, backend, Console(quiet=True))
    again = [float((job.run_folder / "began").read_text()) for job in given]
    assert again == began  # nothing is run a second time


def test_a_failure_leaves_the_others_alone_and_is_explained(backend: Any, tmp_path: Path) -> None:
    bad, good = jobs(tmp_path, HEAD + "print('some reason'); sys.exit(3)", LEAVES_SUMMARY)
    with pytest.raises(RunError, match=r"1 of 2 processes failed \(arm, seed 0\)"):
        runner.run([bad, good], backend, Console(quiet=True))
    assert good.is_done and "some reason" in bad.log.read_text()


def test_what_goes_wrong_with_a_task_is_in_the_jobs_log(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs(tmp_path, LEAVES_SUMMARY)
    monkeypatch.setattr(Path, "cwd", lambda: Path("/nowhere/to/be/found"))
    with pytest.raises(RunError, match="1 of 1 processes failed"):
        runner.run([job], backend, Console(quiet=True))
    assert "a file system that all machines share" in job.log.read_text()


@pytest.mark.slow  # failed once on a busy machine: a task was cancelled as its process began
def test_a_study_that_is_stopped_waits_until_all_has_been_saved(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = jobs(tmp_path, SAVES_AT_SIGTERM, SAVES_AT_SIGTERM, SAVES_AT_SIGTERM)
    folders = [job.run_folder for job in given]

    def interrupt_when_ready(seconds: float) -> None:
        if sum((folder / "ready").exists() for folder in folders) == 2:
            raise KeyboardInterrupt
        sleep(seconds)

    sleep = time.sleep
    monkeypatch.setattr(runner.time, "sleep", interrupt_when_ready)
    with pytest.raises(KeyboardInterrupt):
        runner.run(given, backend, Console(quiet=True))
    ran = [folder for folder in folders if (folder / "ready").exists()]
    assert len(ran) == 2  # the third one was waiting for a CPU
    for folder in ran:
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / "saved").read_text()), 0)
    sleep(1)
    assert sum((folder / "began").exists() for folder in folders) == 2


@pytest.mark.parametrize("given", ["127.0.0.1:9", "nonsense", "ray://127.0.0.1:9"])
def test_a_cluster_that_is_not_there_is_told_at_once(given: str) -> None:
    from lit_crl.runs.study.backends.ray import check_answers

    with pytest.raises(ConfigError, match=f"no Ray cluster answers at --address {given}: give"):
        check_answers(given)


@pytest.mark.slow
def test_a_study_on_a_cluster_equals_that_on_one_machine(address: str, tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(
        "{name: tiny, experiment: point_mass, seeds: 1, metric: target_success_rate, settings: "
        "{data.collect.env_steps: 1500, data.collect.warmup: 512, model.network.hidden: [8], "
        "data.evaluation.test_episodes: 4}, "
        "arms: {reference: {data.curriculum.arm: reference, "
        "data.curriculum.mix: {reference: 1.0}}, gan: {}}}"
    )
    options = {"local": [], "ray": ["--backend", "ray", "--address", address]}
    for name, given in options.items():
        command = ["lit_crl", "study", str(study), "--root", name, *given]
        subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, check=True)
    local, on_ray = (tmp_path / f"{name}/tiny/point_mass" for name in options)
    for arm in ("reference", "gan"):
        runs = [(folder / f"{arm}-seed0/test.json").read_bytes() for folder in (local, on_ray)]
        assert runs[0] == runs[1]
    assert (on_ray.parent / "table.md").is_file()
