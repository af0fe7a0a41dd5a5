"""Studies: from the file to the jobs, their runs, and the comparison of arms."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
import yaml
from conftest import EXTRAS
from random_logs import random_log
from rich.console import Console

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.core.version import __version__
from lit_crl.envs import Acrobot, CartPole
from lit_crl.evaluation.statistics import Estimate, difference, iqm
from lit_crl.runs.cli.arguments import flags
from lit_crl.runs.cli.main import main as fit
from lit_crl.runs.folders import conf_folder, experiment_config
from lit_crl.runs.study import (
    code_version,
    figures,
    galleries,
    plan,
    results,
    runner,
)
from lit_crl.runs.study.backends import connect, local
from lit_crl.runs.study.backends.local import Local
from lit_crl.runs.study.command import main
from lit_crl.runs.study.jobs import Job, env_step_budget, jobs_of
from lit_crl.runs.study.plan import Study
from lit_crl.runs.study.results import Row
from lit_crl.runs.study.study import draw, run_study, tune_study

SMALL: dict[str, Any] = {
    "name": "small",
    "experiment": "point_mass",
    "seeds": 2,
    "settings": {
        "data.collect.env_steps": 2_300,
        "data.collect.warmup": 512,
        "data.evaluation.every": 900,
        "data.env.init_args.dim": 2,
        "data.env.init_args.max_episode_steps": 8,
        "data.curriculum.min_outcomes": 8,
        "data.gan.every": 2,
        "model.network.hidden": [16, 16],
        "data.replay.updates_per_batch": 1,
        "data.gan.updates": 1,
        "data.evaluation.test_episodes": 4,
        "data.evaluation.generated_levels": 4,
        "data.evaluation.episodes": 4,
    },
    "metric": "heldout_success_rate",
    "curves": ["target_success_rate"],
    "arms": {
        "reference": {
            "data.curriculum.arm": "reference",
            "data.curriculum.mix": {"reference": 1.0},
        },
        "gan": {"data.curriculum.arm": "gan"},
    },
}

#: A small world, for the studies of worlds.
SMALL_WORLD: dict[str, Any] = {
    "data.gan.updates": 0,
    "data.world.updates": 2,
    "data.world.first_updates": 2,
    "data.world.batch_size": 8,
    "data.world.dreams": 8,
    "data.world.horizon": 4,
    "data.world.error_bound": 100,
    "model.world.hidden": [8],
    "model.world.members": 2,
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False))
    return path


def study(folder: Path, **changes: Any) -> Study:
    return plan.read_study(write(folder, **changes))


# The plan


def test_every_arm_has_every_seed(tmp_path: Path) -> None:
    jobs = jobs_of(study(tmp_path, seeds=3, first_seed=5), tmp_path)
    expected = [(arm, seed) for seed in (5, 6, 7) for arm in ("reference", "gan")]
    assert [(job.label, job.seed) for job in jobs] == expected
    assert "--seed_everything=6" in jobs[2].command
    assert len({job.run_folder for job in jobs}) == 6
    for job in jobs:
        assert f"--name={job.run_folder.name}" in job.command
        assert job.log.parent == job.run_folder.parent and job.log.suffix == ".log"


def test_every_arm_gets_every_trial_on_seeds_that_are_not_reported(tmp_path: Path) -> None:
    trials = {"few": {"data.gan.updates": 1}, "many": {"data.gan.updates": 9}}
    given = study(tmp_path, tuning={"trials": trials, "seeds": 2})
    tuned = plan.tuning_of(given)
    jobs = jobs_of(tuned, tmp_path)
    labels = ["reference-few", "reference-many", "gan-few", "gan-many"]
    assert [(job.label, job.seed) for job in jobs] == [(n, s) for s in (1000, 1001) for n in labels]
    assert tuned.name == "small_tuning" and tuned.against == []
    assert [arg for arg in jobs[3].command if "gan.updates" in arg][-1].endswith("9")
    assert jobs[0].command.index("--data.curriculum.arm=reference")


def test_an_arm_may_have_trials_of_its_own(tmp_path: Path) -> None:
    own = {"gan": {"strong": {"model.gan.lambda_gan": 9}}}
    tuned = plan.tuning_of(study(tmp_path, tuning={"trials": {"as_it_is": {}}, "own": own}))
    assert list(tuned.arms) == ["reference-as_it_is", "gan-strong"]
    assert tuned.arms["gan-strong"] == SMALL["arms"]["gan"] | {"model.gan.lambda_gan": 9}


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        ({"trials": {}}, "give every arm as many, and at least one"),
        ({"trials": {"a": {}}, "own": {"gan": {"b": {}, "c": {}}}}, "give every arm as many"),
        ({"trials": {"a": {}}, "own": {"gam": {"b": {}}}}, "gam, which no arm is called"),
        ({"trials": {"a/b": {}}}, "name of a trial"),
        ({"trials": {"a": {}}, "seeds": 0}, "tuning.seeds is 0"),
        ({"trials": {"a": {}}, "first_seed": 1}, "use 2 or more"),
    ],
)
def test_wrong_trials_are_told_in_a_sentence(
    tmp_path: Path, tuning: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        study(tmp_path, tuning=tuning)


def test_a_study_without_trials_is_not_tuned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no tuning"):
        tune_study(write(tmp_path), tmp_path)
    assert not (tmp_path / "small_tuning").exists()


def test_settings_reach_the_command_line_as_yaml(tmp_path: Path) -> None:
    settings = {
        "data.curriculum.mix": {"gan": 1.0},
        "model.network.hidden": [8, 8],
        "data.collect.env_steps": 10,
    }
    command = jobs_of(study(tmp_path, settings=settings), tmp_path)[0].command
    given = dict(argument[2:].split("=", 1) for argument in command if argument.startswith("--"))
    for key in ("model.network.hidden", "data.collect.env_steps"):
        assert yaml.safe_load(given[key]) == settings[key]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": "nowhere"}, "experiment is 'nowhere': use one of"),
        ({"arms": {}}, "arms is empty"),
        ({"arms": {"a/b": {}}}, "'a/b': give the name of one folder"),
        ({"seeds": 0}, "seeds is 0: give a number above 0"),
        ({"seeds": "many"}, "is no study: .*many"),
        ({"sedes": 3}, "is no study: .*sedes"),
        ({"seeds_at_once": 5}, "seeds_at_once is gone, because every run is a separate process"),
        ({"against": ["gan", "referense"]}, r"against is \['referense'\], which no arm is called"),
        ({"score": "top"}, "score is 'top': use one of test, best, last_half"),
        ({"equivalence_margin": -0.1}, "equivalence_margin is -0.1: give a number above 0"),
    ],
)
def test_a_wrong_study_is_told_in_a_sentence(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        study(tmp_path, **changes)


def test_a_study_that_is_missing_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml does not exist.*point_mass\.yaml"):
        plan.find_study("nothing.yaml")


def test_only_what_is_asked_for_by_its_name_is_the_packages_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert plan.find_study("conf/study/maze.yaml") == conf_folder() / "study/maze.yaml"
    for given in ("no/such/folder/maze.yaml", "maze.yaml", "/conf/study/maze.yaml"):
        with pytest.raises(ConfigError, match=f"the study {given} does not exist"):
            plan.find_study(given)
    (tmp_path / "maze.yaml").touch()
    assert plan.find_study("maze.yaml") == Path("maze.yaml")


SHIPPED = [plan.read_study(path) for path in sorted((conf_folder() / "study").glob("*.yaml"))]


def shipped_arms() -> list[Any]:
    """Every distinct setting of the shipped studies' arms once, made small, as (study, arm).

    A setting is a slow test if it differs from an earlier one only in numbers, or only in the task
    where the levels of both tasks are vectors.
    """
    known: set[str] = set()
    given = []
    for shipped in SHIPPED:
        settings = shipped.settings | SMALL["settings"]
        settings |= {"data.collect.env_steps": 1_000, "data.evaluation.every": 1_000}
        settings["model.compile"] = False  # it takes a minute, and has tests of its own
        del settings["data.env.init_args.dim"]
        file = yaml.safe_load(experiment_config(shipped.experiment).read_text())
        if "world" in file.get("model", {}):
            settings |= SMALL_WORLD
        if "data.transitions" in settings:
            settings |= {"data.env": shipped.settings["data.env"], "data.replay.log_updates": 40}
            settings |= {"data.replay.updates_per_batch": 4, "data.evaluation.every": 20}
        if shipped.experiment in ("acrobot", "cartpole"):  # no setting of theirs
            del settings["data.env.init_args.max_episode_steps"]
        if shipped.experiment == "maze":
            settings |= {"data.env.init_args.size": 5, "model.network.planning_steps": 3}
        once = replace(shipped, seeds=1, settings=settings)
        for arm, whole in shipped.arms.items():
            own = {key: value for key, value in whole.items() if key != "data.collect.env_steps"}
            if "LearnabilityScreen" in str(own):  # a share of the budget pays for its episodes
                own["data.collect.env_steps"] = 8_000
            setting = yaml.safe_dump([shipped.experiment, settings, own])
            kind = re.sub(r"\d+(\.\d+)?", "N", yaml.safe_dump([shipped.experiment == "maze", own]))
            if setting not in known:
                marks = [pytest.mark.slow] if kind in known else []
                name = f"{shipped.name}-{arm}"
                given.append(pytest.param(replace(once, arms={arm: own}), id=name, marks=marks))
            known |= {setting, kind}
    return given


@pytest.mark.parametrize("shipped", shipped_arms())
def test_every_arm_of_the_shipped_studies_trains(
    shipped: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shipped.experiment in EXTRAS:
        extra, module = EXTRAS[shipped.experiment]
        pytest.importorskip(module, reason=f"its extra is {extra}")
    for long in (Acrobot, CartPole):
        monkeypatch.setattr(long, "max_episode_steps", 8)
    if log := shipped.settings.get("data.transitions"):
        monkeypatch.chdir(tmp_path)
        random_log(Path(log.format(seed=0)), shipped.settings["data.env"])
    (job,) = jobs_of(shipped, tmp_path)
    fit([*job.arguments, "--trainer.log_every_n_steps=1"])
    assert job.is_done
    rows = results.rows_of(job.label, 0, job.run_folder)
    assert shipped.metric in {row.metric for row in rows}


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.name)
def test_the_budget_of_a_shipped_study_is_that_of_its_file(shipped: Study) -> None:
    budget = shipped.settings.get("data.collect.env_steps")
    for arm, settings in shipped.arms.items():
        own = settings.get("data.collect.env_steps", budget)
        assert own is None or env_step_budget(shipped, arm) == own


def test_a_study_may_grow_but_not_change(tmp_path: Path) -> None:
    before = study(tmp_path)
    more = {**SMALL["arms"], "archive": {"data.curriculum.arm": "archive"}}
    plan.check_same(study(tmp_path, seeds=9, arms=more), before, tmp_path)
    other = {**SMALL["arms"], "gan": {"data.curriculum.arm": "gan", "model.gan.lambda_gan": 9}}
    for changes, key in (({"settings": {}}, "settings"), ({"arms": other}, "arms.gan")):
        with pytest.raises(ConfigError, match=rf"runs with other {key}: give the study another"):
            plan.check_same(study(tmp_path, **changes), before, tmp_path)


# Running


class Pretended(Job):
    """A job that runs Python code instead of training."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", *self.arguments]


