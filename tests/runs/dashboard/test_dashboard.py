"""Dashboards: the files of W&B and TensorBoard after short runs, and the workspace."""

import itertools
import json
import shutil
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import drawing, learner_settings
from PIL import Image

from lit_crl import CreativeLearner
from lit_crl.core.checks import ConfigError, RunError
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.curriculum.archive import Archive
from lit_crl.envs import GymnasiumEnv, Maze
from lit_crl.runs.callbacks.report import FILM, RunReport
from lit_crl.runs.cli.main import CreativeCLI, main
from lit_crl.runs.dashboard import callback, command, workspace
from lit_crl.runs.dashboard.callback import MOMENTS, Dashboard
from lit_crl.runs.dashboard.overview import DRAWN, film_of, gallery, overview
from lit_crl.runs.dashboard.wandb_logger import WandbDisplay, earlier_segments
from lit_crl.runs.folders import conf_folder
from lit_crl.runs.study.jobs import jobs_of
from lit_crl.runs.study.plan import read_study
from lit_crl.training.schedule import Schedule
from lit_crl.training.settings import CollectSettings

#: Enough for GAN phases, two validations and the final test.
TINY = [
    "--experiment=mountain_car_levels",
    "--trainer.accelerator=cpu",
    "--data.collect.env_steps=3000",
    "--data.collect.num_envs=8",
    "--data.collect.warmup=500",
    "--data.replay.capacity=4000",
    "--data.replay.batch_size=16",
    "--data.replay.updates_per_batch=1",
    "--data.gan.batch_size=16",
    "--data.gan.updates=2",
    "--data.gan.every=4",
    "--data.curriculum.min_outcomes=2",
    "--data.curriculum.label_epsilon=1.0",
    "--data.evaluation.every=1500",
    "--data.evaluation.episodes=2",
    "--data.evaluation.test_episodes=3",
    "--data.evaluation.generated_levels=4",
    "--model.network.hidden=[16,16]",
    "--model.gan.hidden=[16,16]",
    "--data.env.max_episode_steps=60",
]
RUN = Path("runs/mountain_car_levels")
SOURCES = {"target", "reference", "archive", "gan"}


