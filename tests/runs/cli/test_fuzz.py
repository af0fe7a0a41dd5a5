"""Random bad input: every one ends in one sentence or in a run, never in a traceback or a hang."""

import contextlib
import copy
import io
import os
import signal
import sys
import tempfile
import time
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_crl import CreativeLearner, ReplayDataModule
from lit_crl.runs.cli import entry
from lit_crl.training.renamed import RENAMED

TINY: dict[str, dict[str, Any]] = {
    "data": {
        "collect": {"env_steps": 400, "num_envs": 8, "warmup": 100},
        "replay": {"capacity": 1000, "batch_size": 16, "updates_per_batch": 2},
        "curriculum": {"min_outcomes": 5, "label_epsilon": 1.0},
        "gan": {"updates": 2, "batch_size": 8},
        "world": {"updates": 2, "first_updates": 2, "batch_size": 8, "dreams": 8, "horizon": 4},
        "evaluation": {"episodes": 2, "test_episodes": 2, "generated_levels": 2},
    },
    "model": {"network": {"hidden": [8]}, "gan": {"hidden": [8]}, "world": {"hidden": [8]}},
}

KEYS = [
    f"{group}.{name}"
    for group, kind in (("data", ReplayDataModule), ("model", CreativeLearner))
    for name in signature(kind).parameters
] + [
    *RENAMED.values(),
    "trainer.precision",
    "trainer.accelerator",
    "trainer.devices",
    "experiment",
    "name",
    "logger",
    "threads",
    "seed_everything",
    "ckpt_path",
    "checkpoint.every_minutes",
    "checkpoint.every_env_steps",
    "nonsense",
    "data.nonsense",
]

numbers = st.sampled_from(
    [-1, 0, 1, 2, 7, 64, 10**18, 10**30, -0.5, 0.0, 0.3, 1.0, 1.5, 1e30, float("nan"),
     float("inf"), float("-inf")]
)  # fmt: skip
words = st.sampled_from(
    ["", "x", "gan", "null", "true", "${data.nope}", "${", "[1, 2", "{a: b}", "lit_crl.envs.Nope",
     "lit_crl.envs.PointMass", "os.system", "../../x", "a/b", "ä\u2028ö", "1e-3", "0x10", "-"]
)  # fmt: skip
values = st.one_of(
    numbers,
    words,
    st.none(),
    st.booleans(),
    st.lists(numbers, max_size=3),
    st.dictionaries(words, numbers, max_size=2),
)


def outcome(args: list[str], folder: Path) -> tuple[int, str]:
    """Exit status and standard error of the command line, within ``folder``."""
    errors, status = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(sys, "argv", ["lit_crl", "fit", *args])
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                entry.run()
            except SystemExit as stop:
                status = int(stop.code or 0)
    return status, errors.getvalue()


def check(args: list[str], folder: Path) -> None:
    precious = folder / "runs" / "mountain_car" / "precious" / "summary.json"
    precious.parent.mkdir(parents=True)
    precious.write_text("{}")
    status, errors = outcome(args, folder)
    assert status in (0, 1, 2), (status, errors)
    if status:
        lines = [line for line in errors.splitlines() if line.startswith("lit_crl: ")]
        assert len(lines) == 1 and len(lines[0]) > 15, errors
    assert precious.read_text() == "{}"
    assert [*precious.parent.iterdir()] == [precious]


def tiny_file(folder: Path, key: str, value: Any) -> Path:
    """A YAML configuration in which one key has another value."""
    config: dict[str, Any] = copy.deepcopy(TINY)
    config["data"]["env"] = "lit_crl.envs.MountainCar"
    config["trainer"] = {"max_time": "00:00:00:02"}
    *groups, name = key.split(".")
    place = config
    for group in groups:
        inner = place.get(group)
        place[group] = inner if isinstance(inner, dict) else {}
        place = place[group]
    place[name] = value
    path = folder / "given.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True))
    return path


def tiny_arguments() -> list[str]:
    return [f"--{g}.{k}={v}" for g, keys in TINY.items() for k, v in keys.items()] + [
        "--trainer.max_time=00:00:00:02"
    ]


def fuzz(count: int) -> Any:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, suppress_health_check=quiet,
                    derandomize=True)  # fmt: skip


