"""Arms beyond the GAN's own chain: replayed, edited and screened levels, and a user's."""

import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import data_settings
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.arms import EQUAL_MIX, arm_shares, custom_source
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.plr import (
    EditedLevelReplay,
    PrioritizedLevelReplay,
    max_mc,
    rank_priorities,
    staleness_priorities,
)
from lit_crl.curriculum.proposals import proposal_weight, realistic
from lit_crl.curriculum.sfl import LearnabilityScreen, valid_reference
from lit_crl.curriculum.sources import FinishedEpisodes
from lit_crl.envs import (
    GymnasiumEnv,
    Maze,
    MountainCar,
    ThinManifold,
)
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.experience.value_trace import ValueTrace

Make = Callable[..., Any]
#: Runs long enough for the levels that an arm keeps, and hardly any updates.
RARE: dict[str, Any] = {"steps_per_batch": 16, "updates_per_batch": 1, "validate": False}
SCREEN = LearnabilityScreen(screenings=1, share=0.6, candidates=8, episodes=2)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def curriculum_of(env: Any, own: Any, **changes: Any) -> Curriculum:
    return Curriculum(
        env,
        Archive(env.level_space.shape[0], tried=64, visited=64),
        {"own": 1.0},
        novelty_exponent=0.5,
        min_outcomes=10,
        rng=rng(1),
        own=own,
        queue=32,
        **changes,
    )


def finished(
    levels: Tensor, returns: list[float], value: list[float], terminated: bool = True
) -> FinishedEpisodes:
    numbers, reached = torch.tensor(value), torch.tensor(returns)
    all_of_them = torch.ones(len(levels), dtype=torch.bool)
    return FinishedEpisodes(
        levels, reached > 0, all_of_them, all_of_them & terminated, 10 * reached, reached,
        numbers, numbers / 2,
    )  # fmt: skip


@pytest.mark.parametrize("arm", ["valid_reference", "plr", "accel", "sfl", "oracle"])
def test_an_own_source_gets_what_target_and_reference_leave(arm: Any) -> None:
    shares = arm_shares(arm, {"target": 0.1, "reference": 0.3, "archive": 0.6})
    assert shares == {"target": 0.1, "reference": 0.3, "own": pytest.approx(0.6)}
    assert callable(custom_source(arm))
    assert custom_source("gan") is None


def test_an_unknown_arm_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'ued': use one of target, .*, plr, .* or a function"):
        custom_source(cast(Any, "ued"))


def test_valid_reference_levels_are_the_reference_without_what_is_not_valid() -> None:
    env = ThinManifold(1, dim=3)
    assert 0 < env.valid(env.reference_levels(1000, rng())).float().mean() < 0.2
    levels = valid_reference(2000, cast(Any, SimpleNamespace(env=env, rng=rng(1))), None)
    assert levels.shape == (2000, 3)
    assert env.valid(levels).all()
    naive = env.reference_levels(50_000, rng(2))
    naive = naive[env.valid(naive)]
    torch.testing.assert_close(levels.mean(dim=0), naive.mean(dim=0), atol=0.06, rtol=0)
    torch.testing.assert_close(levels.std(dim=0), naive.std(dim=0), atol=0.04, rtol=0)


def test_a_task_without_valid_reference_levels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_crl.curriculum.sfl.MAX_DRAWN", 10_000)
    here = SimpleNamespace(env=ThinManifold(1, dim=12), rng=rng())
    with pytest.raises(ConfigError, match=r"'valid_reference', but of 1\d,\d+ .* only 0 are valid"):
        valid_reference(64, cast(Any, here), None)


def test_priorities_equal_their_definitions() -> None:
    score = torch.tensor([0.3, 0.9, 0.1, 0.5])
    weights = [(1 / rank) ** (1 / 0.3) for rank in (3, 1, 4, 2)]
    expected = torch.tensor([w / sum(weights) for w in weights])
    torch.testing.assert_close(rank_priorities(score, 0.3), expected)
    torch.testing.assert_close(
        staleness_priorities(torch.tensor([1.0, 3.0])), torch.tensor([0.25, 0.75])
    )
    assert staleness_priorities(torch.zeros(4)).tolist() == [0.25] * 4
    found = max_mc(torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.5]))
    assert found.tolist() == [0.75, 0.0]  # an overestimate is no regret


