"""What Lightning's documentation promises: counted steps, stock callbacks, hooks, limits, flags."""

import csv
import json
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run, ShortCar, learner_settings, make_trainer, prepare_run
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from test_precision import make, scaled, train
from two_processes import parts

from lit_crl import CreativeLearner
from lit_crl.core.checks import ConfigError, RunError
from lit_crl.runs.callbacks import (
    EnvStepProgress,
    MetricsCsv,
    RecordMetrics,
    RunCheckpoint,
)
from lit_crl.runs.cli import main as cli
from lit_crl.runs.cli import trainer_settings
from lit_crl.runs.ending import early_end
from lit_crl.runs.folders import conf_folder
from lit_crl.training import trainer_checks
from lit_crl.training.ddp import PhaseDDP

Difference = Callable[[Any, Any], str | None]


def steps_of(run: Run) -> int:
    """Optimizer steps by the learner's own counters: one an update of the DQN, two of the GAN."""
    return run.learner.updates + 2 * run.learner.gan_updates


# trainer.global_step


def test_global_step_counts_the_steps_of_all_optimizers() -> None:
    run = prepare_run(validate=False).fit()
    assert run.learner.gan_updates > 0
    assert run.trainer.global_step == steps_of(run)


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    first = prepare_run(env_steps=600, callbacks=[RunCheckpoint(tmp_path)]).fit()
    assert first.trainer.global_step == steps_of(first)
    longer = prepare_run(callbacks=[RunCheckpoint(tmp_path)])
    longer.fit(tmp_path / "last.ckpt")
    assert longer.trainer.global_step == steps_of(longer) > steps_of(first)


# Stock callbacks


class Returns(Callback):
    """Takes down the return of every validation."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.found.append(outputs["target_return_mean"])


def with_checkpoints(folder: Path, *others: Callback, **settings: Any) -> Run:
    """A run with a stock ``ModelCheckpoint`` and none of this package's."""
    stock = ModelCheckpoint(folder, filename="{epoch}-{step}", **settings)
    return prepare_run(callbacks=[stock, *others], trainer={"enable_checkpointing": True}).fit()


def test_model_checkpoint_saves_every_epoch_and_the_last(tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path, every_n_epochs=1, save_top_k=-1, save_last=True)
    assert len(list(tmp_path.glob("epoch=*.ckpt"))) == run.trainer.current_epoch > 1
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == steps_of(run)