def pretended(folder: Path, seed: int, code: str) -> Job:
    return Pretended("arm", seed, folder / f"arm-seed{seed}", (code,), 10)


def leaves_summary(folder: Path, seed: int) -> str:
    run = folder / f"arm-seed{seed}"
    return (
        f"import pathlib, time; p = pathlib.Path({str(run)!r}); p.mkdir(); "
        "(p / 'began').write_text(str(time.time())); time.sleep(0.3); "
        "(p / 'summary.json').write_text('{}'); (p / 'ended').write_text(str(time.time()))"
    )


def test_jobs_run_side_by_side_and_only_once(tmp_path: Path) -> None:
    jobs = [pretended(tmp_path, seed, leaves_summary(tmp_path, seed)) for seed in range(3)]
    runner.run(jobs, Local(3), Console(quiet=True))
    began = [float((job.run_folder / "began").read_text()) for job in jobs]
    ended = [float((job.run_folder / "ended").read_text()) for job in jobs]
    assert max(began) < min(ended)
    runner.run(jobs, Local(3), Console(quiet=True))  # a second mkdir would fail


def test_a_failure_leaves_the_other_jobs_alone(tmp_path: Path) -> None:
    bad = pretended(tmp_path, 0, "print('some reason'); raise SystemExit(3)")
    good = pretended(tmp_path, 1, leaves_summary(tmp_path, 1))
    with pytest.raises(
        RunError, match=r"1 of 2 processes failed \(arm, seed 0\): see .*seed0\.log"
    ):
        runner.run([bad, good], Local(1), Console(quiet=True))
    assert good.is_done
    assert "some reason" in bad.log.read_text()


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    status = Path(f"/proc/{pid}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()


def pids(files: Iterable[Path]) -> list[int]:
    return [int(file.read_text()) for file in files]


#: Starts a process of its own, leaves the ids of both, and ignores that it should end.
STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
for name, pid in (("child", child.pid), ("own", os.getpid())):
    path = pathlib.Path(sys.argv[1] + "." + name)
    path.with_suffix(".partial").write_text(str(pid))
    path.with_suffix(".partial").rename(path)
time.sleep(60)
"""


class Stubborn(Job):
    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", STUBBORN, str(self.run_folder)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_whatever_goes_wrong_no_process_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    jobs = [Stubborn("arm", seed, tmp_path / f"arm-seed{seed}", (), 10) for seed in range(2)]

    def fail_when_both_run(progress: Any, bar: Any, given: Any) -> None:
        if len(list(tmp_path.glob("*.own"))) == 2:
            raise error("something")

    monkeypatch.setattr(runner, "_show", fail_when_both_run)
    monkeypatch.setattr(local, "GRACE", 0.2)
    with pytest.raises(error):
        runner.run(jobs, Local(2), Console(quiet=True))
    left = pids(tmp_path.glob("arm-seed?.own")) + pids(tmp_path.glob("arm-seed?.child"))
    deadline = time.monotonic() + 5
    while any(map(is_running, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(left) == 4 and not any(map(is_running, left))


def test_a_job_that_cannot_start_ends_those_that_run(tmp_path: Path) -> None:
    class Missing(Job):
        @property
        def command(self) -> list[str]:
            return ["/no/such/program"]

    first = Stubborn("arm", 0, tmp_path / "arm-seed0", (), 10)
    second = Missing("arm", 1, tmp_path / "arm-seed1", (), 10)
    started = []

    class Watched(Local):
        def start(self, job: Job) -> Any:
            started.append(super().start(job))
            return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "GRACE", 0.2)
        with pytest.raises(FileNotFoundError, match="/no/such/program"):
            runner.run([first, second], Watched(2), Console(quiet=True))
    assert len(started) == 1 and started[0].poll() is not None


def test_a_second_interruption_kills(tmp_path: Path) -> None:
    class Process:
        killed = False

        def terminate(self) -> None:
            pass

        def wait(self) -> int:
            raise KeyboardInterrupt

        def kill(self) -> None:
            self.killed = True

    processes = [Process(), Process()]
    with pytest.raises(KeyboardInterrupt):
        runner.stop(processes)  # type: ignore[arg-type]
    assert all(process.killed for process in processes)


def test_as_many_run_as_there_are_cores_for_this_process() -> None:
    """Cores that this process may not use do not count."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert local.connect().at_once == 1
    finally:
        os.sched_setaffinity(0, before)
    assert local.connect().at_once == len(before) and local.connect(7).at_once == 7


@pytest.mark.parametrize(
    "signum", [pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGHUP, signal.SIGTERM)]
)
def test_a_study_that_is_told_to_end_ends_its_runs(tmp_path: Path, signum: int) -> None:
    """The study's process gets the signal while a run trains; the run saves itself and ends."""
    settings = SMALL["settings"] | {"data.collect.env_steps": 10_000_000}
    path = write(tmp_path, seeds=1, settings=settings, arms={"gan": {"data.curriculum.arm": "gan"}})
    command = [sys.executable, "-m", "lit_crl", "study", str(path), "--root", str(tmp_path)]
    study = subprocess.Popen(command, stderr=subprocess.PIPE)
    run = tmp_path / "small/point_mass/gan-seed0"
    while study.poll() is None and not (run / "metrics.csv").is_file():
        time.sleep(0.1)
    (pid,) = pids_of(str(run.parent.parent))
    study.send_signal(signum)
    _, said = study.communicate(timeout=60)
    assert study.returncode == 130 and b"the same command goes on from here" in said
    assert not is_running(pid) and list((run / "checkpoints").glob("*.ckpt"))


