"""What an evaluation may cost: it ends, within its allowance, in few environments, and says so."""

import io
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import registry
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor

from lit_crl.core.global_streams import seed_global_streams
from lit_crl.envs import GymnasiumEnv, MountainCar
from lit_crl.envs.episodes import run_episodes
from lit_crl.envs.gym import adapter
from lit_crl.evaluation import pool
from lit_crl.evaluation.allowance import Allowance, evenly, longest_episode
from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.evaluation.pool import EvaluationEnvs
from lit_crl.evaluation.protocol import Evaluation
from lit_crl.runs.callbacks import (
    EnvStepProgress,
    MetricsCsv,
    RecordMetrics,
    RunReport,
)

Make = Callable[..., Any]
Difference = Callable[[Any, Any], str | None]
CPU = torch.device("cpu")


class Corridor(gymnasium.Env[Any, Any]):
    """Ends after ``length`` steps, if it does; counts its copies and its steps, notes its seeds."""

    made = closed = most_open = steps = 0
    seeds: list[int | None] = []  # noqa: RUF012
    observation_space, action_space = Box(-1, 1, (2,)), Discrete(2)

    def __init__(self, length: float = 9, says: str | None = None) -> None:
        cls = Corridor
        cls.made += 1
        cls.most_open = max(cls.most_open, cls.made - cls.closed)
        self.length, self.says = length, says

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        Corridor.seeds.append(seed)
        self.now = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> Any:
        assert self.now < self.length, "stepped after its end"
        Corridor.steps += 1
        self.now += 1
        ended = self.now >= self.length
        info = {self.says: True} if self.says and ended else {}
        return np.zeros(2, np.float32), 1.0, ended, False, info

    def close(self) -> None:
        Corridor.closed += 1


class GlobalChance(Corridor):
    """Draws from the global streams of numpy and Python, and ignores the seed of reset."""

    def step(self, action: int) -> Any:
        _, _, *rest = super().step(action)
        obs = np.random.uniform(-1, 1, 2).astype(np.float32)  # noqa: NPY002
        return obs, random.random(), *rest