def test_model_checkpoint_saves_at_multiples_of_train_steps(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Using ModelCheckpoint with manual optimization"):
        run = with_checkpoints(tmp_path, every_n_train_steps=10, save_top_k=-1)
    saved = {torch.load(path, weights_only=True)["global_step"] for path in tmp_path.glob("*.ckpt")}
    assert len(saved) > 2 and all(step % 10 == 0 for step in saved)
    assert max(saved) <= steps_of(run)


def test_model_checkpoint_keeps_the_best_and_it_can_be_tested(tmp_path: Path) -> None:
    returns = Returns()
    run = with_checkpoints(
        tmp_path, returns, monitor="target_return_mean", mode="max", save_top_k=1
    )
    stock: Any = run.trainer.checkpoint_callback
    assert stock.best_model_score.item() == pytest.approx(max(returns.found))
    saved = torch.load(stock.best_model_path, weights_only=True)
    fresh = prepare_run(trainer={"limit_test_batches": 1}, seed=5)
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        (found,) = fresh.trainer.test(
            fresh.learner, datamodule=fresh.data, ckpt_path=stock.best_model_path, verbose=False
        )
    assert "target_return_mean" in found
    for name, weights in fresh.learner.state_dict().items():
        assert torch.equal(weights, saved["state_dict"][name]), name


def test_early_stopping_ends_the_run_by_a_validation_metric() -> None:
    stopping = EarlyStopping("target_return_mean", mode="max", patience=1, min_delta=1e9)
    run = prepare_run(callbacks=[stopping]).fit()
    assert run.trainer.current_epoch == 2  # the second validation is no better
    ended = early_end(run.trainer)
    assert ended is not None and "EarlyStopping" in ended


def test_learning_rates_are_logged_over_env_steps(tmp_path: Path) -> None:
    metrics = MetricsCsv(tmp_path)
    run = prepare_run(
        callbacks=[RecordMetrics(), LearningRateMonitor("step")],
        learner={"final_lr": 0.1},
        trainer={"logger": metrics, "log_every_n_steps": 4},
    ).fit()
    rows = [row for row in metrics.rows if "lr-Adam" in row]
    assert len(rows) > 3
    numbers = [row["env_steps"] for row in metrics.rows]
    assert numbers == sorted(numbers) and numbers[-1] == run.data.env_steps
    each = run.data.schedule.steps_of_a_batch
    for row in rows[1:]:
        # The rate is that of the batch before: it falls from 5e-4 to a tenth over the budget.
        progress = (row["env_steps"] - each) / run.data.schedule.budget
        assert row["lr-Adam"] == pytest.approx(5e-4 * (1 - 0.9 * progress), rel=1e-6)
        assert row["lr-Adam-1"] == row["lr-Adam-2"] == 5e-4
    assert not any("evaluation/lr" in name for row in metrics.rows for name in row)


# Hooks


class Hooks(Callback):
    """Counts the step hooks, and keeps what the gradients are when they are called."""

    def __init__(self) -> None:
        self.norms: dict[str, list[float]] = {"step": [], "zero_grad": []}

    def note(self, hook: str, optimizer: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norm = torch.cat([g.flatten() for g in gradients if g is not None]).norm()
        self.norms[hook].append(norm.item())

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.note("step", optimizer)
        module.log("seen", 1.0, logger=False)

    def on_before_zero_grad(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.note("zero_grad", optimizer)


class OwnHooks(CreativeLearner):
    """A learner with the same hooks, which does not call those of its class."""

    heard = 0

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.heard += 1

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.heard += 1

    def on_after_backward(self) -> None:
        self.heard += 1


@pytest.mark.usefixtures("wrapped")
def test_step_hooks_are_called_around_each_step_and_change_nothing(difference: Difference) -> None:
    hooks, functions = Hooks(), []
    small = LambdaCallback(on_before_zero_grad=lambda *args: functions.append(args[2]))
    settings = {"learner": {"max_grad_norm": 1e-3}, "validate": False}
    heard = prepare_run(callbacks=[hooks, small], **settings).fit()
    unheard = prepare_run(**settings).fit()
    assert len(hooks.norms["step"]) == len(hooks.norms["zero_grad"]) == steps_of(heard)
    assert len(functions) == steps_of(heard) == heard.trainer.global_step
    assert difference(heard.everything(), unheard.everything()) is None
    # Lightning: "If clipping gradients, the gradients will not have been clipped yet."
    updates = range(2)  # of the Q-network, which come first
    assert all(hooks.norms["step"][update] > 1e-2 for update in updates)
    assert all(hooks.norms["zero_grad"][update] < 1.001e-3 for update in updates)


@pytest.mark.usefixtures("wrapped")
def test_a_learner_of_ones_own_hears_them_too(difference: Difference) -> None:
    run, plain = prepare_run(validate=False), prepare_run(validate=False).fit()
    run.learner = OwnHooks(**learner_settings(hidden=(16, 16), gan_hidden=(16, 16)))
    torch.manual_seed(0)
    run.fit()
    assert run.learner.heard == 3 * steps_of(run)
    assert difference(run.everything(), plain.everything()) is None


def test_a_learner_of_ones_own_is_still_clipped_under_a_loss_scaler() -> None:
    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1.0)

    optimizers = dict.fromkeys(
        ("q_optimizer", "generator_optimizer", "discriminator_optimizer"), sgd
    )
    hooks = Hooks()
    learner = make(max_grad_norm=0.01, final_lr=1.0, **optimizers)
    learner.__class__ = OwnHooks
    start = torch.cat([p.detach().flatten().clone() for p in learner.q_network.parameters()])
    trainer = train(learner, [parts(1, 64, 1)], callbacks=[hooks], **scaled(2.0**12))
    end = torch.cat([p.detach().flatten() for p in learner.q_network.parameters()])
    # With a learning rate of 1, a step is the clipped gradient.
    assert (end - start).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert hooks.norms["step"][0] > 0.1  # unscaled, and not clipped yet
    assert hooks.norms["step"][0] < 100
    assert trainer.global_step == 3 and learner.heard == 3 * 3


@pytest.mark.parametrize("hook", ["on_before_optimizer_step", "on_before_zero_grad"])
def test_compiled_updates_refuse_hooks_that_they_cannot_call(hook: str) -> None:
    deaf = prepare_run(learner={"compile": True}, callbacks=[LambdaCallback(**{hook: print})])
    with pytest.raises(ConfigError, match=rf"model.compile is on.*LambdaCallback\.{hook}"):
        deaf.fit()


# Limits


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"max_steps": 10}, "trainer.max_steps 10 was reached"),
        ({"max_epochs": 1}, "trainer.max_epochs 1 was reached"),
        ({"max_time": {"milliseconds": 1}}, "trainer.max_time was reached"),
    ],
    ids=["max_steps", "max_epochs", "max_time"],
)
def test_lightnings_limits_end_the_run_and_it_says_why(
    limit: dict[str, Any], words: str, tmp_path: Path
) -> None:
    run = prepare_run(callbacks=[RunCheckpoint(tmp_path)], trainer=limit).fit()
    assert 0 < run.data.env_steps < 1_000
    ended = early_end(run.trainer)
    assert ended is not None and words in ended
    assert f"after {run.data.env_steps:,} of 1,200 env steps" in ended
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["lit_crl"]["env_steps"] == run.data.env_steps
    if "max_steps" in limit:  # the batch that reaches it is finished
        assert 10 <= run.trainer.global_step < 10 + 2 * 2 + 2 * 2


