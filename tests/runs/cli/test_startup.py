"""The modules that a command imports before it answers; they take seconds on a small machine."""

import subprocess
import sys

import pytest

import lit_crl
from lit_crl.runs.cli.main import CreativeCLI, main
from lit_crl.runs.cli.usage import SUBCOMMANDS


def imported(*args: str) -> set[str]:
    """Every module that the command line imports, counted by Python itself."""
    command = [sys.executable, "-X", "importtime", "-m", "lit_crl", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_imports_nothing_slow(flag: str) -> None:
    modules = imported(flag)
    assert "lit_crl.runs.cli.usage" in modules  # or this test sees nothing
    assert {name for name in modules if name.startswith("lit_crl")} == {
        "lit_crl",
        "lit_crl.core",
        "lit_crl.core.version",
        "lit_crl.runs",
        "lit_crl.runs.cli",
        "lit_crl.runs.cli.usage",
    }
    slow = {"gymnasium", "jsonargparse", "lightning", "matplotlib", "numpy", "omegaconf", "scipy",
            "torch", "torchmetrics", "wandb", "yaml"}  # fmt: skip
    assert not slow & modules


def test_a_subcommand_does_without_what_only_few_runs_need() -> None:
    modules = imported("fit", "--help")
    assert "lit_crl.training.learner" in modules
    assert not {"wandb", "tensorboard", "lit_crl.runs.pictures.figures"} & modules


def test_the_public_classes_are_found_when_they_are_asked_for() -> None:
    from lit_crl.training.datamodule import ReplayDataModule
    from lit_crl.training.learner import CreativeLearner

    assert lit_crl.CreativeLearner is CreativeLearner
    assert lit_crl.ReplayDataModule is ReplayDataModule
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        lit_crl.Nope  # noqa: B018


def test_the_help_is_the_same_from_python_and_lists_every_subcommand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # of both commands, in any terminal
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert not stop.value.code
    from_python = capsys.readouterr().out
    command = [sys.executable, "-m", "lit_crl", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == from_python
    assert list(SUBCOMMANDS) == list(CreativeCLI.subcommands())
    for name, does in SUBCOMMANDS.items():
        assert name in from_python
        assert does in " ".join(from_python.split())
