"""Training from Python: the README's examples, twice in one process, and interrupted."""

import contextlib
import functools
import io
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer

import lit_crl
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.exploration import LinearEpsilon
from lit_crl.envs import MountainCar
from lit_crl.runs.cli import entry
from lit_crl.runs.cli import main as cli

ROOT = Path(__file__).parents[2]
README = ROOT / "lit_crl" / "runs" / "README.md"
#: Settings of runs that take a second.
TINY: dict[str, Any] = {
    "model": {"network": {"hidden": [16]}, "gan": {"hidden": [8]}, "world": {"loss": "none"}},
    "data": {
        "collect": {"env_steps": 640, "num_envs": 8, "warmup": 300, "steps_per_batch": 4},
        "replay": {"batch_size": 8, "updates_per_batch": 1},
        "curriculum": {"arm": "gan", "min_outcomes": 1, "label_epsilon": 1.0},
        "gan": {"every": 2, "updates": 2},
        "evaluation": {"every": 320, "episodes": 1, "test_episodes": 1, "generated_levels": 1},
    },
    "trainer": {"accelerator": "cpu"},
}


def with_env_steps(env_steps: int) -> dict[str, Any]:
    """The tiny data with another budget."""
    return {**TINY["data"], "collect": {**TINY["data"]["collect"], "env_steps": env_steps}}


def examples() -> list[str]:
    """The Python blocks of the README's section."""
    text = README.read_text(encoding="utf-8")
    section = re.search(r"\n## From Python\n(.*?)\n## ", text, re.DOTALL)
    assert section is not None
    return re.findall(r"```python\n(.*?)```", section[1], re.DOTALL)


def test_the_front_page_shows_the_first_example() -> None:
    assert examples()[0] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_ten_lines_lead_from_import_to_a_policy_that_acts() -> None:
    lines = [line for line in examples()[0].splitlines() if line.strip()]
    assert len(lines) <= 10


