"""Runs where no outcome can count are refused or say so; the GAN trains only where it is used."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import data_settings
from torch import Tensor

from lit_crl import ReplayDataModule
from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.arms import NEEDS, needs_of
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.outcomes import OutcomeTiming, why_too_few
from lit_crl.curriculum.plr import EditedLevelReplay, PrioritizedLevelReplay
from lit_crl.curriculum.sfl import LearnabilityScreen
from lit_crl.dqn.exploration import EpsilonLadder, Exploration, LinearEpsilon
from lit_crl.envs import GymnasiumEnv, MountainCar

Make = Callable[..., Any]
COLLECTING: dict[str, Any] = {
    "label_epsilon": 0.1, "num_envs": 8, "world_size": 1, "warmup": 2_000, "first_phase": 3_000,
    "budget": 100_000, "time_limit": 100,
}  # fmt: skip


def collecting(exploration: Exploration, **changes: Any) -> OutcomeTiming:
    return OutcomeTiming(exploration, **{**COLLECTING, **changes})


class Waves(Exploration):
    """Small for a while in the middle of every 60,000 env steps."""

    def __call__(self, num_envs: int, env_steps: int) -> Tensor:
        return torch.full((num_envs,), 0.05 if 25_000 < env_steps % 60_000 < 35_000 else 0.9)


@pytest.mark.parametrize(
    ("exploration", "begin"),
    [
        (LinearEpsilon(1.0, 0.05, 50_000), 50_000 * 0.9 / 0.95),
        (LinearEpsilon(1.0, 0.1, 20_000), 20_000),
        (LinearEpsilon(0.1, 0.1, 1), 2_000),
        (EpsilonLadder(), 2_000),
        (EpsilonLadder(0.9, 0.5), None),
        (LinearEpsilon(1.0, 0.11, 1_000), None),
        (LinearEpsilon(1.0, 0.05, 110_000), None),
        (Waves(), 25_000),
    ],
)
def test_outcomes_begin_where_the_schedule_first_is_small_enough(
    exploration: Exploration, begin: float | None
) -> None:
    found = collecting(exploration).begin()
    assert found == (None if begin is None else pytest.approx(begin, abs=200))


def test_a_schedule_that_never_lets_an_outcome_count_is_refused_at_the_start() -> None:
    """One ε for all that falls over 50,000 env steps, in a run of 20,000."""
    for arm in ("gan", "archive"):
        data = ReplayDataModule(
            MountainCar, **data_settings(arm=arm, env_steps=20_000, exploration=LinearEpsilon())
        )
        with pytest.raises(ConfigError) as error:
            data.setup("fit")
        for word in (
            arm,
            "data.collect.exploration.steps",
            "data.curriculum.label_epsilon (0.1)",
            "20,000",
            "0.62",
        ):
            assert word in str(error.value)
    for arm in ("target", "reference", "plr"):  # these need no outcomes
        ReplayDataModule(
            MountainCar, **data_settings(arm=arm, env_steps=20_000, exploration=LinearEpsilon())
        ).setup("fit")


def test_a_schedule_that_lets_them_count_late_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    ReplayDataModule(
        MountainCar, **data_settings(arm="gan", env_steps=100_000, exploration=LinearEpsilon())
    ).setup("fit")
    (line,) = capsys.readouterr().out.splitlines()
    steps = re.search(r"begin after about ([\d,]+) of 100,000 env steps", line)
    assert steps and 47_000 < int(steps[1].replace(",", "")) < 48_000
    ReplayDataModule(MountainCar, **data_settings(arm="gan", env_steps=100_000)).setup("fit")
    assert capsys.readouterr().out == "", "where all is well nothing is said"


def test_a_budget_in_which_no_episode_may_end_or_no_phase_fits_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ReplayDataModule(MountainCar, **data_settings(arm="gan", env_steps=6_000)).setup("fit")
    assert "Perhaps no outcome" in capsys.readouterr().out
    ReplayDataModule(
        MountainCar, **data_settings(arm="gan", env_steps=100_000, gan_every=10_000)
    ).setup("fit")
    assert "smaller data.gan.every" in capsys.readouterr().out


def test_a_single_environment_gives_outcomes(make_run: Make, short_car: Any) -> None:
    rare = {"steps_per_batch": 16, "updates_per_batch": 1}
    run = make_run(
        env=short_car, num_envs=1, env_steps=1_000, label_epsilon=0.1, validate=False, **rare
    )
    run.fit()
    assert len(run.data.archive.tried) >= 8 and run.learner.gan_updates > 0
    assert run.data.metrics()["behaviour/return_mean"] < 0


class Secretive(MountainCar):
    """Nobody can tell whether an episode has succeeded."""

    max_episode_steps = 25
    gymnasium_id = None
    has_success = False

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        *result, info = super().step(actions)
        nobody = torch.zeros(self.num_envs, dtype=torch.bool)
        return (*result, info | {"success_known": nobody})  # type: ignore[return-value]


def asks(n: int, curriculum: Curriculum, teacher: Any) -> Tensor:
    """A user's arm that needs p̂."""
    levels = curriculum.env.reference_levels(2 * n, curriculum.rng)
    return levels[teacher.success_probability(levels).argsort()[:n]]


