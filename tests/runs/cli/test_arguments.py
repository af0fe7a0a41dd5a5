"""A run has the settings that its command line and files say: order, numbers, strings, ids."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_crl.__main__ import run as console
from lit_crl.core.checks import ConfigError
from lit_crl.runs.cli import entry, yaml_strings
from lit_crl.runs.cli import main as cli
from lit_crl.runs.cli.arguments import (
    complete,
    flags,
    is_id,
    split,
)
from lit_crl.runs.cli.main import CreativeCLI
from lit_crl.runs.cli.parser import read_whole_number
from lit_crl.runs.folders import conf_folder

TINY = [
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
ORDER = (
    "experiment: order\n"
    "data: {env: lit_crl.envs.MountainCar, collect: {env_steps: 30000}, "
    "curriculum: {arm: target}}\n"
)
#: An environment that only exists with the arguments that it is given.
GIVEN = """
import gymnasium, numpy

class Given(gymnasium.Env):
    def __init__(self, size, country="NO", rate=1e-3, cells=(1, 2), version="1.10", deep=None,
                 render_mode=None):
        got = [size, country, rate, list(cells), version, deep]
        wanted = [4, "NO", 1e-3, [3, 4], "1.10", {"codes": ["1e5", "true", "null", "007"]}]
        assert got == wanted, got
        assert all(type(x) is str for x in (country, version, *deep["codes"]))
        self.observation_space = gymnasium.spaces.Box(-1, 1, (size,))
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 9, False, {}

gymnasium.register("Given-v0", Given)
"""
KWARGS = {
    "size": 4,
    "country": "NO",
    "rate": 1e-3,
    "cells": [3, 4],
    "version": "1.10",
    "deep": {"codes": ["1e5", "true", "null", "007"]},
}
EXPERIMENT = conf_folder() / "experiment"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def settings(*args: str) -> dict[str, Any]:
    """The settings of a command line, without a run."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        cli.main(["fit", *args, "--print_config"])
    return dict(yaml.safe_load(printed.getvalue()))


def complaint(*args: str) -> str:
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", ["lit_crl", "fit", *args])
        with pytest.raises(SystemExit) as stop:
            entry.run()
    assert stop.value.code == 2
    assert errors.getvalue().count("\n") == 1
    return errors.getvalue()


def test_the_command_line_wins_wherever_it_stands() -> None:
    Path("order.yaml").write_text(ORDER)
    before = settings(
        "--data.collect.env_steps", "5000", "--data.collect.num_envs", "4", "--config", "order.yaml"
    )
    after = settings(
        "-c",
        "order.yaml",
        "--data.collect.env_steps=9",
        "--data.collect.env_steps=5000",
        "--data.collect.num_envs=4",
    )
    assert before == after
    assert (before["data"]["collect"]["env_steps"], before["experiment"]) == (5000, "order")


def test_files_lie_over_the_experiment() -> None:
    cpu = settings("--config", "conf/trainer/cpu.yaml")
    assert cpu["trainer"]["accelerator"] == "cpu" and cpu["experiment"] == "mountain_car"
    Path("short.yaml").write_text("data: {collect: {env_steps: 7000}}")
    Path("shorter.yaml").write_text("data: {collect: {env_steps: 6000}}")
    both = settings("--config=short.yaml", "--experiment=maze", "--config", "shorter.yaml")
    assert both["data"]["collect"]["env_steps"] == 6000 and both["experiment"] == "maze"
    assert both["data"]["env"]["class_path"] == "lit_crl.envs.Maze"
    Path("order.yaml").write_text(ORDER)
    named = settings("--config=order.yaml", "--experiment=cartpole_levels")
    assert named["data"]["env"]["class_path"] == "lit_crl.envs.MountainCar"
    assert named["experiment"] == "cartpole_levels" and named["data"]["collect"]["gamma"] == 0.998