def test_replay_keeps_the_best_levels_and_their_best_returns_like_a_dictionary() -> None:
    replay, naive = PrioritizedLevelReplay(size=6, least=2), dict[int, tuple[float, float]]()
    g = rng(3)
    for _ in range(30):
        names = torch.randperm(20, generator=g)[:4].tolist()
        returns = torch.randint(2, (4,), generator=g).float().tolist()
        value = torch.rand(4, generator=g).tolist()
        replay.record(finished(torch.tensor(names).float()[:, None], returns, value))
        for name, reached, v in zip(names, returns, value, strict=True):
            best = max(reached, naive[name][1]) if name in naive else reached
            naive[name] = (max(best - v, 0.0), best)
        while len(naive) > 6:
            worst = min(naive.values())[0]
            naive.pop(next(n for n in reversed(naive) if naive[n][0] == worst))
    assert replay.levels is not None
    scores = sorted(round(s, 5) for s, _ in naive.values())
    assert sorted(round(s, 5) for s in replay.numbers[:, 0].tolist()) == scores
    for name, (score, best, _) in zip(replay.levels[:, 0], replay.numbers.tolist(), strict=True):
        if score > 0:  # which of several worthless levels goes is open
            assert (pytest.approx(score), best) == naive[int(name)]


def test_replay_draws_by_priority_and_moves_on_from_what_it_drew() -> None:
    env = MountainCar(1)
    replay = PrioritizedLevelReplay(least=4, temperature=1.0, staleness=0.0)
    here = curriculum_of(env, replay)
    levels = env.reference_levels(4, rng())
    assert replay(8, here, None).shape == (0, 2)  # as long as it knows none
    replay.record(finished(levels, [1.0] * 4, [0.9, 0.1, 0.5, 0.7]))
    drawn = replay(20_000, here, None)
    share = [(drawn == level).all(dim=1).float().mean().item() for level in levels]
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4
    assert share == pytest.approx([1 / r / harmonic for r in (4, 1, 2, 3)], abs=0.02)
    stale = PrioritizedLevelReplay(least=4, staleness=1.0)
    stale.record(finished(levels, [1.0] * 4, [0.5] * 4))
    seen = [stale(1, here, None) for _ in range(400)]
    counts = [sum(torch.equal(x[0], level) for x in seen) for level in levels]
    assert min(counts) > 75  # drawn at random they would differ more, and turns are even


def test_equal_levels_take_one_place() -> None:
    replay = PrioritizedLevelReplay(least=1)
    levels = torch.tensor([[0.1], [0.2], [0.1]])
    replay.record(finished(levels, [0.0, 1.0, 1.0], [0.5, 0.5, 0.5]))
    assert len(replay) == 2
    replay.record(finished(levels[:1], [0.0], [0.25]))
    assert replay.numbers[0].tolist() == [0.75, 1.0, 0.0]  # the best return is not forgotten


@pytest.mark.parametrize("make", [MountainCar, lambda n: Maze(n, size=5)])
def test_edits_are_valid_close_and_about_half_of_what_is_drawn(make: Any) -> None:
    env = make(1)
    replay = EditedLevelReplay(least=8, edit=0.05)
    here = curriculum_of(env, replay)
    known = env.reference_levels(64, rng(2))
    replay.record(finished(known, [1.0] * 64, [0.5] * 64))
    drawn = replay(400, here, None)
    assert env.valid(drawn).all()
    unchanged = (drawn[:, None] == replay.levels).all(dim=2).any(dim=1).float().mean().item()
    assert 0.4 < unchanged < 0.85  # half, and edits that could not be played or changed nothing
    unit = here.box.to_unit(drawn)[:, None] - here.box.to_unit(cast(Tensor, replay.levels))
    assert (unit.square().mean(dim=2).min(dim=1).values < 1).all()