def blind(n: int, curriculum: Curriculum, teacher: Any) -> Tensor:
    """A user's arm that needs nothing."""
    return curriculum.env.reference_levels(n, curriculum.rng)


@pytest.mark.parametrize("arm", ["gan", "archive", asks])
def test_unknown_success_is_refused_where_outcomes_are_needed(make_run: Make, arm: Any) -> None:
    run = make_run(env=Secretive, arm=arm, validate=False)
    with pytest.raises(ConfigError, match=r'success_return in data.env.*info\["success"\]'):
        run.fit()
    assert len(run.data.archive.tried) == 0, "and nothing was labelled"
    assert run.data.env_steps < 600


@pytest.mark.parametrize("arm", ["target", "reference", "plr", blind])
def test_unknown_success_is_no_matter_where_none_are(make_run: Make, arm: Any) -> None:
    run = make_run(env=Secretive, arm=arm, validate=False).fit()
    assert run.data.env_steps >= 1_150
    assert "behaviour/success_rate" not in run.data.metrics()
    assert run.data.archive.tried.written == 0


def test_an_arm_that_asks_too_early_is_put_off_and_plays_later(make_run: Make) -> None:
    run = make_run(arm=asks, validate=False, env_steps=2_000).fit()
    assert run.learner.gan_updates > 0
    episodes = run.data.rollout.log.episodes
    assert episodes["own"] > 0 and episodes["target"] > 8
    without = make_run(arm=asks, validate=False, gan_updates=0)
    with pytest.raises(
        ConfigError, match=r"data.gan.updates is 0, but data.curriculum.arm 'asks' asks for p̂"
    ):
        without.fit()


@pytest.mark.parametrize("arm", ["gan", "archive"])
def test_an_arm_that_needs_the_gan_is_refused_without_it(arm: Any) -> None:
    data = ReplayDataModule(MountainCar, **data_settings(arm=arm, env_steps=20_000, gan_updates=0))
    with pytest.raises(
        ConfigError, match=rf"data.gan.updates is 0, but data.curriculum.arm '{arm}'"
    ):
        data.setup("fit")


# Arms that make levels from given ones: tests/curriculum/test_few_levels.py.
@pytest.mark.parametrize("arm", [*(arm for arm in NEEDS if not NEEDS[arm].given), blind])
def test_the_gan_trains_only_where_it_is_used(make_run: Make, short_car: Any, arm: Any) -> None:
    # A share of the budget pays for screenings.
    budget = {"env_steps": 8_000, "steps_per_batch": 32} if arm == "sfl" else {"env_steps": 800}
    run = make_run(
        env=short_car, arm=arm, validate=False, label_epsilon=1.0, updates_per_batch=1, **budget
    )
    assert run.data.trains_gan == (arm in ("archive", "gan", blind))
    run.fit()
    assert (run.learner.gan_updates > 0) == run.data.trains_gan
    log = run.data.rollout.log
    assert log.episodes["gan"] == 0 or arm == "gan"
    if not run.data.trains_gan:
        with pytest.raises(ConfigError, match="no generator to make levels with"):
            run.learner.predict_step((4, None), 0)


def test_no_level_is_generated_before_the_first_gan_phase(make_run: Make) -> None:
    """Outcomes are enough long before: the GAN trains only every 40th batch."""
    run = make_run(
        env_steps=1_800, gan_every=40, validate=False, min_outcomes=1, updates_per_batch=1
    )
    asked, known = [], []

    def generate(n: int, difficulty: float | None = None) -> Tensor:
        asked.append(run.learner.gan_updates)
        return type(run.learner).generate_levels(run.learner, n, difficulty)

    step = type(run.data)._step

    def watch(*args: Any) -> None:
        step(run.data, *args)
        if not run.learner.gan_updates:
            known.append(run.data.curriculum.ready())

    run.learner.generate_levels, run.data._step = generate, watch
    run.fit()
    assert sum(known) > 40 and asked and min(asked) > 0


def test_labels_are_refused_with_a_loss_that_ignores_them(make_run: Make) -> None:
    for loss in ("relativistic", "hinge", "non_saturating"):
        run = make_run(learner={"gan_loss": loss}, reals="labelled", validate=False)
        with pytest.raises(ConfigError, match=rf"'labelled', but model.gan.loss '{loss}' ignores"):
            run.fit()
    make_run(
        learner={"gan_loss": "least_squares"}, reals="labelled", validate=False, env_steps=400
    ).fit()