@pytest.mark.parametrize(
    ("given", "below"),
    [
        ([], "mountain_car"),
        (["--data.env=CartPole-v1"], "gymnasium"),
        (["--data.env=lit_crl.envs.Maze"], "mountain_car_levels"),
        (["--data.transitions=log.npz"], "from_log"),
        (["--config=conf/experiment/spiral.yaml"], None),
    ],
)
def test_an_experiment_that_names_no_task_goes_on_top_of_another(
    given: list[str], below: str | None
) -> None:
    files = [
        word.partition("/conf/")[2]
        for word in complete(["fit", "--experiment=rainbow", *given])
        if word.startswith("--config=")
    ]
    expected = ["experiment/rainbow.yaml"]
    if below is not None:
        expected = [f"experiment/{below}.yaml", *expected]
    assert files[: len(expected)] == expected


def test_an_experiment_of_ones_own_is_a_label() -> None:
    Path("order.yaml").write_text(ORDER)
    assert settings("--config=order.yaml", "--experiment=mine")["experiment"] == "mine"
    with pytest.raises(ConfigError, match="--experiment mine is unknown: use one of acrobot"):
        complete(["fit", "--experiment=mine", "--config=conf/trainer/cpu.yaml"])


def test_a_checkpoint_of_another_experiment_is_refused() -> None:
    run = Path("runs/mountain_car_levels/a")
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("experiment: mountain_car_levels\n")
    given = ["fit", "--ckpt_path", "runs/mountain_car_levels/a/checkpoints/last.ckpt"]
    with pytest.raises(
        ConfigError, match=r"--experiment is maze, but .* belongs to the experiment m"
    ):
        complete([*given, "--experiment=maze"])
    assert complete(given)[1] == "--config=runs/mountain_car_levels/a/config.yaml"


@pytest.mark.parametrize("written", ["100000", "1e5", "100_000", "100000.0", "1E5", 100_000, 1e5])
def test_whole_numbers_are_read_as_people_write_them(written: str | float) -> None:
    assert read_whole_number(written) == 100_000
    assert type(read_whole_number(written)) is int


@pytest.mark.parametrize("written", ["100k", "1.5", "", "nan", "inf", True, None, [1], "true"])
def test_what_is_no_whole_number_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="is no whole number"):
        read_whole_number(written)


def test_numbers_of_files_and_flags() -> None:
    Path("numbers.yaml").write_text(
        "data: {replay: {capacity: 2e3}}\nmodel: {network: {hidden: [1e2, 6_4]}}\n"
    )
    found = settings(
        "--config=numbers.yaml",
        "--data.collect.env_steps=1e5",
        "--data.collect.gamma=1",
        "--trainer.limit_val_batches=1.0",
        "--data.env.max_episode_steps=1e2",
    )
    assert found["data"]["replay"]["capacity"] == 2000
    assert found["model"]["network"]["hidden"] == [100, 64]
    assert found["data"]["collect"]["env_steps"] == 100_000
    assert found["data"]["collect"]["gamma"] == 1
    # 1.0 is all of the batches, 1 would be one of them.
    assert isinstance(found["trainer"]["limit_val_batches"], float)
    assert found["data"]["env"]["init_args"]["max_episode_steps"] == 100
    sentence = complaint("--data.collect.env_steps=100k")
    assert "data.collect.env_steps: 100k is no whole number: give one such as 100000" in sentence
    assert "data.curriculum.arm: None is none of these: value out of 'target'" in complaint(
        "--data.curriculum.arm=null"
    )
    assert "seed_everything: True is no whole number" in complaint("--seed_everything=true")


