"""Compares runs bit for bit: resumed and uninterrupted ones, of the same seed and of others.

A run is "everything": weights, optimizer states, counters, replay, archive, curriculum, running
episodes and random streams. The interrupted runs are killed between two checkpoints, so what
they did after the last one must be done again.
"""

import copy
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes import KillAt, Killed, interrupted, uninterrupted
from lightning.pytorch import Callback

from lit_crl.core.checks import ConfigError
from lit_crl.core.tensor_files import companion_name, companions, write_atomically
from lit_crl.curriculum.archive import Archive
from lit_crl.dqn.exploration import LinearEpsilon
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import GymnasiumEnv, Maze, PointMass
from lit_crl.runs.callbacks import (
    MetricsCsv,
    RecordMetrics,
    RunCheckpoint,
    RunReport,
)
from lit_crl.runs.checkpoints.experience import collected_state, load_collected_state
from lit_crl.training.renamed import RENAMED

Make = Callable[..., Any]
Difference = Callable[[Any, Any], str | None]


class StopAt(KillAt):
    """Asks the Trainer to stop after a number of batches, as early stopping would."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.datamodule.batches_done == self.batches:
            trainer.should_stop = True


class Validations(Callback):
    """Records the env steps of validations."""

    def __init__(self) -> None:
        self.at: list[int] = []

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self.at.append(trainer.datamodule.env_steps)


def point_mass(num_envs: int, device: torch.device) -> PointMass:
    return PointMass(num_envs, device, dim=2, max_episode_steps=20)


def gymnasium_cartpole(num_envs: int, device: torch.device) -> GymnasiumEnv:
    return GymnasiumEnv(num_envs, device, id="CartPole-v1", max_episode_steps=30)


def frozen_lake(num_envs: int, device: torch.device) -> GymnasiumEnv:
    return GymnasiumEnv(num_envs, device, id="FrozenLake-v1", max_episode_steps=30)


def minatar(num_envs: int, device: torch.device) -> GymnasiumEnv:
    pytest.importorskip("minatar", reason="its extra is minatar")
    return GymnasiumEnv(
        num_envs, device, id="minatar:MinAtar/Seaquest-v1", max_episode_steps=30, clip_rewards=0.5
    )


def minigrid(num_envs: int, device: torch.device) -> GymnasiumEnv:
    pytest.importorskip("minigrid", reason="its extra is minigrid")
    wrappers = [{"class_path": "minigrid.wrappers.ImgObsWrapper"}]
    id = "minigrid:MiniGrid-DoorKey-5x5-v0"
    return GymnasiumEnv(num_envs, device, id=id, max_episode_steps=30, wrappers=wrappers)


def minatar_states(num_envs: int, device: torch.device) -> GymnasiumEnv:
    pytest.importorskip("minatar", reason="its extra is minatar")
    return GymnasiumEnv(
        num_envs, device, id="minatar:MinAtar/Breakout-v1", max_episode_steps=30,
        success_return=1.0, visited_levels=60,
    )  # fmt: skip


def minigrid_states(num_envs: int, device: torch.device) -> GymnasiumEnv:
    pytest.importorskip("minigrid", reason="its extra is minigrid")
    return GymnasiumEnv(
        num_envs, device, id="minigrid:MiniGrid-DoorKey-5x5-v0", max_episode_steps=30,
        wrappers=[{"class_path": "minigrid.wrappers.ImgObsWrapper"}],
        success_return=0.1, visited_levels=60,
    )  # fmt: skip


def unsaveable_cartpole(num_envs: int, device: torch.device) -> GymnasiumEnv:
    env = gymnasium_cartpole(num_envs, device)
    env.resumable = False
    return env


RUNS: dict[str, dict[str, Any]] = {
    "the default gan arm": {},
    "hard target sync, dueling, plain DQN and a falling ε": {
        "learner": {
            "target_rate": 1.0, "target_period": 7, "dueling": True, "double_dqn": False,
            "gan_loss": "least_squares", "td_loss": "mse",
        },
        "exploration": LinearEpsilon(1.0, 0.1, 800), "reals": "labelled",
    },
    "goals relabelled in hindsight": {
        "env": point_mass, "hindsight": 0.8, "mix": {"gan": 1.0}, "reference_reals": 0.0,
        "novelty_exponent": 0.0,
    },
    "the archive arm, and a replay that has wrapped around": {
        "arm": "archive", "capacity": 400, "env_steps": 2_400,
        # At the checkpoint, episodes run whose ε was too large for their outcomes to count.
        "exploration": LinearEpsilon(1.0, 0.1, 840), "label_epsilon": 0.12,
    },
    "transitions drawn by priority": {"priority_exponent": 0.6, "capacity": 400},
    "CartPole behind the Gymnasium adapter": {
        "env": gymnasium_cartpole, "arm": "target",
    },
    "FrozenLake behind the Gymnasium adapter": {
        "env": frozen_lake, "arm": "target",
    },
    "MinAtar, convolutions on bits": {"env": minatar, "arm": "target"},
    "MiniGrid, convolutions on categories": {
        "env": minigrid, "arm": "target",
    },
    "a level GAN of MinAtar's visited states": {
        "env": minatar_states, "proposals": "projected", "label_epsilon": 0.5,
    },
    "MiniGrid's visited states from the archive": {
        "env": minigrid_states, "arm": "archive", "label_epsilon": 0.5,
    },
    "a level GAN of a few given mazes": {
        "env": partial(Maze, size=5, target="perfect"), "given": 6,
        "proposals": "redrawn", "mix": {"target": 0.5, "gan": 0.5},
        "gan": {
            "every": 4, "updates": 2, "batch_size": 32, "reals": "target", "reference_reals": 0.0,
            "symmetries": True, "noise": 0.02,
        },
    },
    "edits of a few given levels": {
        "arm": "edits", "given": [[-0.5, 0.0], [-0.4, 0.01]], "gan_updates": 1,
        "mix": {"target": 0.5, "archive": 0.5},
    },
    "validation between two GAN phases": {"validate_every": 200, "gan_every": 8, "gan_updates": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def make_run(make_run: Make) -> Make:
    """Runs of few updates and short validations: no test here looks at what they learn."""
    short = {
        "updates_per_batch": 1, "gan_updates": 1, "validation_episodes": 1, "generated_levels": 1,
    }  # fmt: skip
    return lambda **given: make_run(**{**short, **given})


@dataclass
class Whole:
    """The default run, which nothing interrupted."""

    run: Any
    #: Everything at its end.
    everything: Any
    #: Env steps of its validations.
    validated: list[int]
    #: What it left at its end, and what it would have left if it had been killed.
    finished: Path
    killed: Path


@pytest.fixture(scope="module")
def default(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The default run; it would have been killed after its 25th batch."""
    notes, folder = Validations(), tmp_path_factory.mktemp("default")
    run, checkpoint = uninterrupted(make_run, folder, 25, callbacks=[notes])
    assert run.data.env_steps == run.data.schedule.budget and run.learner.gan_updates > 4
    return Whole(run, run.everything(), notes.at, folder / "whole", checkpoint.parent)


