"""The command line, from a run that keeps its transitions to one that learns from them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lit_crl.core.checks import ConfigError
from lit_crl.runs.cli.arguments import complete
from lit_crl.runs.cli.main import CreativeCLI, main
from lit_crl.runs.folders import conf_folder

KEEP = [
    "fit", "--experiment=gymnasium", "--data.env.id=CartPole-v1", "--name=first",
    "--data.keep_transitions=true", "--data.collect.env_steps=600", "--data.collect.num_envs=4",
    "--data.collect.warmup=100", "--data.replay.updates_per_batch=1", "--data.replay.batch_size=8",
    "--data.evaluation.every=600", "--data.evaluation.episodes=2",
    "--data.evaluation.test_episodes=2", "--model.network.hidden=[8]",
]  # fmt: skip
LEARN = [
    "fit", "--data.transitions=runs/gymnasium/first/transitions.npz",
    "--data.replay.log_updates=60", "--data.replay.updates_per_batch=10",
    "--data.evaluation.every=20", "--data.world.every=20",
    "--data.world.updates=2", "--data.world.first_updates=2", "--data.world.dreams=8",
    "--data.world.horizon=4", "--data.world.error_bound=100",
    "--model.network.hidden=[8]", "--model.world.hidden=[8]",
    "--model.world.members=2", "--data.evaluation.episodes=2", "--data.evaluation.test_episodes=2",
    "--trainer.log_every_n_steps=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has kept its transitions."""
    folder = tmp_path_factory.mktemp("kept")
    main([*KEEP, f"--trainer.default_root_dir={folder}/runs"])
    return folder


@pytest.fixture
def learn(kept: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(kept)

    def run(*more: str) -> CreativeCLI:
        return main([*LEARN, *more])

    return run


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_kept_run_can_be_learnt_from(learn, capsys: pytest.CaptureFixture[str]) -> None:
    folder = learn("--name=alone").run_folder
    said = capsys.readouterr().out
    with np.load("runs/gymnasium/first/transitions.npz", allow_pickle=False) as log:
        ends = int(log["terminated"].sum())
        episodes = int((log["terminated"] | log["truncated"]).sum())
    assert f"600 rows in {episodes} episodes ({ends} ends, {episodes - ends} cuts)" in said
    assert 0 < ends < episodes <= ends + 4
    assert "60 updates, 600 logged transitions" in said and "return  " not in said
    assert "No return was measured: no environment was named (data.env)." in said
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["env_steps"] == 600 and summary["updates"] == 60
    assert summary["target_return_mean"] is None
    rows = table(folder / "metrics.csv")
    # A row for each batch, and one for each validation, which measures the world.
    assert [int(row["updates"]) for row in rows] == [10, 20, 20, 30, 40, 40, 50, 60, 60]
    assert {row["env_steps"] for row in rows} == {"600"}


def test_an_environment_evaluates_and_the_run_goes_on_exactly(learn) -> None:
    evaluated = ("--data.env=CartPole-v1",)
    whole = learn("--name=whole", *evaluated).run_folder
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["target_return_mean"] >= 8  # nobody falls sooner
    # The third and last of the validations is the first that can be the best: it is after 60
    # updates, and the best policy is the last.
    assert summary["best_env_steps"] == 60
    for name in ("target_return_mean", "target_return_std", "target_episodes"):
        assert summary[f"best_{name}"] == pytest.approx(summary[name], rel=1e-6)
    for part in ("--data.replay.log_updates=40", "--data.replay.log_updates=60"):
        parts = learn("--name=parts", *evaluated, part, "--ckpt_path=last").run_folder
    rows, again = table(whole / "metrics.csv"), table(parts / "metrics.csv")
    assert [row["updates"] for row in again] == [row["updates"] for row in rows]
    assert rows == again and "evaluation/target_return_mean" in rows[0]


def test_the_saved_configuration_describes_the_log(learn) -> None:
    folder = learn("--name=saved").run_folder
    config = folder / "config.yaml"
    again = main(["fit", f"--config={config}", "--name=again"])
    assert again.datamodule.transitions == "runs/gymnasium/first/transitions.npz"
    assert again.datamodule.spent == 60


def test_which_settings_a_log_gets() -> None:
    own = str(conf_folder() / "experiment/from_log.yaml")
    for words in (["--data.transitions=x"], ["--data.transitions", "x", "--data.env=CartPole-v1"]):
        assert complete(["fit", *words])[1] == f"--config={own}"
    named = complete(["fit", "--experiment=mountain_car", "--data.transitions=x"])
    assert named[1].endswith("mountain_car.yaml")


def test_an_environment_or_a_log_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"data\.env is missing: .*, or a log with"):
        main(["fit", "--experiment=from_log"])


def test_what_was_learnt_from_a_log_alone_cannot_be_played(learn) -> None:
    learn("--name=played")
    words = [word for word in LEARN[1:] if "test_episodes" not in word]
    with pytest.raises(ConfigError, match=r"data\.env is missing, and a log cannot be played"):
        main(["play", *words, "--name=played", "--ckpt_path=last"])