@pytest.mark.parametrize("style", ["flow", "block", "command line", "interpolation"])
def test_strings_stay_strings(style: str) -> None:
    Path("given_env.py").write_text(GIVEN)
    env = {"class_path": "lit_crl.envs.GymnasiumEnv",
           "init_args": {"id": "given_env:Given-v0", "env_kwargs": KWARGS}}  # fmt: skip
    about: dict[str, Any] = {
        "experiment": "1e3",
        "tags": ["1e5", "no"],
        "data": {"curriculum": {"arm": "target"}},
    }
    args = ["--config=given.yaml", "--name=007", *TINY]
    if style == "command line":
        text = yaml.safe_dump(KWARGS, default_flow_style=True, width=10**6).strip()
        # PyYAML takes 1e5 for a string: YAML 1.1's numbers have dots.
        text = text.replace("1e5", "'1e5'")
        del env["init_args"]["env_kwargs"]  # type: ignore[attr-defined]
        args.append(f"--data.env.env_kwargs={text}")
    about["data"]["env"] = env
    if style == "interpolation":
        about["data"]["gan"] = {"batch_size": "${data.replay.batch_size}"}
    written = yaml_strings.dump(about, flow=style == "flow")
    Path("given.yaml").write_text(written, encoding="utf-8")
    run = cli.main(["fit", *args]).run_folder
    assert run == Path("runs/1e3/007")
    # The saved configuration says the same, and a resumed run gets the same.
    saved = yaml_strings.load((run / "config.yaml").read_text(encoding="utf-8"))
    assert saved["data"]["env"]["init_args"]["env_kwargs"] == KWARGS
    assert (saved["name"], saved["tags"]) == ("007", ["1e5", "no"])
    cli.main(["test", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])


def test_what_is_dumped_is_read_as_it_was() -> None:
    value = {"a": ["NO", "1.10", "1e5", "0x10", "", "null", "~", "1:30", "2020-01-01", "x y", "a:",
                   "two\nlines", "ä", "- x", "'", '"', "1_000", ".5", ".inf"], "b": 1e-5, "c": True,
             "d": None, "e": {"f": [1, 2.0]}}  # fmt: skip
    for flow in (False, True):
        assert yaml_strings.load(yaml_strings.dump(value, flow)) == value


def test_settings_become_flags_that_say_the_same() -> None:
    given = {
        "name": "007",
        "data.env.env_kwargs.version": "1.10",
        "data.collect.gamma": 0.5,
        "model.network.hidden": [8],
        "data.curriculum.arm": "gan",
        "data.curriculum.mix": {"target": 1.0},
    }
    assert flags(given) == [
        "--name=007",
        "--data.env.env_kwargs.version='1.10'",
        "--data.collect.gamma=0.5",
        "--model.network.hidden=[8]",
        "--data.curriculum.arm=gan",
        "--data.curriculum.mix={target: 1.0}",
    ]


@pytest.mark.parametrize(
    ("given", "id"),
    [
        (["--data.env", "CartPole-v1"], "CartPole-v1"),
        (["--data.env=some_module:Id-v0"], "some_module:Id-v0"),
        (["--data.env=phys2d/CartPole-v1"], "phys2d/CartPole-v1"),
        (["--data.env.id", "CartPole-v1"], "CartPole-v1"),
        (["--experiment=plain_dqn", "--data.env.id=CartPole-v1"], "CartPole-v1"),
        (["--config=id.yaml"], "CartPole-v1"),
    ],
)
def test_an_id_is_an_environment(given: list[str], id: str) -> None:
    Path("id.yaml").write_text(
        "experiment: mine\ndata: {env: CartPole-v1, curriculum: {arm: target}}\n"
    )
    found = settings(*given)
    env = found["data"]["env"]
    assert env["class_path"] == "lit_crl.envs.GymnasiumEnv" and env["init_args"]["id"] == id
    assert found["data"]["curriculum"]["arm"] == "target"
    alone = not given[0].startswith(("--config", "--experiment"))
    assert (found["experiment"] == "gymnasium") == alone


def test_an_id_takes_further_settings() -> None:
    found = settings("--data.env=CartPole-v1", "--data.env.max_episode_steps=50")
    assert found["data"]["env"]["init_args"]["max_episode_steps"] == 50


def test_an_arm_that_needs_levels_is_refused_for_an_id() -> None:
    sentence = complaint(
        "--experiment=mountain_car_levels",
        "--data.env=CartPole-v1",
        *TINY,
        "--data.curriculum.arm=gan",
    )
    assert "level_space" in sentence