def values_in_files(key: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(["--config", str(tiny_file(Path(folder), key, value))], Path(folder))


def values_on_the_command_line(key: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check([*tiny_arguments(), f"--{key}={value}"], Path(folder))


def files_of_nonsense(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "given.yaml"
        path.write_text(text, encoding="utf-8")
        check(["--config", str(path), *tiny_arguments()], Path(folder))


pairs = {"key": st.sampled_from(KEYS), "value": values}
texts = {"text": st.text(alphabet=st.sampled_from("abd{}[]:,-$# \n\t'\"&*!|>%@`0é"), max_size=40)}

test_values_in_files = fuzz(9)(given(**pairs)(values_in_files))
test_values_on_the_command_line = fuzz(9)(given(**pairs)(values_on_the_command_line))
test_files_of_nonsense = fuzz(9)(given(**texts)(files_of_nonsense))

test_many_values_in_files = pytest.mark.slow(fuzz(130)(given(**pairs)(values_in_files)))
test_many_values_on_the_command_line = pytest.mark.slow(
    fuzz(130)(given(**pairs)(values_on_the_command_line))
)
test_many_files_of_nonsense = pytest.mark.slow(fuzz(80)(given(**texts)(files_of_nonsense)))


#: The flags of a walk: some change a run, others are mistakes.
EXTRAS = [
    [],
    ["--data.curriculum.arm=target"],
    ["--data.collect.gamma=1"],
    ["--data.collect.env_steps=4e2"],
    ["--config=conf/trainer/cpu.yaml"],
    ["--data.env.max_episode_steps=20"],
    ["--tags=['1e5', NO]"],
    ["--data.collect.env_steps=100k"],
    ["--data.curriculum.arm=nope"],
    ["--data.nonsense=1"],
]
SOURCES = [
    [], ["--experiment=plain_dqn"], ["--data.env=CartPole-v1"], ["--data.env.id=FrozenLake-v1"],
    ["--data.env=gymnasium.envs.toy_text:Nope-v0"], ["--experiment=nope"],
]  # fmt: skip
steps = st.tuples(
    st.sampled_from(SOURCES),
    st.sampled_from(EXTRAS),
    st.sampled_from([None, "a", "b"]),
    st.booleans(),  # --ckpt_path last
    st.one_of(st.none(), st.integers(1, 120)),  # the env step call at which a signal comes
)


def whole_runs(root: Path) -> dict[Path, bytes]:
    """The summaries of finished runs; every folder must hold a distinguishable run."""
    found = {}
    for folder in root.glob("*/*"):
        assert (folder / "config.yaml").is_file(), f"{folder} is an empty shell"
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        assert config["experiment"] == folder.parent.name
        if (summary := folder / "summary.json").is_file():
            found[folder] = summary.read_bytes()
            rows = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
            env_steps = [int(row.split(",")[0]) for row in rows[1:]]
            assert env_steps == sorted(env_steps), "rows of two runs are mixed"
    return found


def walk(step: Any, folder: Path) -> None:
    """One command of a walk, perhaps stopped by a signal: a run, a stop or a sentence."""
    source, extra, name, resume, signal_at = step
    root = folder / "runs"
    before = whole_runs(root)
    args = [*tiny_arguments(), *source, *extra]
    args += [f"--name={name}"] if name else []
    args += ["--ckpt_path=last"] if resume else []
    usual, calls = ReplayDataModule._step, [0]

    def stepped(self: ReplayDataModule, *given: Any) -> None:
        calls[0] += 1
        if calls[0] == signal_at:
            os.kill(os.getpid(), signal.SIGINT)
        usual(self, *given)

    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplayDataModule, "_step", stepped)
        status, errors = outcome(args, folder)
    assert time.monotonic() - started < 120
    assert status in (0, 1, 2, 130), (status, errors)
    assert "Traceback" not in errors
    if status in (1, 2):
        assert sum(line.startswith("lit_crl: ") for line in errors.splitlines()) == 1, errors
    after = whole_runs(root)
    changed = [run for run in before if after.get(run) != before[run]]
    assert len(changed) <= (1 if resume else 0), "a run was lost or overwritten"
    if status == 0 and not resume:
        assert len(after) == len(before) + 1


def walks(count: int, length: int) -> Any:
    @fuzz(count)
    @given(commands=st.lists(steps, min_size=length, max_size=length))
    def test(commands: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for step in commands:
                walk(step, Path(folder))

    return test


test_a_random_walk_over_runs_stops_and_resumes = pytest.mark.slow(walks(10, 20))