def test_a_run_that_spends_its_budget_has_nothing_to_say() -> None:
    assert early_end(prepare_run(validate=False).fit().trainer) is None


@pytest.mark.parametrize(
    "settings",
    [{"val_check_interval": 11}, {"val_check_interval": 5, "limit_train_batches": 4}],
    ids=["epoch", "limited epoch"],
)
def test_validations_further_apart_than_an_epoch_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.val_check_interval is"):
        prepare_run(trainer=settings).fit()  # an epoch has 330 / 32 batches


@pytest.mark.parametrize("least", [{"min_epochs": 50}, {"min_steps": 10_000}])
def test_a_minimum_beyond_the_budget_ends_in_a_sentence(least: dict[str, int]) -> None:
    (key,) = least
    with pytest.raises(RunError, match=rf"trainer\.{key} is .* raise data.collect.env_steps"):
        prepare_run(validate=False, trainer=least).fit()


def test_a_minimum_within_the_budget_is_kept() -> None:
    stopping = EarlyStopping("target_return_mean", mode="max", patience=1, min_delta=1e9)
    run = prepare_run(callbacks=[stopping], trainer={"min_epochs": 3}).fit()
    assert run.trainer.current_epoch == 3


def test_sanity_checks_and_limits_and_debugging_aids_only_do_what_they_say(
    difference: Difference,
) -> None:
    aids = {"num_sanity_val_steps": 2, "deterministic": True}
    plain = prepare_run(env_steps=600).fit()
    try:
        aided = prepare_run(env_steps=600, trainer=aids).fit()
    finally:
        torch.use_deterministic_algorithms(False)
    assert difference(plain.everything(), aided.everything()) is None
    # Autograd can only watch what it does itself, which is not what was recorded of it.
    watched = prepare_run(env_steps=600, trainer={"detect_anomaly": True}).fit()
    for name, weights in plain.learner.state_dict().items():
        found = watched.learner.state_dict()[name]
        torch.testing.assert_close(found, weights, rtol=1e-2, atol=1e-3, msg=name)
    returns = Returns()
    prepare_run(callbacks=[returns], trainer={"limit_train_batches": 4}).fit()
    assert len(returns.found) == math.ceil((1_200 - 224) / 32 / 4)
    returns = Returns()
    barebones = {"barebones": True, "num_sanity_val_steps": None, "enable_progress_bar": None}
    quick = {**barebones, "enable_model_summary": None, "logger": None}
    quick |= {"enable_checkpointing": None, "log_every_n_steps": None}
    with warnings.catch_warnings(action="ignore"):
        fast = prepare_run(env_steps=600, trainer=quick).fit()
    assert difference(plain.everything(), fast.everything()) is None


