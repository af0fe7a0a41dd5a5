"""The best checkpoint: which policy it holds, whatever interrupts the run, and what it is for."""

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from crashes import KillAt, Killed
from lightning.pytorch import Callback

import lit_crl
from lit_crl.core.checks import ConfigError, RunError
from lit_crl.core.tensor_files import write_atomically
from lit_crl.envs import CartPole
from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.runs.callbacks import BestCheckpoint, RunCheckpoint
from lit_crl.runs.cli import entry
from lit_crl.runs.cli.main import CreativeCLI, main
from lit_crl.training.batches import SingleBatch

Make = Callable[..., Any]
Difference = Callable[[Any, Any], str | None]


@pytest.fixture(scope="module")
def make_run(make_run: Make) -> Make:
    """Runs of few updates: whatever they learn, the tests give them the returns of validations."""
    few = {"updates_per_batch": 1, "gan_updates": 1, "validation_episodes": 1}
    return lambda **given: make_run(**{**few, **given})


class Policies(Callback):
    """Keeps the weights of each validation, by env steps."""

    def __init__(self) -> None:
        self.at: dict[int, dict[str, torch.Tensor]] = {}

    def on_validation_end(self, trainer: Any, learner: Any) -> None:
        self.at[trainer.datamodule.env_steps] = copy.deepcopy(dict(learner.state_dict()))


def validating(
    make_run: Make,
    folder: Path,
    returns: Sequence[float | None],
    *callbacks: Callback,
    at: Mapping[int, int] | None = None,
    **settings: Any,
) -> tuple[Any, BestCheckpoint, Policies]:
    """A run whose validations have these returns; ``at`` gives their numbers by env steps."""
    policies, best = Policies(), BestCheckpoint(folder)
    number = iter(range(len(returns)))

    def fake(*_: Any) -> dict[str, float]:
        now = next(number) if at is None else at[run.data.env_steps]
        found = returns[now]
        return {"other": 0.0} if found is None else {"target_return_mean": found}

    # The run checkpoint stands first: what it saves must not depend on who is asked first.
    everyone = [RunCheckpoint(folder), best, policies, *callbacks]
    run = make_run(callbacks=everyone, validate_every=200, **settings)
    run.data.val_dataloader = lambda: SingleBatch(SimpleNamespace(run=fake))
    return run, best, policies


def saved(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "best.ckpt", weights_only=True)
    return found


@pytest.mark.parametrize(
    ("returns", "index", "scored"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 5, (4 + 5 + 6) / 3),
        ([0.0, 0.0, 90.0, 40.0, 40.0, 40.0], 3, 40.0),  # the mean is more
        ([0.0, 0.0, 90.0, 20.0, 20.0, 20.0], 2, 30.0),
        ([50.0, 50.0, 50.0, 50.0, 50.0, 50.0], 2, 50.0),  # of equal ones the first
        ([90.0, 90.0, 10.0, 20.0, 15.0, 15.0], 3, 20.0),
        # A validation without episodes does not count.
        ([-9.0, -8.0, None, -7.0, -8.0, None], 3, -8.0),
    ],
)
def test_the_file_holds_the_policy_that_held_the_highest_return(
    make_run: Make,
    difference: Difference,
    tmp_path: Path,
    returns: list[Any],
    index: int,
    scored: float,
) -> None:
    run, best, policies = validating(make_run, tmp_path, returns)
    run.fit()
    steps = list(policies.at)
    assert len(steps) == len(returns)
    assert best.best is not None and best.best.env_steps == steps[index]
    assert best.best.score == pytest.approx(scored)
    found = saved(tmp_path)
    assert found["lit_crl"]["score"] == best.best.score
    assert found["lit_crl"]["env_steps"] == steps[index]
    assert difference(dict(found["state_dict"]), policies.at[steps[index]]) is None
    assert not {"optimizer_states", "callbacks"} & found.keys()


def test_two_validations_choose_nothing(make_run: Make, tmp_path: Path) -> None:
    run, best, _ = validating(make_run, tmp_path, [5.0, 6.0], env_steps=500)
    run.fit()
    assert best.best is None and not (tmp_path / "best.ckpt").exists()