class ByHeight:
    """A judge who drives right, which solves the mountain car only from near the flag."""

    updates = gan_updates = 1

    def action_values(self, obs: Tensor) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0]).expand(len(obs), 3)


def test_screening_finds_what_is_solved_sometimes_and_is_charged() -> None:
    screen = LearnabilityScreen(screenings=2, candidates=64, keep=8, episodes=4, share=1.0)
    env = MountainCar(1)
    spent, budget = [50_000], 2 * 64 * 4 * 200
    here = curriculum_of(
        env, screen, make_env=lambda n, device: MountainCar(n, device), budget=budget,
        spent=lambda: spent[0],
    )  # fmt: skip
    drawn = here.draw(32, cast(Any, ByHeight()))[0]
    first = here.charged_steps
    assert 64 * 4 < first < 64 * 4 * 200
    assert len(torch.unique(drawn, dim=0)) <= 8
    spent[0] = 3 * budget // 4 - 1  # one step before the middle of the second half
    here.new_cycle()
    here.draw(32, cast(Any, ByHeight()))
    assert here.charged_steps == first
    spent[0] += 1
    here.new_cycle()
    here.draw(32, cast(Any, ByHeight()))
    assert first < here.charged_steps <= budget
    assert len(screen.levels) == 8
    spent[0] = budget
    here.new_cycle()
    last = here.charged_steps
    here.draw(32, cast(Any, ByHeight()))
    assert here.charged_steps == last, "as many screenings as were asked for"