def test_without_logging_steps_only_validations_are_logged(tmp_path: Path) -> None:
    metrics = MetricsCsv(tmp_path)
    settings = {"logger": metrics, "log_every_n_steps": 0}
    prepare_run(callbacks=[RecordMetrics()], trainer=settings).fit()
    assert metrics.rows
    assert all("evaluation/target_return_mean" in row for row in metrics.rows)


# What cannot be kept is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "bf16-true"}, "trainer.precision is bf16-true"),
        ({"precision": "64-true"}, "trainer.precision is 64-true"),
        ({"precision": "16-true"}, "trainer.precision is 16-true"),
        ({"gradient_clip_val": 1.0}, "model.dqn.max_grad_norm"),
        ({"accumulate_grad_batches": 4}, "data.replay.batch_size"),
        ({"overfit_batches": 2}, "trainer.overfit_batches is 2"),
        ({"limit_train_batches": 0}, "trainer.limit_train_batches is 0"),
        ({"limit_val_batches": 0.5}, "trainer.limit_val_batches is 0.5"),
        ({"limit_test_batches": 0.5}, "trainer.limit_test_batches is 0.5"),
        ({"max_steps": 0}, "trainer.max_steps is 0"),
        ({"max_epochs": 0}, "trainer.max_epochs is 0"),
        ({"max_time": {"seconds": 0}}, "trainer.max_time is 0"),
        ({"callbacks": [StochasticWeightAveraging(1e-3)]}, "StochasticWeightAveraging"),
        ({"callbacks": [EMAWeightAveraging()]}, "EMAWeightAveraging"),
        ({"callbacks": [GradientAccumulationScheduler({4: 2})]}, "data.replay.batch_size"),
        ({"callbacks": [LearningRateFinder()]}, "LearningRateFinder"),
        ({"callbacks": [BackboneFinetuning()]}, "BackboneFinetuning"),
        ({"strategy": "ddp", "devices": 2}, "DDPStrategy.*conf/trainer/ddp.yaml"),
        ({"strategy": "ddp_find_unused_parameters_true", "devices": 2}, "DDPStrategy"),
        ({"strategy": "ddp_spawn", "devices": 2}, "DDPStrategy"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_kept_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        trainer_checks.check(make_trainer(**settings))


def test_a_learner_asks_its_trainer_itself() -> None:
    run = prepare_run(trainer={"precision": "bf16-true"})
    with pytest.raises(ConfigError, match=r"trainer\.precision is bf16-true"):
        run.fit()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_default_dtype_is_refused(dtype: torch.dtype) -> None:
    run = prepare_run()
    torch.set_default_dtype(dtype)
    try:
        with pytest.raises(ConfigError, match=r"torch.set_default_dtype\(torch.float32\)"):
            run.fit()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "AdamW", "NAdam", "Adagrad", "Adafactor"])
