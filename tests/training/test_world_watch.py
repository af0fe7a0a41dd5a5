"""The watch over a world: runs whose numbers are known, and what the watch must leave alone."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ShortCar, data_settings, learner_settings, make_trainer
from lightning.pytorch import Callback
from torch import Tensor

from lit_crl import CreativeLearner, ReplayDataModule
from lit_crl.envs import MountainCar
from lit_crl.evaluation import world_verdicts as verdicts
from lit_crl.evaluation.protocol import Played
from lit_crl.runs.callbacks import RecordMetrics, RunCheckpoint, RunReport
from lit_crl.runs.callbacks.metrics import MetricsCsv
from lit_crl.runs.checkpoints.experience import collected_state
from lit_crl.training.dreams.measurements import measure, noise
from lit_crl.training.dreams.watch import WorldWatch
from lit_crl.world.batch import RealSteps
from lit_crl.world.interface import Imagined
from lit_crl.world.networks import Generators
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan

LIMIT = 25
WORLD = {"loss": "gan_reconstruction", "members": 3, "hidden": (16,), "head_hidden": (16,)}
DREAMS = {
    "every": 64, "updates": 2, "first_updates": 3, "batch_size": 16, "rare": 4, "dreams": 8,
    "horizon": 5, "held_back": 0.3, "error_bound": 100.0,
}  # fmt: skip
EVERYTHING = {
    "error_1", "error_5", "error_20", "beyond_bounds", "reward_error", "end_calibration_error",
    "end_predicted", "end_real", "data_noise", "z_used", "disagreement", "disagreement_far",
    "real_ends", "dreamed_ends", "real_rare_rewards", "dreamed_rare_rewards", "coverage_real",
    "coverage_dreams", "dream_return", "dream_return_gap",
}  # fmt: skip


class Free(ShortCar):
    """A car whose steps neither cost nor pay anything."""

    def dynamics(self, state: Tensor, levels: Tensor, action: Tensor) -> Any:
        after, reward, terminated = super().dynamics(state, levels, action)
        return after, torch.zeros_like(reward), terminated


class Keep(Callback):
    """Keeps what each validation measured."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.found.append(dict(outputs))


def prepared(
    *callbacks: Callback,
    env: Any = ShortCar,
    world: dict[str, Any] | None = None,
    dreams: dict[str, Any] | None = None,
    logger: Any = False,
    **data: Any,
) -> tuple[CreativeLearner, ReplayDataModule, Any]:
    tiny = {
        "env_steps": 608, "num_envs": 4, "capacity": 2_000, "warmup": 160, "batch_size": 16,
        "updates_per_batch": 2, "gan_updates": 0, "arm": "target", "validate_every": 112,
        "validation_episodes": 3, "test_episodes": 4, "n_steps": 1, "seed": 3,
    } | data  # fmt: skip
    learner = CreativeLearner(**learner_settings(hidden=(16,), seed=3), world=WORLD | (world or {}))
    module = ReplayDataModule(env, **data_settings(**tiny), world=DREAMS | (dreams or {}))
    return (
        learner,
        module,
        make_trainer(callbacks=list(callbacks), logger=logger, log_every_n_steps=4),
    )


def fitted(*callbacks: Callback, **given: Any) -> tuple[CreativeLearner, ReplayDataModule, Any]:
    learner, data, trainer = prepared(*callbacks, **given)
    trainer.fit(learner, datamodule=data)
    return learner, data, trainer


def of_world(numbers: dict[str, float]) -> set[str]:
    return {name.removeprefix("world/") for name in numbers if name.startswith("world/")}


def test_each_validation_measures_everything() -> None:
    keep = Keep()
    _, data, trainer = fitted(keep)
    assert len(keep.found) == 4
    assert of_world(keep.found[-1]) == EVERYTHING
    assert all(math.isfinite(number) for found in keep.found for number in found.values())
    assert data.watch.numbers == {
        name: number for name, number in keep.found[-1].items() if name.startswith("world/")
    }
    assert trainer.callback_metrics["world/error_1"].item() == pytest.approx(
        data.watch.numbers["world/error_1"]
    )