def pids_of(argument: str) -> list[int]:
    """The processes of ``lit_crl fit`` whose command line has this text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if "lit_crl fit" in line and argument in line:
                found.append(int(folder.name))
    return found


# Several seeds of one fit


def fit_of(*more: str) -> list[str]:
    return ["fit", "--experiment=point_mass", *more]


class Written(Local):
    """Pretends that runs end at once: keeps their arguments and writes their summaries."""

    def __init__(self, **summary: Any) -> None:
        super().__init__(2)
        object.__setattr__(self, "told", [])
        object.__setattr__(self, "summary", summary)

    def start(self, job: Job) -> Any:
        self.told.append(job.arguments)  # type: ignore[attr-defined]
        text = json.dumps(self.summary | {"seed": job.seed})  # type: ignore[attr-defined]
        code = f"import pathlib; p = pathlib.Path({str(job.run_folder)!r}); p.mkdir(); "
        code += f"(p / 'summary.json').write_text({text!r})"
        return super().start(Pretended(job.label, job.seed, job.run_folder, (code,), 10))


def test_each_of_several_seeds_is_a_run_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Written(target_return_mean=-101.5, target_success_rate=None, env_steps=12_345)
    runs = tmp_path / "point_mass"
    folders = runner.run_seeds(
        fit_of("--data.curriculum.arm=gan"), range(3, 6), runs, "mine", 10, backend
    )
    assert folders == [runs / f"mine-seed{seed}" for seed in (3, 4, 5)]
    told = [
        (
            *fit_of("--data.curriculum.arm=gan"),
            f"--seed_everything={seed}",
            f"--name=mine-seed{seed}",
        )
        for seed in (3, 4, 5)
    ]
    assert backend.told == told  # type: ignore[attr-defined]
    shown = capsys.readouterr().out
    assert shown.count("-101.50") == 3 and shown.count("12,345") == 3
    assert "%" not in shown  # unknown success is not shown as 0
    assert [json.loads((f / "summary.json").read_text())["seed"] for f in folders] == [3, 4, 5]


def test_seeds_that_fail_leave_the_others_alone_and_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(Written):
        def start(self, job: Job) -> Any:
            if job.seed == 1:
                return Local.start(
                    self, Pretended("x", 1, job.run_folder, ("raise SystemExit(3)",), 1)
                )
            return super().start(job)

    with pytest.raises(RunError, match=r"1 of 3 processes failed \(point_mass, seed 1\).*last"):
        runner.run_seeds(fit_of(), range(3), tmp_path / "point_mass", None, 10, Failing())
    assert "not done" in capsys.readouterr().out
    assert (tmp_path / "point_mass/seed2/summary.json").is_file()


def test_seeds_never_overwrite_runs_and_go_on_where_asked(tmp_path: Path) -> None:
    seeds = range(2)

    def names(name: str | None, goes_on: bool) -> list[str]:
        return [f.name for f in runner.folders_of(seeds, tmp_path, name, goes_on)]

    assert names(None, False) == names(None, True) == ["seed0", "seed1"]
    for folder in ("seed1", "mine-seed0"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.yaml").touch()
    assert names(None, False) == ["seed0-2", "seed1-2"]
    assert names(None, True) == ["seed0", "seed1"]
    assert names("mine", True) == ["mine-seed0", "mine-seed1"]
    with pytest.raises(ConfigError, match=r"mine-seed0 already holds a run: choose another --name"):
        names("mine", False)
    backend = Written()
    runner.run_seeds(fit_of("--ckpt_path", "last"), seeds, tmp_path, "other", 1, backend)
    runner.run_seeds(fit_of("--ckpt_path", "last"), seeds, tmp_path, "other", 1, backend)
    assert len(backend.told) == 2  # type: ignore[attr-defined]


@pytest.mark.slow
def test_seeds_of_the_command_line_train(tmp_path: Path) -> None:
    settings = SMALL["settings"]
    given = ["fit", "--experiment=point_mass", f"--trainer.default_root_dir={tmp_path}"]
    given += flags(settings)
    folders = runner.run_seeds(given, range(2), tmp_path / "point_mass", None, 2_300)
    seeds = [json.loads((folder / "summary.json").read_text())["seed"] for folder in folders]
    assert seeds == [0, 1]


# Ray, without its package


class FakeRay(types.ModuleType):
    """The part of Ray that joins and leaves a cluster."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.joined: list[str | None] = []
        self.exceptions = types.ModuleType("ray.exceptions")
        self.exceptions.RayError = type("RayError", (Exception,), {})  # type: ignore[attr-defined]
        self.exceptions.TaskCancelledError = type(  # type: ignore[attr-defined]
            "TaskCancelledError", (self.exceptions.RayError,), {}
        )

    def is_initialized(self) -> bool:
        return bool(self.joined)

    def init(self, address: str | None, **_: Any) -> None:
        if self.joined:
            raise RuntimeError("Maybe you called ray.init twice by accident?")
        self.joined.append(address)

    def shutdown(self) -> None:
        self.joined.clear()


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    fake, backend = FakeRay(), "lit_crl.runs.study.backends.ray"
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.exceptions", fake.exceptions)
    monkeypatch.delitem(sys.modules, backend, raising=False)
    yield fake
    sys.modules.pop(backend, None)


