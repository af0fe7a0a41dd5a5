"""What the data hands to the learner, when, and from where.

Oracles: an environment that counts its own steps and episodes, the batches as they arrive at
``training_step``, and closed forms for budgets, shares and n-step returns.
"""

import copy
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import data_settings
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import FrameStackObservation
from lightning.pytorch import Callback
from torch import Tensor

from lit_crl import ReplayDataModule
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.equations import double_td_target, q_of
from lit_crl.dqn.exploration import LinearEpsilon
from lit_crl.dqn.replay.priorities import Priorities
from lit_crl.envs import (
    CartPole,
    GymnasiumEnv,
    MountainCar,
    PointMass,
)
from lit_crl.training.batches import Batch
from lit_crl.training.renamed import RENAMED

Make = Callable[..., Any]


class Recorder(Callback):
    """Keeps every batch as it comes, and the env steps at every batch and validation."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.env_steps: list[int] = []
        self.validations: list[int] = []

    def on_train_batch_start(self, trainer: Any, learner: Any, batch: Batch, *_: Any) -> None:
        self.batches.append(batch)
        self.env_steps.append(trainer.datamodule.env_steps)

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self.validations.append(trainer.datamodule.env_steps)


class CountingCar(MountainCar):
    """A car with short episodes that keeps a diary of its own."""

    max_episode_steps = 25
    gymnasium_id = None

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device)
        self.actions: list[Tensor] = []
        self.starts: list[Tensor] = []
        self.running = torch.zeros(num_envs)
        self.returns: list[float] = []
        self.ended: list[int] = []  # how many episodes had ended after each step
        self.won = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        given = options or {}
        mask = given.get("reset_mask", torch.ones(self.num_envs, dtype=torch.bool))
        self.running[mask] = 0
        self.starts.extend(given["levels"][mask].clone() if "levels" in given else [])
        return super().reset(seed=seed, options=options)

    def step(self, actions: Tensor) -> Any:
        result = super().step(actions)
        _, reward, terminated, truncated, _ = result
        self.actions.append(actions.clone())
        self.running += reward
        self.returns.extend(self.running[terminated | truncated].tolist())
        self.ended.append(len(self.returns))
        self.won += int(terminated.sum())
        return result


def point_mass(num_envs: int, device: torch.device) -> PointMass:
    return PointMass(num_envs, device, dim=2, max_episode_steps=20)


def cartpole(num_envs: int, device: torch.device) -> GymnasiumEnv:
    return GymnasiumEnv(num_envs, device, id="CartPole-v1")


def rows(table: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in table.flatten(0, -2).tolist()}


# What a batch looks like


def test_a_batch_is_a_stack_of_minibatches(make_run: Make) -> None:
    record = Recorder()
    run = make_run(
        callbacks=[record],
        validate=False,
        updates_per_batch=3,
        batch_size=16,
        gan_updates=5,
        gan_batch_size=24,
    ).fit()
    for batch, env_steps in zip(record.batches, record.env_steps, strict=True):
        assert batch.dqn.obs.shape == batch.dqn.next_obs.shape == (3, 16, 2)
        assert batch.dqn.action.shape == (3, 16) and batch.dqn.action.dtype == torch.int64
        assert batch.dqn.reward.shape == batch.dqn.discount.shape == (3, 16)
        assert batch.progress == env_steps / run.data.schedule.budget
    with_gan = [batch.gan for batch in record.batches if batch.gan is not None]
    for gan in with_gan:
        assert gan.real.shape == gan.level.shape == (5, 24, 2)
        assert gan.label.shape == gan.success.shape == (5, 24)
        assert set(gan.success.unique().tolist()) <= {0.0, 1.0}
    assert run.learner.updates == 3 * len(record.batches)
    assert run.learner.gan_updates == 5 * len(with_gan) > 0
    # Minibatches are drawn anew: none of them is a copy of another.
    first = record.batches[-1].dqn.obs
    assert not torch.equal(first[0], first[1])


def test_transitions_fold_n_steps_with_gamma(make_run: Make) -> None:
    record = Recorder()
    make_run(callbacks=[record], validate=False, gamma=0.9, n_steps=3).fit()
    # Every step costs 1; a window ends after 3 steps, at a truncation, or at the flag (0).
    allowed = {
        (round(-sum(0.9**k for k in range(steps)), 4), round(discount, 4))
        for steps in (1, 2, 3)
        for discount in (0.9**steps, 0.0)
    }
    folded = torch.cat(
        [torch.stack([b.dqn.reward, b.dqn.discount], -1).flatten(0, 1) for b in record.batches]
    )
    seen = {(round(reward, 4), round(discount, 4)) for reward, discount in folded.tolist()}
    assert seen <= allowed
    assert {(-2.71, 0.729), (-1.0, 0.9)} <= seen  # whole windows, and truncated ones


def test_the_gan_phase_runs_every_so_many_batches_once_there_are_outcomes(make_run: Make) -> None:
    record = Recorder()
    run = make_run(
        env=CountingCar, callbacks=[record], validate=False, gan_every=3, min_outcomes=20
    ).fit()
    car = run.data.env
    expected = []
    for batch, env_steps in enumerate(record.env_steps, start=1):
        outcomes = car.ended[env_steps // 8 - 1]
        expected.append(batch % 3 == 0 and outcomes >= 20)
    assert [batch.gan is not None for batch in record.batches] == expected
    due = expected[2::3]
    assert any(due) and not all(due)  # too early at first, in time later


def test_without_gan_updates_there_is_no_gan_phase(make_run: Make) -> None:
    record = Recorder()
    run = make_run(
        callbacks=[record], validate=False, gan_updates=0, arm=lambda n, curriculum, teacher:
        curriculum.env.reference_levels(n, curriculum.rng)
    ).fit()  # fmt: skip
    assert all(batch.gan is None for batch in record.batches) and run.learner.gan_updates == 0


def test_outcomes_are_levels_that_episodes_started_at(make_run: Make) -> None:
    record = Recorder()
    run = make_run(env=CountingCar, callbacks=[record], validate=False).fit()
    started = {tuple(level.tolist()) for level in run.data.env.starts}
    tried = run.data.archive.tried
    known = {
        (*level, success)
        for level, success in zip(tried.levels.tolist(), tried.values.tolist(), strict=True)
    }
    for gan in (batch.gan for batch in record.batches if batch.gan is not None):
        assert rows(gan.level) <= started
        assert rows(torch.cat([gan.level, gan.success[..., None]], -1)) <= known


def test_environments_that_explore_too_much_give_no_outcomes(make_run: Make) -> None:
    # ε of 8 environments: 0.4^(1 + i), so that only the last four stay below 0.03; and while
    # warming up every one is at 1.
    settings = {"env": CountingCar, "validate": False, "label_epsilon": 0.03, "env_steps": 1_200}
    run = make_run(**settings).fit()
    everything = make_run(**{**settings, "label_epsilon": 1.0}).fit()
    assert 0 < len(run.data.archive.tried) < len(everything.data.archive.tried) * 0.6
    assert len(everything.data.archive.tried) == len(everything.data.env.returns)


@pytest.mark.parametrize("kind", ["visited", "labelled", "frontier"])
def test_reals_come_from_the_archive(make_run: Make, kind: str) -> None:
    record = Recorder()
    run = make_run(
        callbacks=[record], validate=False, reals=kind, reference_reals=0.0, gan_updates=4,
        learner={"gan_loss": "least_squares"},
    ).fit()  # fmt: skip
    archive = run.data.archive
    visited = rows(archive.visited.levels[: len(archive.visited)])
    tried = rows(archive.tried.levels[: len(archive.tried)])
    reals = torch.cat([batch.gan.real for batch in record.batches if batch.gan is not None])
    assert rows(reals) <= (visited if kind == "visited" else visited | tried)
    assert len(rows(reals) & (visited - tried)) > 0
    assert (len(rows(reals) & (tried - visited)) > 0) == (kind != "visited")


class JudgeReals(Callback):
    """Exaggerates the success head, and judges the reals before it learns from them."""

    def __init__(self) -> None:
        self.on_frontier: list[Tensor] = []
        self.labels: list[Tensor] = []

    def on_train_start(self, trainer: Any, learner: Any) -> None:
        learner.level_gan.discriminator.success_head[-1].weight.data.mul_(30)

    def on_train_batch_start(self, trainer: Any, learner: Any, batch: Batch, *_: Any) -> None:
        if batch.gan is not None:
            p_hat = learner.success_probability(batch.gan.real.flatten(0, 1))
            self.on_frontier.append((p_hat > 0.1) & (p_hat < 0.9))
            self.labels.append(batch.gan.label.flatten())


@pytest.mark.parametrize("kind", ["visited", "labelled", "frontier"])
def test_only_labelled_reals_are_judged_by_the_success_head(make_run: Make, kind: str) -> None:
    judge = JudgeReals()
    make_run(
        callbacks=[judge], validate=False, reals=kind, learner={"gan_loss": "least_squares"}
    ).fit()
    # Before the first GAN phase p̂ has learned nothing: all reals are positive there.
    assert judge.labels[0].all()
    labels, on_frontier = torch.cat(judge.labels[1:]), torch.cat(judge.on_frontier[1:])
    assert on_frontier.any() and not on_frontier.all()
    expected = on_frontier.float() if kind == "labelled" else torch.ones_like(labels)
    assert torch.equal(labels, expected)


def test_reference_reals_are_the_share_that_was_asked_for(make_run: Make) -> None:
    record = Recorder()
    run = make_run(callbacks=[record], validate=False, reference_reals=0.25).fit()
    archive = run.data.archive
    known = rows(archive.visited.levels) | rows(archive.tried.levels)
    for gan in (batch.gan for batch in record.batches if batch.gan is not None):
        foreign = sum(tuple(level) not in known for level in gan.real.flatten(0, 1).tolist())
        assert foreign == round(0.25 * gan.label.numel())


def test_hindsight_makes_arrivals_of_failures(make_run: Make) -> None:
    def arrivals(share: float) -> float:
        record = Recorder()
        make_run(
            env=point_mass, callbacks=[record], validate=False, hindsight=share,
            novelty_exponent=0.0,
        ).fit()  # fmt: skip
        return torch.cat([batch.dqn.reward for batch in record.batches]).mean().item()

    assert arrivals(0.0) < 0.1 < 0.25 < arrivals(1.0)


class BeforeUpdates(Recorder):
    """Also keeps the networks that the first update of each batch starts from."""

    def __init__(self) -> None:
        super().__init__()
        self.networks: list[Any] = []

    def on_train_batch_start(self, trainer: Any, learner: Any, batch: Batch, *_: Any) -> None:
        super().on_train_batch_start(trainer, learner, batch)
        self.networks.append(copy.deepcopy((learner.q_network, learner.target_network)))


def test_priorities_are_the_td_errors_that_the_updates_found(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Tensor] = []
    update = Priorities.update
    monkeypatch.setattr(Priorities, "update", lambda *a: found.append(a[2].clone()) or update(*a))
    record = BeforeUpdates()
    run = make_run(callbacks=[record], validate=False, priority_exponent=0.6).fit()
    assert len(found) == len(record.batches) > 10
    for batch, networks, td_error in zip(record.batches, record.networks, found, strict=True):
        assert td_error.shape == batch.weight.shape == batch.dqn.reward.shape
        obs, action, reward, discount, next_obs = (stack[0] for stack in batch.dqn)
        online, slow = networks
        target = double_td_target(reward, discount, slow(next_obs), online(next_obs))
        target = target.clamp(*batch.returns[0])
        torch.testing.assert_close(td_error[0], target - q_of(online(obs), action))
        assert batch.weight.min() > 0 and batch.weight.max() == 1
    priorities = run.data.replay.priorities.values
    assert len(priorities[priorities > 0].unique()) > 20


class Pixels(gymnasium.Env[Any, Any]):
    """A bright column that moves left or right; arriving at the right end pays 1."""

    observation_space = Box(0, 255, (12, 12), np.uint8)
    action_space = Discrete(2)

    def _observe(self) -> Any:
        picture = np.zeros((12, 12), np.uint8)
        picture[:, self.column] = 255
        return picture

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.column = int(self.np_random.integers(0, 8))
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.column = max(0, self.column + 2 * int(action) - 1)
        done = self.column == 11
        return self._observe(), float(done), done, False, {}


def test_a_stack_of_frames_is_kept_as_one_and_trained_on_whole(make_run: Make) -> None:
    gymnasium.register("StackedPixels-v0", lambda: FrameStackObservation(Pixels(), 4))
    record = Recorder()
    run = make_run(
        env=functools.partial(GymnasiumEnv, id="StackedPixels-v0", max_episode_steps=30),
        callbacks=[record], validate=False, arm="target", gan_updates=0, frame_stack=4,
    ).fit()  # fmt: skip
    assert run.data.replay.obs.shape[1:] == (1, 12, 12)
    for obs, next_obs in ((b.dqn.obs, b.dqn.next_obs) for b in record.batches):
        assert obs.shape[2:] == (4, 12, 12)
        column = obs[..., 0, :].argmax(-1)  # of each of the four frames
        assert ((column[..., 1:] - column[..., :-1]).abs() <= 1).all()
        assert (obs == obs[..., :1, :]).all() and (obs.sum((-1, -2)) == 12 * 255).all()
        moved = next_obs[..., 0, :].argmax(-1)[..., -1] - column[..., -1]
        assert (moved.abs() <= run.data.settings.replay.n_steps).all() and (moved != 0).any()


def test_no_generated_level_is_staler_than_a_cycle(make_run: Make) -> None:
    cycles: list[int] = []
    run = make_run(validate=False, gan_every=4, min_outcomes=1)
    generate = run.learner.generate_levels

    def watched(n: int) -> Tensor:
        cycles.append(run.data.batches_done // 4)
        return generate(n)

    run.learner.generate_levels = watched
    run.fit()
    # There are fewer than 60 resets, and one call gives levels for hundreds.
    assert len(cycles) == len(set(cycles)) >= 3


# Budget and warm-up


@pytest.mark.parametrize(
    ("budget", "num_envs", "steps_per_batch", "warmup"),
    [
        (800, 8, 4, 100),
        (800, 8, 4, 0),
        (808, 8, 5, 77),
        (300, 1, 7, 50),
        (640, 32, 1, 64),
        (1_000, 8, 3, 976),
        (152, 8, 4, 120),
    ],
)
def test_the_budget_is_met_to_the_step(
    make_run: Make, budget: int, num_envs: int, steps_per_batch: int, warmup: int
) -> None:
    record = Recorder()
    run = make_run(
        env=CountingCar,
        arm="target",
        callbacks=[record],
        env_steps=budget,
        num_envs=num_envs,
        steps_per_batch=steps_per_batch,
        warmup=warmup,
        n_steps=1,
        batch_size=8,
    ).fit()
    taken = len(run.data.env.actions) * num_envs
    assert taken == run.data.env_steps == budget
    of_a_batch = num_envs * steps_per_batch
    # Warm-up takes the remainder, less than one batch, and comes before the first update.
    first = budget - (budget - warmup) // of_a_batch * of_a_batch + of_a_batch
    assert record.env_steps == list(range(first, budget + 1, of_a_batch))
    assert run.learner.updates == 2 * len(record.env_steps)
    assert record.validations[-1] == budget
    assert record.batches[-1].progress == 1.0


@pytest.mark.parametrize("budget", [801, 803, 807])
def test_a_budget_that_no_number_of_steps_meets_is_met_as_nearly_as_can_be(
    make_run: Make, budget: int
) -> None:
    run = make_run(env=CountingCar, env_steps=budget, warmup=100).fit()
    taken = len(run.data.env.actions) * 8
    assert taken == run.data.env_steps == 800


def test_warm_up_acts_at_random_and_learns_nothing(make_run: Make) -> None:
    asked: list[tuple[int, Tensor, int]] = []
    run = make_run(env=CountingCar, validate=False, warmup=304, env_steps=624)
    act = run.learner.act

    def watched(obs: Tensor, epsilon: Tensor) -> Tensor:
        asked.append((run.data.env_steps, epsilon.clone(), run.learner.updates))
        return act(obs, epsilon)

    run.learner.act = watched
    run.fit()
    ladder = torch.tensor([0.4 ** (1 + 7 * i / 7) for i in range(8)])
    for env_steps, epsilon, updates in asked:
        if env_steps < 304:
            assert torch.equal(epsilon, torch.ones(8)) and updates == 0
        else:
            assert torch.allclose(epsilon, ladder)
    counts = torch.bincount(torch.cat(run.data.env.actions[: 304 // 8]), minlength=3)
    assert ((counts - counts.sum() / 3) ** 2 / (counts.sum() / 3)).sum() < 13.8


def test_exploration_is_a_function_of_env_steps(make_run: Make) -> None:
    run = make_run(exploration=LinearEpsilon(1.0, 0.2, 1_000), warmup=0, env_steps=512)
    run.data.setup("fit")
    assert torch.equal(run.data.epsilon, torch.ones(8))
    run.data.rollout.env_steps = 500
    assert torch.allclose(run.data.epsilon, torch.full((8,), 0.6))


class Moments(Callback):
    """What schedules say after each batch, by env steps."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[float, float, int, bool]] = {}
        self.beta = math.nan

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        replay = trainer.datamodule.replay
        draw = replay.sample_prioritized

        def sample(shape: Any, rng: Any, beta: float, goals: Any) -> Any:
            self.beta = beta
            return draw(shape, rng, beta, goals)

        replay.sample_prioritized = sample

    def on_train_batch_end(self, trainer: Any, learner: Any, *_: Any) -> None:
        data = trainer.datamodule
        pairs = zip(learner.q_network.parameters(), learner.target_network.parameters())  # noqa: B905
        is_copied = all(torch.equal(*pair) for pair in pairs)
        epsilon = data.epsilon.unique().item()
        self.seen[data.env_steps] = epsilon, self.beta, learner.updates, is_copied