@pytest.fixture(scope="module")
def whole(default: Whole) -> Any:
    """Everything at the end of the default run."""
    return default.everything


@pytest.fixture(scope="module")
def killed(default: Whole) -> Path:
    """What the default run leaves if it is killed after its 25th batch."""
    return default.killed


@pytest.fixture
def checkpoint(killed: Path, tmp_path: Path) -> Path:
    """The checkpoint of a copy of it, which may be changed."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    return tmp_path / "last.ckpt"


@pytest.fixture
def finished(default: Whole, tmp_path: Path) -> Path:
    """A copy of what the default run left, which may be changed."""
    shutil.copytree(default.finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def killed_within(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a checkpoint after every batch."""
    folder = tmp_path_factory.mktemp("killed_within")
    with pytest.raises(Killed):
        make_run(callbacks=[RunCheckpoint(folder, every_env_steps=1), KillAt(25)]).fit()
    return folder


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS.keys())
def test_a_resumed_run_equals_the_uninterrupted_one(
    make_run: Make, difference: Difference, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole, checkpoint = uninterrupted(make_run, tmp_path, 25, **settings)
    resumed = make_run(callbacks=[RunCheckpoint(checkpoint.parent)], **settings)
    # The global stream of a new process must not matter.
    torch.manual_seed(99)
    resumed.fit(checkpoint)
    assert difference(whole.everything(), resumed.everything()) is None
    assert resumed.data.env_steps == resumed.data.schedule.budget
    assert (whole.learner.gan_updates > 4) == (settings.get("arm") not in ("target", "edits"))


# Within an epoch, at its end, at a GAN phase, after one, and at the end of a later epoch.
@pytest.mark.parametrize(
    "batches",
    [9, pytest.param(10, marks=pytest.mark.slow), 12, pytest.param(13, marks=pytest.mark.slow), 20],
)
def test_a_run_killed_after_any_batch_resumes_from_within_its_epoch(
    make_run: Make, difference: Difference, default: Whole, tmp_path: Path, batches: int
) -> None:
    class Dies(RunCheckpoint):
        def save_within_epoch(self, trainer: Any) -> None:
            super().save_within_epoch(trainer)
            if trainer.datamodule.batches_done == batches:
                raise Killed

    run = make_run(callbacks=[Dies(tmp_path, every_env_steps=1), KillAt(batches)])
    with pytest.raises(Killed):
        run.fit()
    within = batches % run.data.schedule.batches_per_epoch
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["lit_crl"]["env_steps"]
    lost = run.data.env_steps - saved
    assert lost == (0 if within else run.data.schedule.steps_of_a_batch)
    notes = Validations()
    resumed = make_run(callbacks=[RunCheckpoint(tmp_path), notes]).fit(tmp_path / "last.ckpt")
    assert difference(default.everything, resumed.everything()) is None
    assert notes.at == [at for at in default.validated if at > saved] and len(notes.at) >= 2


def test_a_run_killed_after_its_last_batch_still_ends_in_a_validation(
    make_run: Make, difference: Difference, default: Whole, tmp_path: Path
) -> None:
    last = default.run.data.batches_done
    assert last % default.run.data.schedule.batches_per_epoch  # the budget ends within an epoch
    with pytest.raises(Killed):
        make_run(callbacks=[RunCheckpoint(tmp_path, every_env_steps=1), KillAt(last)]).fit()
    again = Validations()
    resumed = make_run(callbacks=[RunCheckpoint(tmp_path), again]).fit(tmp_path / "last.ckpt")
    assert again.at == [default.validated[-1]]
    assert difference(default.everything, resumed.everything()) is None


def test_a_run_that_is_resumed_twice_equals_the_uninterrupted_one(
    make_run: Make, difference: Difference, whole: Any, tmp_path: Path
) -> None:
    interrupted(make_run, tmp_path, 15)
    again = make_run(callbacks=[RunCheckpoint(tmp_path), KillAt(27)])
    with pytest.raises(Killed):
        again.fit(tmp_path / "last.ckpt")
    last = make_run(callbacks=[RunCheckpoint(tmp_path)]).fit(tmp_path / "last.ckpt")
    assert difference(whole, last.everything()) is None


@pytest.mark.parametrize("torso", [pytest.param("plain", marks=pytest.mark.slow), "minatar"])
def test_a_convolutional_run_that_is_killed_nine_times_equals_the_uninterrupted_one(
    make_run: Make, difference: Difference, tmp_path: Path, torso: str
) -> None:
    learner = {"network": {"hidden": (16,), "torso": torso}}
    settings = {"env": minatar, "arm": "target", "learner": learner, "capacity": 640}
    whole = make_run(**settings).fit()
    checkpoint = interrupted(make_run, tmp_path, 15, **settings)
    last = whole.data.batches_done
    for batches in (17, 18, 20, 21, 24, 25, 27, last):
        again = make_run(
            callbacks=[RunCheckpoint(tmp_path, every_env_steps=50), KillAt(batches)], **settings
        )
        with pytest.raises(Killed):
            again.fit(checkpoint)
    resumed = make_run(callbacks=[RunCheckpoint(tmp_path)], **settings).fit(checkpoint)
    assert difference(whole.everything(), resumed.everything()) is None
    assert resumed.learner.updates > 20


def test_a_run_that_was_stopped_within_an_epoch_goes_on_to_the_same_end(
    make_run: Make, difference: Difference, whole: Any, tmp_path: Path
) -> None:
    stopped = make_run(callbacks=[RunCheckpoint(tmp_path), StopAt(16)]).fit()
    assert stopped.data.batches_done == 16 and 16 % stopped.data.schedule.batches_per_epoch
    resumed = make_run(callbacks=[RunCheckpoint(tmp_path)]).fit(tmp_path / "last.ckpt")
    assert difference(whole, resumed.everything()) is None


def test_metrics_snapshots_and_counts_continue_without_a_seam(
    make_run: Make, difference: Difference, tmp_path: Path
) -> None:
    def watched(folder: Path, *more: Callback) -> tuple[Any, MetricsCsv, RecordMetrics, RunReport]:
        folder.mkdir(exist_ok=True)
        rows, record = MetricsCsv(folder), RecordMetrics()
        report = RunReport(folder, "tiny", "seed_everything: 0\n")
        callbacks = [record, report, RunCheckpoint(folder), *more]
        trainer = {"logger": rows, "log_every_n_steps": 3}
        # GAN phases are rarer than rows, which repeat the last phase's losses.
        run = make_run(callbacks=callbacks, trainer=trainer, gan_every=8)
        return run, rows, record, report

    whole, whole_rows, whole_record, whole_report = watched(tmp_path / "whole")
    whole.fit()
    killed, *_ = watched(tmp_path / "parts", KillAt(25))
    with pytest.raises(Killed):
        killed.fit()
    resumed, rows, record, report = watched(tmp_path / "parts")
    saved = torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)
    rows.resume(saved["lit_crl"]["env_steps"])
    resumed.fit(tmp_path / "parts" / "last.ckpt")

    as_floats = [{key: float(value) for key, value in row.items()} for row in rows.rows]
    assert as_floats == whole_rows.rows
    assert (tmp_path / "parts/metrics.csv").read_text() == (
        tmp_path / "whole/metrics.csv"
    ).read_text()
    assert len(whole_record.snapshots) > 2
    assert difference(whole_record.snapshots, record.snapshots) is None
    assert report.evaluation_env_steps == whole_report.evaluation_env_steps > 0
    assert report.wall_seconds > saved["callbacks"]["RunReport"]["wall_seconds"] > 0