@pytest.fixture(autouse=True)
def corridors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ids of both, and counts from nothing; the step that tries an adapter out does not count."""
    try_out = adapter.try_out

    def uncounted(*args: Any) -> None:
        steps, seeds = Corridor.steps, [*Corridor.seeds]
        try_out(*args)
        Corridor.steps, Corridor.seeds[:] = steps, seeds

    monkeypatch.setattr(adapter, "try_out", uncounted)
    Corridor.made = Corridor.closed = Corridor.most_open = Corridor.steps = 0
    Corridor.seeds.clear()
    gymnasium.register("Corridor-v0", Corridor)
    gymnasium.register("GlobalChance-v0", GlobalChance)
    yield
    for name in ("Corridor-v0", "GlobalChance-v0"):
        del registry[name]


def corridor(id: str = "Corridor-v0", **options: Any) -> Callable[..., GymnasiumEnv]:
    """A factory of corridors of Gymnasium."""
    return lambda n, device="cpu": GymnasiumEnv(n, device, id=id, **options)


class StubLearner:
    """Always takes the first action, and makes one level again and again."""

    memory_size = 0

    def action_values(self, obs: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0]).expand(len(obs), -1)

    def draw_noise(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.rand(n, 1, generator=rng)

    def generate_levels(self, z: Tensor) -> Tensor:
        return torch.cat([0.2 + 0.3 * z, 0.04 + 0.02 * z], dim=1)

    def success_probability(self, levels: Tensor) -> Tensor:
        return levels[:, 0]


def loud(folder: Path) -> dict[str, Any]:
    """Trainer settings of a run that prints and writes."""
    logger = MetricsCsv(folder)
    return {"logger": logger, "enable_progress_bar": True, "log_every_n_steps": 5}


# The allowance


@given(st.integers(16, 10_000), st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_parts_take_halves_of_what_is_left_and_never_more_than_all(
    env_steps: int, used: list[float]
) -> None:
    allowance = Allowance(env_steps, len(used))
    left = env_steps
    for index, share in enumerate(used):
        may = allowance.next_part()
        assert may == (left if index == len(used) - 1 else left // 2) and may > 0
        spent = int(share * may)
        allowance.spend(spent, 1)
        left -= spent
    assert allowance.spent == env_steps - left <= env_steps and allowance.cut_off == len(used)


@given(
    st.one_of(st.none(), st.integers(1, 500)),
    st.integers(1, 40),
    st.sampled_from([1, 4]),
    st.integers(8, 5_000),
)
def test_two_groups_of_episodes_always_fit(
    limit: int | None, groups: int, size: int, env_steps: int
) -> None:
    longest = longest_episode(limit, groups, size, env_steps)
    assert longest >= 1 and longest * size * min(groups, 2) <= env_steps
    if limit is not None and limit * size * min(groups, 2) <= env_steps:
        assert longest == limit  # no episode is cut off that there is room for


@pytest.mark.parametrize("n", [1, 2, 7, 100, 230])
def test_every_beginning_is_spread_evenly(n: int) -> None:
    order = evenly(n).tolist()
    assert sorted(order) == list(range(n))
    for taken in range(1, n + 1):
        places = sorted(order[:taken])
        gaps = np.diff([places[-1] - n, *places])  # round in a circle
        assert max(gaps) <= math.ceil(3 * n / taken)


class Scattered(MountainCar):
    """Evaluated in itself, with held-out levels; some episodes are short and some long."""

    max_episode_steps, gymnasium_id = 60, None

    def heldout(self) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(0)
        return {"a": self.reference_levels(80, rng), "b": self.reference_levels(40, rng)}


@pytest.mark.parametrize("kind", [Evaluation, FinalEvaluation])
@pytest.mark.parametrize("env_steps", [16, 100, 999, 5_000, 100_000])
def test_an_evaluation_takes_no_more_than_its_allowance(
    kind: type[Evaluation], env_steps: int
) -> None:
    results = kind(EvaluationEnvs(Scattered, Scattered(1)), 20, 64, env_steps, 0).run(
        StubLearner(), True
    )
    assert 0 < results["evaluation_env_steps"] <= env_steps
    assert results["target_episodes"] >= 2 and results["heldout_levels"] >= 2
    if env_steps >= 999:  # the target comes first, and whole episodes rather than many
        assert results["target_episodes"] == min(20, env_steps // 2 // 60)
        assert results["target_cut_off"] == 0
    if env_steps == 100_000:
        assert results["levels_measured"] == 64
        assert results["heldout_levels"] == (30 if kind is Evaluation else 90)


def test_what_is_short_of_room_is_cut_off_and_told() -> None:
    make = corridor(env_kwargs={"length": math.inf}, success_return=1e9)
    results = Evaluation(EvaluationEnvs(make, make(1)), 20, 0, 300, 0).run(StubLearner(), False)
    assert results["target_episodes"] == results["target_cut_off"] == 2
    assert results["evaluation_cut_off"] == 2 and results["evaluation_env_steps"] == 300
    assert results["target_return_mean"] == 150 and results["target_success_rate"] == 0
    assert Corridor.steps == 300


@pytest.mark.parametrize("env_steps", [64, 4_000])
@pytest.mark.parametrize("game", ["Breakout", "Seaquest"])
def test_who_does_nothing_in_a_game_without_a_limit_is_evaluated_in_time(
    game: str, env_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minatar", reason="its extra is minatar")

    def make(num_envs: int, device: torch.device = CPU) -> GymnasiumEnv:
        return GymnasiumEnv(num_envs, device, id=f"minatar:MinAtar/{game}-v1")

    example, counted, step = make(1), [0], GymnasiumEnv.step
    assert example.max_episode_steps is None

    def counting(env: GymnasiumEnv, actions: Tensor) -> Any:
        counted[0] += int(env.envs.running.sum())
        return step(env, actions)

    monkeypatch.setattr(GymnasiumEnv, "step", counting)
    results = Evaluation(EvaluationEnvs(make, example), 20, 0, env_steps, 0).run(
        StubLearner(), False
    )  # 0 is no-op
    assert results["evaluation_env_steps"] == counted[0] <= env_steps
    assert 2 <= results["target_episodes"] <= 20
    assert 0 <= results["target_cut_off"] <= results["target_episodes"]
    assert all(map(math.isfinite, results.values()))


@pytest.mark.parametrize("length", [9, 150, math.inf])
def test_evaluations_of_a_whole_run_stay_within_their_share(
    length: float, make_run: Make, tmp_path: Path
) -> None:
    report = RunReport(tmp_path, "tiny", "")
    callbacks = [report, RecordMetrics(), EnvStepProgress()]
    share = 0.5
    run = make_run(
        env=corridor(env_kwargs={"length": length}), arm="target", callbacks=callbacks,
        trainer=loud(tmp_path), env_steps=1_200, validate_every=300,
        validation_episodes=20, test_episodes=100, evaluation_share=share,
    )  # fmt: skip
    for callback in callbacks:
        if hasattr(callback, "console"):
            callback.console = Console(file=io.StringIO(), width=160)
    run.fit()
    in_training = report.evaluation_env_steps
    assert 0 < in_training <= share * 1_200
    run.trainer.test(run.learner, datamodule=run.data, verbose=False)
    report.summarise(run.trainer, run.learner)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["evaluation_env_steps"] - in_training <= share * 1_200
    # Steps are counted of episodes that run, and none else are taken.
    assert Corridor.steps == summary["env_steps"] + summary["evaluation_env_steps"]
    assert Corridor.made == Corridor.closed <= 8 + 16 + 16
    assert Corridor.most_open <= 8 + 16
    printed = report.console.file.getvalue()
    lines = callbacks[2].console.file.getvalue()
    assert ("episodes cut off" in lines) == (length > 72)  # half of 144, for one of two episodes
    assert ("episodes were cut off" in printed) == (length > 300)


# Copies, and the chance of each episode


def test_copies_are_few_made_once_and_closed() -> None:
    envs = EvaluationEnvs(corridor(), corridor()(1))
    evaluations = [Evaluation(envs, 20, 0, 2_000, 0), FinalEvaluation(envs, 100, 0, 5_000, 0)]
    for evaluation in evaluations * 2:
        assert evaluation.run(StubLearner(), False)["target_episodes"] == evaluation.episodes
    assert Corridor.made <= 1 + 16 + 2
    envs.close()
    assert Corridor.closed == Corridor.made - 1  # all but the example, which is the caller's


def test_validation_and_test_share_no_episode() -> None:
    seeds = []
    for kind in (Evaluation, FinalEvaluation):
        make = corridor(max_episode_steps=20)
        envs = EvaluationEnvs(make, make(1))
        Corridor.seeds.clear()
        kind(envs, 20, 0, 10_000, 0).run(StubLearner(), False)
        seeds.append(set(Corridor.seeds))
    assert [len(each) for each in seeds] == [20, 20] and not seeds[0] & seeds[1]
    levels = [
        kind(EvaluationEnvs(Scattered, Scattered(1)), 1, 0, 1, 0).heldout.levels
        for kind in (Evaluation, FinalEvaluation)
    ]
    rows = [{tuple(level) for level in each.tolist()} for each in levels]
    everything = {tuple(v) for each in Scattered(1).heldout().values() for v in each.tolist()}
    assert not rows[0] & rows[1] and rows[0] | rows[1] == everything


@pytest.mark.parametrize("kind", [Evaluation, FinalEvaluation])
def test_the_number_of_copies_changes_no_number(
    kind: type[Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for copies in (3, 50, 1_000):
        monkeypatch.setattr(pool, "MAX_BATCHED_COPIES", copies)
        monkeypatch.setattr(pool, "MAX_GYMNASIUM_COPIES", copies)
        for make in (Scattered, MountainCar):
            evaluation = kind(EvaluationEnvs(make, make(1)), 7, 10, 3_000, 0)
            found.append(evaluation.run(StubLearner(), True))
    assert found[0] == found[2] == found[4] and found[1] == found[3] == found[5]
    assert found[0] != found[1] and found[0]["levels_measured"] > 1


def test_training_does_not_notice_evaluation_in_environments_of_global_chance(
    make_run: Make, difference: Difference
) -> None:
    runs = []
    for every in (100, 350):
        seed_global_streams(7)
        settings = {"arm": "target", "env_steps": 600, "validate_every": every}
        runs.append(make_run(env=corridor("GlobalChance-v0"), **settings).fit())
    assert difference(runs[0].everything(), runs[1].everything()) is None
    returns = [
        Evaluation(EvaluationEnvs(make, make(1)), 5, 0, 1_000, 0).run(StubLearner(), False)
        for make in [corridor("GlobalChance-v0")] * 2
    ]
    assert returns[0] == returns[1] and returns[0]["target_return_std"] > 0


def test_an_evaluation_that_was_interrupted_leaves_environments_that_can_be_used() -> None:
    envs = EvaluationEnvs(corridor(), corridor()(1))
    evaluation = Evaluation(envs, 20, 0, 2_000, 0)
    whole = evaluation.run(StubLearner(), False)
    learner = StubLearner()
    asked = iter(range(100))

    def stop_at(obs: Tensor) -> Tensor:
        if next(asked) == 12:
            raise KeyboardInterrupt
        return StubLearner().action_values(obs)

    learner.action_values = stop_at  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(learner, False)
    assert evaluation.run(StubLearner(), False) == whole


# After a stage its environments are closed


def test_a_run_goes_on_in_environments_that_are_made_anew(
    make_run: Make, difference: Difference
) -> None:
    settings = {"env": corridor("CartPole-v1"), "arm": "target", "env_steps": 800}
    straight = make_run(**settings).fit()
    first = make_run(**settings)
    first.trainer.validate(first.learner, datamodule=first.data, verbose=False)
    before = first.data.env
    assert before.closed
    first.fit()
    assert first.data.env is not before and first.data.rollout.env is first.data.env
    assert difference(straight.everything(), first.everything()) is None
    after = first.data.env
    first.fit()  # nothing is left to do; the environments are those of before, made anew
    assert first.data.env is not after and first.data.rollout.env is first.data.env
    assert difference(straight.data.env.state_dict(), first.data.env.state_dict()) is None


# Success that nobody knows


def test_success_that_is_unknown_is_absent(make_run: Make, tmp_path: Path) -> None:
    report, progress = RunReport(tmp_path, "tiny", ""), EnvStepProgress()
    for callback in (report, progress):
        callback.console = Console(file=io.StringIO(), width=160)
    run = make_run(
        env=corridor(), arm="target", callbacks=[report, progress, RecordMetrics()],
        trainer=loud(tmp_path),
    ).fit()  # fmt: skip
    assert not any("success" in name for name in run.trainer.callback_metrics)
    run.trainer.test(run.learner, datamodule=run.data, verbose=False)
    report.summarise(run.trainer, run.learner)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["target_return_mean"] == 9 and summary["target_success_rate"] is None
    lines = [line for line in progress.console.file.getvalue().splitlines() if "return" in line]
    assert lines and not any("success" in line for line in lines)
    assert "success, target" not in report.console.file.getvalue()


class Reticent(Scattered):
    """Says of every other episode whether it was solved."""

    def step(self, actions: Tensor) -> Any:
        *rest, info = super().step(actions)
        known = torch.arange(self.num_envs) % 2 == 0
        return *rest, {**info, "success_known": known}


class Silent(Scattered):
    """Never says whether an episode was solved."""

    has_success = False


def test_what_is_unknown_counts_neither_as_solved_nor_as_failed() -> None:
    found = [
        FinalEvaluation(EvaluationEnvs(make, make(1)), 20, 8, 10**6, 0).run(StubLearner(), True)
        for make in (Scattered, Reticent, Silent)
    ]
    levels = FinalEvaluation(EvaluationEnvs(Scattered, Scattered(1)), 1, 0, 1, 0).heldout.levels
    act = lambda obs: StubLearner().action_values(obs).argmax(1)  # noqa: E731
    solved = run_episodes(Scattered(90), act, seed=0, levels=levels).success.float()
    assert found[0]["heldout_success_rate"] == pytest.approx(solved.mean().item())
    assert found[1]["heldout_success_rate"] == pytest.approx(solved[::2].mean().item())
    assert solved[::2].sum() > 0
    for each in found[1:]:
        missing = {"heldout_cvar10", "levels_frontier_rate", "p_hat_brier"}
        assert not missing & each.keys() and missing <= found[0].keys()
        assert "levels_valid_rate" in each
    silent = found[2]
    assert not any("success" in name for name in silent)
    assert silent["target_return_mean"] == found[0]["target_return_mean"]
    # What cannot be measured is not played.
    assert silent["heldout_levels"] == 0
    assert silent["evaluation_env_steps"] == found[0]["target_episodes"] * 60


def test_a_number_that_an_evaluation_lacks_is_not_an_older_one(make_run: Make) -> None:
    run = make_run(validate_every=200)
    run.data.setup("fit")
    seen = []
    results = iter([{"a": 1.0, "b": 2.0}, {"a": 3.0}, {"a": 4.0, "b": 5.0}] * 3)

    class Stand(Evaluation):
        def run(self, learner: Any, has_gan: bool) -> dict[str, float]:
            return {"evaluation_env_steps": 0.0, **next(results)}

    class Look(RecordMetrics):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append({k: float(v) for k, v in trainer.callback_metrics.items() if len(k) == 1})

    run.trainer.callbacks.append(Look())
    batch = run.data._evaluation(Stand, 1, 16)
    run.data.val_dataloader = lambda: batch
    run.fit()
    assert seen[:3] == [{"a": 1.0, "b": 2.0}, {"a": 3.0}, {"a": 4.0, "b": 5.0}]