def test_one_environment_and_eight_follow_the_same_schedules(make_run: Make) -> None:
    """ε, β of the replay, updates and hard copies are functions of env steps alone."""
    seen = []
    for num_envs in (1, 8):
        moments = Moments()
        make_run(
            num_envs=num_envs, steps_per_batch=32 // num_envs, callbacks=[moments], arm="target",
            exploration=LinearEpsilon(1.0, 0.1, 1_000), priority_exponent=0.6,
            learner={"target_rate": 1.0, "target_period": 6}, validate=False,
        ).fit()  # fmt: skip
        seen.append(moments.seen)
    assert seen[0] == seen[1] and len(seen[0]) == 31
    for env_steps, (epsilon, beta, updates, is_copied) in seen[0].items():
        assert epsilon == pytest.approx(max(0.1, 1 - 0.9 * env_steps / 1_000))
        assert beta == pytest.approx(0.4 + 0.6 * env_steps / 1_200)
        assert updates == 2 * (env_steps - 208) / 32 and is_copied == (updates % 6 == 0)


# The Trainer


def test_the_loader_has_a_length_and_no_side_effects(make_run: Make) -> None:
    run = make_run(validate_every=320)
    run.data.setup("fit")
    before = run.data.rollout.obs.clone()
    loader = run.data.train_dataloader()
    iterators = [iter(loader) for _ in range(3)]
    assert len(loader) == len(run.data.train_dataloader()) == 320 // 32
    assert run.data.env_steps == 0 and run.data.batches_done == 0
    assert torch.equal(run.data.rollout.obs, before) and run.data.replay.num_startable == 0
    assert len(iterators) == 3


