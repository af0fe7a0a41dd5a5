"""The command line: every experiment runs, and a run's files rerun and resume it."""

import contextlib
import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import EXTRAS
from jsonargparse import ArgumentError
from omegaconf import OmegaConf
from PIL import Image

import lit_crl
from lit_crl.core.checks import ConfigError
from lit_crl.envs import Acrobot, CartPole
from lit_crl.runs.cli.arguments import complete
from lit_crl.runs.cli.main import CreativeCLI, main
from lit_crl.runs.folders import conf_folder, experiments
from lit_crl.runs.study.plan import read_study

#: Enough for a warm-up, some batches, a GAN phase, a validation and the final test.
TINY = [
    "--trainer.accelerator=cpu",
    "--data.collect.env_steps=800",
    "--data.collect.num_envs=8",
    "--data.collect.warmup=200",
    "--data.replay.capacity=4000",
    "--data.replay.batch_size=16",
    "--data.replay.updates_per_batch=1",
    "--data.gan.batch_size=16",
    "--data.gan.every=4",
    "--data.curriculum.min_outcomes=2",
    "--data.curriculum.label_epsilon=1.0",
    "--data.evaluation.every=400",
    "--data.evaluation.episodes=2",
    "--data.evaluation.test_episodes=2",
    "--data.evaluation.generated_levels=4",
    "--model.network.hidden=[16,16]",
    "--model.gan.hidden=[16,16]",
]
#: A world that has learnt and dreamt within such a run; without model.world.loss nothing uses it.
WORLD = [
    "--data.collect.steps_per_batch=4",
    "--data.world.every=300",
    "--data.world.updates=2",
    "--data.world.first_updates=2",
    "--data.world.batch_size=16",
    "--data.world.dreams=8",
    "--data.world.horizon=4",
    "--data.world.error_bound=100",
    "--model.world.hidden=[16]",
    "--model.world.members=2",
]
#: For tests that do not look at what a run learns or measures.
QUICK = [
    "--data.collect.env_steps=320",
    "--data.collect.warmup=200",
    "--trainer.limit_val_batches=0",
    "--data.evaluation.test_episodes=1",
]
#: A curriculum of levels, in episodes that end soon.
SHORT = "--data.env.max_episode_steps=30"
LEVELS = ["--experiment=mountain_car_levels", "--data.gan.updates=2", SHORT]

#: Settings of the run that several tests share, beside the tiny ones.
ORIGINAL = [*LEVELS, "--model.gan.lambda_gan=3", "--seed_everything=5"]

Run = Callable[..., CreativeCLI]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> CreativeCLI:
        return main(list(args))

    return run


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[CreativeCLI, Path]:
    """A finished run of the name ``a``, and the folder in which it was started."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        return main(["fit", "--name", "a", *ORIGINAL, *TINY]), folder


@pytest.fixture
def finished(run: Run, original: tuple[CreativeCLI, Path]) -> CreativeCLI:
    """The finished run, whose files lie in the test's own folder and may be changed."""
    cli, folder = original
    shutil.copytree(folder / "runs", "runs", symlinks=True)
    return cli


def weights(cli: CreativeCLI) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in cli.model.state_dict().items()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


#: What a run draws takes as long as a short run itself. These draw all kinds of it: levels as
#: pictures, levels as points of each task's own plane, a world's dreams, and no levels.
DRAW = ("maze", "acrobot_physics", "gusty_pass", "mountain_car", "point_mass", "spiral_levels",
        "thin_manifold", "few_poses", "gymnasium")  # fmt: skip


