"""Mistakes of users: one clear sentence, exit status 2, no traceback, nothing damaged."""

import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

from lit_crl.runs.cli import entry
from lit_crl.runs.cli import main as cli

LEVELS = ["--config", "conf/experiment/mountain_car_levels.yaml"]
GYMNASIUM = ["--config", "conf/experiment/gymnasium.yaml"]

MISTAKES = {
    "unknown key": (["--data.nope", "3"], "data.nope"),
    "wrong type": (["--data.collect.gamma", "abc"], "data.collect.gamma"),
    "no layer": (["--model.network.hidden", "[]"], "model.network.hidden is empty"),
    "layer without width": (["--model.gan.hidden", "[8,0]"], "model.gan.hidden.1 is 0"),
    "wrong type of a list": (["--model.network.hidden", "wide"], "model.network.hidden"),
    "unknown experiment": (["--experiment", "nope"], "mountain_car"),
    "missing config": (["--config", "nope.yaml"], "nope.yaml"),
    "unknown arm": (["--data.curriculum.arm", "nope"], "'archive'"),
    "unknown loss": (["--model.gan.loss", "nope"], "'hinge'"),
    "unknown id": ([*GYMNASIUM, "--data.env.id", "Nope-v3"], "Nope-v3"),
    "continuous actions": ([*GYMNASIUM, "--data.env.id", "Pendulum-v1"], "Discrete"),
    "arm without levels": ([*GYMNASIUM, "--data.curriculum.arm", "gan"], "level_space"),
    "negative gamma": (["--data.collect.gamma", "-1"], "data.collect.gamma is -1.0"),
    "NaN gamma": (["--data.collect.gamma", ".nan"], "data.collect.gamma is nan"),
    "negative lambda": (["--model.gan.lambda_gan", "-1"], "model.gan.lambda_gan is -1.0"),
    "arm that is no path": (
        ["--data.curriculum.arm", "ued"],
        "'tiles', an import path of a function or class",
    ),
    "infinite lambda": (["--model.gan.lambda_gan", ".inf"], "model.gan.lambda_gan is inf"),
    "epsilon above 1": (
        [
            "--data.collect.exploration",
            "lit_crl.dqn.EpsilonLadder",
            "--data.collect.exploration.base",
            "2",
        ],
        "data.collect.exploration.base is 2.0",
    ),
    "shares not summing to 1": (["--data.curriculum.mix", "{target: 0.5}"], "sum to 1"),
    "negative share": (["--data.curriculum.mix", "{target: 1.5, gan: -0.5}"], "≥ 0"),
    "unknown share": (["--data.curriculum.mix", "{nope: 1.0}"], "nope"),
    "batch larger than the buffer": (
        ["--data.replay.batch_size", "1000000"],
        "data.replay.batch_size",
    ),
    "buffer too small": (
        ["--data.replay.capacity", "7", "--data.replay.batch_size", "7"],
        "data.replay.capacity",
    ),
    "no environments": (["--data.collect.num_envs", "0"], "data.collect.num_envs"),
    "budget below the warm-up": (["--data.collect.env_steps", "100"], "data.collect.env_steps"),
    "hindsight without goals": (["--data.replay.hindsight", "0.5"], "data.replay.hindsight"),
    "negative seed": (["--seed_everything", "-1"], "seed_everything"),
    "missing checkpoint": (["--ckpt_path", "nope.ckpt"], "nope.ckpt"),
}