def test_resuming_a_finished_run_changes_nothing(
    make_run: Make, difference: Difference, whole: Any, finished: Path, tmp_path: Path
) -> None:
    again = make_run(callbacks=[RunCheckpoint(tmp_path)]).fit(finished / "last.ckpt")
    assert difference(whole, again.everything()) is None


def test_a_finished_run_goes_on_under_a_larger_budget(
    make_run: Make, default: Whole, finished: Path, tmp_path: Path
) -> None:
    first = default.run
    longer = make_run(
        callbacks=[RunCheckpoint(tmp_path)], env_steps=first.data.schedule.budget + 640
    )
    longer.fit(finished / "last.ckpt")
    assert longer.data.env_steps == first.data.schedule.budget + 640
    assert longer.learner.updates == first.learner.updates + 640 // 32


def test_the_learning_rate_of_the_configuration_beats_the_checkpoint(
    make_run: Make, tmp_path: Path
) -> None:
    def adam(lr: float) -> dict[str, Any]:
        return {"q_optimizer": lambda params: torch.optim.Adam(params, lr=lr), "final_lr": 0.5}

    checkpoint = interrupted(make_run, tmp_path, 25, learner=adam(1e-3))
    resumed = make_run(callbacks=[RunCheckpoint(tmp_path)], learner=adam(1e-4)).fit(checkpoint)
    assert resumed.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5e-4)