def test_the_numbers_of_a_run_are_those_of_loops() -> None:
    """Frequencies and calibration from the replay and the dreams, row by row."""
    _, data, _ = fitted()
    dreaming, numbers = data.dreaming, data.watch.numbers
    assert dreaming is not None and dreaming.store is not None
    rows = data.replay.startable.nonzero().flatten().tolist()
    ends = sum(data.replay.discount[row].item() == 0 for row in rows)
    assert numbers["world/real_ends"] == pytest.approx(1000 * ends / len(rows))
    rewards = {row: data.replay.reward[row].item() for row in rows}
    usual = sorted(rewards.values())[(len(rows) - 1) // 2]
    half = max(abs(r - usual) for r in rewards.values()) / 2
    for name, given in (("real", [*rewards.values()]), ("dreamed", dreaming.store.reward.tolist())):
        rare = sum(abs(r - usual) > half for r in given)
        assert numbers[f"world/{name}_rare_rewards"] == pytest.approx(
            1000 * rare / len(given), rel=1e-4
        )
    dreamed = dreaming.store.discount.tolist()
    assert numbers["world/dreamed_ends"] == pytest.approx(
        1000 * sum(d == 0 for d in dreamed) / len(dreamed), rel=1e-4
    )
    low, high = (-1.2, -0.07), (0.6, 0.07)  # the bounds of the task
    for name, points in (("real", data.replay.obs[rows]), ("dreams", dreaming.store.obs)):
        cells = {
            tuple(min(9, int((x - a) / (b - a) * 10)) for x, a, b in zip(p, low, high, strict=True))
            for p in points.tolist()
            if all(a <= x <= b for x, a, b in zip(p, low, high, strict=True))
        }
        assert abs(numbers[f"world/coverage_{name}"] - len(cells) / 100) < 0.011


class Paid(ShortCar):
    """A car that is paid 3 in the left quarter of the places where it starts, and beyond."""

    def dynamics(self, state: Tensor, levels: Tensor, action: Tensor) -> Any:
        after, reward, terminated = super().dynamics(state, levels, action)
        return after, torch.where(after[:, 0] < -0.55, 3.0, reward), terminated


def test_rare_rewards_are_counted_in_dreams_and_in_the_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A world that nearly says −1 pays nothing rare; one that says 2.5 pays it at each step."""
    imagine = TransitionGan.imagine
    for said, expected in ((-0.9, 0.0), (2.5, 1000.0)):

        def pays(self: Any, *given: Any, said: float = said) -> Imagined:
            step = imagine(self, *given)
            return step._replace(reward=torch.full_like(step.reward, said))

        monkeypatch.setattr(TransitionGan, "imagine", pays)
        _, data, _ = fitted(env=Paid, dreams={"error_bound": 100.0})
        numbers, rewards = data.watch.numbers, data.replay.reward[data.replay.startable]
        assert numbers["world/real_rare_rewards"] == pytest.approx(
            1000 * (rewards == 3).float().mean().item()
        )
        assert 0 < numbers["world/real_rare_rewards"] < 500
        assert numbers["world/dreamed_rare_rewards"] == pytest.approx(expected)


def test_watching_changes_nothing_that_trains() -> None:
    class Count(Callback):
        def __init__(self) -> None:
            self.counts: list[Tensor] = []

        def on_train_end(self, trainer: Any, *_: Any) -> None:
            self.counts.append(trainer.datamodule.dreaming.starts.counts.clone())

    states = []
    for validate_every in (112, 64, 608):
        count = Count()
        learner, data, _ = fitted(count, validate_every=validate_every)
        collected = collected_state(data, learner)
        collected.pop("watch")
        states.append(copy.deepcopy([learner.state_dict(), collected["dreams"], count.counts]))
    for other in states[1:]:
        for name, value in states[0][0].items():
            assert torch.equal(value, other[0][name]), name
        one, two = states[0][1], other[1]
        assert all(
            torch.equal(a, b)
            for a, b in zip(one["dreams"]["store"], two["dreams"]["store"], strict=True)
        )
        assert torch.equal(one["rng"], two["rng"]) and one["counters"] == two["counters"]
        assert torch.equal(one["dreams"]["env"]["rng"], two["dreams"]["env"]["rng"])
        assert torch.equal(states[0][2][0], other[2][0])


def pays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every step of a world pays 1, and none ends."""
    imagine = TransitionGan.imagine

    def generous(self: Any, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        step = imagine(self, obs, action, rng)
        never = torch.zeros_like(step.terminated)
        return step._replace(reward=torch.ones_like(step.reward), terminated=never)

    monkeypatch.setattr(TransitionGan, "imagine", generous)


def test_a_world_that_pays_on_a_task_that_does_not_is_seen_through(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pays_one(monkeypatch)

    class Listen(Callback):
        def __init__(self) -> None:
            self.said: list[int] = []

        def on_validation_end(self, *_: Any) -> None:
            self.said.append(capsys.readouterr().out.count("The world is exploited"))

    listen, keep = Listen(), Keep()
    report = RunReport(tmp_path, "generous", "")
    record, log = RecordMetrics(), MetricsCsv(tmp_path)
    callbacks = (keep, listen, record, report)
    learner, data, trainer = fitted(*callbacks, env=Free, logger=log, dreams={"explorers": 0.0})
    with_dreams = ["world/dream_return" in found for found in keep.found]
    assert with_dreams == [True] * 4
    assert listen.said == [0, 1, 0, 0]
    trainer.test(learner, datamodule=data, verbose=False)
    report.summarise(trainer, learner)
    for numbers in (*keep.found, report.test):
        assert numbers["target_return_mean"] == numbers["target_return_std"] == 0
        assert numbers["world/dream_return"] == numbers["world/dream_return_gap"] == LIMIT
    assert report.summary["dream_return_gap"] == LIMIT
    assert not any("/" in key for key in report.summary)
    known = {key: value for key, value in report.summary.items() if value is not None}
    real = [key for key in known if "return" in key and "dream" not in key]
    assert real and all(known[key] == 0 for key in real)
    real = [key for row in log.rows for key in row if "return" in key and "dream" not in key]
    assert {"behaviour/return_mean", "evaluation/target_return_mean"} <= set(real)
    assert all(float(row[key]) == 0 for row in log.rows for key in real if key in row)


def test_members_that_are_one_freeze_curiosity(capsys: pytest.CaptureFixture[str]) -> None:
    learner, data, _ = fitted()
    assert "frozen" not in capsys.readouterr().out
    apart = measure_now(learner, data)
    assert apart["world/disagreement_far"] > apart["world/disagreement"] > 0
    assert learner.world_gan is not None
    for weights in learner.world_gan.generators.parameters():
        weights.data.copy_(weights.data[:1].expand_as(weights))
    data.watch.look(learner, None)
    assert "frozen" not in capsys.readouterr().out  # a single look may be chance
    data.watch.look(learner, None)
    assert capsys.readouterr().out.count("Curiosity is frozen") == 1
    data.watch.look(learner, None)
    assert "frozen" not in capsys.readouterr().out
    assert data.watch.numbers["world/disagreement_far"] < 1e-5


def measure_now(learner: CreativeLearner, data: ReplayDataModule) -> dict[str, float]:
    assert data.dreaming is not None
    return measure(data.dreaming, learner, None, torch.Generator().manual_seed(0))


def test_without_episodes_there_is_no_return() -> None:
    learner, data, _ = fitted()
    assert of_world(measure_now(learner, data)) == EVERYTHING - {"dream_return", "dream_return_gap"}
    assert data.dreaming is not None
    endless = Played(torch.zeros(2, 2), 10_000, 0.0)
    found = measure(data.dreaming, learner, endless, torch.Generator())
    assert "world/dream_return" not in found


def test_without_held_back_episodes_there_is_one_error() -> None:
    """That of one step, on what came after the world had learnt; if nothing did, there is none."""
    learner, data, _ = fitted(dreams={"held_back": 0.0})
    assert of_world(data.watch.numbers) == {
        "error_1", "disagreement_far", "real_ends", "dreamed_ends", "real_rare_rewards",
        "dreamed_rare_rewards", "coverage_real", "coverage_dreams", "dream_return",
        "dream_return_gap",
    }  # fmt: skip
    assert data.dreaming is not None
    data.dreaming._learnt.copy_(data.replay.cursor + 1)
    assert "world/error_1" not in measure_now(learner, data)


def test_the_first_validation_has_an_error_of_one_step() -> None:
    """Before any episode has ended, so that none can be held back."""
    keep = Keep()
    fitted(keep, env=MountainCar, env_steps=416, validate_every=64)
    assert all("world/error_1" in found for found in keep.found)
    assert not any("world/error_5" in found for found in keep.found)


def test_without_a_world_nothing_is_measured() -> None:
    keep = Keep()
    _, data, _ = fitted(keep, world={"loss": "none"})
    assert data.watch.dreaming is None and not data.watch.numbers
    assert keep.found and not any(map(of_world, keep.found))


def test_a_resumed_watch_says_what_the_uninterrupted_one_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Stopped after the first validation that found too much: the second one speaks."""
    pays_one(monkeypatch)

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            # Two batches after the first validation.
            if trainer.datamodule.env_steps >= 200 + 2 * 4 * 4:
                trainer.should_stop = True

    settings = {"env": Free, "env_steps": 800, "validate_every": 200}
    _, whole, _ = fitted(**settings)
    capsys.readouterr()
    _, data, _ = fitted(RunCheckpoint(tmp_path), Stop(), **settings)
    assert data.env_steps < 400 and "exploited" not in capsys.readouterr().out
    first = data.watch.state_dict()
    learner, data, trainer = prepared(RunCheckpoint(tmp_path), **settings)
    trainer.fit(learner, datamodule=data, ckpt_path=str(tmp_path / "last.ckpt"))
    assert first["running"]["exploited"] == 1
    assert data.watch.state_dict()["running"]["exploited"] == 4
    assert capsys.readouterr().out.count("The world is exploited") == 1
    assert data.watch.state_dict() == whole.watch.state_dict()


def test_a_watch_keeps_what_it_said() -> None:
    learner, data, _ = fitted(dreams={"curiosity": 0.3})
    other = WorldWatch(3)
    other.load_state_dict(copy.deepcopy(data.watch.state_dict()))
    assert other.state_dict() == data.watch.state_dict()
    assert data.clock.seconds.get("watch") is None  # it is charged to the learner's clock alone
    assert learner.clock.seconds["watch"] > 0


class Handmade(Generators):
    """Members that all are one function of the observation, the action and the noise."""

    def __init__(self, world: TransitionGan, target: Callable[..., Tensor]) -> None:
        super().__init__(world.generators.members, world.generators.noise_dim)
        self._world, self._target = [world], target  # in a list: it is no part of this module

    def forward(self, condition: Tensor, z: Tensor) -> Tensor:
        world = self._world[0]
        scaled, action = condition[..., : -world.num_actions], condition[..., -world.num_actions :]
        obs = world.obs_mean + world.obs_std * scaled
        made = self._target(obs, action.argmax(-1), z)
        return made if made.ndim == 3 else made.expand(self.members, -1, -1)

    def centre(self, condition: Tensor) -> Tensor:
        return self(condition, condition.new_zeros(*condition.shape[:-1], self.noise_dim))

    def rescale(self, factor: Tensor) -> None:
        raise AssertionError("it is not trained")


@pytest.mark.parametrize("bias", [0.0, 0.01, 5.0])
def test_errors_of_a_world_that_knows_the_task(bias: float) -> None:
    """The car's own dynamics, and a position that is wrong by a bias at each step."""
    learner, data, _ = fitted(env_steps=800, validate_every=800)
    world, dreaming = learner.world_gan, data.dreaming
    assert world is not None and dreaming is not None
    car = ShortCar(1)

    def dynamics(obs: Tensor, action: Tensor, z: Tensor) -> Tensor:
        after, _, _ = car.dynamics(obs, obs, action)
        return world.target(obs, after + torch.tensor([bias, 0.0]))

    world.generators = Handmade(world, dynamics)
    found = measure_now(learner, data)
    spread = data.replay.obs[data.replay.startable].double().std(0, correction=0)
    error = bias / spread[0].item() / math.sqrt(2)
    assert found["world/error_1"] == pytest.approx(error, rel=1e-3, abs=1e-4)
    if bias == 0:
        assert found["world/error_20"] < 1e-4 and found["world/data_noise"] < 1e-4
        assert found["world/z_used"] == found["world/beyond_bounds"] == 0
    elif bias == 5:  # far outside the box: the error after one step is not that of the bound
        assert found["world/beyond_bounds"] == 1 and found["world/error_5"] < error / 2
    else:
        # The bias adds up; gravity, which sees it, changes the velocity a little.
        assert found["world/error_5"] == pytest.approx(5 * error, rel=0.05)
        assert found["world/error_20"] > 15 * error
        assert found["world/data_noise"] < 0.1  # what is wrong alike is no noise
    assert found["world/disagreement"] < 1e-5


@pytest.mark.parametrize(("uses_noise", "expected"), [(True, 1.0), (False, 0.0)])
def test_a_coin_is_dreamed_with_z_or_without(uses_noise: bool, expected: float) -> None:
    rng = torch.Generator().manual_seed(0)
    world = TransitionGan(1, 2, WorldSettings(loss="gan", members=3))
    obs, n = torch.rand(800, 1, generator=rng), 800
    coin = torch.where(torch.rand(n, 1, generator=rng) < 0.5, 1.0, -1.0)
    action = torch.randint(2, (n,), generator=rng)
    going_on = torch.ones(n).bool()
    world.fit_normaliser(obs, torch.zeros(n), obs + coin)

    def toss(obs: Tensor, action: Tensor, z: Tensor) -> Tensor:
        return z[..., :1].sign() if uses_noise else 0 * obs

    world.generators = Handmade(world, toss)
    found = noise(world, RealSteps(obs, action, obs[:, 0], ~going_on, obs + coin, going_on), rng)
    assert found["data_noise"].item() == pytest.approx(1.0, abs=0.1)
    assert found["z_used"].item() == pytest.approx(expected, abs=0.1)
    numbers = {f"world/{name}": number.item() for name, number in found.items()}
    assert (verdicts.ignores_noise(numbers) is None) == uses_noise