def complaint(
    args: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The text on standard error before the console entry exits with status 2."""
    monkeypatch.setattr(sys, "argv", ["lit_crl", "fit", *args])
    with pytest.raises(SystemExit) as stop:
        entry.run()
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gives_one_sentence(
    mistake: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args, names = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    message = complaint(args, capsys, monkeypatch)
    assert message.startswith("lit_crl: ")
    assert names in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = complaint(["--trainer.accelerator", "gpu"], capsys, monkeypatch)
    assert "--trainer.accelerator cpu" in message


def test_wandb_online_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    message = complaint(["--logger", "wandb"], capsys, monkeypatch)
    assert "wandb login" in message.splitlines()[-1]


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", None, "foreign"],
    ids=["empty", "garbage", "truncated", "foreign"],
)
def test_an_unreadable_checkpoint_is_named(
    content: bytes | str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "broken.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"state_dict": {"x": torch.zeros(1000)}}, path)
    if content is None:
        path.write_bytes(path.read_bytes()[:2000])
    before = path.read_bytes()
    message = complaint([*LEVELS, "--ckpt_path", str(path)], capsys, monkeypatch)
    assert "broken.ckpt" in message
    assert path.read_bytes() == before


def test_a_checkpoint_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "attacked"),))

    torch.save({"lit_crl": Attack()}, tmp_path / "attack.ckpt")
    message = complaint([*LEVELS, "--ckpt_path", "attack.ckpt"], capsys, monkeypatch)
    assert "attack.ckpt" in message
    assert not (tmp_path / "attacked").exists()


def test_a_named_run_is_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    precious = tmp_path / "runs" / "mountain_car" / "mine" / "summary.json"
    precious.parent.mkdir(parents=True)
    precious.write_text("{}")
    message = complaint(["--name", "mine"], capsys, monkeypatch)
    assert "--ckpt_path last" in message
    assert precious.read_text() == "{}"


def test_a_run_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file where the folder should be")
    message = complaint([], capsys, monkeypatch)
    assert "--trainer.default_root_dir" in message


def test_the_console_shows_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All of ``python -m lit_crl``, which a killed run of two processes shows from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "lit_crl.__main__", raising=False)  # of another test
    monkeypatch.setattr(sys, "argv", ["lit_crl", "fit", "--data.collect.gamma", "2"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("lit_crl", run_name="__main__")
    assert stop.value.code == 2
    errors = capfd.readouterr().err
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("lit_crl: data.collect.gamma is 2.0")


SMALL = [
    "--data.collect.env_steps=800",
    "--data.collect.warmup=300",
    "--data.replay.batch_size=8",
    "--data.replay.updates_per_batch=1",
    "--data.evaluation.test_episodes=1",
    "--data.evaluation.episodes=1",
]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small run."""
    root = tmp_path_factory.mktemp("small")
    sizes = ["--model.network.hidden=[8]", "--model.gan.hidden=[8]"]
    where = ["--experiment=mountain_car_levels", f"--trainer.default_root_dir={root}"]
    cli.main(["fit", "--name", "a", *where, *sizes, *SMALL])
    return root / "mountain_car_levels" / "a" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (["--config", "conf/experiment/cartpole_levels.yaml"], "q_network"),
        ([*LEVELS, "--model.network.hidden=[9]"], "q_network"),
        ([*LEVELS, "--model.gan.hidden=[9]"], "level_gan"),
        ([*LEVELS, "--data.collect.num_envs=8"], "num_envs"),
        ([*LEVELS, "--data.replay.n_steps=2"], "n_steps"),
    ],
    ids=["environment", "network", "GAN", "environments", "steps"],
)
def test_a_checkpoint_of_other_sizes_is_refused(
    other: list[str],
    names: str,
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = ["--model.network.hidden=[8]", "--model.gan.hidden=[8]", *other[2:]]
    args = [*other[:2], *SMALL, *sizes, "--ckpt_path", str(small_run), "--name", "b"]
    message = complaint(args, capsys, monkeypatch).splitlines()[-1]
    assert message.startswith("lit_crl: the checkpoint does not fit") and names in message
    assert not [*(tmp_path / "runs").glob("*/b")]


@pytest.mark.parametrize("lacks", ["state_dict", "learner", "lit_crl.token"])
def test_a_checkpoint_that_lacks_a_part_is_refused(
    lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = {part: {} for part in ("state_dict", "optimizer_states", "loops", "callbacks",
                                   "learner")}  # fmt: skip
    saved["lit_crl"] = {"format": 1, "env_steps": 1, "world_size": 1, "token": "x"}
    *groups, name = lacks.split(".")
    del (saved[groups[0]] if groups else saved)[name]
    torch.save(saved, "made.ckpt")
    message = complaint([*LEVELS, "--ckpt_path", "made.ckpt"], capsys, monkeypatch)
    assert f"made.ckpt lacks {name}" in message