def test_the_readmes_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With settings for runs of seconds: only the policy is worse."""
    monkeypatch.chdir(tmp_path)
    long, short = 'data={"collect": {"env_steps": 60_000}}', with_env_steps(1_800)
    names: dict[str, Any] = {"SETTINGS": {**TINY, "data": short}}
    whole, calls, lightning = examples()
    assert long in whole and "60_000" in lightning
    whole = whole.replace(long, "**SETTINGS")
    lightning = lightning.replace("60_000", "2_600")
    exec(compile(whole, "README.md", "exec"), names)
    assert names["done"] and (tmp_path / "runs/mountain_car_levels/seed0/summary.json").is_file()
    exec(compile(calls, "README.md", "exec"), names)
    assert names["levels"].shape == names["easy"].shape == (8, 2)
    assert names["p"].shape == (8,) and names["values"].shape == (3,)
    again = lit_crl.load("policy.ckpt")
    np.testing.assert_array_equal(again.action_values(names["obs"]), names["values"])
    exec(compile(lightning, "README.md", "exec"), names)
    learner = names["learner"]
    assert learner.updates > 0 and names["policy"](np.zeros(2)) in (0, 1, 2)


@pytest.mark.slow
def test_the_readmes_example_solves_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(examples()[0], "README.md", "exec"), names)
    assert names["terminated"] and not names["truncated"]  # at the flag, not at 200 steps


def test_train_does_what_fit_does_and_twice_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = lit_crl.train("cartpole_levels", **TINY)
    second = lit_crl.train("cartpole_levels", **TINY)
    runs = tmp_path / "runs" / "cartpole_levels"
    assert {run.name for run in runs.iterdir()} == {"seed0", "seed0-2"}
    obs = torch.zeros(1, 4)
    assert torch.equal(first.action_values(obs), second.action_values(obs))
    config = (runs / "seed0" / "config.yaml").read_text()
    assert "env_steps: 640" in config and "hidden:\n    - 8" in config
    other = lit_crl.train(config=str(runs / "seed0" / "config.yaml"), seed_everything=1)
    assert not torch.equal(first.action_values(obs), other.action_values(obs))
    assert (runs / "seed1" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"data": {"nope": 3}}, "data.nope"),
        ({"data": {"collect": {"gamma": "abc"}}}, "data.collect.gamma"),
        ({"model": {"network": {"hidden": []}}}, "model.network.hidden is empty"),
        ({"seeds": 3}, "seed_everything"),
        ({"experiment": "nope"}, "--experiment nope is unknown"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=says) as refusal:
        lit_crl.train(**settings)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


class Counts(Callback):
    """Counts batches."""

    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1


def with_objects(data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """The tiny settings, with objects among them."""
    together = {**TINY, **settings}
    for name, given in {"data": data or {}, "model": settings.get("model", {})}.items():
        groups = {
            group: {**TINY[name].get(group, {}), **fields}
            for group, fields in given.items()
            if group != "env"
        }
        together[name] = {**TINY[name], **given, **groups}
    together["trainer"] = {**TINY["trainer"], **settings.get("trainer", {})}
    return together


def command_line(*args: str) -> tuple[int, str]:
    """Exit status and standard error of the command line, in this process."""
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", ["lit_crl", *args])
        try:
            entry.run()
        except SystemExit as stop:
            return int(stop.code or 0), errors.getvalue()
    return 0, errors.getvalue()


def test_objects_are_taken_as_they_are_and_named_for_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []

    class Look(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            data = trainer.datamodule
            seen.extend(
                [
                    type(data.env),
                    data.exploration,
                    data.settings.replay.capacity,
                    *trainer.optimizers,
                ]
            )

    first, second, exploration = Look(), Counts(), LinearEpsilon(1.0, 0.1, 800)
    rate = functools.partial(torch.optim.SGD, lr=0.125, momentum=0.5)
    data = {
        "env": MountainCar,
        "collect": {"exploration": exploration},
        "replay": {"capacity": np.int64(5_000)},
    }
    model = {"dqn": {"optimizer": torch.optim.Adam}, "gan": {"discriminator_optimizer": rate}}
    settings = with_objects(data, model=model, trainer={"callbacks": [first]})
    lit_crl.train(**settings, callbacks=[second])
    assert seen[0] is MountainCar and seen[1] is exploration and seen[2] == 5_000
    assert [type(optimizer) for optimizer in seen[3:]][:2] == [torch.optim.Adam, torch.optim.SGD]
    assert seen[4].defaults["lr"] == 0.125 and second.batches == 10
    config = tmp_path / "runs" / "MountainCar" / "seed0" / "config.yaml"  # the class names the run
    found = yaml.safe_load(config.read_text())
    assert found["data"]["env"] == "lit_crl.envs.MountainCar"
    assert found["data"]["collect"]["exploration"] == {
        "class_path": "lit_crl.dqn.LinearEpsilon",
        "init_args": {"start": 1.0, "end": 0.1, "steps": 800},
    }
    assert found["model"]["dqn"]["optimizer"] == "torch.optim.Adam"
    assert found["model"]["gan"]["discriminator_optimizer"] == {
        "class_path": "torch.optim.SGD", "init_args": {"lr": 0.125, "momentum": 0.5},
    }  # fmt: skip
    # No file can name a local class: the file says so, and the command line refuses it.
    assert "made in Python" in found["trainer"]["callbacks"][0]
    before = {path: path.read_bytes() for path in config.parent.rglob("*") if path.is_file()}
    words = ["--name", "seed0", "--ckpt_path", "last"]
    status, errors = command_line("fit", "--config", str(config), *words)
    assert status == 2 and len(errors.splitlines()) == 1
    assert "trainer.callbacks only that it was made in Python" in errors
    assert {path: path.read_bytes() for path in before} == before
    # Without the object, the command line continues the run that Python started.
    del found["trainer"]["callbacks"]
    config.write_text(yaml.safe_dump(found))
    words += ["--data.collect.env_steps", "900"]
    status, errors = command_line("fit", "--config", str(config), *words)
    assert status == 0, errors
    assert json.loads((config.parent / "summary.json").read_text())["env_steps"] == 896


@pytest.mark.parametrize(
    "kind", ["a lambda", pytest.param("a partial of a local class", marks=pytest.mark.slow)]
)
def test_what_no_file_can_name_trains_and_goes_on_from_python_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class Local(MountainCar):
        pass

    kinds: dict[str, tuple[Any, str]] = {
        "a lambda": (lambda num_envs, device: MountainCar(num_envs, device), "from_python"),
        "a partial of a local class": (functools.partial(Local), "Local"),
    }
    env, label = kinds[kind]
    lit_crl.train(**with_objects({"env": env}))
    folder = tmp_path / "runs" / label / "seed0"
    config = folder / "config.yaml"
    assert "made in Python" in yaml.safe_load(config.read_text())["data"]["env"]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    for words in (["--config", str(config), "--name", "seed0"], ["--ckpt_path", str(checkpoint)]):
        with pytest.raises(ConfigError, match=r"data\.env only that it was made in Python"):
            cli.main(["fit", *words])
    more = with_objects({"env": env, "collect": {"env_steps": 900}}, name="seed0", ckpt_path="last")
    lit_crl.train(**more)
    assert json.loads((folder / "summary.json").read_text())["env_steps"] == 896


def test_a_scripts_own_arguments_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mine.py", "--double", "--experiment", "own words", "--help"])
    lit_crl.train("cartpole_levels", **TINY, name="mine")
    assert (tmp_path / "runs" / "cartpole_levels" / "mine" / "summary.json").is_file()
    assert not any("command line" in str(warning.message) for warning in recwarn)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="already holds a run") as refusal:
        lit_crl.train("cartpole_levels", **TINY, name="mine")
    assert "\n" not in str(refusal.value)
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"callbacks": [3]}, r"trainer\.callbacks"),
        ({"data": {"env": object()}}, r"data\.env"),
        ({"data": {"collect": {"exploration": torch.zeros(3)}}}, r"data\.collect\.exploration"),
        (
            {"model": {"dqn": {"optimizer": torch.optim.Adam(torch.nn.Linear(1, 1).parameters())}}},
            "model",
        ),
        ({"data": MountainCar}, "data"),
    ],
)
def test_objects_of_another_kind_are_refused(
    settings: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=key) as refusal:
        lit_crl.train(**settings)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_saves_and_gives_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    endless = {**TINY, "data": with_env_steps(10**9) | {"evaluation": {"every": 10**8}}}
    config = tmp_path / "runs" / "cartpole_levels" / "seed0" / "config.yaml"

    def interrupt() -> None:
        while not config.is_file():  # written when training starts
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    policy = lit_crl.train("cartpole_levels", **endless)
    thread.join()
    assert "Stopped by SIGINT" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
    env = gymnasium.make("CartPole-v1")
    assert env.action_space.contains(policy(env.reset(seed=0)[0]))
    assert lit_crl.train("cartpole_levels", **TINY)(np.zeros((2, 4))).shape == (
        2,
    )  # and the next one


def test_a_termination_is_not_taken_for_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lit_crl.runs.callbacks import StopOnSignal
    from lit_crl.runs.checkpoints.signals import RunStopped

    monkeypatch.chdir(tmp_path)

    def terminated(self: StopOnSignal, trainer: Trainer, *_: Any) -> None:
        self.received = signal.SIGTERM
        self._stop(trainer)

    monkeypatch.setattr(StopOnSignal, "on_train_batch_end", terminated)
    with pytest.raises(RunStopped, match="SIGTERM"):
        lit_crl.train("cartpole_levels", **TINY)


class Interrupt(Callback):
    """Raises a keyboard interrupt in the third batch."""

    def on_train_batch_start(self, *args: Any) -> None:
        if args[-1] == 2:
            raise KeyboardInterrupt


def test_a_learner_is_usable_after_lightnings_own_interrupt(make_run: Any) -> None:
    before = signal.getsignal(signal.SIGINT)
    run = make_run(callbacks=[Interrupt()])
    with pytest.raises(SystemExit):
        run.fit()
    signal.signal(signal.SIGINT, before)  # Lightning ignores further signals; notebooks restore it
    policy = lit_crl.Policy.of(run.learner)
    obs = torch.zeros(3, 2)
    assert torch.equal(policy.action_values(obs), run.learner.action_values(obs))


def test_the_trainer_has_the_defaults_of_the_command_line_and_takes_others() -> None:
    trainer = lit_crl.trainer(accelerator="cpu", max_epochs=3, enable_progress_bar=False)
    assert trainer.max_epochs == 3 and trainer.logger is None
    assert trainer.num_sanity_val_steps == 0 and not trainer.checkpoint_callbacks
    assert lit_crl.trainer(accelerator="cpu").max_epochs == -1