def test_choosing_changes_nothing_in_the_run(
    make_run: Make, difference: Difference, tmp_path: Path
) -> None:
    best = BestCheckpoint(tmp_path)
    with_best = make_run(callbacks=[best], validate_every=200).fit()
    without = make_run(validate_every=200).fit()
    for each in (with_best, without):
        each.trainer.test(each.learner, datamodule=each.data, verbose=False)
    assert (tmp_path / "best.ckpt").is_file() and best.numbers
    assert difference(with_best.everything(), without.everything()) is None
    assert with_best.trainer.callback_metrics == without.trainer.callback_metrics


RETURNS = [3.0, 1.0, 2.0, 9.0, 4.0, 5.0]


@pytest.fixture(scope="module")
def whole(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The run that nothing interrupts: what is best, and the numbers of its validations."""
    folder = tmp_path_factory.mktemp("whole")
    run, best, policies = validating(make_run, folder, RETURNS)
    run.fit()
    at = {steps: number for number, steps in enumerate(policies.at)}
    return SimpleNamespace(file=saved(folder), best=best.best, at=at, everything=run.everything())


class Dies(RunCheckpoint):
    """Dies in its so-manieth save, when ``best.ckpt`` may be written and ``last.ckpt`` is not."""

    def __init__(self, folder: Path, save: int) -> None:
        super().__init__(folder)
        self.saves = save

    def _save(self, trainer: Any, checkpoint: dict[str, Any]) -> None:
        self.saves -= 1
        if self.saves < 0:
            raise Killed
        super()._save(trainer, checkpoint)


@pytest.mark.parametrize("save", [1, 2, 3, 4, 5])
def test_a_run_killed_between_its_two_files_ends_with_the_same_best(
    make_run: Make, difference: Difference, whole: Any, tmp_path: Path, save: int
) -> None:
    run, *_ = validating(make_run, tmp_path, RETURNS, at=whole.at)
    run.trainer.callbacks[:] = [
        Dies(tmp_path, save) if isinstance(callback, RunCheckpoint) else callback
        for callback in run.trainer.callbacks
    ]
    with pytest.raises(Killed):
        run.fit()
    (tmp_path / "best.ckpt.partial").write_bytes(b"half")
    resumed, best, _ = validating(make_run, tmp_path, RETURNS, at=whole.at)
    resumed.fit(tmp_path / "last.ckpt")
    assert best.best == whole.best
    assert difference(saved(tmp_path)["state_dict"], whole.file["state_dict"]) is None
    assert saved(tmp_path)["lit_crl"] == whole.file["lit_crl"]
    assert difference(resumed.everything(), whole.everything) is None
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("batches", [9, 16, 23, 30])
def test_a_run_killed_in_training_ends_with_the_same_best(
    make_run: Make, difference: Difference, whole: Any, tmp_path: Path, batches: int
) -> None:
    run, *_ = validating(make_run, tmp_path, RETURNS, KillAt(batches), at=whole.at)
    with pytest.raises(Killed):
        run.fit()
    resumed, best, _ = validating(make_run, tmp_path, RETURNS, at=whole.at)
    resumed.fit(tmp_path / "last.ckpt")
    assert best.best == whole.best
    assert difference(saved(tmp_path)["state_dict"], whole.file["state_dict"]) is None


def test_the_validation_of_a_stopped_run_does_not_count(
    make_run: Make, whole: Any, tmp_path: Path
) -> None:
    class Stops(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.datamodule.batches_done == 20:
                trainer.should_stop = True

    extra = 1e9  # it would win by far
    at = {**dict.fromkeys(range(2_000), len(RETURNS)), **whole.at}
    stopped, best, policies = validating(make_run, tmp_path, [*RETURNS, extra], Stops(), at=at)
    stopped.fit()
    assert len(policies.at) == 4 and stopped.data.env_steps not in whole.at
    assert best.best is not None and best.best.score == 2.0
    # The resumed run's epochs begin where it was stopped.
    at = dict.fromkeys(range(2_000), 3) | {stopped.data.schedule.budget: 5}
    resumed, best, policies = validating(make_run, tmp_path, RETURNS, at=at)
    resumed.fit(tmp_path / "last.ckpt")
    assert len(policies.at) == 2 and best.best is not None
    assert best.best.score == min(5.0, (2.0 + 9.0 + 5.0) / 3)


def test_a_full_disk_spares_the_best_so_far(
    make_run: Make, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first best is written whole; the disk is full within the second."""
    usual, writes = torch.save, iter(range(100))

    def full(content: Any, file: Any) -> None:
        if "score" in content["lit_crl"] and next(writes) == 1:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        usual(content, file)

    monkeypatch.setattr(torch, "save", full)
    run, *_ = validating(make_run, tmp_path, RETURNS, at=whole.at)
    with pytest.raises(RunError, match=r"cannot write .*best.ckpt \(No space left on device\)"):
        run.fit()
    assert saved(tmp_path)["lit_crl"]["score"] == 2.0 < whole.best.score
    assert not list(tmp_path.glob("*.partial"))
    monkeypatch.undo()
    resumed, best, _ = validating(make_run, tmp_path, RETURNS, at=whole.at)
    resumed.fit(tmp_path / "last.ckpt")
    assert best.best == whole.best and saved(tmp_path)["lit_crl"] == whole.file["lit_crl"]


def test_a_lower_score_never_replaces_a_higher_one_on_disk(
    make_run: Make, whole: Any, tmp_path: Path
) -> None:
    """As where a GPU repeats an epoch with other numbers than those that had been kept."""
    run, *_ = validating(make_run, tmp_path, RETURNS, KillAt(16), at=whole.at)
    with pytest.raises(Killed):
        run.fit()
    better = {**whole.file, "lit_crl": {**whole.file["lit_crl"], "score": 7.5}}
    write_atomically(better, tmp_path / "best.ckpt")
    before = (tmp_path / "best.ckpt").read_bytes()
    resumed, best, _ = validating(make_run, tmp_path, RETURNS, at=whole.at)
    resumed.fit(tmp_path / "last.ckpt")
    assert best.best is not None and best.best.score == 7.5
    assert (tmp_path / "best.ckpt").read_bytes() == before


@pytest.mark.parametrize("harm", ["missing", "damaged", "foreign"])
def test_a_lost_best_is_missed_aloud_and_chosen_anew(
    make_run: Make, whole: Any, tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, *_ = validating(make_run, tmp_path, RETURNS, KillAt(30), at=whole.at)
    with pytest.raises(Killed):
        run.fit()
    path = tmp_path / "best.ckpt"
    if harm == "missing":
        path.unlink()
    elif harm == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes((tmp_path / "last.ckpt").read_bytes())
    capsys.readouterr()
    resumed, best, policies = validating(make_run, tmp_path, RETURNS, at=whole.at)
    resumed.fit(tmp_path / "last.ckpt")
    said = capsys.readouterr().out
    assert str(path) in said and "best policy is chosen anew" in said
    assert best.best is not None and best.best.env_steps in policies.at
    assert saved(tmp_path)["lit_crl"]["score"] == best.best.score


@pytest.mark.parametrize("of_later_time", [False, True])
def test_a_run_that_goes_on_elsewhere_takes_the_best_along_if_it_is_of_its_past(
    make_run: Make, whole: Any, tmp_path: Path, of_later_time: bool
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run, *_ = validating(make_run, first, RETURNS, KillAt(30), at=whole.at)
    with pytest.raises(Killed):
        run.fit()
    kept = saved(first)
    kept["lit_crl"] |= {"score": 100.0} | ({"env_steps": 5_000} if of_later_time else {})
    write_atomically(kept, first / "best.ckpt")
    before = (first / "best.ckpt").read_bytes()
    resumed, best, _ = validating(make_run, second, RETURNS, at=whole.at)
    resumed.fit(first / "last.ckpt")
    assert best.best is not None and (best.best.score == 100.0) != of_later_time
    assert saved(second)["lit_crl"]["score"] == best.best.score
    assert (first / "best.ckpt").read_bytes() == before


def test_no_fit_goes_on_from_it(make_run: Make, tmp_path: Path) -> None:
    run, *_ = validating(make_run, tmp_path, RETURNS)
    run.fit()
    again = make_run(callbacks=[RunCheckpoint(tmp_path), BestCheckpoint(tmp_path)])
    with pytest.raises(ConfigError, match="weights alone, and no fit can go on from it"):
        again.fit(tmp_path / "best.ckpt")
    with pytest.raises(ConfigError, match="weights alone, and no fit can go on from it"):
        make_run().fit(tmp_path / "best.ckpt")


# The command line, and from Python

TINY = [
    "--experiment=cartpole_levels", "--name=a", "--trainer.accelerator=cpu",
    "--data.collect.env_steps=2400", "--data.collect.num_envs=8", "--data.collect.warmup=200",
    "--data.replay.batch_size=16", "--data.replay.updates_per_batch=2", "--data.gan.every=4",
    "--data.gan.updates=2", "--data.gan.batch_size=8", "--data.curriculum.min_outcomes=2",
    "--data.curriculum.label_epsilon=1", "--data.evaluation.every=400",
    "--data.evaluation.episodes=3", "--data.evaluation.test_episodes=10",
    "--data.evaluation.generated_levels=2", "--model.network.hidden=[16]",
    "--model.gan.hidden=[8]",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def short_cartpole() -> Iterator[None]:
    """Whoever balances well plays no 500 steps here: most of the time would go into that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CartPole, "max_episode_steps", 100)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> CreativeCLI:
    """A whole run of the command line, with a stock ModelCheckpoint beside its own."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        stock = [
            "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint",
            "--trainer.callbacks.monitor=target_return_mean",
            "--trainer.callbacks.mode=max",
        ]
        return main(["fit", f"--trainer.default_root_dir={root}", *TINY, *stock])


@pytest.fixture
def run(tiny: CreativeCLI, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny.run_folder.parents[1])
    return tiny.run_folder


def read(run: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / name).read_text())
    return found


def asked(run: Path, *words: str) -> list[str]:
    return [*words[:1], f"--trainer.default_root_dir={run.parents[1]}", *TINY, *words[1:]]


def test_the_reported_number_is_that_of_a_test_of_the_best_policy(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary, test = read(run, "summary.json"), (run / "test.json").read_bytes()
    main(asked(run, "test", "--ckpt_path=best"))
    anew = read(run, "test.json")
    (run / "test.json").write_bytes(test)
    for name in ("target_return_mean", "target_return_std", "target_success_rate",
                 "target_episodes"):  # fmt: skip
        assert summary[f"best_{name}"] == pytest.approx(anew[name], rel=1e-6), name
    found = saved(run / "checkpoints")
    assert summary["best_env_steps"] == found["lit_crl"]["env_steps"] < summary["env_steps"]
    assert summary["best_target_return_mean"] != found["lit_crl"]["score"]
    assert summary["target_return_mean"] == read(run, "test.json")["target_return_mean"]


def test_its_episodes_are_counted_and_its_number_is_in_the_table(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[float] = []
    usual = FinalEvaluation.target_alone

    def counting(self: Any, player: Any, has_gan: bool) -> dict[str, float]:
        found = usual(self, player, has_gan)
        spent.append(found["evaluation_env_steps"])
        return found

    monkeypatch.setattr(FinalEvaluation, "target_alone", counting)
    words = asked(run, "fit")
    words[words.index("--name=a")] = "--name=again"
    again = main(words).run_folder
    printed = capsys.readouterr().out
    summary = read(again, "summary.json")
    row = next(line for line in printed.splitlines() if "best policy by validation" in line)
    assert f"{summary['best_target_return_mean']:.2f}" in row
    with (again / "metrics.csv").open() as file:
        header, *rows = [line.rstrip("\n").split(",") for line in file]
    column = header.index("evaluation/evaluation_env_steps")
    in_training = sum(float(row[column]) for row in rows if row[column])
    test = read(again, "test.json")["evaluation_env_steps"]
    assert len(spent) == 1 and spent[0] > 0
    assert summary["evaluation_env_steps"] == in_training + test + spent[0]
    # The stock callback beside it has changed nothing.
    first, second = (saved(folder / "checkpoints") for folder in (run, again))
    theirs = second["state_dict"]
    assert all(torch.equal(value, theirs[name]) for name, value in first["state_dict"].items())


def test_load_takes_the_last_policy_unless_asked(run: Path, difference: Difference) -> None:
    folder = run / "checkpoints"
    assert list(run.rglob("epoch=*.ckpt"))  # the stock checkpoint is elsewhere
    for which, name in (({}, "last"), ({"which": "last"}, "last"), ({"which": "best"}, "best")):
        weights = torch.load(folder / f"{name}.ckpt", weights_only=True)["state_dict"]
        policy = lit_crl.load(run, **which)  # type: ignore[arg-type]
        theirs = {f"target_network.{k}": v for k, v in policy.q_network.state_dict().items()}
        assert difference(theirs, {name: weights[name] for name in theirs}) is None
        assert policy.level_gan is not None
    obs = torch.zeros(1, 4)
    last, best = lit_crl.load(run), lit_crl.load(run, which="best")
    assert not torch.equal(last.action_values(obs), best.action_values(obs))
    by_file = lit_crl.load(folder / "best.ckpt")
    assert torch.equal(by_file.action_values(obs), best.action_values(obs))
    learner = lit_crl.CreativeLearner.load_from_checkpoint(folder / "best.ckpt")
    assert torch.equal(learner.action_values(obs), best.action_values(obs))


@pytest.mark.parametrize(
    ("path", "which", "says"),
    [
        (".", "first", "which is 'first': use last or best"),
        ("checkpoints/last.ckpt", "best", "which is best, but .*last.ckpt is a file: give the f"),
        (
            "nowhere",
            "best",
            "nowhere has no checkpoints/best.ckpt: .* third validation.*; use last",
        ),
    ],
)
def test_what_cannot_be_loaded_is_said_in_a_sentence(
    run: Path, path: str, which: Any, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        lit_crl.load(run / path, which=which)
    assert "\n" not in str(refusal.value)


def test_the_other_commands_take_the_best(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(asked(run, "play", "--ckpt_path=best", "--episodes=1", "--levels=[target]"))
    assert (run / "films" / "target.gif").is_file()
    main(asked(run, "predict", "--ckpt_path=best"))
    main(["validate", f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}"])
    best = saved(run / "checkpoints")
    by_name = main(asked(run, "validate", "--ckpt_path=best"))
    weights = dict(by_name.model.state_dict())
    assert all(torch.equal(best["state_dict"][name], value) for name, value in weights.items())


def complaint(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    """What the command says before it exits with status 2."""
    monkeypatch.setattr(sys, "argv", ["lit_crl", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        entry.run()
    assert stop.value.code == 2
    said: str = capsys.readouterr().err
    assert said.startswith("lit_crl: ") and said.count("\n") == 1
    return said


def test_fit_refuses_to_go_on_from_the_best(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said = complaint(asked(run, "fit", "--ckpt_path=best"), monkeypatch, capsys)
    assert "--ckpt_path is best" in said and "use last" in said
    path = run / "checkpoints" / "best.ckpt"
    said = complaint(["fit", f"--ckpt_path={path}", "--name=b"], monkeypatch, capsys)
    assert "without optimizers and experience" in said and "--ckpt_path last" in said
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert not (run.parent / "b").exists()


def test_a_run_without_validations_has_no_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"--trainer.default_root_dir={tmp_path}", *TINY]
    folder = main(["fit", *words, "--trainer.limit_val_batches=0"]).run_folder
    assert "best policy" not in capsys.readouterr().out
    summary = read(folder, "summary.json")
    assert summary["target_return_mean"] is not None
    names = {name for name in summary if name.startswith("best_")}
    assert len(names) == 5 and all(summary[name] is None for name in names)
    with pytest.raises(ConfigError, match=r"has no checkpoints/best.ckpt: .*; use last"):
        lit_crl.load(folder, which="best")
    for command in ("test", "play", "validate", "predict"):
        said = complaint([command, *words, "--ckpt_path=best"], monkeypatch, capsys)
        assert "has no checkpoints/best.ckpt" in said


def test_a_best_that_was_lost_before_the_test_costs_only_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    class Loses(Callback):
        def on_test_start(self, trainer: Any, pl_module: Any) -> None:
            (path,) = tmp_path.rglob("best.ckpt")
            path.unlink()

    words = ["fit", f"--trainer.default_root_dir={tmp_path}", *TINY]
    folder = main(words, {"trainer.callbacks": [Loses()]}).run_folder
    summary = read(folder, "summary.json")
    assert summary["best_target_return_mean"] is None and summary["target_return_mean"] is not None
    assert "The best policy is not measured: " in capsys.readouterr().out