def test_other_optimizers_train(name: str) -> None:
    optimizer = getattr(torch.optim, name)
    keys = ("q_optimizer", "generator_optimizer", "discriminator_optimizer")
    settings = dict.fromkeys(keys, lambda parameters: optimizer(parameters, lr=1e-3))
    run = prepare_run(validate=False, env_steps=600, learner=settings).fit()
    assert run.trainer.global_step == steps_of(run) > 0


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (torch.optim.LBFGS, "model.dqn.optimizer is LBFGS"),
        (torch.optim.SparseAdam, "model.dqn.optimizer is SparseAdam"),
        (lambda parameters: torch.optim.SGD(parameters, lr=-1), "model.dqn.optimizer.*-1"),
        (lambda parameters: torch.optim.SGD(parameters, size=3), "model.dqn.optimizer.*size"),
        (lambda parameters: list(parameters), "model.dqn.optimizer makes a list"),
        (torch.nn.ParameterList, "model.dqn.optimizer makes a ParameterList"),
    ],
)
def test_what_no_phase_can_step_is_refused(optimizer: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare_run(learner={"q_optimizer": optimizer}).fit()


def test_groups_of_parameters_keep_their_own_learning_rates() -> None:
    def two_rates(parameters: Any) -> torch.optim.Optimizer:
        first, *others = parameters
        return torch.optim.SGD([{"params": [first], "lr": 1e-2}, {"params": others}], lr=1e-3)

    run = prepare_run(validate=False, learner={"q_optimizer": two_rates, "final_lr": 1.0}).fit()
    assert [group["lr"] for group in run.trainer.optimizers[0].param_groups] == [1e-2, 1e-3]


# The command line

GIVEN: dict[str, Any] = {
    "barebones": False, "logger": None, "callbacks": None, "strategy": "auto", "devices": 1,
    "num_nodes": 1, "enable_progress_bar": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "is_several"),
    [
        ({"devices": 2}, True),
        ({"devices": "2"}, True),
        ({"devices": [0, 1]}, True),
        ({"devices": "0,1"}, True),
        ({"num_nodes": 2}, True),
        ({"devices": 1}, False),
        ({"devices": [1]}, False),
        ({"devices": "0,"}, False),
        ({"devices": "auto"}, False),
    ],
    ids=str,
)
def test_several_devices_get_the_strategy_for_phases(
    settings: dict[str, Any], is_several: bool
) -> None:
    found = trainer_settings.merged(GIVEN | settings, [])
    assert isinstance(found.get("strategy"), PhaseDDP) == is_several
    named = trainer_settings.merged(GIVEN | settings | {"strategy": "ddp"}, [])
    assert "strategy" not in named


def test_callbacks_and_loggers_of_the_user_join_the_runs_own(tmp_path: Path) -> None:
    own, theirs = MetricsCsv(tmp_path), CSVLogger(tmp_path)
    checkpoint = ModelCheckpoint(tmp_path)
    for given in (theirs, [theirs]):
        assert trainer_settings.merged(GIVEN | {"logger": given}, [own])["logger"] == [own, theirs]
    assert trainer_settings.merged(GIVEN | {"logger": True}, [own])["logger"] == [own]
    assert trainer_settings.merged(GIVEN | {"callbacks": [checkpoint]}, [])["enable_checkpointing"]
    with pytest.raises(ConfigError, match=r"trainer\.logger is false"):
        trainer_settings.merged(GIVEN | {"logger": False}, [own])
    with pytest.raises(ConfigError, match=r"trainer\.barebones is true"):
        trainer_settings.merged(GIVEN | {"barebones": True}, [own])
    (bar,) = trainer_settings.progress_bars(GIVEN)
    assert isinstance(bar, EnvStepProgress)
    assert not trainer_settings.progress_bars(GIVEN | {"enable_progress_bar": False})
    assert not trainer_settings.progress_bars(GIVEN | {"callbacks": TQDMProgressBar()})


