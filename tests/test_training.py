"""Training from Python: the README's examples, twice in one process, and interrupted."""

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

import lit_crl
from lit_crl.checks import ConfigError

README = Path(__file__).parents[1] / "README.md"
#: Settings of runs of a second.
TINY: dict[str, Any] = {
    "model": {"hidden": [16], "gan_hidden": [8]},
    "data": {
        "env_steps": 1_200, "num_envs": 8, "warmup": 300, "batch_size": 8, "updates_per_batch": 1,
        "gan_every": 2, "gan_updates": 2, "min_outcomes": 1, "label_epsilon": 1.0,
        "validation_episodes": 1, "test_episodes": 1, "generated_levels": 1,
    },
    "trainer": {"accelerator": "cpu"},
}  # fmt: skip


def examples() -> list[str]:
    """The Python blocks of the README's section."""
    text = README.read_text(encoding="utf-8")
    section = re.search(r"\n## From Python\n(.*?)\n## ", text, re.DOTALL)
    assert section is not None
    return re.findall(r"```python\n(.*?)```", section[1], re.DOTALL)


def test_ten_lines_lead_from_import_to_a_policy_that_acts() -> None:
    lines = [line for line in examples()[0].splitlines() if line.strip()]
    assert len(lines) <= 10


def test_the_readmes_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With settings that take seconds: only the policy is worse."""
    monkeypatch.chdir(tmp_path)
    long, short = 'data={"env_steps": 60_000}', {**TINY["data"], "env_steps": 2_400}
    names: dict[str, Any] = {"SETTINGS": {**TINY, "data": short}}
    whole, calls, lightning = examples()
    assert long in whole and "60_000" in lightning
    whole = whole.replace(long, "**SETTINGS")
    lightning = lightning.replace("60_000", "2_600")
    exec(compile(whole, "README.md", "exec"), names)
    assert names["done"] and (tmp_path / "runs/mountain_car/seed0/summary.json").is_file()
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
    first = lit_crl.train("cartpole", **TINY)
    second = lit_crl.train("cartpole", **TINY)
    runs = tmp_path / "runs" / "cartpole"
    assert {run.name for run in runs.iterdir()} == {"seed0", "seed0-2"}
    obs = torch.zeros(1, 4)
    assert torch.equal(first.action_values(obs), second.action_values(obs))
    config = (runs / "seed0" / "config.yaml").read_text()
    assert "env_steps: 1200" in config and "gan_hidden:\n  - 8" in config
    other = lit_crl.train(config=str(runs / "seed0" / "config.yaml"), seed_everything=1)
    assert not torch.equal(first.action_values(obs), other.action_values(obs))
    assert (runs / "seed1" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"data": {"nope": 3}}, "data.nope"),
        ({"data": {"gamma": "abc"}}, "data.gamma"),
        ({"model": {"hidden": []}}, "model.hidden is empty"),
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


def test_an_interrupt_saves_and_gives_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    endless = {**TINY, "data": {**TINY["data"], "env_steps": 10**9, "validate_every": 10**8}}
    config = tmp_path / "runs" / "cartpole" / "seed0" / "config.yaml"

    def interrupt() -> None:
        while not config.is_file():  # written when training starts
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    policy = lit_crl.train("cartpole", **endless)
    thread.join()
    assert "Stopped by SIGINT" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
    env = gymnasium.make("CartPole-v1")
    assert env.action_space.contains(policy(env.reset(seed=0)[0]))
    assert lit_crl.train("cartpole", **TINY)(np.zeros((2, 4))).shape == (2,)  # and the next one


def test_a_termination_is_not_taken_for_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lit_crl.callbacks import StopOnSignal
    from lit_crl.callbacks.interruption import RunStopped

    monkeypatch.chdir(tmp_path)

    def terminated(self: StopOnSignal, trainer: Trainer, *_: Any) -> None:
        self.received = signal.SIGTERM
        self._stop(trainer)

    monkeypatch.setattr(StopOnSignal, "on_train_batch_end", terminated)
    with pytest.raises(RunStopped, match="SIGTERM"):
        lit_crl.train("cartpole", **TINY)


class Interrupt(Callback):
    """A keyboard interrupt within the third batch."""

    def on_train_batch_start(self, *args: Any) -> None:
        if args[-1] == 2:
            raise KeyboardInterrupt


def test_a_learner_is_usable_after_lightnings_own_interrupt(make_run: Any) -> None:
    before = signal.getsignal(signal.SIGINT)
    run = make_run(callbacks=[Interrupt()])
    with pytest.raises(SystemExit):
        run.fit()
    signal.signal(signal.SIGINT, before)  # Lightning ignores it from then on; notebooks restore it
    policy = lit_crl.Policy.of(run.learner)
    obs = torch.zeros(3, 2)
    assert torch.equal(policy.action_values(obs), run.learner.action_values(obs))


def test_the_trainer_has_the_defaults_of_the_command_line_and_takes_others() -> None:
    trainer = lit_crl.trainer(accelerator="cpu", max_epochs=3, enable_progress_bar=False)
    assert trainer.max_epochs == 3 and trainer.logger is None
    assert trainer.num_sanity_val_steps == 0 and not trainer.checkpoint_callbacks
    assert lit_crl.trainer(accelerator="cpu").max_epochs == -1
