"""Studies: what follows from a file, what is run, and how arms are compared."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import yaml
from rich.console import Console

from lit_crl.checks import ConfigError, RunError
from lit_crl.cli import main as fit
from lit_crl.run_folder import conf_folder
from lit_crl.study import plan, results, runner
from lit_crl.study.__main__ import main
from lit_crl.study.backends.local import Local
from lit_crl.study.plan import Job, Study
from lit_crl.study.results import Row

SMALL: dict[str, Any] = {
    "name": "small",
    "experiment": "point_mass",
    "seeds": 2,
    "settings": {
        "data.env_steps": 2_300, "data.warmup": 512, "data.validate_every": 900,
        "data.env.init_args.dim": 2, "data.min_outcomes": 8, "model.hidden": [16, 16],
        "data.updates_per_batch": 1, "data.gan_updates": 1, "data.test_episodes": 4,
        "data.generated_levels": 4, "data.validation_episodes": 4,
    },
    "metric": "heldout_success_rate",
    "curves": ["target_success_rate"],
    "arms": {
        "reference": {"data.arm": "reference", "data.mix": {"reference": 1.0}},
        "gan": {"data.arm": "gan"},
    },
}  # fmt: skip


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False))
    return path


def study(folder: Path, **changes: Any) -> Study:
    return plan.read_study(write(folder, **changes))


# The plan


def test_every_arm_has_every_seed(tmp_path: Path) -> None:
    jobs = plan.jobs_of(study(tmp_path, seeds=3, first_seed=5), tmp_path)
    expected = [(arm, range(s, s + 1)) for s in (5, 6, 7) for arm in ("reference", "gan")]
    assert [(job.arm, job.seeds) for job in jobs] == expected
    assert "--seed_everything=6" in jobs[2].command
    assert len({job.run_folder(seed) for job in jobs for seed in job.seeds}) == 6


def test_seeds_at_once_share_a_process(tmp_path: Path) -> None:
    jobs = plan.jobs_of(study(tmp_path, seeds=5, seeds_at_once=3), tmp_path)
    assert [list(job.seeds) for job in jobs if job.arm == "gan"] == [[0, 1, 2], [3, 4]]
    assert {"--seeds=3", "--name=gan"} <= set(jobs[0 if jobs[0].arm == "gan" else 1].command)


def test_settings_reach_the_command_line_as_yaml(tmp_path: Path) -> None:
    settings = {"data.mix": {"gan": 1.0}, "model.hidden": [8, 8], "data.env_steps": 10}
    command = plan.jobs_of(study(tmp_path, settings=settings), tmp_path)[0].command
    given = dict(argument[2:].split("=", 1) for argument in command if argument.startswith("--"))
    for key in ("model.hidden", "data.env_steps"):
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


@pytest.mark.parametrize("path", sorted((conf_folder() / "study").glob("*.yaml")), ids=str)
def test_every_arm_of_the_shipped_studies_trains(path: Path, tmp_path: Path) -> None:
    shipped = plan.read_study(path)
    budget = shipped.settings.get("data.env_steps")
    assert budget is None or plan.env_step_budget(shipped) == budget
    settings = shipped.settings | SMALL["settings"]
    settings.pop("data.env.init_args.dim")
    once = replace(shipped, seeds=1, seeds_at_once=1, settings=settings)
    for job in plan.jobs_of(once, tmp_path):
        fit([*job.arguments, "--trainer.log_every_n_steps=1"])
        assert job.is_done
        rows = results.rows_of(job.arm, 0, job.run_folder(0))
        assert shipped.metric in {row.metric for row in rows}


def test_a_study_may_grow_but_not_change(tmp_path: Path) -> None:
    before = study(tmp_path)
    more = {**SMALL["arms"], "archive": {"data.arm": "archive"}}
    plan.check_same(study(tmp_path, seeds=9, arms=more), before, tmp_path)
    other = {**SMALL["arms"], "gan": {"data.arm": "gan", "model.lambda_gan": 9}}
    for changes, key in (({"settings": {}}, "settings"), ({"arms": other}, "arms.gan")):
        with pytest.raises(ConfigError, match=rf"runs with other {key}: give the study another"):
            plan.check_same(study(tmp_path, **changes), before, tmp_path)


# Running


class Pretended(Job):
    """A job that only writes what it was told, without any training."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", *self.arguments]