def optimizer(kind: str, name: str = "q_optimizer", **settings: Any) -> dict[str, Any]:
    return {name: partial(getattr(torch.optim, kind), **{"lr": 1e-3, **settings})}


def test_other_settings_of_the_gans_optimizers_beat_the_checkpoint(
    make_run: Make, checkpoint: Path, tmp_path: Path
) -> None:
    changed = optimizer("Adam", "generator_optimizer", lr=3e-6, betas=(0.5, 0.9))
    run = make_run(callbacks=[RunCheckpoint(tmp_path)], learner=changed).fit(checkpoint)
    discriminator, generator = (o.param_groups[0] for o in run.trainer.optimizers[1:])
    assert (generator["lr"], generator["betas"]) == (3e-6, (0.5, 0.9))
    assert (discriminator["lr"], discriminator["betas"]) == (5e-4, (0.0, 0.99))


@pytest.mark.parametrize(
    ("before", "after", "works"),
    [
        (optimizer("Adam"), optimizer("AdamW", weight_decay=0.1), True),  # the same moments
        (optimizer("Adam"), optimizer("SGD"), False),
        pytest.param(optimizer("Adam"), optimizer("NAdam"), False, marks=pytest.mark.slow),
        (optimizer("Adam"), optimizer("Adam", amsgrad=True), False),
        (optimizer("RMSprop"), optimizer("RMSprop", momentum=0.9), False),
        pytest.param(
            optimizer("SGD", momentum=0.9), optimizer("Adam"), False, marks=pytest.mark.slow
        ),
        (
            optimizer("Adam", "discriminator_optimizer"),
            optimizer("SGD", "discriminator_optimizer"),
            False,
        ),
    ],
    ids=lambda given: "" if isinstance(given, bool) else f"{next(iter(given.values()))!r:.70}",
)
def test_another_optimizer_goes_on_with_the_same_moments_or_is_refused(
    make_run: Make, tmp_path: Path, before: Any, after: Any, works: bool
) -> None:
    checkpoint = interrupted(make_run, tmp_path, 25, learner=before)
    run = make_run(callbacks=[RunCheckpoint(tmp_path)], learner=after)
    if works:
        run.fit(checkpoint)
        assert run.trainer.optimizers[0].param_groups[0]["weight_decay"] == 0.1
        assert run.data.env_steps == run.data.schedule.budget
        return
    (name,) = after
    sentence = rf"{re.escape(RENAMED[f'model.{name}'])} is now \w+, which cannot go on"
    with pytest.raises(ConfigError, match=sentence) as refusal:
        run.fit(checkpoint)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changed", "was"),
    [
        ({"gamma": 0.9}, r"data\.collect\.gamma was 0\.99 and is now 0\.9"),
        ({"seed": 7}, "seed_everything was 0 and is now 7"),
        ({"arm": "archive"}, r"data\.curriculum\.arm was gan and is now archive"),
        ({"num_envs": 4}, r"data\.collect\.num_envs was 8 and is now 4"),
        ({"n_steps": 1}, r"data\.replay\.n_steps was 3 and is now 1"),
        ({"env": point_mass, "hindsight": 0.0}, r"data\.env was ShortCar and is now PointMass"),
    ],
    ids=lambda given: ", ".join(given) if isinstance(given, dict) else "",
)
def test_what_was_collected_under_other_settings_is_refused(
    make_run: Make, killed: Path, tmp_path: Path, changed: dict[str, Any], was: str
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    checkpoint = tmp_path / "last.ckpt"
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    run = make_run(callbacks=[RunCheckpoint(tmp_path)], **{"env_steps": 2_000, **changed})
    sentence = "other networks|does not fit: " if "env" in changed else was
    with pytest.raises(ConfigError, match=sentence) as refusal:
        run.fit(checkpoint)
    assert "\n" not in str(refusal.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 8, "updates_per_batch": 5},
        {"steps_per_batch": 2, "gan_every": 3},
        pytest.param({"validate_every": 64}, marks=pytest.mark.slow),
        {"validate_every": 10_000},
        pytest.param({"gan_updates": 5, "gan_batch_size": 8}, marks=pytest.mark.slow),
        {"exploration": LinearEpsilon(1.0, 0.1, 800), "label_epsilon": 0.5},
        {"warmup": 800},
    ],
    ids=lambda changed: ", ".join(changed),
)
@pytest.mark.parametrize(
    "within",
    [
        pytest.param(False, marks=pytest.mark.slow, id="epoch's end"),
        pytest.param(True, id="within"),
    ],
)
def test_how_the_rest_is_trained_can_be_changed(
    make_run: Make,
    killed: Path,
    killed_within: Path,
    tmp_path: Path,
    changed: dict[str, Any],
    within: bool,
) -> None:
    shutil.copytree(killed_within if within else killed, tmp_path, dirs_exist_ok=True)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    run = make_run(callbacks=[RunCheckpoint(tmp_path)], **{"env_steps": 2_400, **changed})
    notes = Validations()
    run.trainer.callbacks.append(notes)
    run.fit(tmp_path / "last.ckpt")
    assert run.data.schedule.is_spent(run.data.env_steps) and run.data.env_steps <= 2_400
    left = run.data.env_steps - max(saved["lit_crl"]["env_steps"], changed.get("warmup", 0))
    batches = left // run.data.schedule.steps_of_a_batch
    per_batch = changed.get("updates_per_batch", 1)
    assert run.learner.updates == saved["learner"]["updates"] + batches * per_batch
    assert run.learner.gan_updates > saved["learner"]["gan_updates"]
    every = run.data.schedule.batches_per_epoch * run.data.schedule.steps_of_a_batch
    gaps = {later - earlier for earlier, later in pairwise(notes.at)}
    assert max(gaps, default=0) <= max(every, run.data.schedule.warmup)


