"""The files and the output of a run, compared with the run itself.

Oracles: a callback that takes its own notes of every batch and validation, the files read back
with other tools (csv, json, zipfile, a PNG reader), and naive means.
"""

import copy
import csv
import dataclasses
import errno
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import drawing
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from rich.console import Console

from lit_crl.core.checks import RunError
from lit_crl.core.seeding import random_stream
from lit_crl.core.tensor_files import NAMES, companions, read_checkpoint
from lit_crl.envs import FacingMaze, GymnasiumEnv
from lit_crl.runs.callbacks import (
    EnvStepProgress,
    MetricsCsv,
    RecordMetrics,
    RunCheckpoint,
    RunReport,
)
from lit_crl.training.batches import SingleBatch
from lit_crl.training.running_means import LossSums

Make = Callable[..., Any]
EVERY = 3


def read_csv(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def csv_rows(folder: Path) -> list[dict[str, float]]:
    return read_csv(folder / "metrics.csv")


class Notes(Callback):
    """Takes down env steps and metrics at every batch and validation."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.validations: list[tuple[int, dict[str, float]]] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.batches.append(trainer.datamodule.env_steps)

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.validations.append((trainer.datamodule.env_steps, numbers))


class Finished:
    """A run with every callback, trained, tested and reported."""

    def __init__(self, make_run: Make, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.notes, self.record = Notes(), RecordMetrics()
        self.report = RunReport(folder, "tiny", "seed_everything: 0\n")
        self.report.console = Console(file=io.StringIO(), width=100)
        self.progress = EnvStepProgress()
        self.progress.console = Console(file=io.StringIO(), width=200)
        self.logger = MetricsCsv(folder)
        folder.mkdir(exist_ok=True)
        self.run = make_run(
            callbacks=[
                self.notes,
                self.progress,
                self.record,
                self.report,
                RunCheckpoint(folder / "checkpoints"),
            ],
            trainer={
                "logger": self.logger,
                "log_every_n_steps": EVERY,
                "enable_progress_bar": True,
            },
            **settings,
        ).fit()
        self.run.trainer.test(self.run.learner, datamodule=self.run.data, verbose=False)
        self.test = {k: float(v) for k, v in self.run.trainer.callback_metrics.items()}
        with drawing():
            self.report.summarise(self.run.trainer, self.run.learner)
        self.summary = json.loads((folder / "summary.json").read_text())
        self.lines = self.progress.console.file.getvalue().splitlines()
        self.printed = self.report.console.file.getvalue()


@pytest.fixture(scope="module")
def finished(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(make_run, tmp_path_factory.mktemp("tiny"))


def cartpole(num_envs: int, device: torch.device) -> GymnasiumEnv:
    return GymnasiumEnv(num_envs, device, id="CartPole-v1", max_episode_steps=20)


@pytest.fixture(scope="module")
def without_levels(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("plain")
    return Finished(make_run, folder, env=cartpole, arm="target", env_steps=600)


# metrics.csv


def test_every_few_batches_and_every_validation_become_a_row(finished: Finished) -> None:
    rows = csv_rows(finished.folder)
    header = (finished.folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header[0] == "env_steps" and len(set(header)) == len(header)
    training = [row["env_steps"] for row in rows if "dqn/loss" in row]
    evaluations = [row["env_steps"] for row in rows if "evaluation/target_return_mean" in row]
    assert training == finished.notes.batches[EVERY - 1 :: EVERY]
    assert evaluations == [env_steps for env_steps, _ in finished.notes.validations]
    steps = [row["env_steps"] for row in rows]
    assert steps == sorted(steps) and len(rows) == len(training) + len(evaluations)
    assert evaluations[-1] == finished.run.data.schedule.budget


def test_rows_hold_losses_and_behaviour(finished: Finished) -> None:
    rows = [row for row in csv_rows(finished.folder) if "dqn/loss" in row]
    for row in rows:
        assert {"dqn/q_mean", "behaviour/epsilon", "curriculum/generated"} <= row.keys()
    assert "gan/generator_loss" not in rows[0]  # before the first GAN phase
    names = {
        "gan/discriminator_loss", "gan/generator_loss", "gan/success_loss", "gan/penalty",
        "gan/challenge", "behaviour/return_mean", "behaviour/success_rate",
        "curriculum/target_episodes", "curriculum/gan_episodes", "curriculum/generated_valid_rate",
    }  # fmt: skip
    assert names <= rows[-1].keys()


def test_rows_hold_what_generator_and_discriminator_minimise(
    make_run: Make, tmp_path: Path
) -> None:
    logger = MetricsCsv(tmp_path)
    make_run(
        learner={"lambda_gan": 7.0},
        callbacks=[RecordMetrics()],
        validate=False,
        trainer={"logger": logger, "log_every_n_steps": 4},
    ).fit()
    row = csv_rows(tmp_path)[-1]
    expected = row["gan/challenge"] + 7 * row["gan/generator_loss"]
    assert row["gan/generator_objective"] == pytest.approx(expected, rel=1e-5)
    terms = ("gan/discriminator_loss", "gan/penalty", "gan/success_loss")
    expected = sum(row[name] for name in terms)
    assert row["gan/discriminator_objective"] == pytest.approx(expected, rel=1e-5)
    assert not any(name.startswith("joint") for name in row), "nobody minimises a sum of all"


def test_evaluation_rows_hold_what_the_validation_found(finished: Finished) -> None:
    rows = [row for row in csv_rows(finished.folder) if "evaluation/target_return_mean" in row]
    for row, (env_steps, numbers) in zip(rows, finished.notes.validations, strict=False):
        assert row == pytest.approx(
            {"env_steps": env_steps} | {f"evaluation/{k}": v for k, v in numbers.items()}
        )
    assert len(rows) > 2


def test_rows_reach_the_disk_in_time_and_columns_can_come_later(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path)
    for step in range(45):
        logger.log_metrics({"early": step} if step < 30 else {"late": -step}, step=step)
    assert len(csv_rows(tmp_path)) >= 40 - 1  # at most the last few are not written yet
    logger.finalize("success")
    rows = csv_rows(tmp_path)
    expected = [{"env_steps": s, **({"early": s} if s < 30 else {"late": -s})} for s in range(45)]
    assert rows == expected
    assert not list(tmp_path.glob("*.partial"))


def test_rows_are_appended_and_a_new_column_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    """This keeps time linear in rows; the file's inode tells which of the two was done."""
    logger, path = MetricsCsv(tmp_path), tmp_path / "metrics.csv"
    logger.log_metrics({"a": 0.0}, step=0)
    logger.save()
    first, sizes = path.stat().st_ino, []
    for step in range(1, 61):
        logger.log_metrics({"a": step / 2}, step=step)
        sizes.append(path.stat().st_size)
    assert path.stat().st_ino == first and len(set(sizes)) >= 3
    logger.log_metrics({"b": 1.0}, step=61)
    logger.save()
    assert path.stat().st_ino != first
    rows = [{"env_steps": step, "a": step / 2} for step in range(61)]
    assert csv_rows(tmp_path) == [*rows, {"env_steps": 61, "b": 1.0}]


@pytest.mark.parametrize("columns", [["a"], ["a", "b"]], ids=["appended", "replaced"])
def test_a_full_disk_ends_the_run_in_a_sentence_and_loses_no_row(
    columns: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, path = MetricsCsv(tmp_path), tmp_path / "metrics.csv"
    logger.log_metrics({"a": 1.0}, step=1)
    logger.save()
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    logger.log_metrics(dict.fromkeys(columns, 2.0), step=2)
    with pytest.raises(RunError, match=r"metrics\.csv \(No space left on device\): free"):
        logger.save()
    assert path.read_bytes()[: len(before)] == before
    monkeypatch.undo()
    logger.finalize("failed")
    assert csv_rows(tmp_path)[1:] == [{"env_steps": 2, **dict.fromkeys(columns, 2.0)}]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cut", [1, 2, 5, 11])
def test_a_resumed_run_drops_a_line_that_was_cut_off(cut: int, tmp_path: Path) -> None:
    whole = MetricsCsv(tmp_path)
    for step in range(4):
        whole.log_metrics({"a": step / 4, "b": 0.125}, step=step)
    whole.save()
    path = tmp_path / "metrics.csv"
    content = path.read_bytes()
    path.write_bytes(content[:-cut])  # killed while the last row was written
    resumed = MetricsCsv(tmp_path)
    resumed.resume(3)
    assert path.read_bytes() == content[:-cut]  # nothing is lost before there is more to write
    resumed.log_metrics({"a": 0.75, "b": 0.125}, step=3)
    resumed.save()
    assert path.read_bytes() == content


def test_asking_the_report_for_its_state_changes_nothing(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    report = RunReport(tmp_path, "tiny", "")
    report._started, report._clocks = 90.0, [SimpleNamespace(seconds={"dqn": 4.0})]
    monkeypatch.setattr("lit_crl.runs.callbacks.report.time.monotonic", lambda: now[0])
    before = copy.deepcopy(vars(report) | {"console": None})
    first = report.state_dict()
    assert first["wall_seconds"] == 10.0 and first["seconds"] == {"dqn": 4.0}
    assert report.state_dict() == first
    assert {**vars(report), "console": None} == before
    now[0] = 103.0
    assert report.state_dict()["wall_seconds"] == 13.0


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path: Path) -> None:
    first = MetricsCsv(tmp_path)
    for step in range(10):
        first.log_metrics({"a": step / 2}, step=100 * step)
    first.finalize("failed")
    second = MetricsCsv(tmp_path)
    second.resume(400)
    second.log_metrics({"a": -1.0, "b": 3.0}, step=500)
    second.finalize("success")
    rows = csv_rows(tmp_path)
    assert rows[:-1] == [{"env_steps": 100 * s, "a": s / 2} for s in range(5)]
    assert rows[-1] == {"env_steps": 500, "a": -1.0, "b": 3.0}


def test_only_validations_of_a_fit_become_rows(make_run: Make, tmp_path: Path) -> None:
    logger, record = MetricsCsv(tmp_path), RecordMetrics()
    trainer = {"logger": logger, "num_sanity_val_steps": 1, "log_every_n_steps": 10}
    run = make_run(callbacks=[record], trainer=trainer)
    run.trainer.validate(run.learner, datamodule=run.data, verbose=False)
    assert not logger.rows
    run.fit()
    assert all(row["env_steps"] > 0 for row in logger.rows)


class ListLogger(Logger):
    """Any other logger, for instance W&B's."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[dict[str, float], int | None]] = []

    name = "list"
    version = ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.calls.append((dict(metrics), step))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


def test_other_loggers_get_the_same_rows_with_env_steps_among_the_numbers(
    make_run: Make, tmp_path: Path
) -> None:
    ours, other = MetricsCsv(tmp_path), ListLogger()
    loggers = {"logger": [ours, other], "log_every_n_steps": EVERY}
    make_run(callbacks=[RecordMetrics()], trainer=loggers).fit()
    assert [metrics for metrics, _ in other.calls] == ours.rows
    assert all(step == metrics["env_steps"] for metrics, step in other.calls)


def test_losses_are_averaged_since_the_last_time() -> None:
    sums = LossSums()
    values = [torch.tensor(x, requires_grad=True) for x in (1.0, 2.0, 6.0)]
    sums.add({"a": torch.stack(values[:2]).detach()}, 1)
    sums.add({"a": values[2].detach()[None], "b": values[0].detach()[None] * 4}, 3)
    sums.check_finite()
    saved = sums.state_dict()
    copy = LossSums()
    copy.load_state_dict(saved)
    assert sums.pop_means() == {"a": 3.0, "b": 4.0} == copy.pop_means()
    assert sums.pop_means() == {}
    assert [value.item() for value in values] == [1.0, 2.0, 6.0]  # not added to in place


def test_the_rows_before_a_checkpoint_are_on_disk_when_it_is(
    make_run: Make, tmp_path: Path
) -> None:
    class Look(Callback):
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            assert len(csv_rows(tmp_path)) == len(logger.rows)

    logger = MetricsCsv(tmp_path)
    callbacks = [RecordMetrics(), RunCheckpoint(tmp_path), Look()]
    make_run(callbacks=callbacks, trainer={"logger": logger, "log_every_n_steps": 5}).fit()


# summary.json, test.json and other files


def test_the_summary_has_the_keys_that_others_rely_on(
    finished: Finished, without_levels: Finished
) -> None:
    keys = {
        "experiment", "seed", "env_steps", "evaluation_env_steps", "updates", "gan_updates",
        "wall_seconds", "target_return_mean", "target_return_std", "target_success_rate",
        "heldout_success_rate", "heldout_cvar10", "levels_valid_rate", "levels_frontier_rate",
        "levels_unique_rate", "reference_frontier_rate", "git_commit", "versions",
        "imagined_steps", "world_error_1", "world_error_20", "dream_return_gap",
        "solved_at_env_steps",
    }  # fmt: skip
    for each in (finished, without_levels):
        assert keys <= each.summary.keys()
        numbers = {k: v for k, v in each.summary.items() if isinstance(v, float)}
        assert all(math.isfinite(number) for number in numbers.values())


def test_the_summary_tells_what_happened(finished: Finished) -> None:
    run, summary = finished.run, finished.summary
    assert summary["experiment"] == "tiny" and summary["arm"] == "gan" and summary["seed"] == 0
    assert summary["env_steps"] == run.data.schedule.budget
    assert summary["updates"] == run.learner.updates == 2 * len(finished.notes.batches)
    assert summary["gan_updates"] == run.learner.gan_updates > 0
    assert summary["levels_played"] == run.data.curriculum.counts.played
    parts = {name: seconds for name, seconds in summary.items() if name.startswith("seconds_")}
    for absent in ("compile", "world", "watch"):
        assert parts.pop(f"seconds_{absent}") is None
    assert all(seconds >= 0 for seconds in parts.values()) and parts["seconds_dqn"] > 0
    assert sum(parts.values()) == pytest.approx(summary["wall_seconds"], abs=0.05)
    evaluations = [*(numbers for _, numbers in finished.notes.validations), finished.test]
    assert summary["evaluation_env_steps"] == sum(e["evaluation_env_steps"] for e in evaluations)
    for name, value in finished.test.items():
        if name != "evaluation_env_steps":
            assert summary[name] == value, name
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0] or (
        summary["versions"]["torch"] == torch.__version__
    )
    commit = summary["git_commit"]
    assert commit is None or (len(commit) == 40 and int(commit, 16) > 0)


def test_the_cost_of_evaluation_is_remembered(make_run: Make, tmp_path: Path) -> None:
    def fake(*_: Any) -> dict[str, float]:
        return {"target_return_mean": 1.0, "evaluation_env_steps": 10.0}

    report = RunReport(tmp_path, "tiny", "")
    run = make_run(callbacks=[report], validate_every=200)
    run.data.val_dataloader = lambda: SingleBatch(SimpleNamespace(run=fake))
    run.fit()
    assert report.evaluation_env_steps == 6 * 10


@pytest.mark.parametrize(
    ("rates", "solved_at"),
    [
        ([0.0, 0.9, 0.5, 1.0, 0.0, 0.9], 3),
        ([1.0, 0.8, 1.0, 0.8, 1.0, 1.0], None),
        ([0.0, 0.9, 0.5, 1.0, 1.0, 0.5], None),
    ],
)
def test_a_run_is_solved_where_two_validations_running_say_so(
    make_run: Make, tmp_path: Path, rates: list[float], solved_at: int | None
) -> None:
    """Interrupted between the two: the fifth validation is that of the stopped run."""
    results = iter(rates)

    def fake(*_: Any) -> dict[str, float]:
        return {"target_success_rate": next(results), "evaluation_env_steps": 0.0}

    seen: list[int] = []

    class Look(Callback):
        def on_validation_end(self, trainer: Any, *_: Any) -> None:
            seen.append(trainer.datamodule.env_steps)

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if checkpoint is None and len(seen) == 4:
                trainer.should_stop = True

    checkpoint = None
    for checkpoint in (None, tmp_path / "last.ckpt"):
        report = RunReport(tmp_path, "tiny", "")
        callbacks = [report, Look(), RecordMetrics(), RunCheckpoint(tmp_path)]
        run = make_run(callbacks=callbacks, validate_every=200)
        run.data.val_dataloader = lambda: SingleBatch(SimpleNamespace(run=fake))
        run.fit(checkpoint)
    assert len(seen) == 6
    report.summarise(run.trainer, run.learner)
    found = report.summary["solved_at_env_steps"]
    assert found == (None if solved_at is None else seen[solved_at])
    world = ("world_error_1", "world_error_20", "dream_return_gap", "imagined_steps")
    assert all(report.summary[key] is None for key in world)


def test_a_run_without_levels_says_null_for_what_it_lacks(without_levels: Finished) -> None:
    summary = without_levels.summary
    for name in (
        "heldout_success_rate", "heldout_cvar10", "levels_valid_rate", "levels_frontier_rate",
        "levels_unique_rate", "reference_frontier_rate", "levels_played",
    ):  # fmt: skip
        assert summary[name] is None, name
    assert summary["gan_updates"] == 0 and summary["target_return_mean"] > 0
    assert not (without_levels.folder / "figures/generated_levels.png").exists()
    assert not (without_levels.folder / "levels.npz").exists()


def test_test_json_holds_the_tests_metrics(finished: Finished) -> None:
    assert json.loads((finished.folder / "test.json").read_text()) == finished.test
    assert "heldout_grid_success_rate" in finished.test


def test_figures_are_pictures(finished: Finished, without_levels: Finished) -> None:
    for each, names in (
        (finished, ["generated_levels.png", "learning_curve.png"]),
        (without_levels, ["learning_curve.png"]),
    ):
        folder = each.folder / "figures"
        assert sorted(path.name for path in folder.iterdir()) == names
        for name in names:
            picture = matplotlib.image.imread(folder / name)
            height, width, _ = picture.shape
            assert 300 < height < 2_000 and 400 < width < 2_000
            assert picture[..., :3].std() > 0.02  # not blank


def test_levels_npz_follows_the_generator_over_training(finished: Finished) -> None:
    levels = np.load(finished.folder / "levels.npz")
    moments = [s for s, numbers in finished.notes.validations if "levels_valid_rate" in numbers]
    assert levels["env_steps"].tolist() == moments
    assert levels["levels"].shape == (len(moments), 256, 2)
    assert levels["p_hat"].shape == (len(moments), 256)
    learner = finished.run.learner
    noise = learner.draw_noise(256, random_stream(0, "snapshot"))  # the same at every moment
    now = learner.generate_levels(noise)
    assert np.array_equal(levels["levels"][-1], now.numpy())
    assert np.allclose(levels["p_hat"][-1], learner.success_probability(now).numpy())
    assert not np.array_equal(levels["levels"][0], levels["levels"][-1])


def test_the_configuration_is_kept(finished: Finished) -> None:
    assert (finished.folder / "config.yaml").read_text() == "seed_everything: 0\n"


def test_the_report_names_every_file_and_the_headline(finished: Finished) -> None:
    files = [path for path in finished.folder.rglob("*") if path.is_file()]
    for path in files:
        assert f"  {path.relative_to(finished.folder)}\n" in finished.printed
    assert not any(path.suffix == ".partial" for path in files)
    assert f"{finished.summary['target_return_mean']:.2f}" in finished.printed
    assert f"{finished.summary['env_steps']:,}" in finished.printed


def test_predicted_levels_are_a_table_from_hard_to_easy(finished: Finished) -> None:
    run = finished.run
    (predicted,) = run.trainer.predict(run.learner, datamodule=run.data)
    with (finished.folder / "predicted_levels.csv").open(newline="") as file:
        header, *table = list(csv.reader(file))
    assert header == ["p_hat", *run.data.env.level_names]
    rows = [[float(x) for x in row] for row in table]
    expected = sorted(
        [p, *level]
        for p, level in zip(predicted["p_hat"].tolist(), predicted["levels"].tolist(), strict=True)
    )
    assert rows == expected and len(rows) == run.data.settings.evaluation.generated_levels


def test_predicted_levels_of_a_difficulty_say_which(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished.run
    settings = run.data.settings
    wanted = dataclasses.replace(settings.evaluation, difficulty=0.25)
    monkeypatch.setattr(run.data, "settings", dataclasses.replace(settings, evaluation=wanted))
    (predicted,) = run.trainer.predict(run.learner, datamodule=run.data)
    with (finished.folder / "predicted_levels.csv").open(newline="") as file:
        header, *table = list(csv.reader(file))
    assert header == ["difficulty", "p_hat", *run.data.env.level_names]
    assert {row[0] for row in table} == {"0.25"}
    p_hat = [float(row[1]) for row in table]
    assert p_hat == sorted(predicted["p_hat"].tolist())
    again = run.learner.generate_levels(4_000)
    usual = (run.learner.success_probability(again) - 0.25).abs().mean().item()
    assert sum(abs(p - 0.25) for p in p_hat) / len(p_hat) < usual


# Printed output


def test_without_a_terminal_progress_is_plain_lines(finished: Finished) -> None:
    start, memory, *rest = finished.lines
    assert start.startswith("Training DQN and GAN on ShortCar: 1,200 env steps, 8 environments")
    assert memory == "The replay takes 38,144 bytes of RAM, 19 bytes a row."
    in_training = finished.notes.validations
    assert len(rest) == len(in_training)  # one line a validation, and nothing else
    for line, (env_steps, numbers) in zip(rest, in_training, strict=True):
        assert line.lstrip().startswith(f"{env_steps:,} env steps")
        assert f"{numbers['target_return_mean']:.2f}" in line
        assert f"held-out {numbers['heldout_success_rate']:4.0%}" in line
        assert ("generated:" in line) == ("levels_frontier_rate" in numbers)
    assert not any("\x1b" in line or "\r" in line for line in finished.lines)


def test_a_run_without_levels_is_announced_as_such(without_levels: Finished) -> None:
    start, *rest = without_levels.lines
    assert start.startswith("Training DQN alone on CartPole-v1: 600 env steps")
    assert rest and not any("held-out" in line or "generated" in line for line in rest)


def test_what_images_are_taken_for_is_said_as_training_starts(make_run: Make) -> None:
    progress = EnvStepProgress()
    progress.console = Console(file=io.StringIO(), width=200)
    trainer = {"enable_progress_bar": True}
    run = make_run(
        env=FacingMaze, callbacks=[progress], validate=False, trainer=trainer, env_steps=300
    )
    run.fit()
    _, said, _ = progress.console.file.getvalue().splitlines()
    assert said == "Observations are images 6×5×5, channels first."


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> EnvStepProgress:
    monkeypatch.setattr(EnvStepProgress, "REFRESH", 0.0)
    progress = EnvStepProgress()
    progress.console = Console(file=io.StringIO(), force_terminal=True, width=160)
    return progress


def test_in_a_terminal_a_bar_moves_over_env_steps(
    make_run: Make, terminal: EnvStepProgress
) -> None:
    run = make_run(callbacks=[terminal], trainer={"enable_progress_bar": True}).fit()
    written = terminal.console.file.getvalue()
    for env_steps in (240, 720, run.data.schedule.budget):
        assert f"{env_steps:,} / 1,200 env steps" in written
    assert "steps/s" in written and "success" in written
    assert terminal._bar is None


def test_a_crash_takes_the_bar_away(make_run: Make, terminal: EnvStepProgress) -> None:
    class Crash(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            assert terminal._bar is not None
            raise ZeroDivisionError

    run = make_run(callbacks=[terminal, Crash()], trainer={"enable_progress_bar": True})
    with pytest.raises(ZeroDivisionError):
        run.fit()
    assert terminal._bar is None
    assert terminal.console.file.getvalue().endswith("\x1b[?25h") or (
        "\x1b[?25h" in terminal.console.file.getvalue()  # the cursor is shown again
    )


def test_a_silent_process_prints_nothing(make_run: Make, terminal: EnvStepProgress) -> None:
    terminal.disable()
    make_run(callbacks=[terminal], trainer={"enable_progress_bar": True}).fit()
    assert terminal.console.file.getvalue() == ""


# Checkpoints


def test_the_checkpoint_is_plain_tensors_and_has_one_companion(finished: Finished) -> None:
    folder = finished.folder / "checkpoints"
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    (companion,) = companions(folder / "last.ckpt", saved)
    previous = folder / "previous.ckpt"
    (older,) = companions(previous, torch.load(previous, weights_only=True))
    files = [folder / "last.ckpt", companion, previous, older]
    assert sorted(folder.iterdir()) == sorted(files)
    collected = torch.load(companion, weights_only=True)
    run = finished.run
    assert saved["lit_crl"]["env_steps"] == run.data.schedule.budget
    assert saved["learner"]["updates"] == run.learner.updates
    assert all(
        torch.equal(saved["state_dict"][name], value) for name, value in run.weights().items()
    )
    replay, tried = run.data.replay, run.data.archive.tried
    written = int(replay.cursor.max()) * replay.num_envs
    assert written < len(replay.obs) and len(tried) < len(tried.levels)
    assert torch.equal(collected["replay"]["obs"], replay.obs[:written])
    rings = collected["archive"]["rings"]
    assert torch.equal(rings["tried.levels"], tried.levels[: len(tried)])
    assert read_checkpoint(folder / "last.ckpt").keys() == saved.keys()


def test_there_is_a_checkpoint_for_every_validation(make_run: Make, tmp_path: Path) -> None:
    seen: list[int] = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            for number, name in enumerate(NAMES[: len(seen) + 1]):
                saved = read_checkpoint(tmp_path / name)
                (companion,) = companions(tmp_path / name, saved)
                assert companion.is_file()
                if number == 0:
                    newest = saved["lit_crl"]["env_steps"]
                else:
                    assert saved["lit_crl"]["env_steps"] == seen[-1]
            seen.append(newest)
            assert len(list(tmp_path.iterdir())) == 2 * min(len(seen), 2)

    notes = Notes()
    make_run(callbacks=[notes, RunCheckpoint(tmp_path), Look()]).fit()
    assert seen == [env_steps for env_steps, _ in notes.validations] and len(seen) > 2