def test_who_joined_ray_leaves_it(fake_ray: FakeRay) -> None:
    for _ in range(2):
        ours = connect("ray", None, None)
        assert fake_ray.joined == [None]
        ours.close()
        assert fake_ray.joined == []
    fake_ray.init("theirs")
    borrowed = connect("ray", 3, None)
    assert borrowed.at_once == 3
    borrowed.close()
    assert fake_ray.joined == ["theirs"]
    with pytest.raises(ConfigError, match="this process has joined a Ray cluster already: leave"):
        connect("ray", None, "10.0.0.1:6379")


def test_a_study_leaves_its_backend_even_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    class Backend(Local):
        def close(self) -> None:
            closed.append(self)

    def fail(*_: Any) -> None:
        raise RuntimeError("something")

    monkeypatch.setattr(runner, "run", fail)
    with pytest.raises(RuntimeError, match="something"):
        run_study(write(tmp_path), tmp_path, lambda: Backend(1))
    assert len(closed) == 1


def test_progress_is_read_from_the_last_whole_line(tmp_path: Path) -> None:
    assert runner.env_steps_of(tmp_path) == 0
    metrics = tmp_path / "metrics.csv"
    for text, expected in (
        ("env_steps,a\n", 0),
        ("env_steps,a\n120,0.5\n", 120),
        ("env_steps,a\n120,0.5\n24", 120),
        ("env_steps,a\n" + "7,0\n" * 5_000 + "8800,1\n", 8800),
    ):
        metrics.write_text(text)
        assert runner.env_steps_of(tmp_path) == expected