def test_processes_that_are_slow_for_a_good_reason_are_waited_for() -> None:
    assert PhaseDDP()._timeout.total_seconds() >= 1800
    with open(conf_folder() / "trainer" / "ddp.yaml") as file:
        assert "timeout_seconds: 1800" in file.read()


def test_strategies_of_others_are_known_by_their_class() -> None:
    for strategy in (DDPStrategy, FSDPStrategy):
        assert not issubclass(strategy, PhaseDDP)


FLAGS = [
    "fit",
    "--experiment=mountain_car_levels",
    "--data.collect.env_steps=1500",
    "--data.collect.warmup=500",
    "--data.collect.num_envs=8",
    "--data.replay.updates_per_batch=2",
    "--data.evaluation.every=600",
    "--data.replay.batch_size=16",
    "--data.evaluation.test_episodes=2",
    "--data.evaluation.episodes=2",
    "--model.network.hidden=[16,16]",
    "--data.curriculum.arm=target",
    "--name=x",
]
FOLDER = Path("runs/mountain_car_levels/x")


@pytest.mark.parametrize(
    "strategy", ["ddp", "ddp_find_unused_parameters_true", "fsdp", "deepspeed"]
)
def test_strategies_that_cannot_alternate_are_refused_before_anything_starts(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--trainer.devices=2", f"--trainer.strategy={strategy}", "--trainer.accelerator=cpu"]
    with pytest.raises((ConfigError, MisconfigurationException)) as refusal:
        cli.main([*FLAGS, *flags])
    assert re.search(rf"trainer.strategy is DDPStrategy|(?i:{strategy})", str(refusal.value))
    assert not list(tmp_path.rglob("*.yaml"))


def test_fast_dev_run_runs_everything_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = cli.main([*FLAGS, "--trainer.fast_dev_run=true"])
    assert run.datamodule.batches_done == 1
    assert "training, validation and test ran through" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and not run.run_folder.exists()


def test_a_run_without_test_reports_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main([*FLAGS, "--trainer.limit_test_batches=0", "--trainer.limit_val_batches=0"])
    summary = json.loads((FOLDER / "summary.json").read_text())
    assert summary["target_return_mean"] is None and summary["env_steps"] == 1496
    assert not (FOLDER / "test.json").exists()
    assert (FOLDER / "checkpoints" / "last.ckpt").is_file()


def test_a_limited_run_with_a_stock_checkpoint_and_a_profiler_leaves_a_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    cli.main(
        [
            *FLAGS, "--trainer.max_epochs=1", "--trainer.profiler=simple",
            "--trainer.enable_progress_bar=false",
            "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint",
        ]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "trainer.max_epochs 1 was reached" in printed
    assert "Training DQN" not in printed  # that is the progress bar's
    assert "run_training_epoch" in caplog.text
    summary = json.loads((FOLDER / "summary.json").read_text())
    assert 0 < summary["env_steps"] < 1500 and summary["target_return_mean"] is not None
    with (FOLDER / "metrics.csv").open(newline="") as file:
        assert list(csv.DictReader(file))
    (stock,) = FOLDER.rglob("epoch=0-*.ckpt")
    cli.main(["test", f"--ckpt_path={stock}"])
    tested = json.loads((FOLDER / "test.json").read_text())
    assert tested["target_return_mean"] == summary["target_return_mean"]


@pytest.mark.parametrize("episodes", ["validation", "test"])
def test_no_episodes_are_refused_with_the_way_to_have_none(episodes: str) -> None:
    limit = {"validation": "limit_val_batches", "test": "limit_test_batches"}[episodes]
    with pytest.raises(ConfigError, match=rf"episodes is 0.*--trainer.{limit} 0"):
        prepare_run(ShortCar, **{f"{episodes}_episodes": 0})