@pytest.mark.parametrize(
    ("name", "expected"),
    [("CartPole-v1", True), ("CartPole", True), ("m.n:Id-v0", True), ("a/B-v2", True),
     ("lit_crl.envs.Maze", False), ("{class_path: x}", False), ("null", False), ("", False),
     ("there.yaml", False)],
)  # fmt: skip
def test_ids_are_told_from_paths(name: str, expected: bool) -> None:
    Path("there.yaml").touch()
    assert is_id(name) == expected


def test_what_a_module_raises_is_said() -> None:
    Path("needs_more.py").write_text("import no_such_package\n")
    Path("breaks.py").write_text("raise RuntimeError('no display')\n")
    assert "importing needs_more failed: No module named 'no_such_package'" in complaint(
        "--data.env=needs_more.Env"
    )
    assert "importing needs_more failed" in complaint("--data.curriculum.arm=needs_more.arm")
    said = complaint("--data.env=breaks.Env")
    assert "importing breaks failed: RuntimeError: no display" in said
    assert "there is no module nowhere" in complaint("--data.env=nowhere.Env")


def test_values_that_begin_with_a_dash_are_values() -> None:
    options = split(["--a", "-1", "--b=-2", "-c", "x", "--d", "--e", "-.5"])
    assert [tuple(option) for option in options] == [
        ("--a", "-1"), ("--b", "-2"), ("-c", "x"), ("--d", None), ("--e", "-.5")
    ]  # fmt: skip


def test_several_seeds_are_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    runner = "lit_crl.runs.study.runner.run_seeds"
    monkeypatch.setattr(runner, lambda *args: called.append(args), raising=False)
    cli.main(
        ["fit", "--seeds", "3", "--seed_everything=5", "--name=a", "--data.collect.env_steps=1e4"]
    )
    ((arguments, *others),) = called
    assert others == [range(5, 8), Path("runs/mountain_car"), "a", 10_000]
    assert arguments[0] == "fit" and arguments[-1] == "--seeds=1"
    assert [word for word in arguments if "--seeds" in word] == ["--seeds=1"]
    assert not Path("runs").exists()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "latin-1"])
def test_help_is_printed_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    monkeypatch.setattr(sys, "argv", ["lit_crl", "fit", "--help"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as stop:
        console()
    sys.stdout.flush()
    assert not stop.value.code
    assert b"--data.collect.env_steps" in printed.getvalue()


def test_a_run_needs_no_utf8(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    levels = ["--experiment=mountain_car_levels", "--data.gan.updates=2"]
    args = ["fit", "--name=a", "--tags=[größe]", *levels, *TINY[:-2]]
    done = subprocess.run([sys.executable, "-m", "lit_crl", *args], env=os.environ | plain,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "mountain_car_levels").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["tags"] == ["größe"]


def test_the_installed_command_finds_what_lies_in_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_arm_here.py").write_text("def arm(n, curriculum, teacher):\n    return None\n")
    # What `python -m` puts in front, and `lit-crl` does not.
    elsewhere = [place for place in sys.path if place not in ("", os.getcwd())]
    monkeypatch.setattr(sys, "path", elsewhere)
    args = ["fit", "--data.curriculum.arm=my_arm_here.arm", "--print_config"]
    monkeypatch.setattr(sys, "argv", ["lit-crl", *args])
    with pytest.raises(SystemExit) as stop:
        console()
    printed = capsys.readouterr()
    assert not stop.value.code, printed.err
    assert "arm: my_arm_here.arm" in printed.out
    monkeypatch.delitem(sys.modules, "my_arm_here")


def test_a_fit_of_an_id_ends_by_itself() -> None:
    run: CreativeCLI = cli.main(["fit", "--data.env=CartPole-v1", *TINY])
    assert run.run_folder == Path("runs/gymnasium/seed0")
    assert (run.run_folder / "summary.json").is_file()