def test_without_its_experience_a_checkpoint_is_tested_but_not_resumed(
    make_run: Make, tmp_path: Path
) -> None:
    """``Trainer.save_checkpoint`` and stock callbacks save no experience."""
    first = make_run().fit()
    path = tmp_path / "plain.ckpt"
    first.trainer.save_checkpoint(path)
    for callbacks in ([], [RunCheckpoint(tmp_path / "own")]):
        run = make_run(callbacks=callbacks, env_steps=2_400)
        with pytest.raises(ConfigError, match="RunCheckpoint") as refusal:
            run.fit(path)
        assert "\n" not in str(refusal.value)
        assert run.learner.updates == first.learner.updates  # nothing was trained
        tested = make_run(callbacks=callbacks)
        tested.trainer.test(
            tested.learner, datamodule=tested.data, ckpt_path=str(path), verbose=False
        )
    # The first objects still have their experience and may continue.
    first.data.schedule.budget += 640
    first.fit(path)
    assert first.data.env_steps == first.data.schedule.budget == 1_840


def test_weights_alone_are_refused(make_run: Make, default: Whole, tmp_path: Path) -> None:
    default.run.trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    with pytest.raises(ConfigError, match="has weights alone"):
        make_run().fit(tmp_path / "weights.ckpt")