# Results


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = [
        Row("a", 0, "test", 10, "m", results.rounded(1 / 3)),
        Row("a", 0, "test", 10, "n", 12_340.0),
        Row("b", 1, "validation", 5, "n", -2e-9),
    ]
    results.write_csv(rows, tmp_path / "r.csv")
    assert results.read_csv(tmp_path / "r.csv") == rows


def test_arms_are_compared_with_those_of_the_study(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for arm, mean in (("gan", 0.9), ("reference", 0.1)):
        for seed in range(10):
            value = mean + 0.01 * rng.normal()
            rows += [
                Row(arm, seed, "test", 10, "heldout_success_rate", value),
                Row(arm, seed, "test", 10, "wall_seconds", 60.0 * seed),
            ]
    header, cells = results.table(study(tmp_path), rows)
    reference, gan = (dict(zip(header, line, strict=True)) for line in cells)
    assert (reference["arm"], gan["arm"]) == ("reference", "gan")
    assert reference["against reference"] == ""
    assert gan["minutes"] == "4.5"
    scores = {arm: s[:, None] for arm, s in results.final_scores(rows, SMALL["metric"]).items()}
    assert gan["minimum"] == f"{scores['gan'].min():.3f}"
    standing = results.compare_pairs(study(tmp_path), scores)["gan", "reference"]
    assert gan["against reference"] == str(standing)
    assert (
        standing.verdict == "ahead"
        and standing.difference == difference(iqm, scores["reference"], scores["gan"]).negated()
    )
    text = results.markdown(header, cells).splitlines()
    assert len(text) == 4 and len({line.count("|") for line in text}) == 1


def test_the_last_half_of_each_run_is_compared_where_the_study_says_so(tmp_path: Path) -> None:
    """A run that falls back at the end is not worth its test, nor its beginning."""
    values = {100: 9.0, 200: 9.0, 300: 4.0, 400: 2.0}
    rows = [Row("gan", 0, "validation", at, SMALL["metric"], v) for at, v in values.items()]
    rows += [Row("gan", 1, "validation", 2 * at, SMALL["metric"], 1.0) for at in values]
    rows += [Row("gan", seed, "test", 400, SMALL["metric"], 7.0) for seed in (0, 1)]
    assert results.compared_scores(study(tmp_path), rows)["gan"].tolist() == [7.0, 7.0]
    late = study(tmp_path, score="last_half")
    assert results.compared_scores(late, rows)["gan"].tolist() == [3.0, 1.0]
    _, ((arm, seeds, _, mean, *_),) = results.table(late, rows)
    assert (arm, seeds, mean) == ("gan", "2", "2.000")


def test_the_best_policy_of_each_run_is_compared_where_the_study_says_so(tmp_path: Path) -> None:
    """It is what the run measured anew, and neither its last policy nor its highest validation."""
    best, given = f"best_{SMALL['metric']}", study(tmp_path, score="best")
    rows = [Row("gan", 0, "validation", at, SMALL["metric"], 9.0) for at in (100, 200)]
    rows += [
        Row("gan", 0, "test", 200, SMALL["metric"], 7.0),
        Row("gan", 0, "test", 200, best, 8.0),
    ]
    assert results.compared_scores(given, rows)["gan"].tolist() == [8.0]
    assert best in results.kept(given)


def test_every_pair_of_a_table_counts_once(tmp_path: Path) -> None:
    """Four arms against two of them: five pairs, and each standing is the other's opposite."""
    rng = np.random.default_rng(0)
    arms = {arm: {} for arm in "abcd"}
    scores = {arm: rng.random((6, 1)) for arm in arms}
    given = study(tmp_path, arms=arms, against=["b", "a"])
    found = results.compare_pairs(given, scores)
    assert len(found) == 10 and ("c", "d") not in found
    assert found["a", "c"].difference == difference(iqm, scores["a"], scores["c"], pairs=5)
    scores["a"] = scores["a"] + 5  # clear of b, c and d: two differences of b are left to judge
    found = results.compare_pairs(given, scores)
    assert found["b", "c"].difference == difference(iqm, scores["b"], scores["c"], pairs=2)
    scores["a"] = scores["a"] - 5
    found = results.compare_pairs(given, scores)
    for (one, other), standing in found.items():
        assert standing.difference.negated() == found[other, one].difference
    assert str(found["c", "a"]).endswith("undecided")


def test_arms_of_few_seeds_get_no_verdict(tmp_path: Path) -> None:
    scores = {"reference": np.zeros((9, 1)), "gan": np.ones((4, 1))}
    found = results.compare_pairs(study(tmp_path), scores)
    assert str(found["gan", "reference"]) == "+1.000 too few seeds"


def test_paired_arms_are_compared_seed_by_seed(tmp_path: Path) -> None:
    """Luck that a seed brings to both arms hides their difference unless they are paired."""
    rng = np.random.default_rng(0)
    luck = rng.random((6, 1))
    scores = {"reference": luck, "gan": luck + 0.1 + 0.01 * rng.random((6, 1))}
    verdicts = {
        paired: results.compare_pairs(study(tmp_path, paired=paired), scores)["gan", "reference"]
        for paired in (False, True)
    }
    assert verdicts[False].verdict == "undecided" and verdicts[True].verdict == "ahead"
    shorter = {**scores, "gan": scores["gan"][:-1]}
    found = results.compare_pairs(study(tmp_path, paired=True), shorter)
    assert str(found["gan", "reference"]).endswith("runs are missing")


def test_arms_are_equivalent_only_by_a_margin_that_the_file_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = {arm: 0.9 + 0.01 * rng.random((10, 1)) for arm in ("reference", "gan")}
    for margin, expected in ((None, "undecided"), (0.05, "equivalent"), (1e-4, "undecided")):
        given = study(tmp_path, equivalence_margin=margin)
        assert results.compare_pairs(given, scores)["gan", "reference"].verdict == expected


def test_the_cell_of_a_difference_has_its_interval() -> None:
    standing = results.Standing(Estimate(0.0331, 0.017, 0.29), "ahead")
    assert str(standing) == "+0.033 [+0.017, +0.290] ahead"


def test_what_a_run_does_not_know_is_left_out(tmp_path: Path) -> None:
    """An unknown success is null in summary.json and empty in metrics.csv."""
    given = study(tmp_path, metric="target_success_rate")
    summaries: dict[str, dict[str, Any]] = {
        "reference": {"env_steps": 10, "target_success_rate": None, "wall_seconds": 60},
        "gan": {"target_success_rate": 0.5, "heldout_cvar10": None, "levels_valid_rate": "NaN"},
    }
    rows = []
    for arm, summary in summaries.items():
        folder = tmp_path / arm
        folder.mkdir()
        cells = "5,,nan\n" if arm == "reference" else "5,0.25,nan\n"
        header = "env_steps,evaluation/target_success_rate,evaluation/p_hat_auc\n"
        (folder / "metrics.csv").write_text(header + cells)
        text = json.dumps(summary).replace('"NaN"', "NaN")
        (folder / "summary.json").write_text(text)
        rows += results.rows_of(arm, 0, folder)
    assert {(r.arm, r.phase, r.metric, r.value) for r in rows} == {
        ("reference", "test", "wall_seconds", 60.0),
        ("gan", "test", "target_success_rate", 0.5),
        ("gan", "validation", "target_success_rate", 0.25),
    }
    header_cells, (cells_of_gan,) = results.table(given, rows)
    assert cells_of_gan[0] == "gan" and cells_of_gan[-1] == ""
    assert not any("CVaR" in name or "against" in name for name in header_cells)
    assert "performance_profiles" in draw(given, rows)
    nobody = [row for row in rows if row.metric == "wall_seconds"]
    assert results.table(given, nobody)[1] == [] and draw(given, nobody) == {}


def test_the_tail_has_a_column_where_there_is_one(tmp_path: Path) -> None:
    rows = []
    for seed in range(5):
        for arm in ("reference", "gan"):
            rows += [Row(arm, seed, "test", 10, "heldout_success_rate", 0.5),
                     Row(arm, seed, "test", 10, "wall_seconds", 1.0)]  # fmt: skip
        rows.append(Row("gan", seed, "test", 10, "heldout_cvar10", 0.1 * seed))
    header, (reference, gan) = results.table(study(tmp_path), rows)
    column = header.index("CVaR 10 % [95 %]")
    assert reference[column] == "" and gan[column].startswith("0.200 [")
    without = [row for row in rows if row.metric != "heldout_cvar10"]
    header, _ = results.table(study(tmp_path), without)
    assert not any("CVaR" in name for name in header)


def test_the_file_of_a_whole_study_of_mazes_is_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = study(tmp_path, curves=["p_hat_auc", "heldout_long_success_rate"])
    rows = [
        Row(f"some_arm_{arm}", seed, phase, 20_000 * (moment + 1), metric,
            results.rounded(rng.random()))
        for arm in range(4)
        for seed in range(10)
        for phase, moments in (("validation", 10), ("test", 1))
        for moment in range(moments)
        for metric in sorted(results.kept(given))
    ]  # fmt: skip
    results.write_csv(rows, tmp_path / "r.csv")
    assert (tmp_path / "r.csv").stat().st_size < 100_000
    assert results.read_csv(tmp_path / "r.csv") == rows


def test_curves_of_seeds_that_validate_at_other_times_are_drawn_at_the_same(tmp_path: Path) -> None:
    points = {
        0: [(10, 0.0), (20, 1.0), (30, 1.0), (40, 0.5)],
        1: [(15, 0.0), (25, 1.0), (35, 0.0)],
        2: [(10, 0.5), (20, 0.25), (30, 0.0), (40, 0.0)],
    }
    rows = [
        Row("sfl", seed, "validation", steps, "m", value)
        for seed, values in points.items()
        for steps, value in values
    ]
    (steps, values), = results.curves(rows, "m").values()  # fmt: skip
    assert steps == [10, 20, 30, 40]
    assert [each.tolist() for each in values] == [[0, 0.5], [1, 0.5, 0.25], [1, 0.5, 0], [0.5, 0]]
    # One of three seeds is too few to draw a band from.
    late = [row for row in rows if row.seed == 0 or row.env_steps > 20]
    (steps, values), = results.curves(late, "m").values()  # fmt: skip
    assert steps == [30, 40] and [len(each) for each in values] == [3, 2]


# Sweeps

SHARES = {
    "archive": {"data.curriculum.arm": "archive"},
    "half": {"data.curriculum.mix": {"archive": 0.5, "gan": 0.5}},
    "all": {"data.curriculum.mix.gan": 1},
}


def test_a_sweep_finds_its_number_in_each_arm_that_has_it(tmp_path: Path) -> None:
    assert study(tmp_path, arms=SHARES, sweep="data.curriculum.mix.gan").swept == {
        "half": 0.5,
        "all": 1.0,
    }
    with pytest.raises(
        ConfigError, match=r"sweep is 'data.collect.gamma', but fewer than two arms differ"
    ):
        study(tmp_path, arms=SHARES, sweep="data.collect.gamma")


def test_the_sweep_figure_has_the_iqm_at_each_value_and_a_line_for_other_arms() -> None:
    rng = np.random.default_rng(0)
    at = {"c": 0.1, "a": 0.0, "b": 1000.0}
    scores = {arm: rng.random(6) for arm in ("a", "b", "c", "other")}
    (axes,) = figures.sweep({"a panel": scores}, at, "model.gan.lambda_gan").axes
    curve, level = axes.get_lines()
    assert curve.get_xdata().tolist() == [0.0, 0.1, 1000.0]
    assert curve.get_ydata().tolist() == [iqm(scores[arm]) for arm in ("a", "c", "b")]
    assert set(level.get_ydata()) == {iqm(scores["other"])} and level.get_label() == "other"
    assert axes.get_xscale() == "symlog" and axes.get_title() == "a panel"
    narrow = {"a": 0.25, "b": 0.5, "c": 1.0}
    assert figures.sweep({"a panel": scores}, narrow, "x").axes[0].get_xscale() == "linear"


def test_generator_quality_has_a_panel_each_and_all_arms_in_it() -> None:
    curves = {arm: ([10, 20], [np.full(3, v), np.full(3, v + 0.1)])
              for arm, v in (("gan", 0.5), ("archive", 0.2))}  # fmt: skip
    panels = {"valid": curves, "distinct": {"gan": curves["gan"]}}
    first, second = figures.generator_quality(panels, "a title").axes
    assert [line.get_label() for line in first.get_lines()] == ["gan", "archive"]
    assert first.get_lines()[1].get_ydata().tolist() == pytest.approx([0.2, 0.3])
    assert len(second.get_lines()) == 1 and second.get_title() == "distinct"


def test_quality_over_training_is_the_mean_of_the_validations() -> None:
    rows = [Row("gan", seed, "validation", steps, "m", seed + steps)
            for seed in (1, 0) for steps in (10, 20)]  # fmt: skip
    rows.append(Row("gan", 0, "test", 20, "m", 1e6))
    assert results.over_training(rows, "m")["gan"].tolist() == [15, 16]


# Galleries


@pytest.mark.parametrize("env", ["Maze", "PointMass"])
def test_galleries_show_each_arms_levels_over_training(tmp_path: Path, env: str) -> None:
    config = {"data": {"env": {"class_path": f"lit_crl.envs.{env}", "init_args": {}}}}
    for number, arm in enumerate(("first", "second", "without")):
        (tmp_path / arm).mkdir()
        (tmp_path / arm / "config.yaml").write_text(yaml.safe_dump(config))
        made = galleries.env_of(tmp_path / arm)
        assert type(made).__name__ == env
        levels = made.reference_levels(3 * 20, torch.Generator().manual_seed(number))
        if arm != "without":
            np.savez(
                tmp_path / arm / "levels.npz", env_steps=np.array([10, 20, 30]),
                levels=levels.view(3, 20, -1).numpy(), p_hat=np.linspace(0, 1, 60).reshape(3, 20),
            )  # fmt: skip
    runs = {arm: tmp_path / arm for arm in ("first", "second", "without")}
    figure = galleries.level_galleries(runs, "a title")
    assert figure is not None
    shown = [a for a in figure.axes if a.get_visible() and a.get_label() != "<colorbar>"]
    assert [a.get_title() for a in shown] == [f"{steps} env steps" for steps in (10, 20, 30)] * 2
    assert [a.get_ylabel() for a in shown if a.get_ylabel()] == ["first", "second"]
    if env == "Maze":
        # Easiest at the bottom right: its start is blue there.
        picture, last = shown[0].images[0].get_array(), np.load(runs["first"] / "levels.npz")
        image = made.render_levels(torch.from_numpy(last["levels"][0, -1:]))[0]
        assert np.array_equal(picture[-8:-1, -8:-1], image)
    else:
        points = shown[0].collections[0].get_offsets()
        levels = np.load(runs["first"] / "levels.npz")["levels"][0]
        assert np.allclose(points, levels[:, :2])
    assert galleries.level_galleries({"without": runs["without"]}, "") is None


# All of it


def test_a_study_from_file_to_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "studies"
    main([str(write(tmp_path, seeds=1)), "--root", str(root), "--processes", "2"])
    folder = root / "small"
    assert {path.name for path in folder.iterdir()} >= {
        "study.yaml", "results.csv", "table.md", "figures", "point_mass"
    }  # fmt: skip
    rows = results.read_csv(folder / "results.csv")
    for arm in SMALL["arms"]:
        summary = json.loads((folder / f"point_mass/{arm}-seed0/summary.json").read_text())
        found = {r.metric: r.value for r in rows if r.arm == arm and r.phase == "test"}
        for metric in ("heldout_success_rate", "heldout_cvar10", "wall_seconds"):
            assert found[metric] == pytest.approx(summary[metric], rel=1e-3)
        assert summary["arm"] == arm and summary["env_steps"] >= 2_200
        assert sum(r.arm == arm and r.phase == "validation" for r in rows) >= 4
    for name in (
        "heldout_success_rate", "target_success_rate", "performance_profiles",
        "generator_quality", "levels",
    ):  # fmt: skip
        assert matplotlib.image.imread(folder / f"figures/{name}.png").std() > 0.05
    assert "small: held-out success rate" in capsys.readouterr().out
    before = (folder / "results.csv").read_bytes()
    summaries = sorted(folder.rglob("summary.json"))
    written = [path.stat().st_mtime_ns for path in summaries]
    main([str(write(tmp_path, seeds=1)), "--root", str(root)])
    assert [path.stat().st_mtime_ns for path in summaries] == written  # nothing is trained again
    assert (folder / "results.csv").read_bytes() == before


def test_a_study_is_not_continued_by_other_code(tmp_path: Path) -> None:
    for job in jobs_of(study(tmp_path, seeds=1), tmp_path / "small"):
        job.run_folder.mkdir(parents=True)
        commit = "a" * 40 if job.label == "gan" else None
        summary = {"git_commit": commit, "versions": {"lit_crl": "0.0.1"}, "env_steps": 1}
        (job.run_folder / "summary.json").write_text(json.dumps(summary))
        (job.run_folder / "metrics.csv").write_text("env_steps\n")
        (job.run_folder / "config.yaml").touch()
    with pytest.raises(ConfigError) as told:
        run_study(write(tmp_path, seeds=2), tmp_path, lambda: pytest.fail("nothing may run"))
    assert re.search(
        rf"small holds runs of commit {'a' * 12}, lit_crl 0\.0\.1, but this is "
        rf"{code_version.described(code_version.git_commit(), __version__)}.*another --root",
        str(told.value),
    )
    run_study(write(tmp_path, seeds=1), tmp_path)  # nothing is missing: results are shown again


def test_a_study_whose_first_runs_never_ended_knows_their_code_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_version.check_same_code([], tmp_path)
    code_version.check_same_code([], tmp_path)
    monkeypatch.setattr(code_version, "git_commit", lambda: "b" * 40)
    with pytest.raises(ConfigError, match=f"but this is commit {'b' * 12}"):
        code_version.check_same_code([], tmp_path)
    assert code_version.described(None, "0.1.0") == "lit_crl 0.1.0"
    assert code_version.described(None, None) == "an unknown version"


@pytest.mark.slow
def test_a_stopped_study_goes_on_and_ends_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    settings = SMALL["settings"] | {
        "data.collect.env_steps": 30_000,
        "data.evaluation.every": 5_000,
    }
    path = write(tmp_path, seeds=1, settings=settings)

    def command(root: str) -> list[str]:
        return [
            sys.executable, "-m", "lit_crl", "study", str(path), "--root", str(tmp_path / root),
            "--processes", "2",
        ]  # fmt: skip

    subprocess.run(command("whole"), check=True, stdout=subprocess.DEVNULL)
    stopped = subprocess.Popen(command("parts"), stderr=subprocess.PIPE)
    metrics = tmp_path / "parts/small/point_mass/gan-seed0/metrics.csv"
    while stopped.poll() is None and runner.env_steps_of(metrics.parent) < 5_000:
        time.sleep(0.1)
    os.kill(stopped.pid, signal.SIGINT)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert b"the same command goes on from here" in said
    assert not (metrics.parent / "summary.json").exists()
    subprocess.run(command("parts"), check=True, stdout=subprocess.DEVNULL)

    def scores(root: str) -> list[Row]:
        rows = results.read_csv(tmp_path / root / "small/results.csv")
        return [r for r in rows if r.metric != "wall_seconds"]

    assert scores("parts") == scores("whole")


@pytest.mark.slow
def test_the_log_of_a_study_is_recorded_as_its_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (conf_folder() / "study/world_log_cartpole.yaml").read_text()
    comment = " ".join(re.findall(r"^# *(.*?)\\?$", text, re.MULTILINE))
    (command,) = re.findall(r"python -m lit_crl (fit .*?);", comment)
    fit(command.replace("$s", "0").split())
    path = plan.read_study(conf_folder() / "study/world_log_cartpole.yaml").settings
    with np.load(path["data.transitions"].format(seed=0)) as log:
        assert len(log["reward"]) == 10_000
        assert 300 < log["terminated"].sum() < 600