@pytest.mark.parametrize("experiment", sorted({*experiments()} - {"from_log"}))
def test_every_experiment_trains_tests_and_reports(
    experiment: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if experiment in DRAW:
        request.getfixturevalue("drawn")
    if experiment in EXTRAS:
        extra, module = EXTRAS[experiment]
        pytest.importorskip(module, reason=f"its extra is {extra}")
    file = OmegaConf.load(conf_folder() / "experiment" / f"{experiment}.yaml")
    has_world = OmegaConf.select(file, "model.world.loss") not in (None, "none")
    arm, updates = (OmegaConf.select(file, f"data.{x}") for x in ("curriculum.arm", "gan.updates"))
    trains_gan = arm != "target" and updates != 0
    gan = ["--data.gan.updates=2"] if trains_gan else []
    for long in (Acrobot, CartPole):
        monkeypatch.setattr(long, "max_episode_steps", 30)
    steps = 400 if experiment == "atari" else 800  # there an env step takes milliseconds
    budget = [f"--data.collect.env_steps={steps}", f"--data.evaluation.every={steps // 2}"]
    if not experiment.startswith(("acrobot", "cartpole", "gusty_pass", "maze", "facing_maze")):
        budget += [SHORT]
    if experiment == "atari":
        budget += ["--data.evaluation.share=0.2", "--data.collect.num_envs=4"]
    if has_world:
        budget += [*WORLD, "--data.evaluation.share=1"]
    if "maze" in experiment:  # plays hundreds of held-out mazes: small ones, and at the end alone
        budget += [f"--data.evaluation.every={steps}", "--data.env.init_args.size=5"]
    if experiment == "maze":
        budget += ["--model.network.planning_steps=5"]
    run("fit", "--experiment", experiment, "--name", "x", *TINY, *gan, *budget)

    folder = Path("runs") / experiment / "x"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["experiment"] == experiment
    assert summary["env_steps"] == steps
    assert summary["updates"] > 0
    assert (summary["gan_updates"] > 0) == bool(gan)
    assert bool(summary["world_updates"]) == bool(summary["imagined_steps"]) == has_world
    if experiment in DRAW:
        assert (folder / "figures" / "learning_curve.png").stat().st_size > 10_000
        assert (folder / "figures" / "generated_levels.png").is_file() == bool(gan)
    rows = table(folder / "metrics.csv")
    assert [int(row["env_steps"]) for row in rows] == sorted(int(row["env_steps"]) for row in rows)
    assert int(rows[-1]["env_steps"]) == steps
    assert rows[-1]["evaluation/target_return_mean"]


@pytest.mark.parametrize("arm", ["goal_gan", "gan_fit_all"])
def test_gans_of_others_are_one_more_configuration(arm: str, run: Run) -> None:
    files = [
        f"--config=conf/{name}.yaml" for name in ("experiment/mountain_car_levels", f"arm/{arm}")
    ]
    cli = run("fit", *files, "--name=x", *TINY, "--data.gan.updates=2", SHORT)
    summary = json.loads((cli.run_folder / "summary.json").read_text())
    assert summary["gan_updates"] > 0
    assert summary["levels_played"] > 0
    # The study's arm of that name has the same settings.
    study = read_study(conf_folder() / "study" / "point_mass_arms.yaml")
    given = OmegaConf.load(conf_folder() / "arm" / f"{arm}.yaml")
    for key, value in study.arms[arm].items():
        assert OmegaConf.select(given, key) == value, key


@pytest.mark.usefixtures("drawn")
def test_a_world_is_one_more_configuration(run: Run) -> None:
    file = "--config=conf/arm/world.yaml"
    cli = run("fit", "--data.env=CartPole-v1", file, "--name=x", *TINY, *WORLD)
    assert cli.run_folder == Path("runs/gymnasium/x")
    summary = json.loads((cli.run_folder / "summary.json").read_text())
    assert summary["world_updates"] > 0 and summary["imagined_steps"] > 0
    assert summary["gan_updates"] == 0
    assert (cli.run_folder / "figures" / "dreams.png").is_file()
    # An experiment with reported results has these settings, too.
    experiment = OmegaConf.load(conf_folder() / "experiment" / "weak_engine.yaml")
    given = OmegaConf.to_container(OmegaConf.load(conf_folder() / "arm" / "world.yaml"))
    for section, groups in given.items():
        for group, values in groups.items():
            for name, value in values.items():
                key = f"{section}.{group}.{name}"
                assert OmegaConf.select(experiment, key) == value, key


def test_a_memory_is_one_more_configuration(run: Run) -> None:
    files = ["--experiment=facing_maze", "--config=conf/arm/memory.yaml"]
    short = ["--data.replay.burn_in=2", "--data.replay.sequence_length=3", "--data.gan.updates=0"]
    less = ["--data.curriculum.arm=target"]
    cli = run("fit", *files, "--name=x", *TINY, *short, *less, "--data.evaluation.share=0.2")
    assert cli.run_folder == Path("runs/facing_maze/x")
    summary = json.loads((cli.run_folder / "summary.json").read_text())
    assert summary["updates"] > 0
    assert cli.model.target_network.memory_size == 128
    assert lit_crl.load(cli.run_folder).memory_size == 128
    run("play", f"--config={cli.run_folder}/config.yaml", "--ckpt_path=last", "--episodes=1")
    assert (cli.run_folder / "films" / "target.gif").is_file()


def test_without_an_experiment_a_world_learns_to_drive_the_car(run: Run) -> None:
    cli = run("fit", SHORT, *TINY, *WORLD)
    assert cli.run_folder == Path("runs/mountain_car/seed0")
    summary = json.loads((cli.run_folder / "summary.json").read_text())
    assert summary["world_updates"] > 0 and summary["imagined_steps"] > 0
    assert cli.datamodule.settings.curriculum.arm == "target" and summary["gan_updates"] == 0


def test_conf_experiments_are_the_documented_ones() -> None:
    assert set(experiments()) == {
        "acrobot",
        "acrobot_levels",
        "acrobot_physics",
        "atari",
        "cartpole",
        "cartpole_levels",
        "facing_maze",
        "few_mazes",
        "few_poses",
        "from_log",
        "gusty_pass",
        "gymnasium",
        "literal",
        "lunar_lander",
        "maze",
        "minatar",
        "minigrid",
        "mountain_car",
        "mountain_car_levels",
        "plain_dqn",
        "point_mass",
        "rainbow",
        "spiral",
        "spiral_levels",
        "thin_manifold",
        "weak_engine",
        "weak_engine_levels",
    }


def test_the_saved_configuration_reruns_the_same_thing(run: Run, finished: CreativeCLI) -> None:
    again = run("fit", "--config", "runs/mountain_car_levels/a/config.yaml", "--name", "b")
    assert again.model.gan.lambda_gan == 3
    assert same(weights(finished), weights(again))


def test_print_config_reruns_the_same_thing(
    run: Run, finished: CreativeCLI, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run("fit", *ORIGINAL, *TINY, "--print_config")
    Path("printed.yaml").write_text(capsys.readouterr().out)
    again = run("fit", "--config", "printed.yaml", "--name", "b")
    assert again.datamodule.seed == again.model.streams.seed == 5
    assert same(weights(finished), weights(again))


def test_interpolation_sees_the_command_line(run: Run) -> None:
    Path("my.yaml").write_text(
        "experiment: mine\n"
        "data:\n"
        "  env: lit_crl.envs.MountainCar\n"
        "  replay: {batch_size: 16}\n"
        "  gan: {batch_size: '${..replay.batch_size}'}\n"
        "  collect: {num_envs: '${model.gan.noise_dim}'}\n"
    )
    tiny = [a for a in TINY if "batch_size" not in a and "num_envs" not in a]
    given = ["--data.replay.batch_size=24", "--model.gan.noise_dim=12"]
    quick = [word for word in QUICK if "env_steps" not in word]
    cli = run("fit", "--config", "my.yaml", *given, *tiny, SHORT, *quick)
    assert cli.datamodule.settings.gan.batch_size == 24
    assert cli.datamodule.num_envs == 12


def test_switching_the_arm_changes_only_the_levels(run: Run) -> None:
    configs = {}
    for arm in ("target", "reference", "archive", "gan"):
        words = [f"--data.curriculum.arm={arm}", *TINY, "--trainer.limit_val_batches=0"]
        cli = run("fit", "--name", arm, *LEVELS, *words)
        configs[arm] = yaml.safe_load((cli.run_folder / "config.yaml").read_text())
        assert configs[arm]["data"]["curriculum"].pop("arm") == arm
        configs[arm].pop("name")
        played = {s for s, n in cli.datamodule.rollout.log.episodes.items() if n}
        order = ["target", "reference", "archive", "gan"]
        assert played <= set(order[: order.index(arm) + 1])
        used = {
            source for source, share in cli.datamodule.settings.curriculum.shares.items() if share
        }
        assert used == set(order[: order.index(arm) + 1])
    assert all(config == configs["gan"] for config in configs.values())


def test_runs_without_a_name_never_share_a_folder(run: Run) -> None:
    args = [*LEVELS, "--data.curriculum.arm=target", *TINY, *QUICK]
    assert run("fit", *args).run_folder == Path("runs/mountain_car_levels/seed0")
    assert run("fit", *args).run_folder == Path("runs/mountain_car_levels/seed0-2")
    assert run("fit", *args, "--seed_everything=3").run_folder == Path(
        "runs/mountain_car_levels/seed3"
    )


def test_resuming_a_finished_run_with_a_larger_budget_goes_on(
    run: Run, finished: CreativeCLI
) -> None:
    episodes = sum(finished.datamodule.rollout.log.episodes.values())
    more = [a for a in TINY if "env_steps" not in a] + ["--data.collect.env_steps=1280"]
    lr = "--model.dqn.optimizer.init_args.lr=0.007"
    resumed = run(
        "fit", "--name", "a", *ORIGINAL, "--ckpt_path", "last", lr, *more,
        "--model.dqn.final_lr=1.0",
    )  # fmt: skip
    assert resumed.datamodule.env_steps == 1280
    assert resumed.model.updates > finished.model.updates
    assert sum(resumed.datamodule.rollout.log.episodes.values()) > episodes
    optimizer = resumed.trainer.optimizers[0]
    assert optimizer.param_groups[0]["lr"] == 0.007  # the command line beats the checkpoint
    rows = table(Path("runs/mountain_car_levels/a/metrics.csv"))
    steps = [int(row["env_steps"]) for row in rows]
    assert steps == sorted(steps)
    assert steps[0] < 800 < steps[-1]


def test_resuming_where_nothing_was_saved_starts_afresh(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        "fit",
        "--name",
        "new",
        "--ckpt_path",
        "last",
        "--experiment=plain_dqn",
        SHORT,
        *TINY,
        *QUICK,
    )
    assert "starting afresh" in capsys.readouterr().out


def test_test_validate_and_predict_find_the_run_of_a_checkpoint(
    run: Run, finished: CreativeCLI, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = "runs/mountain_car_levels/a/checkpoints/last.ckpt"
    before = json.loads(Path("runs/mountain_car_levels/a/test.json").read_text())
    capsys.readouterr()
    tested = run("test", "--ckpt_path", checkpoint)
    printed = capsys.readouterr().out
    assert f"{before['target_return_mean']:.2f}" in printed
    assert "test.json" in printed
    assert "DataLoader" not in printed  # Lightning's own table of the same numbers
    assert same(weights(finished), weights(tested))
    assert json.loads(Path("runs/mountain_car_levels/a/test.json").read_text()) == before
    run("validate", "--ckpt_path", checkpoint)
    run("predict", "--ckpt_path", checkpoint)
    rows = table(Path("runs/mountain_car_levels/a/predicted_levels.csv"))
    assert len(rows) == 4
    assert all(-1.2 <= float(row["position"]) <= 0.6 for row in rows)
    assert [float(r["p_hat"]) for r in rows] == sorted(float(r["p_hat"]) for r in rows)
    with Image.open("runs/mountain_car_levels/a/figures/predicted_levels.png") as gallery:
        assert gallery.width > 1000 and np.asarray(gallery).std() > 10
    assert "figures/predicted_levels.png" in capsys.readouterr().out
    run("predict", "--ckpt_path", checkpoint, "--data.evaluation.difficulty", "0.5")
    assert "4 generated levels of difficulty 0.50, p̂ from " in capsys.readouterr().out
    rows = table(Path("runs/mountain_car_levels/a/predicted_levels.csv"))
    assert [row["difficulty"] for row in rows] == ["0.5"] * 4


def test_play_films_the_policy_of_a_checkpoint(
    run: Run, finished: CreativeCLI, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = "runs/mountain_car_levels/a/checkpoints/last.ckpt"
    before = Path(checkpoint).read_bytes()
    capsys.readouterr()
    played = run("play", "--ckpt_path", checkpoint, "--episodes=2", "--fps=25")
    assert same(weights(finished), weights(played))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    for line, kind in zip(printed, ("target", "generated"), strict=True):
        path = Path(f"runs/mountain_car_levels/a/films/{kind}.gif")
        assert line.startswith(f"2 episodes in {kind} levels, ") and line.endswith(f": {path}")
        with Image.open(path) as film:
            assert film.n_frames >= 4  # type: ignore[attr-defined]
            assert film.info["duration"] == 40
    films = {
        path.name: path.read_bytes() for path in Path("runs/mountain_car_levels/a/films").iterdir()
    }
    held_out = "--levels=[grid,target]"
    run("play", "--ckpt_path", checkpoint, held_out, "--episodes=2", "--fps=25", "--format=both")
    names = [path.name for path in Path("runs/mountain_car_levels/a/films").iterdir()]
    assert set(names) == {"target.gif", "generated.gif", "grid.gif", "target.mp4", "grid.mp4"}
    again = Path("runs/mountain_car_levels/a/films/target.gif").read_bytes()
    assert again == films["target.gif"]  # the same levels, played alike
    assert Path(checkpoint).read_bytes() == before


def test_play_says_what_cannot_be(run: Run) -> None:
    run("fit", "--name", "a", *LEVELS, "--data.curriculum.arm=target", *TINY, *QUICK)
    checkpoint = "runs/mountain_car_levels/a/checkpoints/last.ckpt"
    mistakes = {
        "--levels=[generated]": "levels has 'generated', but this run has trained no generator",
        "--levels=[mars]": "levels has 'mars', which this task lacks: use target, generated, ref",
        "--episodes=0": "episodes is 0: give a number above 0",
        "--fps=99": "fps is 99: give a number of frames a second from 1 to 50",
    }
    for argument, sentence in mistakes.items():
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            run("play", "--ckpt_path", checkpoint, argument)
    with pytest.raises(ArgumentError, match=r"(?s)format.*'gif', 'mp4', 'both'"):
        run("play", "--ckpt_path", checkpoint, "--format=avi")
    with pytest.raises(ConfigError, match="nothing was saved in"):
        run("play", "--name", "b")
    assert not Path("runs/mountain_car_levels/a/films").exists()


def test_predict_goes_without_pictures_where_there_are_none(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("levels_of_mine.py").write_text(
        "import numpy as np\n"
        "def set_level(env, level):\n"
        "    env.state = tuple(level)\n"
        "    return np.array(level, dtype=np.float32)\n"
    )
    Path("my.yaml").write_text(
        "experiment: mine\n"
        "data:\n"
        "  env:\n"
        "    class_path: lit_crl.envs.GymnasiumEnv\n"
        "    init_args:\n"
        "      id: MountainCar-v0\n"
        "      set_level: levels_of_mine.set_level\n"
        "      level_space: {position: [-1.2, 0.5], velocity: [-0.07, 0.07]}\n"
    )
    monkeypatch.syspath_prepend(".")
    modes = {"render_modes": ["human"]}
    monkeypatch.setattr("gymnasium.envs.classic_control.MountainCarEnv.metadata", modes)
    gan = ["--data.curriculum.arm=gan", "--data.gan.updates=2", SHORT]
    run("fit", "--config", "my.yaml", "--name", "a", *TINY, *gan)
    capsys.readouterr()
    run("predict", "--ckpt_path", "runs/mine/a/checkpoints/last.ckpt")
    said = capsys.readouterr().out
    assert "No pictures of them: MountainCar-v0 cannot be drawn" in said
    assert len(table(Path("runs/mine/a/predicted_levels.csv"))) == 4


def test_a_config_of_the_package_is_found_from_anywhere(run: Run) -> None:
    assert not Path("conf").exists()
    completed = complete(["fit", "--config", "conf/experiment/acrobot_levels.yaml"])
    assert completed == ["fit", f"--config={conf_folder() / 'experiment' / 'acrobot_levels.yaml'}"]