def test_what_an_earlier_version_collected_is_refused(
    make_run: Make, checkpoint: Path, tmp_path: Path
) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    saved["lit_crl"]["format"] = 1
    torch.save(saved, checkpoint)
    run = make_run(callbacks=[RunCheckpoint(tmp_path)])
    with pytest.raises(ConfigError, match="an earlier version of lit_crl has collected"):
        run.fit(checkpoint)


@pytest.mark.parametrize("processes", [2, 3])
def test_another_number_of_processes_is_refused(
    make_run: Make, checkpoint: Path, tmp_path: Path, processes: int
) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    saved["lit_crl"]["world_size"] = processes
    torch.save(saved, checkpoint)
    run = make_run(callbacks=[RunCheckpoint(tmp_path)])
    sentence = rf"saved by {processes} processes, but this run has 1, .*devices {processes}$"
    with pytest.raises(ConfigError, match=sentence):
        run.fit(checkpoint)
    tested = make_run(callbacks=[RunCheckpoint(tmp_path)])
    tested.trainer.test(tested.learner, datamodule=tested.data, ckpt_path=checkpoint, verbose=False)


def test_a_second_fit_says_that_nothing_is_left(
    make_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run().fit()
    updates = run.learner.updates
    assert "Nothing is left" not in capsys.readouterr().out
    run.fit()
    assert run.learner.updates == updates
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "Nothing is left" in line]
    assert "1,200 env steps were taken" in said and "(data.collect.env_steps) is 1,200" in said