def records(path: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file: LevelDB's log format with a header, of W&B's protobuf.

    W&B's own Python reader is gone from its newer releases; the checksums show that this reads
    what was written.
    """
    from wandb.proto import wandb_internal_pb2

    content, at, whole = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        if (left := 32_768 - at % 32_768) < 7:  # the end of a block is padding
            at += left
            continue
        checksum, length, kind = struct.unpack("<IHB", content[at : at + 7])
        part = content[at + 7 : at + 7 + length]
        if len(part) < length:  # it is being written
            return
        assert checksum == zlib.crc32(bytes([kind]) + part)
        whole, at = whole + part, at + 7 + length
        if kind in (1, 4):  # in one piece, or its last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def items(rows: Any) -> dict[str, Any]:
    """Keys and values of a record of history, summary or config; nested keys with dots."""
    return {row.key or ".".join(row.nested_key): json.loads(row.value_json) for row in rows}


class Segment:
    """The data that W&B wrote for one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (path,) = folder.glob("run-*.wandb")
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        #: Files of each table that was logged, by their paths in it.
        self.tables: list[dict[str, str]] = []
        self.exit_code: int | None = None
        for record in records(path):
            match record.WhichOneof("record_type"):
                case "run":
                    self.run = record.run
                case "config":
                    self.config |= items(record.config.update)
                case "history":
                    self.history.append(items(record.history.item))
                case "summary":
                    self.summary |= items(record.summary.update)
                case "metric":
                    self.axes[record.metric.glob_name] = record.metric.step_metric
                case "artifact":
                    content = record.artifact.manifest.contents
                    self.tables.append({file.path: file.local_path for file in content})
                case "exit":
                    self.exit_code = record.exit.exit_code

    @property
    def keys(self) -> set[str]:
        """The logged keys, as W&B's panels name them."""
        parts = ("_type", "count", "path", "sha256", "size", "format", "width", "height", "values")
        names = {name for row in self.history for name in row}
        return {name.rpartition(".")[0] if name.endswith(parts) else name for name in names}


def segments(run: Path) -> list[Segment]:
    """The data of a run's segments; W&B writes them in a process of its own, and is waited for."""
    folders = sorted((run / "wandb").glob("offline-run-*"))
    for _ in range(200):
        found = [Segment(folder) for folder in folders]
        if all(segment.exit_code is not None for segment in found):
            return found
        time.sleep(0.1)
    raise TimeoutError(f"W&B has not ended {folders}")


def fit(*args: str) -> CreativeCLI:
    return main(["fit", *TINY, *args])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the same short run three times: with each dashboard, and without."""
    folder = tmp_path_factory.mktemp("dashboards")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_DATA_DIR", str(folder / "data"))
        fit("--name=csv")
        with drawing():
            fit("--name=wandb", "--logger=wandb", "--group=study", "--tags=[gan, car]")
        fit("--name=tensorboard", "--logger=tensorboard")
    return folder / RUN


@pytest.fixture(scope="module")
def logged(folder: Path) -> Segment:
    (segment,) = segments(folder / "wandb")
    return segment


@pytest.fixture
def copy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runs that may be changed; its folder is the working directory."""
    shutil.copytree(folder, tmp_path / RUN, symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / RUN


def test_a_dashboard_changes_nothing_in_a_run(folder: Path) -> None:
    expected = (folder / "csv" / "metrics.csv").read_bytes()
    assert (folder / "wandb" / "metrics.csv").read_bytes() == expected
    assert (folder / "tensorboard" / "metrics.csv").read_bytes() == expected


# Weights & Biases


def test_env_steps_are_the_axis_of_every_row(logged: Segment) -> None:
    assert logged.axes == {"": "", "*": "env_steps"}
    steps = [row["env_steps"] for row in logged.history]
    assert steps == sorted(steps)
    assert steps[-1] == 3000
    assert not any(key.startswith("trainer/") for key in logged.keys)


def test_rows_are_those_of_metrics_csv(folder: Path, logged: Segment) -> None:
    header = (folder / "csv" / "metrics.csv").read_text().split("\n")[0].split(",")
    assert set(header) <= logged.keys
    assert {key.split("/")[0] for key in header[1:]} == {
        "behaviour", "curriculum", "dqn", "evaluation", "gan"
    }  # fmt: skip


def test_speed_and_memory_are_logged(logged: Segment) -> None:
    rows = [row for row in logged.history if "system/seconds" in row]
    last = rows[-1]
    parts = {key: last[key] for key in last if key.startswith("system/seconds_")}
    assert {"system/seconds_dqn", "system/seconds_gan", "system/seconds_environments"} <= set(parts)
    assert sum(parts.values()) <= last["system/seconds"] + 0.1
    assert last["system/env_steps_per_second"] > 0
    assert 0.6 < last["system/replay_fill"] < 0.8  # 2,744 of 4,000 steps
    assert 0.1 < last["system/ram_gib"] < 16


def test_levels_are_shown_at_each_validation_with_what_became_of_them(logged: Segment) -> None:
    rows = [row for row in logged.history if "levels/gan._type" in row]
    assert [row["env_steps"] for row in rows] == [1976, 3000]
    media = logged.folder / "files"
    for source in SOURCES:
        assert rows[-1][f"levels/{source}.count"] == DRAWN
        files = rows[-1][f"levels/{source}.filenames"]
        assert all(np.asarray(Image.open(media / name)).std() > 5 for name in files)
        captions = rows[-1][f"levels/{source}.captions"]
        assert all(c.startswith("p̂ 0.") and "solved after" in c for c in captions)
        assert sum(rows[-1][f"p_hat/{source}.values"]) == 256
    for source in ("target", "gan"):
        with Image.open(media / rows[-1][f"episodes/{source}.path"]) as film:
            assert film.format == "GIF"
            assert getattr(film, "n_frames", 0) > 10


def test_the_table_of_levels_has_a_row_for_each(logged: Segment) -> None:
    row = [row for row in logged.history if "levels/table.path" in row][-1]
    assert row["levels/table.nrows"] == 4 * DRAWN
    files = logged.tables[-1]
    table = json.loads(Path(files["levels/table.table.json"]).read_text())
    rows = [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]
    assert [row["source"] for row in rows].count("gan") == DRAWN
    assert {row["source"] for row in rows} == SOURCES
    for row in rows:
        assert row["env_steps"] == 3000
        assert np.asarray(Image.open(files[row["level"]["path"]])).std() > 5
        assert row["success"] == (row["steps"] < 60)  # the time limit
        assert row["return"] == -row["steps"]
        assert 0 <= row["p_hat"] <= 1
        assert row["path_length"] is None


def test_the_configuration_and_where_it_comes_from(folder: Path, logged: Segment) -> None:
    resolved = yaml.safe_load((folder / "wandb" / "config.yaml").read_text())
    for key, value in resolved.items():
        assert logged.config[key] == value, key
    assert logged.config["run"] == "mountain_car_levels/wandb"
    assert logged.config["arm"] == "gan"
    assert logged.config["versions"]["torch"] == torch.__version__
    assert "git_commit" in logged.config


def test_the_summary_is_that_of_the_run(folder: Path, logged: Segment) -> None:
    summary = json.loads((folder / "wandb" / "summary.json").read_text())
    for key, value in summary.items():
        assert logged.summary[key] == value, key
    assert {"figures/learning_curve", "figures/generated_levels"} <= logged.keys
    assert logged.exit_code == 0


def test_the_run_can_be_found(logged: Segment) -> None:
    assert logged.run.display_name == "wandb"
    assert logged.run.run_group == "study"
    assert logged.run.job_type == "segment 1"
    assert list(logged.run.tags) == ["gan", "car"]
    assert logged.run.project == "lit_crl"


def test_an_offline_run_goes_on_as_another_segment_of_the_same_name(copy: Path) -> None:
    more = ["--name=wandb", "--ckpt_path=last", "--data.collect.env_steps=3600", "--group=study"]
    fit("--logger=wandb", *more)
    first, second = segments(copy / "wandb")
    assert first.run.run_id != second.run.run_id
    assert second.run.job_type == "segment 2"
    for field in ("display_name", "run_group", "project"):
        assert getattr(first.run, field) == getattr(second.run, field)
    assert all(row["env_steps"] > 3000 for row in second.history)
    written = json.loads((copy / "wandb" / "summary.json").read_text())
    assert second.summary["env_steps"] == written["env_steps"] > 3500


def test_an_online_run_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    for name in ("offline-run-20260101_000000-off1", "run-20260102_000000-on-1", "latest-run"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert earlier_segments(tmp_path) == (["on-1"], ["off1"])
    fresh, resumed = (WandbDisplay(tmp_path, "g", [], offline=False) for _ in range(2))
    resumed.resume(1000)
    assert fresh._wandb_init["id"] is None
    assert resumed._wandb_init["id"] == "on-1"
    assert resumed._wandb_init["resume"] == "allow"
    monkeypatch.setenv("WANDB_RUN_ID", "of-a-sweep")
    swept = WandbDisplay(tmp_path, "g", [], offline=False)
    swept.resume(1000)
    assert swept._wandb_init["id"] is None


def test_a_run_that_fails_ends_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    display = WandbDisplay(tmp_path, "g", [], offline=True)
    display.finalize("failed")  # before it began there is nothing to end
    assert not (tmp_path / "wandb").exists()
    display.begin({"a": 1})
    display.finalize("failed")
    (segment,) = segments(tmp_path)
    assert segment.exit_code == 1


def test_the_figures_and_the_film_of_a_world_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    picture = Image.new("RGB", (30, 20))
    for file in ("figures/dreams.png", "figures/world_error.png", str(FILM), "films/target.gif"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / file)
    report: Any = SimpleNamespace(summary={"env_steps": 3, "world_error_1": 0.5})
    shown = WandbDisplay(tmp_path, "g", [], offline=True)
    Dashboard(shown, report).conclude(tmp_path)
    (segment,) = segments(tmp_path)
    last = segment.history[-1]
    kinds = {key.split(".")[0]: last[key] for key in last if key.endswith("._type")}
    assert kinds == {
        "figures/dreams": "image-file",
        "figures/world_error": "image-file",
        "figures/dream_beside_reality": "video-file",
    }  # the films of an earlier `play` are not the run's
    assert last["env_steps"] == 3 and segment.summary["world_error_1"] == 0.5


def test_a_study_names_its_runs(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "{name: s, experiment: maze, seeds: 1, arms: {gan: {data.curriculum.arm: gan}}}"
    )
    (job,) = jobs_of(read_study(file), tmp_path)
    assert "--group=s" in job.arguments
    assert "--tags=[gan, maze]" in job.arguments


# TensorBoard


def test_tensorboard_shows_scalars_levels_and_the_configuration(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / "tensorboard")).Reload()
    header, *_ = (folder / "csv" / "metrics.csv").read_text().split("\n")
    scalars = events.Tags()["scalars"]
    assert set(header.split(",")[1:]) <= set(scalars)
    assert "env_steps" not in scalars
    assert [e.step for e in events.Scalars("evaluation/target_return_mean")] == [1976, 3000]
    summary = json.loads((folder / "tensorboard" / "summary.json").read_text())
    (final,) = events.Scalars("summary/target_return_mean")
    assert final.value == pytest.approx(summary["target_return_mean"])
    assert {f"levels/{source}" for source in SOURCES} == set(events.Tags()["images"])
    assert events.Images("levels/gan")[0].step == 1976
    assert {f"p_hat/{source}" for source in SOURCES} <= set(events.Tags()["histograms"])
    assert not list((folder / "tensorboard").rglob("hparams.yaml"))


def test_tensorboard_forgets_what_a_resumed_run_does_again(copy: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    more = ["--name=tensorboard", "--ckpt_path=last", "--data.collect.env_steps=4500"]
    fit("--logger=tensorboard", *more)
    events = EventAccumulator(str(copy / "tensorboard" / "tensorboard")).Reload()
    steps = [event.step for event in events.Scalars("dqn/loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] > 4000


def test_tensorboard_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lit_crl.runs.dashboard.tensorboard_logger.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'lit_crl\[tensorboard\]'"):
        fit("--logger=tensorboard")


# The overview


def glance(env: Any, make_env: Any, gan_updates: int = 1) -> tuple[CreativeLearner, Any]:
    """A learner that has not learned, and as much data as an overview needs."""
    torch.manual_seed(0)
    learner = CreativeLearner(**learner_settings(hidden=(8,), gan_hidden=(8,))).build(env)
    learner.gan_updates = gan_updates
    archive = None if env.level_space is None else Archive(env.level_space.shape[0])
    data = SimpleNamespace(env=env, make_env=make_env, archive=archive, seed=3, env_steps=100)
    return learner, data


def test_looking_draws_no_number_from_any_stream_of_training() -> None:
    env = Maze(2)
    learner, data = glance(env, Maze)
    z = learner.streams("z", env.device)
    before = (
        z.get_state(),
        torch.get_rng_state(),
        env.rng.get_state(),
        env.state.clone(),
        env.elapsed.clone(),
    )
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = (overview(learner, data) for _ in range(2))
    after = (z.get_state(), torch.get_rng_state(), env.rng.get_state(), env.state, env.elapsed)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert set(learner.streams.state_dict()) == {"z"}
    for source, views in first.views.items():
        assert [view.caption for view in views] == [view.caption for view in again.views[source]]


def test_a_maze_has_its_shortest_way_and_an_invalid_one_no_episode() -> None:
    learner, data = glance(Maze(2), Maze)
    shown = overview(learner, data)
    assert set(shown.views) == {"target", "reference", "gan"}  # the archive is empty
    for level in itertools.chain(*shown.views.values()):
        if level.recording is None:
            assert level.caption.endswith("invalid")
            assert level.path_length is None
        else:
            assert level.path_length is not None and level.path_length >= 1
            assert level.recording.success is (level.recording.steps < data.env.max_episode_steps)
            assert level.recording.steps >= level.path_length
    for levels in shown.views.values():
        p_hat = [level.p_hat for level in levels]
        assert p_hat == sorted(p_hat)  # from hard to easy


def test_without_a_gan_nothing_is_predicted() -> None:
    learner, data = glance(Maze(2), Maze, gan_updates=0)
    shown = overview(learner, data)
    assert set(shown.views) == {"target", "reference"}
    assert not shown.p_hat
    for level in itertools.chain(*shown.views.values()):
        assert level.p_hat is None and "p̂" not in level.caption


def test_an_environment_without_levels_shows_its_own_resets() -> None:
    pytest.importorskip("pygame")

    def make(num_envs: int, device: Any = "cpu", **kwargs: Any) -> GymnasiumEnv:
        return GymnasiumEnv(num_envs, device, id="CartPole-v1", **kwargs)

    shown = overview(*glance(make(2), make, gan_updates=0))
    ((source, (view,)),) = shown.views.items()
    assert source == "target" and view.picture.shape == (400, 600, 3)


def test_films_and_galleries_have_a_bounded_size() -> None:
    learner, data = glance(Maze(2), Maze)
    levels = overview(learner, data).views["target"]
    height, width, _ = levels[0].picture.shape
    picture = gallery(levels[:5])
    assert picture.shape[1] > 4 * width
    assert picture.shape[0] > 2 * height
    frames = film_of(levels[0].recording)  # type: ignore[arg-type]
    assert len(frames) <= 80
    assert np.array_equal(frames[0], levels[0].picture)


@pytest.mark.parametrize(("budget", "expected"), [(50_000, 5), (10_000_000, MOMENTS)])
def test_media_are_few_however_long_the_run(budget: int, expected: int) -> None:
    schedule = Schedule(CollectSettings(budget, 8, 0, 4), 16, 10_000)
    dashboard = Dashboard(None, None)  # type: ignore[arg-type]
    each, shown = schedule.batches_per_epoch, 0
    for batches in range(each, budget // schedule.steps_of_a_batch + 1, each):
        steps = batches * schedule.steps_of_a_batch
        data = SimpleNamespace(schedule=schedule, batches_done=batches, spent=steps)
        shown += dashboard._is_shown(data)
    assert expected - 1 <= shown <= expected + 1


def test_a_task_that_cannot_be_drawn_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    display: Any = SimpleNamespace(show=None)
    dashboard = Dashboard(display, RunReport(Path(), "x", ""))
    learner: Any = SimpleNamespace(clock=Stopwatch())
    schedule = SimpleNamespace(
        batches_per_epoch=1, budget=1, steps_of_a_batch=1, is_spent=lambda env_steps: True
    )
    data = SimpleNamespace(env=object(), env_steps=0, batches_done=1, schedule=schedule)
    state = SimpleNamespace(fn="fit")
    trainer: Any = SimpleNamespace(
        datamodule=data, state=state, sanity_checking=False, is_global_zero=True
    )
    monkeypatch.setattr(callback, "data_of", lambda trainer: data)
    monkeypatch.setattr(callback, "learner_of", lambda trainer: learner)
    for _ in range(2):
        dashboard.on_validation_end(trainer, learner)
    said = capsys.readouterr().out
    assert said.count("no levels and episodes: there are no pictures of object") == 1


# The workspace

PANEL_KEYS = {
    key for panels in workspace.SECTIONS.values() for keys in panels.values() for key in keys
}
#: Keys of runs with a world; test_world_panels.py looks at these.
OF_WORLDS = {key for keys in workspace.SECTIONS["World"].values() for key in keys}


def test_every_panel_shows_what_a_run_logs(logged: Segment) -> None:
    assert logged.keys >= PANEL_KEYS - OF_WORLDS
    for column in workspace.COLUMNS:
        kind, name = column.split(":")
        found = logged.config if kind == "config" else logged.summary
        assert name.removesuffix(".value") in found


def test_the_workspace_is_built_without_a_network() -> None:
    made = workspace.workspace("team", "lit_crl", "levels")
    assert (made.entity, made.project, made.name) == ("team", "lit_crl", "levels")
    assert made.settings.x_axis == "env_steps"
    assert [section.name for section in made.sections] == list(workspace.SECTIONS)
    spec = json.dumps(made._spec)
    assert all(json.dumps(key) in spec for key in PANEL_KEYS)
    panels = [panel for section in made.sections for panel in section.panels]
    kinds = Counter(type(panel).__name__ for panel in panels)
    assert kinds["MediaBrowser"] == 6 and kinds["WeavePanelSummaryTable"] == 1
    lines = [panel for panel in panels if type(panel).__name__ == "LinePlot"]
    assert len(lines) == len(panels) - 7 > 10
    assert {str(line.x) for line in lines} == {"env_steps"}


def refusal(capsys: pytest.CaptureFixture[str], status: int) -> str:
    with pytest.raises(SystemExit) as stop:
        command.main(["--entity", "team"])
    assert stop.value.code == status
    return capsys.readouterr().err.splitlines()[-1]


def test_saving_needs_a_package_and_a_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wandb.login", lambda **_: False)
    assert "run `wandb login`" in refusal(capsys, 2)
    monkeypatch.setattr(workspace, "find_spec", lambda _: None)
    assert "pip install 'lit_crl[workspaces]'" in refusal(capsys, 2)


def test_saving_without_a_network_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wandb_workspaces.workspaces import Workspace

    def unreachable(self: Workspace) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("wandb.login", lambda **_: True)
    monkeypatch.setattr(Workspace, "save", unreachable)
    with pytest.raises(RunError, match="no route to host"):
        workspace.save("team", "lit_crl", "x")
    assert "did not save the workspace of team/lit_crl" in refusal(capsys, 1)


# The sweep


def sweep_command(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """The command that W&B's agent executes, built by W&B's functions."""
    from wandb.sdk.launch.sweeps import utils

    given = {"args": {name: {"value": value} for name, value in values.items()}}
    found = utils.create_sweep_command_args(given) | {
        "env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]
    }  # fmt: skip
    words: list[str] = []
    for word in utils.create_sweep_command(list(sweep["command"])):
        is_macro = word.startswith("${") and word.endswith("}")
        words += found[word[2:-1]] if is_macro else [word]
    return words


@pytest.mark.slow
def test_the_sweep_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = yaml.safe_load((conf_folder() / "sweep.yaml").read_text())
    values = {
        name: of["values"][1] if "values" in of else (of["min"] * of["max"]) ** 0.5
        for name, of in sweep["parameters"].items()
    }
    assert {"model.gan.lambda_gan", "data.curriculum.mix"} < set(values)
    words = sweep_command(sweep, values)
    assert words[:5] == ["/usr/bin/env", "python", "-m", "lit_crl", "fit"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    main([*words[4:], *TINY[1:]])  # with its own experiment
    run = tmp_path / "runs" / "point_mass" / "seed1"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["gan"]["lambda_gan"] == values["model.gan.lambda_gan"]
    assert config["data"]["curriculum"]["mix"] == {"archive": 0.75, "gan": 0.25}
    for name in ("dqn.optimizer", "gan.generator_optimizer", "gan.discriminator_optimizer"):
        group, optimizer = name.split(".")
        rate = config["model"][group][optimizer]["init_args"]["lr"]
        assert rate == values[f"model.{name}.init_args.lr"]
    (segment,) = segments(run)
    assert sweep["metric"]["name"] in segment.summary