def pretended(folder: Path, seed: int, code: str) -> Job:
    return Pretended("arm", range(seed, seed + 1), folder, (code,))


def leaves_summary(folder: Path, seed: int) -> str:
    run = folder / f"arm-seed{seed}"
    return (
        f"import pathlib, time; p = pathlib.Path({str(run)!r}); p.mkdir(); "
        "(p / 'began').write_text(str(time.time())); time.sleep(0.3); "
        "(p / 'summary.json').write_text('{}'); (p / 'ended').write_text(str(time.time()))"
    )


def test_jobs_run_side_by_side_and_only_once(tmp_path: Path) -> None:
    jobs = [pretended(tmp_path, seed, leaves_summary(tmp_path, seed)) for seed in range(3)]
    runner.run(jobs, Local(3), 10, Console(quiet=True))
    began = [float((job.run_folder(job.seeds[0]) / "began").read_text()) for job in jobs]
    ended = [float((job.run_folder(job.seeds[0]) / "ended").read_text()) for job in jobs]
    assert max(began) < min(ended)
    runner.run(jobs, Local(3), 10, Console(quiet=True))  # a second mkdir would fail


def test_a_failure_leaves_the_other_jobs_alone(tmp_path: Path) -> None:
    bad = pretended(tmp_path, 0, "print('some reason'); raise SystemExit(3)")
    good = pretended(tmp_path, 1, leaves_summary(tmp_path, 1))
    with pytest.raises(
        RunError, match=r"1 of 2 processes failed \(arm, seed 0\): see .*seed0\.log"
    ):
        runner.run([bad, good], Local(1), 10, Console(quiet=True))
    assert good.is_done
    assert "some reason" in bad.log.read_text()


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
    rows = [Row("a", 0, "test", 10, "m", 1 / 3), Row("b", 1, "validation", 5, "n", -2e-9)]
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
    reference, gan = results.compare(study(tmp_path), rows)
    assert (reference.arm, gan.arm) == ("reference", "gan")
    assert gan.against == {"reference": "ahead (1.00)"}
    assert reference.against == {}
    assert gan.minutes == 4.5
    assert gan.minimum == min(r.value for r in rows if r.arm == "gan" and "held" in r.metric)
    header, cells = results.table(study(tmp_path), [reference, gan])
    text = results.markdown(header, cells).splitlines()
    assert len(text) == 4 and len({line.count("|") for line in text}) == 1


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
        assert found["heldout_success_rate"] == summary["heldout_success_rate"]
        assert summary["arm"] == arm and summary["env_steps"] >= 2_200
        assert sum(r.arm == arm and r.phase == "validation" for r in rows) > 4
    for name in ("heldout_success_rate", "target_success_rate", "performance_profiles"):
        assert matplotlib.image.imread(folder / f"figures/{name}.png").std() > 0.05
    assert "small: held-out success rate" in capsys.readouterr().out
    before = (folder / "results.csv").read_bytes()
    started = time.monotonic()
    main([str(write(tmp_path, seeds=1)), "--root", str(root)])
    assert time.monotonic() - started < 5  # nothing is trained again
    assert (folder / "results.csv").read_bytes() == before


@pytest.mark.slow
def test_a_stopped_study_goes_on_and_ends_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    settings = SMALL["settings"] | {"data.env_steps": 30_000, "data.validate_every": 5_000}
    path = write(tmp_path, seeds=1, settings=settings)

    def command(root: str) -> list[str]:
        return [
            sys.executable, "-m", "lit_crl.study", str(path), "--root", str(tmp_path / root),
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
        return [r for r in rows if r.metric in ("heldout_success_rate", "updates", "env_steps")]

    assert scores("parts") == scores("whole")