def test_companions_without_a_checkpoint_are_removed(
    make_run: Make, checkpoint: Path, tmp_path: Path
) -> None:
    token = torch.load(checkpoint, weights_only=True)["lit_crl"]["token"]
    orphans = [
        "collected-000000000999-0badc0de-rank0.pt",  # killed before its checkpoint
        "collected-000000000999-0badc0de-rank0.pt.partial",  # killed while it was written
        f"collected-000000000999-{token}-rank0.pt.partial",
    ]
    foreign = [tmp_path / "collected-by-hand.pt", tmp_path / "notes.txt"]
    for path in [*(tmp_path / name for name in orphans), *foreign]:
        path.write_bytes(b"x")
    make_run(callbacks=[RunCheckpoint(tmp_path)]).fit(checkpoint)
    kept = {tmp_path / name for name in ("last.ckpt", "previous.ckpt")}
    for path in sorted(kept):
        kept |= set(companions(path, torch.load(path, weights_only=True)))
    assert set(tmp_path.iterdir()) == kept | set(foreign)


def test_what_is_loaded_goes_to_the_device_of_its_owner(make_run: Make) -> None:
    """The device is a fake one, and files are read to the CPU."""
    run = make_run().fit()
    queue = {"levels": torch.ones(2, 2), "source": torch.ones(2, dtype=torch.int64)}
    state = {**run.data.curriculum.state_dict(), **queue}

    class Source:
        state: Any = None

        def __call__(self, n: int, *_: Any) -> Any:
            raise NotImplementedError

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.state = state

    curriculum, archive = run.data.curriculum, Archive(2, tried=256, visited=512, device="meta")
    curriculum.custom = Source()
    curriculum._levels = curriculum._levels.to("meta")
    curriculum.load_state_dict({**state, "own": {"kept": [torch.ones(2)], "n": 3}})
    assert curriculum._levels.is_meta and curriculum._source.is_meta
    assert curriculum.custom.state["kept"][0].is_meta and curriculum.custom.state["n"] == 3
    found = run.data.archive.state_dict()
    archive.load_state_dict({**found, "new": [[torch.ones(3, 2), torch.ones(3)]]})
    assert all(tensor.is_meta for tensor in archive._new[0])
    replay = ReplayBuffer(
        2_000, 8, run.data.env.single_observation_space, n_steps=3, num_actions=3, device="meta"
    )
    replay.load_state_dict(run.data.replay.state_dict())
    assert all(tensor.is_meta for tensor in replay._tensors().values())
    collected = copy.deepcopy(collected_state(run.data, run.learner))
    collected["losses"] = {"sums": {"dqn/loss": torch.ones(())}, "counts": {"dqn/loss": 1}}
    collected["curriculum"]["own"] = {}
    run.learner.to("meta")
    load_collected_state(run.data, run.learner, collected)
    assert run.learner.losses._sums["dqn/loss"].is_meta


def test_an_environment_that_cannot_be_saved_starts_new_episodes(
    make_run: Make, difference: Difference, tmp_path: Path
) -> None:
    settings = {"env": unsaveable_cartpole, "arm": "target"}
    checkpoint = interrupted(make_run, tmp_path, 25, **settings)
    saved = torch.load(checkpoint, weights_only=True)["lit_crl"]
    collected = torch.load(tmp_path / companion_name(saved, 0), weights_only=True)
    boundaries = collected["replay"]["boundary"].sum()
    done = collected["rollout"]["done"]

    restore = RunCheckpoint(tmp_path / "elsewhere")
    first, second = (make_run(**settings, callbacks=[restore]).fit(checkpoint) for _ in range(2))
    assert first.data.env_steps == first.data.schedule.budget
    assert difference(first.everything(), second.everything()) is None

    restored = make_run(**settings)
    restored.data.setup("fit")
    load_collected_state(restored.data, restored.learner, collected)
    # A boundary cuts off every running episode.
    assert restored.data.replay.boundary.sum() == boundaries + (~done).sum()
    assert torch.equal(restored.data.rollout.obs, restored.data.env.current_observations())
    assert not restored.data.rollout.done.any() and not restored.data.rollout.episode_return.any()