@pytest.mark.parametrize("validate_every", [1, 33, 96, 200, 10_000])
def test_an_epoch_ends_in_a_validation_and_so_does_the_run(
    make_run: Make, validate_every: int
) -> None:
    record = Recorder()
    run = make_run(
        callbacks=[record],
        env_steps=616,
        warmup=200,
        validate_every=validate_every,
        generated_levels=0,
        validation_episodes=1,
    ).fit()
    length = max(1, validate_every // 32)
    expected = record.env_steps[length - 1 :: length]
    if expected[-1:] != [616]:
        expected.append(616)
    assert record.validations == expected
    assert len(run.data.train_dataloader()) == length


def test_the_number_of_epochs_does_not_change_what_is_learned(
    make_run: Make, difference: Callable[..., str | None]
) -> None:
    fast = make_run(validate=False, validate_every=1).fit()
    slow = make_run(validate=False, validate_every=10_000).fit()
    assert fast.trainer.current_epoch > 20 > slow.trainer.current_epoch
    assert difference(fast.everything(), slow.everything()) is None


def test_metrics_equal_the_environments_own_diary(make_run: Make) -> None:
    mix = {"target": 0.0, "reference": 1.0}
    run = make_run(env=CountingCar, arm="reference", mix=mix, validate=False).fit()
    car, metrics = run.data.env, run.data.metrics()
    recent = car.returns[-100:]
    assert metrics["behaviour/return_mean"] == pytest.approx(sum(recent) / len(recent))
    ladder = [0.4 ** (1 + i) for i in range(8)]
    assert metrics["behaviour/epsilon"] == pytest.approx(sum(ladder) / 8)
    episodes = {k: v for k, v in metrics.items() if k.endswith("_episodes")}
    solved = {k: v for k, v in metrics.items() if k.endswith("_solved")}
    assert sum(episodes.values()) == len(car.returns) and sum(solved.values()) == car.won > 0


# Arms


def test_arms_share_all_but_the_levels(
    make_run: Make, difference: Callable[..., str | None]
) -> None:
    arms = ("target", "reference", "archive", "gan")
    runs = {
        arm: make_run(env=CountingCar, arm=arm, validate=False, warmup=800, env_steps=832)
        for arm in arms
    }
    start = runs["target"]
    for run in runs.values():
        run.fit()
        # No arm has another step, action or first episode than the others while warming up.
        assert torch.equal(
            torch.stack(run.data.env.actions[:100]), torch.stack(start.data.env.actions[:100])
        )
        assert torch.equal(run.data.replay.obs[: 25 * 8], start.data.replay.obs[: 25 * 8])
    before = [torch.stack(run.data.env.starts[:8]) for run in runs.values()]
    after = [torch.stack(run.data.env.starts[8:30]) for run in runs.values()]
    assert all(torch.equal(levels, before[0]) for levels in before)
    assert sum(torch.equal(levels, after[0]) for levels in after) == 1


@pytest.mark.parametrize(
    ("arm", "shares"),
    [
        ("target", {"target": 1.0}),
        ("reference", {"target": 0.4, "reference": 0.6}),
        ("archive", {"target": 0.4, "reference": 0.3, "archive": 0.3}),
        ("gan", {"target": 0.4, "reference": 0.3, "archive": 0.2, "gan": 0.1}),
    ],
)
def test_an_arm_plays_its_own_sources_in_their_shares(
    make_run: Make, arm: str, shares: dict[str, float]
) -> None:
    mix = {"target": 0.4, "reference": 0.3, "archive": 0.2, "gan": 0.1}
    run = make_run(arm=arm, mix=mix, validate=False, min_outcomes=1, env_steps=2_500).fit()
    episodes = dict(run.data.rollout.log.episodes)
    episodes["target"] -= 8  # every environment starts at a target level
    total = sum(episodes.values())
    assert total > 80
    for source, played in episodes.items():
        share = shares.get(source, 0.0)
        assert abs(played - share * total) <= 4 * math.sqrt(share * (1 - share) * total), source


def test_target_episodes_start_where_the_task_starts_them(make_run: Make) -> None:
    run = make_run(env=CountingCar, arm="target", validate=False).fit()
    starts = torch.stack(run.data.env.starts)
    assert ((starts[:, 0] >= -0.6) & (starts[:, 0] <= -0.4)).all() and not starts[:, 1].any()


# Refusals


@pytest.mark.parametrize("arm", ["reference", "archive", "gan"])
def test_an_arm_of_levels_needs_an_environment_with_levels(make_run: Make, arm: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"data\.curriculum\.arm is '{arm}'.*CartPole-v1.*level_space"
    ):
        make_run(env=cartpole, arm=arm).fit()


def test_an_environment_without_levels_trains_under_the_target_arm(make_run: Make) -> None:
    record = Recorder()
    run = make_run(env=cartpole, arm="target", callbacks=[record], env_steps=600).fit()
    assert run.data.env_steps == 600 and run.data.archive is None
    assert run.learner.updates > 0 and run.learner.gan_updates == 0
    assert all(batch.gan is None for batch in record.batches)
    assert "target_return_mean" in run.trainer.callback_metrics
    assert not any(name.startswith("levels") for name in run.trainer.callback_metrics)


@pytest.mark.parametrize("env", [MountainCar, cartpole])
def test_hindsight_needs_an_environment_with_goals(make_run: Make, env: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.replay\.hindsight is 0\.5.*no goals"):
        make_run(env=env, arm="target", hindsight=0.5).fit()


@pytest.mark.parametrize(
    ("key", "given"),
    [
        *(
            (key, 0)
            for key in (
                "env_steps", "num_envs", "capacity", "n_steps", "batch_size", "updates_per_batch",
                "steps_per_batch", "gan_every", "gan_batch_size", "min_outcomes", "tried",
                "visited", "validate_every", "validation_episodes", "test_episodes",
            )
        ),
        *(
            (key, -1)
            for key in (
                "env_steps", "num_envs", "warmup", "gan_updates", "novelty_exponent",
                "generated_levels",
            )
        ),
        ("frame_stack", 0),
        ("priority_exponent", -0.5),
        ("importance_exponent", 1.5),
        ("gamma", 1.01),
        ("gamma", -0.1),
        ("gamma", math.nan),
        ("hindsight", 1.5),
        ("label_epsilon", -0.1),
        ("reference_reals", 2.0),
        ("batch_size", 200_000),
        ("env_steps", 2_100),
        ("mix", {"gan": 0.5}),
        ("mix", {"gan": 1.5, "target": -0.5}),
        ("mix", {"moon": 1.0}),
    ],
)  # fmt: skip
def test_a_number_that_makes_no_sense_is_refused_by_name(key: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(RENAMED[f"data.{key}"])):
        ReplayDataModule(MountainCar, **data_settings(**{key: given}))


def test_the_smallest_sensible_numbers_are_accepted() -> None:
    data = ReplayDataModule(
        MountainCar,
        **data_settings(
            env_steps=128,
            warmup=0,
            gamma=1.0,
            gan_updates=0,
            generated_levels=0,
            novelty_exponent=0.0,
            hindsight=0.0,
            label_epsilon=0.0,
            reference_reals=1.0,
        ),
    )
    assert data.schedule.steps_of_a_batch == 128 and data.schedule.warmup == 0


# Runs at the edge: each trains, or says what to change


def trains_or_explains(make_run: Make, **settings: Any) -> None:
    try:
        run = make_run(validate=False, **settings).fit()
    except ConfigError:
        return
    assert run.learner.updates > 0


def test_few_environments_and_short_episodes_train(make_run: Make) -> None:
    for seed in range(4):
        trains_or_explains(make_run, env=CartPole, num_envs=2, env_steps=400, seed=seed)


def test_data_that_served_a_validation_can_be_trained_on(make_run: Make) -> None:
    run = make_run()
    run.trainer.validate(run.learner, datamodule=run.data, verbose=False)
    run.fit()
    assert run.data.env_steps == run.data.schedule.budget


def test_no_warm_up_with_windows_longer_than_a_batch_trains_or_explains(make_run: Make) -> None:
    trains_or_explains(make_run, warmup=0, n_steps=3, steps_per_batch=1)


def test_a_budget_that_leaves_no_batch_trains_or_explains(make_run: Make) -> None:
    trains_or_explains(make_run, env_steps=42, warmup=10, arm="target", batch_size=8)


def test_visited_reals_without_visited_levels_train_or_explain(make_run: Make) -> None:
    def put(env: Any, level: Any) -> Any:
        env.state = level.astype("float64")
        return level

    def car(num_envs: int, device: torch.device) -> GymnasiumEnv:
        space, limit = MountainCar.level_space, 25
        return GymnasiumEnv(
            num_envs, device, id="MountainCar-v0", level_space=space, set_level=put,
            max_episode_steps=limit,
        )  # fmt: skip

    trains_or_explains(make_run, env=car, reals="visited")
