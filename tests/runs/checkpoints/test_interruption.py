"""Signals at every stage of a run: the resumed run ends as an uninterrupted one."""

import csv
import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.evaluation.protocol import Evaluation
from lit_crl.runs.callbacks.report import RunReport
from lit_crl.runs.checkpoints.signals import RunStopped, Signals, resume_command
from lit_crl.runs.cli import main as cli
from lit_crl.training.datamodule import ReplayDataModule

#: Four validations, the last of them after an epoch that the budget cuts short.
TINY = [
    "--experiment=mountain_car_levels",
    "--trainer.accelerator=cpu",
    "--data.collect.env_steps=1150",
    "--data.collect.num_envs=8",
    "--data.collect.warmup=200",
    "--data.replay.batch_size=16",
    "--data.replay.updates_per_batch=1",
    "--data.evaluation.every=300",
    "--data.evaluation.episodes=2",
    "--data.env.max_episode_steps=40",
    "--data.evaluation.test_episodes=2",
    "--data.gan.every=4",
    "--data.gan.updates=2",
    "--data.gan.batch_size=8",
    "--data.curriculum.min_outcomes=2",
    "--data.curriculum.label_epsilon=1",
    "--data.evaluation.generated_levels=2",
    "--model.network.hidden=[8]",
    "--model.gan.hidden=[8]",
    "--trainer.log_every_n_steps=2",
]
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def left_behind(run: Path) -> dict[str, Any]:
    """What a run leaves behind, which must not depend on interruptions."""
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (collected,) = run.glob(f"checkpoints/collected-*-{saved['lit_crl'].pop('token')}-rank0.pt")
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    snapshots = saved["callbacks"]["RecordMetrics"]
    del saved["loops"], saved["callbacks"]
    test = json.loads((run / "test.json").read_text(encoding="utf-8"))
    companion = torch.load(collected, weights_only=True)
    return {"saved": saved, "snapshots": snapshots, "collected": companion, "rows": rows,
            "test": test}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run that nothing interrupts."""
    root = tmp_path_factory.mktemp("whole")
    cli.main(["fit", "--name=a", f"--trainer.default_root_dir={root}", *TINY])
    return left_behind(root / "mountain_car_levels" / "a")


def signal_at(patch: pytest.MonkeyPatch, kind: type, method: str, number: int, signum: int) -> None:
    """Send this process a signal in call ``number`` of a method."""
    usual: Callable[..., Any] = getattr(kind, method)
    calls = [0]

    def call(*args: Any, **kwargs: Any) -> Any:
        if calls[0] == number:
            os.kill(os.getpid(), signum)
        calls[0] += 1
        return usual(*args, **kwargs)

    patch.setattr(kind, method, call)


def stop(root: Path) -> RunStopped:
    with pytest.raises(RunStopped) as stopped:
        cli.main(["fit", "--name=a", f"--trainer.default_root_dir={root}", *TINY])
    return stopped.value


@pytest.mark.parametrize(
    ("number", "signum"),
    [
        pytest.param(0, SIGNALS[0], id="first"),
        pytest.param(1, SIGNALS[1], id="second", marks=pytest.mark.slow),
        pytest.param(3, SIGNALS[0], id="last"),
    ],
)
def test_a_validation_is_broken_off_and_done_again(
    number: int,
    signum: int,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    difference: Any,
) -> None:
    run = tmp_path / "mountain_car_levels" / "a"
    with monkeypatch.context() as patch:
        signal_at(patch, Evaluation, "_heldout_metrics", number, signum)
        stopped = stop(tmp_path)
    assert stopped.signum == signum and stopped.run == run
    assert not (run / "test.json").exists()
    monkeypatch.chdir(tmp_path)
    cli.main(shlex.split(str(stopped).partition("Go on with: python -m lit_crl ")[2]))
    assert difference(whole, left_behind(run)) is None


@pytest.mark.parametrize(
    ("kind", "method"), [(FinalEvaluation, "_heldout_metrics"), (RunReport, "summarise")]
)
def test_the_final_test_is_broken_off_and_done_again(
    kind: type,
    method: str,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    difference: Any,
) -> None:
    run = tmp_path / "mountain_car_levels" / "a"
    with monkeypatch.context() as patch:
        signal_at(patch, kind, method, 0, signal.SIGINT)
        stopped = stop(tmp_path)
    assert stopped.run == run and not (run / "summary.json").exists()
    cli.main(shlex.split(str(stopped).partition("Go on with: python -m lit_crl ")[2]))
    assert (run / "summary.json").is_file()
    assert difference(whole, left_behind(run)) is None


@pytest.mark.parametrize("method", ["setup", "_step"], ids=["preparation", "warm-up"])
@pytest.mark.parametrize("signum", SIGNALS)
def test_before_anything_is_learnt_nothing_is_left(
    method: str, signum: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_at(monkeypatch, ReplayDataModule, method, 0 if method == "setup" else 5, signum)
    stopped = stop(tmp_path)
    assert "before anything was learnt; the same command starts again" in str(stopped)
    assert stopped.run is None
    assert list(tmp_path.iterdir()) == []


def test_training_finishes_the_batch(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: Any
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, ReplayDataModule, "_step", 100, signal.SIGINT)
        stopped = stop(tmp_path)
    cli.main(shlex.split(str(stopped).partition("Go on with: python -m lit_crl ")[2]))
    assert difference(whole, left_behind(tmp_path / "mountain_car_levels" / "a")) is None


def test_the_signals_are_given_back() -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with pytest.raises(RunStopped, match="SIGTERM"), Signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


def test_what_is_held_back_is_acted_on_when_it_is_released() -> None:
    with Signals() as signals:
        signals.held = (signal.SIGINT,)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        signals.release(signal.SIGINT)
        with pytest.raises(RunStopped, match="SIGINT"):
            signals.release()


def test_a_printed_command_can_be_pasted_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(resume_command(Path("my runs ü") / "car's" / "a b"))
    assert words[:4] == ["python", "-m", "lit_crl", "fit"]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert given == {
        "--config": str(tmp_path / "my runs ü" / "car's" / "a b" / "config.yaml"),
        "--trainer.default_root_dir": str(tmp_path / "my runs ü"),
        "--name": "a b",
        "--ckpt_path": "last",
    }