def test_arms_by_their_import_path_need_what_their_names_do() -> None:
    assert needs_of(PrioritizedLevelReplay()) is NEEDS["plr"]
    assert needs_of(EditedLevelReplay()) is NEEDS["accel"]
    assert needs_of(LearnabilityScreen()) is NEEDS["sfl"]
    assert needs_of(blind).gan and not needs_of(blind).outcomes


def car_of_gymnasium(num_envs: int, device: Any = "cpu") -> GymnasiumEnv:
    def put(env: Any, level: Any) -> Any:
        env.state = tuple(level)
        return level

    return GymnasiumEnv(
        num_envs, device, id="MountainCar-v0", max_episode_steps=25, set_level=put,
        level_space={"position": [-1.2, 0.5], "velocity": [-0.07, 0.07]}, success_return=-24.0,
    )  # fmt: skip


#: accel edits what plr replays.
@pytest.mark.parametrize(
    "arm", ["plr", pytest.param("accel", marks=pytest.mark.slow), "sfl", "valid_reference"]
)
def test_arms_work_behind_the_gymnasium_adapter(make_run: Make, arm: Any) -> None:
    """Its target levels are rows of NaN, the task's own resets: they are no levels to replay."""
    env_steps = 1_000 if arm == "valid_reference" else 8_000
    rare = {"steps_per_batch": 32, "updates_per_batch": 1}
    run = make_run(env=car_of_gymnasium, arm=arm, env_steps=env_steps, validate=False, **rare).fit()
    assert run.data.rollout.log.episodes["own"] > 0
    if arm in ("plr", "accel"):
        assert len(run.data.custom_source) >= 128 and run.data.custom_source.levels.isfinite().all()
    if arm == "sfl":
        assert 0 < run.data.curriculum.charged_steps <= 0.15 * 8_000


@pytest.mark.parametrize("arm", ["gan", "archive", "plr", "accel"])
def test_arms_that_could_never_know_a_level_are_refused(arm: Any) -> None:
    mix = {"target": 0.5, "archive": 0.25, "gan": 0.25}
    data = ReplayDataModule(
        partial(car_of_gymnasium), **data_settings(arm=arm, env_steps=20_000, mix=mix)
    )
    with pytest.raises(
        ConfigError, match=r"data.curriculum.mix a reference share, or data.env target_levels"
    ):
        data.setup("fit")


def test_screening_does_not_end_the_warm_up(make_run: Make, short_car: Any) -> None:
    run = make_run(env=short_car, arm="sfl", env_steps=8_000)
    run.data.setup("fit")
    run.data.curriculum.charged_steps = 1_000
    assert run.data.env_steps >= run.data.schedule.warmup
    assert run.data.epsilon.tolist() == [1.0] * 8


@pytest.mark.parametrize(
    ("outcomes", "ended", "judged", "words"),
    [
        (0, 0, 0, "no episode has ended: give max_episode_steps"),
        (
            0,
            90,
            0,
            "all 90 episodes that ended have explored more than data.curriculum.label_epsilon",
        ),
        (0, 90, 20, "none of 20 episodes started at a valid level"),
        (3, 90, 20, r"only 3 outcomes count so far.*data.curriculum.min_outcomes \(50\)"),
    ],
)
def test_why_an_arm_waits_in_vain(outcomes: int, ended: int, judged: int, words: str) -> None:
    sentence = why_too_few("gan", 10_000, outcomes, 50, ended, judged)
    assert re.search(words, sentence) and sentence.startswith("After 10,000 env steps the GAN")


class Elsewhere(MountainCar):
    """No level is legal, so that no outcome is ever kept."""

    max_episode_steps = 25
    gymnasium_id = None
    tracks_visited = False

    def valid(self, levels: Tensor) -> Tensor:
        return torch.zeros(len(levels), dtype=torch.bool)


def test_a_curriculum_that_does_not_begin_says_so_once(
    make_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    mix = {"reference": 0.5, "archive": 0.25, "gan": 0.25}
    few = {"updates_per_batch": 1, "label_epsilon": 0.1}
    make_run(env=Elsewhere, mix=mix, env_steps=8_000, validate=False, **few).fit()
    said = [line for line in capsys.readouterr().out.splitlines() if "cannot learn" in line]
    assert len(said) == 1 and "episodes started at a valid level" in said[0]
    steps = re.search(r"After ([\d,]+) env steps", said[0])
    assert steps and 800 <= int(steps[1].replace(",", "")) < 1_000, "a tenth of the run"