@pytest.mark.parametrize("budget", [64_000, 100_000, 1_000_000])
def test_all_screenings_together_keep_to_their_share(budget: int) -> None:
    spent = [0]
    here = curriculum_of(
        MountainCar(1), LearnabilityScreen(episodes=2),
        make_env=lambda n, device: MountainCar(n, device, force=1e-9),
        budget=budget, spent=lambda: spent[0],
    )  # fmt: skip
    charged = []
    for spent[0] in range(0, budget, budget // 20):
        here.new_cycle()
        here.draw(1, cast(Any, ByHeight()))
        charged.append(here.charged_steps)
    assert len(set(charged)) == 1 + 3, "three screenings"
    assert 0.1 * budget < charged[-1] <= 0.15 * budget or budget > 500_000
    assert charged[-1] <= 3 * 128 * 2 * 200


def test_an_untrained_policy_screens_nothing_and_other_sources_play_its_share() -> None:
    def fail(n: int, device: Any) -> Any:
        raise AssertionError("screened")

    teacher = ByHeight()
    teacher.updates = 0
    here = curriculum_of(
        MountainCar(1), LearnabilityScreen(), make_env=fail, budget=10**6, spent=lambda: 9 * 10**5
    )
    levels, source = here.draw(40, cast(Any, teacher))
    assert (source == 0).all() and MountainCar(1).valid(levels).all()


def test_a_level_is_tried_often_enough_to_tell_more_than_never_sometimes_and_always() -> None:
    assert LearnabilityScreen().episodes >= 4


def test_a_budget_too_small_for_a_screening_is_refused_before_training() -> None:
    data = ReplayDataModule(MountainCar, **data_settings(arm="sfl", env_steps=10_000))
    with pytest.raises(
        ConfigError, match=r"'sfl', but 15% of data\.collect\.env_steps .* give more"
    ):
        data.setup("fit")


def test_the_environments_of_a_screening_are_closed() -> None:
    made: list[MountainCar] = []

    def make_env(n: int, device: Any) -> MountainCar:
        made.append(MountainCar(n, device))
        return made[-1]

    here = curriculum_of(
        MountainCar(1), LearnabilityScreen(), make_env=make_env, budget=100_000,
        spent=lambda: 50_000,
    )  # fmt: skip
    here.draw(1, cast(Any, ByHeight()))
    assert made and all(env.closed for env in made)


def test_the_oracle_screens_for_nothing() -> None:
    here = curriculum_of(
        MountainCar(1), custom_source("oracle"), budget=1_000, spent=lambda: 900,
        make_env=lambda n, device: MountainCar(n, device),
    )  # fmt: skip
    assert (here.draw(4, cast(Any, ByHeight()))[1] == 4).all()
    assert here.charged_steps == 0


def test_a_trace_is_the_mean_over_the_episode() -> None:
    g, gamma, envs, steps = rng(5), 0.9, 3, 12
    table = torch.randn(steps + 1, envs, 2, generator=g)
    trace = ValueTrace(envs, gamma, torch.device("cpu"))
    naive: list[list[tuple[float, float, float, float]]] = [[] for _ in range(envs)]
    for t in range(steps):
        action = torch.randint(2, (envs,), generator=g)
        reward, over = torch.rand(envs, generator=g), torch.rand(envs, generator=g) < 0.2
        now, then = torch.full((envs,), t), torch.full((envs,), t + 1)
        trace.see(lambda obs: table[obs, torch.arange(envs)], now, action, (then, reward, over))
        for i in range(envs):
            q, q_next = table[t, i], table[t + 1, i]
            future = 0 if over[i] else gamma * float(q_next.max())
            error = abs(float(reward[i]) + future - float(q[action[i]]))
            naive[i].append((float(reward[i]), future, float(q.max()), error))
        if t in (4, 11):
            ended = torch.tensor([0, 2]) if t == 4 else torch.tensor([0, 1, 2])
            found = torch.stack(tuple(trace.finish(ended))).T.tolist()
            for (to_go, value, td_error), i in zip(found, ended.tolist(), strict=True):
                later, returns = naive[i][-1][1], []
                for r, future, *_ in reversed(naive[i]):  # backwards, as returns are defined
                    # Where a step has no future, no return reaches past it: a life was lost.
                    later = r + (later if not returns else gamma * later * (future != 0))
                    returns.append(later)
                number = len(returns)
                assert to_go == pytest.approx(sum(returns) / number, abs=1e-5)
                assert value == pytest.approx(sum(v for *_, v, _ in naive[i]) / number, abs=1e-5)
                assert td_error == pytest.approx(sum(d for *_, d in naive[i]) / number, abs=1e-5)
                naive[i].clear()


@pytest.mark.parametrize(("length", "limit"), [(3, 100), (23, 100), (400, 23)])
@pytest.mark.parametrize("reward", [0.0, -1.0])
def test_a_level_whose_value_is_known_exactly_has_nothing_to_learn(
    length: int, limit: int, reward: float
) -> None:
    """A chain of ``length`` steps, a reward for each and 1 at the end; the time may be up before.

    V is the sum of a geometric series, and MaxMC must see no regret, wherever the episode ends.
    """
    gamma = 0.97

    def value(left: Tensor) -> Tensor:
        """Of being so many steps before the end, the end included."""
        return (left > 0) * (reward * (1 - gamma**left) / (1 - gamma) + gamma ** (left - 1))

    trace = ValueTrace(1, gamma, torch.device("cpu"))
    for step in range(min(length, limit)):
        left = torch.tensor([float(length - step)])
        over = left == 1
        trace.see(
            lambda obs: value(obs)[:, None], left, torch.zeros(1, dtype=torch.long),
            (left - 1, torch.full((1,), reward) + over, over),
        )  # fmt: skip
    traced = trace.finish(torch.tensor([0]))
    assert traced.value.abs() > 0.1 or limit < length
    assert traced.td_error.item() == pytest.approx(0, abs=1e-4)
    replay, level = PrioritizedLevelReplay(least=1), torch.zeros(1, 2)
    yes = torch.ones(1, dtype=torch.bool)
    replay.record(FinishedEpisodes(level, yes, yes, yes & (limit > length), torch.ones(1), *traced))
    assert replay.numbers[0, 0].item() == pytest.approx(0, abs=1e-4)


def test_a_return_that_v_foretold_past_the_time_limit_is_no_record() -> None:
    replay, level = PrioritizedLevelReplay(least=1), torch.tensor([[0.1]])
    replay.record(finished(level, [5.0], [1.0], terminated=False))
    assert replay.numbers[0].tolist() == [4.0, -torch.inf, 0.0]
    replay.record(finished(level, [2.0], [1.0]))
    assert replay.numbers[0].tolist() == [1.0, 2.0, 0.0]
    replay.record(finished(level, [1.5], [1.0], terminated=False))
    assert replay.numbers[0].tolist() == [1.0, 2.0, 0.0]


def test_proposals_without_labels_are_all_alike() -> None:
    p = torch.tensor([0.0, 0.5, 1.0])
    assert proposal_weight("valid", p).tolist() == [1, 1, 1]
    weight = proposal_weight("frontier", p)
    assert weight[1] > 1000 * weight[0] == 1000 * weight[2]


def test_realistic_is_above_the_quantile_of_the_reals_whatever_the_constant() -> None:
    real, candidate = torch.randn(101, generator=rng(7)), torch.randn(50, generator=rng(8))
    least = sorted(real.tolist())[20]
    expected = [x >= least for x in candidate.tolist()]
    assert realistic(candidate, real).tolist() == expected
    assert 0 < sum(expected) < 50
    assert realistic(candidate + 4, real + 4).tolist() == expected


class Connoisseur(ByHeight):
    """Everything is on the frontier; the further right the realer; generates anything."""

    def generate_levels(self, n: int) -> Tensor:
        return MountainCar(1).reference_levels(n, rng(9))

    def success_probability(self, levels: Tensor) -> Tensor:
        return torch.full_like(levels[:, 0], 0.5)

    def realness(self, levels: Tensor) -> Tensor:
        return levels[:, 0]


@pytest.mark.parametrize("proposals", ["frontier", "realistic"])
def test_only_realistic_proposals_are_played(proposals: Any) -> None:
    env = MountainCar(1)
    here = Curriculum(
        env, Archive(2, tried=256, visited=256), {"gan": 1.0}, novelty_exponent=0.0,
        min_outcomes=10, rng=rng(1), proposals=proposals,
    )  # fmt: skip
    known = env.reference_levels(256, rng(4))
    right = known[known[:, 0] > 0]
    here.archive.add_outcomes(right, torch.ones(len(right)))
    levels, source = here.draw(200, cast(Any, Connoisseur()))
    assert (source == 3).all()
    share_on_the_left = (levels[:, 0] < 0).float().mean().item()
    assert share_on_the_left == 0 if proposals == "realistic" else share_on_the_left > 0.4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"proposals": "projected"},
            "data.curriculum.proposals is projected.*GymnasiumEnv.*use frontier",
        ),
        ({"reals": "visited"}, "data.gan.reals is visited.*GymnasiumEnv.*use frontier or labelled"),
    ],
)
def test_visited_states_are_asked_only_of_environments_that_tell_them(
    settings: dict[str, Any], message: str
) -> None:
    data = ReplayDataModule(
        partial(GymnasiumEnv, id="MountainCar-v0", set_level=lambda env, level: level,
                level_space={"position": [-1.2, 0.5], "velocity": [-0.07, 0.07]}),
        **data_settings(**settings),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        data.setup("fit")


def right_half(n: int, curriculum: Curriculum, teacher: Any) -> Tensor:
    """A user's arm: reference levels, the car to the right of the valley."""
    levels = curriculum.env.reference_levels(8 * n, curriculum.rng)
    return levels[levels[:, 0] > -0.5][:n]


@pytest.mark.parametrize("arm", ["plr", "accel", SCREEN, right_half])
def test_an_arm_trains_and_its_levels_are_counted(make_run: Make, short_car: Any, arm: Any) -> None:
    env_steps = 8_000 if isinstance(arm, LearnabilityScreen) else 4_000
    given = {"arm": copy.deepcopy(arm), "env_steps": env_steps, "num_envs": 16}
    run = make_run(env=short_car, **given, **RARE).fit()
    data = run.data
    assert data.rollout.log.episodes["own"] > 0
    assert sum(data.rollout.log.episodes[source] for source in ("archive", "gan")) == 0
    assert data.env_steps <= env_steps
    if isinstance(arm, LearnabilityScreen):
        assert 0 < data.curriculum.charged_steps < data.env_steps
    if arm in ("plr", "accel"):
        assert len(data.custom_source) > 0
        state = copy.deepcopy(data.curriculum.state_dict())
        fresh = SimpleNamespace(own=custom_source(arm))
        fresh.own.load_state_dict(state["own"])
        assert torch.equal(fresh.own.levels, data.custom_source.levels)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda n, c, t: torch.zeros(n, 3), r"shape \(32, 2\), but gave \(32, 3\)"),
        (lambda n, c, t: None, "but gave NoneType"),
        (lambda n, c, t: torch.full((n, 2), 9.0), "return only levels for which"),
    ],
)
def test_what_an_own_arm_gives_must_be_levels(give: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        curriculum_of(MountainCar(1), give).draw(1, cast(Any, ByHeight()))


def test_where_nobody_can_sample_valid_levels_none_are_demanded_of_an_own_arm() -> None:
    env = ThinManifold(1)
    here = curriculum_of(env, lambda n, c, t: c.env.reference_levels(n, c.rng))
    levels, source = here.draw(40, cast(Any, ByHeight()))
    assert not env.valid(levels).any() and (source == 4).all()


@pytest.mark.parametrize("arm", ["gan", "archive", "plr", "accel", SCREEN])
def test_what_no_episode_can_start_at_is_never_known(make_run: Make, arm: Any) -> None:
    """Most resets are at illegal levels, but archive and buffer hold none of them."""
    mix = {"target": 0.3, "reference": 0.4, "archive": 0.2, "gan": 0.1}
    given = {"arm": copy.deepcopy(arm), "mix": mix, "env_steps": 4_000, "num_envs": 16}
    run = make_run(env=ThinManifold, **given, **RARE, gan_every=1).fit()
    data = run.data
    assert data.rollout.log.episodes["reference"] > 2 * data.rollout.log.episodes["target"] / 3
    assert (len(data.archive.tried) > 0) == (arm in ("archive", "gan"))
    for ring in (data.archive.tried, data.archive.visited):
        assert data.env.valid(ring.levels[: len(ring)]).all()
    if arm in ("plr", "accel"):
        assert len(data.custom_source) > 0 and data.env.valid(data.custom_source.levels).all()


def test_equal_shares_are_of_the_four_sources() -> None:
    assert sum(EQUAL_MIX.values()) == 1 and "own" not in EQUAL_MIX


@pytest.mark.parametrize("name", ["easy", "Easy"])
def test_an_arm_by_its_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from lit_crl.runs.cli.main import main  # the command line, as a user calls it

    (tmp_path / "my_arms.py").write_text(
        "def easy(n, curriculum, teacher):\n"
        "    return curriculum.env.reference_levels(n, curriculum.rng)\n"
        "class Easy:\n"
        "    def __call__(self, n, curriculum, teacher):\n"
        "        return easy(n, curriculum, teacher)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_arms", raising=False)  # other tests have one, too
    monkeypatch.chdir(tmp_path)
    main(
        [
            "fit",
            "--experiment=mountain_car_levels",
            "--data.curriculum.arm",
            f"my_arms.{name}",
            "--data.collect.env_steps=4000",
            "--data.env.max_episode_steps=60",
            "--trainer.accelerator",
            "cpu",
            "--data.evaluation.test_episodes",
            "2",
            "--data.evaluation.episodes",
            "2",
            "--name",
            "mine",
            "--data.collect.num_envs=16",
            "--data.replay.updates_per_batch=1",
            "--model.network.hidden=[8]",
        ]
    )
    run = tmp_path / "runs" / "mountain_car_levels" / "mine"
    config = (run / "config.yaml").read_text()
    assert f"my_arms.{name}" in config
    rows = (run / "metrics.csv").read_text().splitlines()
    played = dict(zip(rows[0].split(","), rows[-2].split(","), strict=True))
    assert float(played["curriculum/own_episodes"]) > 0