def test_a_missing_companion_stops_the_resume_but_not_the_test(
    make_run: Make, checkpoint: Path, tmp_path: Path
) -> None:
    (companion,) = companions(checkpoint, torch.load(checkpoint, weights_only=True))
    companion.unlink()
    with pytest.raises(ConfigError, match=f"tested but not resumed.*{companion.name}"):
        make_run(callbacks=[RunCheckpoint(tmp_path)]).fit(checkpoint)
    run = make_run(callbacks=[RunCheckpoint(tmp_path)])
    run.trainer.test(run.learner, datamodule=run.data, ckpt_path=str(checkpoint), verbose=False)
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], value) for name, value in run.weights().items())


@pytest.mark.parametrize(
    "other",
    [
        {"num_envs": 4},
        {"capacity": 1_000},
        {"tried": 128},
        {"visited": 128},
        {"arm": "target", "env": gymnasium_cartpole},
    ],
    ids=lambda other: ", ".join(other),
)
def test_a_companion_of_another_shape_is_refused(
    make_run: Make, checkpoint: Path, tmp_path: Path, other: dict[str, Any]
) -> None:
    saved = torch.load(checkpoint, weights_only=True)["lit_crl"]
    collected = torch.load(tmp_path / companion_name(saved, 0), weights_only=True)
    run = make_run(**other)
    run.data.setup("fit")
    with pytest.raises(ConfigError, match="does not fit"):
        load_collected_state(run.data, run.learner, collected)


def test_a_refused_companion_ends_the_fit_in_a_config_error(
    make_run: Make, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        make_run(callbacks=[RunCheckpoint(tmp_path)], num_envs=4).fit(checkpoint)


@pytest.mark.parametrize("kill", [1, 2], ids=["before the companion", "before the checkpoint"])
def test_a_crash_while_saving_leaves_a_run_that_resumes(
    make_run: Make,
    difference: Difference,
    whole: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill: int,
) -> None:
    writes = iter(range(1, 100))

    def failing(content: Any, path: Path, **keep: Any) -> None:
        if next(writes) == 2 + kill:  # the first save writes two files
            raise Killed
        write_atomically(content, path, **keep)

    monkeypatch.setattr("lit_crl.runs.checkpoints.callback.write_atomically", failing)
    with pytest.raises(Killed):
        make_run(callbacks=[RunCheckpoint(tmp_path)]).fit()
    monkeypatch.undo()
    resumed = make_run(callbacks=[RunCheckpoint(tmp_path)]).fit(tmp_path / "last.ckpt")
    assert difference(whole, resumed.everything()) is None
    assert len(list(tmp_path.glob("collected-*"))) == 2  # the orphan is gone


def test_the_same_seed_gives_the_same_run(
    make_run: Make, difference: Difference, whole: Any
) -> None:
    assert difference(whole, make_run().fit().everything()) is None


def test_another_seed_gives_another_run(make_run: Make, whole: Any) -> None:
    other = make_run(seed=4).fit().everything()
    for name, weights in whole["weights"].items():
        assert not torch.equal(weights, other["weights"][name]), name
    for name in ("obs", "action"):
        assert not torch.equal(whole["data"]["replay"][name], other["data"]["replay"][name]), name
    rings = (everything["data"]["archive"]["rings"] for everything in (whole, other))
    assert not torch.equal(*(ring["tried.levels"] for ring in rings))


def test_every_stream_of_the_data_follows_its_seed(make_run: Make) -> None:
    def streams(seed: int) -> list[torch.Tensor]:
        data = make_run(seed=seed).data
        data.setup("fit")
        generators = (data.rng, data.curriculum.rng, data.env.rng)
        return [data.rollout.obs, *(rng.get_state() for rng in generators)]

    for first, same, other in zip(streams(3), streams(3), streams(4), strict=True):
        assert torch.equal(first, same) and not torch.equal(first, other)


def test_collected_state_can_be_put_back_and_gives_itself(
    make_run: Make, difference: Difference, whole: Any
) -> None:
    state = copy.deepcopy(whole["data"])
    other = make_run(seed=1)
    other.data.setup("fit")
    load_collected_state(other.data, other.learner, state)
    assert difference(state, collected_state(other.data, other.learner)) is None
