"""Evaluation against loops that play one episode at a time and count by hand.

That evaluation leaves training alone is checked bit for bit, on runs that differ in nothing else.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import ShortCar
from lightning.pytorch import Callback
from torch import Tensor

from lit_crl.core.seeding import random_stream, stream_seed
from lit_crl.envs import (
    BatchedEnv,
    CartPole,
    GymnasiumEnv,
    Maze,
    MountainCar,
    PointMass,
)
from lit_crl.envs.episodes import run_episodes
from lit_crl.evaluation import pool
from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.evaluation.pool import EvaluationEnvs
from lit_crl.evaluation.protocol import Evaluation, Played

Make = Callable[..., Any]
Difference = Callable[[Any, Any], str | None]
CPU = torch.device("cpu")


class Car(MountainCar):
    """Short episodes, evaluated in itself, with two small held-out sets."""

    max_episode_steps = 25
    gymnasium_id = None

    def heldout(self) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(3)
        return {"many": self.reference_levels(9, rng), "few": self.reference_levels(4, rng)}


def along(obs: Tensor) -> Tensor:
    """Push the way the car rolls: action 0 or 2 of 3."""
    speed = obs[:, 1]
    return torch.stack([-speed, -torch.ones_like(speed), speed], dim=1)


def upright(obs: Tensor) -> Tensor:
    """Push under the pole, without a thought for where the cart goes."""
    lean = obs[:, 2] + 2 * obs[:, 3]
    return torch.stack([-lean, lean], dim=1)


def towards(obs: Tensor) -> Tensor:
    """Walk to the goal in the plane: +x, −x, +y, −y."""
    way = obs[:, 2:] - obs[:, :2]
    return torch.stack([way[:, 0], -way[:, 0], way[:, 1], -way[:, 1]], dim=1)


def near_the_edge(n: int) -> Tensor:
    """Levels that pushing along solves in about 25 steps, so that a random move decides."""

    class Patient(Car):
        max_episode_steps = 29

    levels = Car(1).reference_levels(40 * n, torch.Generator().manual_seed(2))
    played = run_episodes(
        Patient(len(levels)), lambda obs: along(obs).argmax(1), seed=0, levels=levels
    )
    return levels[(played.lengths >= 21) & (played.lengths < 29)][:n]


class StubLearner:
    """A fixed policy, fixed levels and a fixed opinion of them."""

    memory_size = 0

    def __init__(self, q: Callable[[Tensor], Tensor], levels: Tensor | None = None) -> None:
        self.q = q
        self.levels = levels

    def action_values(self, obs: Tensor) -> Tensor:
        return self.q(obs)

    def draw_noise(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.arange(n)

    def generate_levels(self, z: Tensor) -> Tensor:
        return self.levels[z]

    def success_probability(self, levels: Tensor) -> Tensor:
        return torch.sigmoid(2 * levels[:, 0] + 1)


def play_alone(env: BatchedEnv, level: Tensor, q: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """Return, length, termination and truncation of one episode in a batch of one."""
    obs, _ = env.reset(options={"levels": level[None]})
    total, length = 0.0, 0
    while True:
        scores = q(obs)[0].tolist()
        action = max(range(len(scores)), key=scores.__getitem__)
        obs, reward, terminated, truncated, info = env.step(torch.tensor([action]))
        total, length = total + reward.item(), length + 1
        if terminated or truncated:
            return total, length, bool(terminated), bool(truncated), bool(info["success"])


# Episodes

TASKS: dict[str, tuple[Callable[[int], BatchedEnv], Callable[[Tensor], Tensor]]] = {
    "mountain car": (Car, along),
    "cart pole": (CartPole, upright),
    "point mass": (lambda n: PointMass(n, dim=2, max_episode_steps=15), towards),
}


@pytest.mark.parametrize(("make", "q"), TASKS.values(), ids=TASKS)
def test_episodes_equal_those_played_one_by_one(
    make: Callable[[int], BatchedEnv], q: Callable[[Tensor], Tensor]
) -> None:
    levels = make(1).reference_levels(12, torch.Generator().manual_seed(0))
    if isinstance(make(1), PointMass):
        levels = levels * 0.4  # some in reach
    episodes = run_episodes(make(12), lambda obs: q(obs).argmax(1), seed=0, levels=levels)
    alone = [play_alone(make(1), level, q) for level in levels]
    assert episodes.lengths.tolist() == [length for _, length, *_ in alone]
    assert episodes.returns.tolist() == pytest.approx([total for total, *_ in alone])
    assert episodes.success.tolist() == [success for *_, success in alone]
    assert len(set(episodes.lengths.tolist())) > 2  # they do end at different times
    own = run_episodes(
        make(12), lambda obs: q(obs).argmax(1), seed=0, levels=levels,
        success=lambda terminated, truncated: truncated & ~terminated,
    )  # fmt: skip
    assert own.success.tolist() == [cut and not ended for _, _, ended, cut, _ in alone]


class Scripted:
    """Rewards, ends and successes from tables ``[T, N]``; after an episode's end NaN and lies."""

    has_success = True
    device = CPU

    def __init__(self, seed: int, num_envs: int = 6, steps: int = 40) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.num_envs = num_envs
        self.reward = torch.randn(steps, num_envs, generator=rng)
        self.terminated, self.truncated = torch.rand(2, steps, num_envs, generator=rng) < 0.08
        self.terminated[-1] = True
        self.success = torch.rand(steps, num_envs, generator=rng) < 0.5
        self.known = torch.rand(steps, num_envs, generator=rng) < 0.5
        self.ends = [int(c.nonzero()[0]) for c in (self.terminated | self.truncated).T]
        self.now = 0
        self.resets: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.resets.append(options)
        return torch.zeros(self.num_envs, 1), {}

    def step(self, actions: Tensor) -> Any:
        t, self.now = self.now, self.now + 1
        over = torch.tensor([end < t for end in self.ends])
        return (
            torch.zeros(self.num_envs, 1),
            torch.where(over, torch.nan, self.reward[t]),
            self.terminated[t] | over,
            self.truncated[t],
            {"success": self.success[t] | over, "success_known": self.known[t]},
        )


@pytest.mark.parametrize("seed", range(5))
def test_an_environment_whose_episode_has_ended_stays_put(seed: int) -> None:
    env = Scripted(seed)
    asked: list[int] = []

    def act(obs: Tensor) -> Tensor:
        asked.append(len(obs))
        return torch.zeros(len(obs), dtype=torch.long)

    episodes = run_episodes(env, act, seed=0)
    ends = env.ends
    assert episodes.lengths.tolist() == [end + 1 for end in ends]
    returns = [env.reward[: end + 1, i].sum().item() for i, end in enumerate(ends)]
    assert episodes.returns.tolist() == pytest.approx(returns, abs=1e-5)
    known = [bool(env.known[end, i]) for i, end in enumerate(ends)]
    assert episodes.known.tolist() == known
    won = [bool(env.success[end, i]) and known[i] for i, end in enumerate(ends)]
    assert episodes.success.tolist() == won
    assert not episodes.cut_off.any()
    assert env.now == max(ends) + 1  # it stops as soon as all are through
    assert asked == [sum(end >= step for end in ends) for step in range(max(ends) + 1)]
    assert env.resets == [{}]  # none is reset only to be able to step the others


@pytest.mark.parametrize("limit", [1, 4, 9])
def test_what_runs_too_long_is_cut_off_and_not_solved(limit: int) -> None:
    env = Scripted(1)
    env.success[:], env.known[:] = True, True
    episodes = run_episodes(
        env, lambda obs: obs[:, 0].long(), seed=0, episodes=4, cut_off_after=limit
    )
    lengths = [min(end + 1, limit) for end in env.ends[:4]]
    assert episodes.lengths.tolist() == lengths and env.now == max(lengths)
    assert episodes.cut_off.tolist() == [end >= limit for end in env.ends[:4]]
    assert episodes.success.tolist() == [end < limit for end in env.ends[:4]]
    assert episodes.known.all()
    returns = [env.reward[:n, i].sum().item() for i, n in enumerate(lengths)]
    assert episodes.returns.tolist() == pytest.approx(returns, abs=1e-5)
    assert torch.equal(env.resets[0]["reset_mask"], torch.arange(6) < 4)


# Target and held-out levels


def gymnasium_loop(
    id: str, q: Callable[[Tensor], Tensor], episodes: int, seed: int
) -> list[tuple[float, int, bool]]:
    """Play Gymnasium's own environment, episode by episode."""
    played = []
    env = gymnasium.make(id)
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed + episode)
        total, length, over = 0.0, 0, False
        while not over:
            scores = q(torch.as_tensor(obs, dtype=torch.float32)[None])[0].tolist()
            action = max(range(len(scores)), key=scores.__getitem__)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, length, over = total + float(reward), length + 1, terminated or truncated
        won = terminated if id.startswith("Mountain") else truncated and not terminated
        played.append((total, length, won))
    env.close()
    return played


def evaluate(
    make: Callable[..., Any],
    learner: StubLearner,
    episodes: int,
    generated: int = 0,
    seed: int = 0,
    env_steps: int = 10**9,
    kind: type[Evaluation] = Evaluation,
) -> dict[str, float]:
    """One evaluation, of generated levels too if there are to be any."""
    envs = EvaluationEnvs(make, make(1, CPU))
    return kind(envs, episodes, generated, env_steps, seed).run(learner, has_gan=generated > 0)


@pytest.mark.parametrize(
    ("env", "q"), [(MountainCar, along), (CartPole, upright)], ids=["mountain car", "cart pole"]
)
def test_target_results_are_gymnasiums_own(
    env: type[BatchedEnv], q: Callable[[Tensor], Tensor]
) -> None:
    results = evaluate(env, StubLearner(q), 6, seed=11)
    seed = stream_seed(11, "target episodes of the validation") % 2**31
    played = gymnasium_loop(str(env.gymnasium_id), q, 6, seed)
    returns = np.array([total for total, _, _ in played])
    expected = {
        "target_return_mean": returns.mean(),
        "target_return_std": np.sqrt(((returns - returns.mean()) ** 2).mean()),
        "target_success_rate": sum(won for *_, won in played) / 6,
        "target_episodes": 6,
        "target_cut_off": 0,
    }
    assert {name: results[name] for name in expected} == pytest.approx(expected)
    assert returns.std() > 0


def test_a_gymnasium_task_is_evaluated_as_it_was_configured() -> None:
    def make(num_envs: int, device: torch.device) -> GymnasiumEnv:
        return GymnasiumEnv(num_envs, device, id="CartPole-v1", max_episode_steps=7)

    results = evaluate(make, StubLearner(upright), 3)
    assert results["target_return_mean"] == 7.0 and results["evaluation_env_steps"] == 21


class Halves(Car):
    """Held-out levels in a large and in a small set, each with a row that is recognised."""

    def heldout(self) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(3)
        return {"many": self.reference_levels(48, rng), "few": self.reference_levels(8, rng)}


def test_heldout_success_is_pooled_over_all_levels() -> None:
    sets = Halves(1).heldout()
    solved = {
        name: [play_alone(Halves(1), level, along)[-1] for level in levels]
        for name, levels in sets.items()
    }
    found = [evaluate(Halves, StubLearner(along), 2, kind=kind) for kind in KINDS]
    # Every level is played once, by validation or by the test, and large sets weigh more.
    assert [each["heldout_levels"] for each in found] == [14, 42]
    for name, outcomes in solved.items():
        count = len(outcomes) // 4
        wins = [each[f"heldout_{name}_success_rate"] for each in found]
        total = wins[0] * count + wins[1] * 3 * count
        assert total == pytest.approx(sum(outcomes))
    for each in found:
        pooled = (each["heldout_many_success_rate"] * 6 + each["heldout_few_success_rate"]) / 7
        assert each["heldout_success_rate"] == pytest.approx(pooled)
    assert 0 < found[1]["heldout_success_rate"] < 1
    assert found[1]["heldout_many_success_rate"] != found[1]["heldout_few_success_rate"]


def test_the_steps_of_heldout_episodes_are_reported_too() -> None:
    found = [
        evaluate(Halves, StubLearner(along), 2, kind=kind) for kind in (Evaluation, WithoutTail)
    ]
    levels = torch.cat(list(Halves(1).heldout().values()))
    heldout = [play_alone(Halves(1), level, along)[1] for level in levels]
    spent = sum(each["evaluation_env_steps"] for each in found)
    assert spent == 2 * 2 * 25 + sum(heldout)


class WithoutTail(FinalEvaluation):
    """The test's target episodes and held-out levels alone."""

    def _tail_metrics(self, learner: Any, allowance: Any) -> dict[str, float]:
        return {}


KINDS = (Evaluation, FinalEvaluation)


# Generated levels


class DiaryCar(Car):
    """Keeps where its first episodes started, how they ended and what was done in them."""

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device)
        self.first: Tensor | None = None
        self.outcome: dict[int, bool] = {}
        self.moves: list[tuple[Tensor, Tensor]] = []

    def heldout(self) -> dict[str, Tensor]:
        return {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        result = super().reset(seed=seed, options=options)
        self.first, self.outcome, self.moves = self.levels.clone(), {}, []
        return result

    def step(self, actions: Tensor) -> Any:
        first = [row for row in range(self.num_envs) if row not in self.outcome]
        self.moves.append((self.state[first], actions[first]))
        result = super().step(actions)
        for row in (result[2] | result[3]).nonzero().flatten().tolist():
            self.outcome.setdefault(row, bool(result[2][row]))
        return result


def measured(
    levels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, float], DiaryCar | None]:
    """Evaluate generated ``levels``; also give the environment they were played in."""
    made: list[DiaryCar] = []
    monkeypatch.setattr(pool, "MAX_BATCHED_COPIES", 10_000)

    def make(num_envs: int, device: torch.device) -> DiaryCar:
        made.append(DiaryCar(num_envs, device))
        return made[-1]

    results = evaluate(make, StubLearner(along, levels), 1, len(levels), seed=5)
    # Nobody but the last environment is as large as that.
    return results, made[-1] if made[-1].num_envs > 1 else None


@pytest.fixture(scope="module")
def generated() -> Iterator[tuple[dict[str, float], DiaryCar, Tensor]]:
    levels = torch.cat(
        [Car(1).reference_levels(40, torch.Generator().manual_seed(2)), near_the_edge(20)]
    )
    assert len(levels) == 60
    levels[50:] = levels[40:50]  # duplicates
    levels[3, 0], levels[7, 1] = 0.55, 0.09  # behind the flag; too fast
    with pytest.MonkeyPatch.context() as patch:
        results, car = measured(levels, patch)
    assert car is not None
    yield results, car, levels


def test_generated_levels_are_counted_as_valid_and_unique(
    generated: tuple[dict[str, float], DiaryCar, Tensor],
) -> None:
    results, *_ = generated
    assert results["levels_valid_rate"] == pytest.approx(58 / 60)
    assert 0.5 < results["levels_unique_rate"] <= 50 / 60


def pairs(car: DiaryCar, levels: Tensor) -> tuple[list[int], list[int]]:
    """Rows at which generated levels were played first, and reference levels."""
    known = {tuple(level) for level in levels.tolist()}
    rows = range(0, car.num_envs, 4)
    is_generated = [tuple(car.first[row].tolist()) in known for row in rows]
    return (
        [row for row, mine in zip(rows, is_generated, strict=True) if mine],
        [row for row, mine in zip(rows, is_generated, strict=True) if not mine],
    )


def test_generated_and_reference_levels_are_played_with_equal_care(
    generated: tuple[dict[str, float], DiaryCar, Tensor],
) -> None:
    results, car, levels = generated
    ours, theirs = pairs(car, levels)
    valid = [level for i, level in enumerate(levels) if i not in (3, 7)]
    assert torch.equal(car.first[ours], torch.stack(valid))
    assert len(theirs) == 60 and results["levels_measured"] == 60
    for k in range(1, 4):  # four episodes each, in turn
        assert torch.equal(car.first[k::4], car.first[::4])
    greedy = torch.cat([actions == along(state).argmax(1) for state, actions in car.moves])
    # A random move is the greedy one in a third of the cases.
    assert greedy.float().mean().item() == pytest.approx(1 - 0.05 * 2 / 3, abs=0.005)


def test_the_frontier_is_recounted_from_the_outcomes(
    generated: tuple[dict[str, float], DiaryCar, Tensor],
) -> None:
    results, car, levels = generated
    for name, rows in zip(("levels", "reference"), pairs(car, levels), strict=True):
        wins = [sum(car.outcome[row + k] for k in range(4)) for row in rows]
        frontier = sum(0.1 < won / 4 < 0.9 for won in wins)
        # Of all that were made: invalid ones are on no frontier.
        assert results[f"{name}_frontier_rate"] == pytest.approx(frontier / 60)
        learnability = sum(4 * (won / 4) * (1 - won / 4) * 4 / 3 for won in wins) / 60
        assert results[f"{name}_learnability"] == pytest.approx(learnability)
        assert 0 in wins and 4 in wins and (frontier > 0 or name == "reference")
        if name == "levels":
            assert results["levels_success_rate"] == pytest.approx(sum(wins) / (58 * 4))


def test_p_hat_is_scored_by_brier_and_auc(
    generated: tuple[dict[str, float], DiaryCar, Tensor],
) -> None:
    results, car, levels = generated
    rows = [row + k for row in pairs(car, levels)[0] for k in range(4)]
    outcomes = [car.outcome[row] for row in rows]
    p_hat = StubLearner(along).success_probability(car.first[rows]).tolist()
    brier = sum((p - won) ** 2 for p, won in zip(p_hat, outcomes, strict=True)) / len(outcomes)
    assert results["p_hat_brier"] == pytest.approx(brier, rel=1e-5)
    won, lost = (np.array([p for p, o in zip(p_hat, outcomes, strict=True) if o is k])
                 for k in (True, False))  # fmt: skip
    higher = (won[:, None] > lost).sum() + 0.5 * (won[:, None] == lost).sum()
    assert results["p_hat_auc"] == pytest.approx(higher / (len(won) * len(lost)), rel=1e-5)
    assert 0 < results["p_hat_auc"] < 1


def test_levels_that_are_all_invalid_are_not_played(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = torch.tensor([[0.55, 0.0], [0.58, 0.0]])
    results, car = measured(levels, monkeypatch)
    assert car is not None and len(pairs(car, levels)[0]) == 0 and car.num_envs == 2 * 4
    assert results["levels_valid_rate"] == 0.0 and results["levels_frontier_rate"] == 0.0
    assert "p_hat_auc" not in results and "p_hat_brier" not in results


def test_levels_that_all_end_alike_have_no_auc(monkeypatch: pytest.MonkeyPatch) -> None:
    results, _ = measured(torch.tensor([[0.45, 0.06], [0.44, 0.06]]), monkeypatch)
    assert results["levels_success_rate"] == 1.0 and results["levels_frontier_rate"] == 0.0
    assert "p_hat_auc" not in results and "p_hat_brier" in results


def test_without_a_gan_or_levels_to_generate_there_are_no_level_metrics() -> None:
    learner = StubLearner(along, torch.tensor([[0.45, 0.06]] * 4))
    envs = EvaluationEnvs(Car, Car(1))
    without = Evaluation(envs, 1, 4, 10**6, seed=0).run(learner, has_gan=False)
    none = Evaluation(envs, 1, 0, 10**6, seed=0).run(learner, has_gan=True)
    full = Evaluation(envs, 1, 4, 10**6, seed=0).run(learner, has_gan=True)
    assert without == none
    # Playing generated levels costs env steps, and changes no other number.
    assert full.pop("evaluation_env_steps") > none.pop("evaluation_env_steps")
    assert full.items() > none.items()
    assert "levels_valid_rate" in full and not any(name.startswith("levels") for name in none)


def test_generated_mazes_have_path_lengths() -> None:
    levels = Maze(1, size=5).reference_levels(20, torch.Generator().manual_seed(0))
    levels[0] = 0.0  # invalid, so no way to measure
    learner = StubLearner(lambda obs: obs.flatten(1)[:, :4].float(), levels)
    make = functools.partial(Maze, size=5, max_episode_steps=4)
    results = evaluate(make, learner, 1, 20)
    lengths = [breadth_first(level.view(3, 5, 5).tolist()) for level in levels[1:]]
    for name, share in (("p10", 10), ("p50", 50), ("p90", 90)):
        assert results[f"levels_path_length_{name}"] == pytest.approx(np.percentile(lengths, share))
    assert results["levels_path_length_p10"] < results["levels_path_length_p90"]
    ends = Counter(tuple(level.view(3, 25)[1:].argmax(dim=1).tolist()) for level in levels)
    entropy = -sum(n / 20 * math.log(n / 20) for n in ends.values())
    assert results["levels_start_goal_pairs"] == pytest.approx(math.exp(entropy), rel=1e-4)


def breadth_first(maps: list[list[list[float]]]) -> int:
    """Moves from the start to the goal."""
    walls, starts, goals = maps
    cells = [(row, column) for row in range(5) for column in range(5)]
    edge = {cell for cell in cells if starts[cell[0]][cell[1]] > 0.5}
    seen, moves = set(edge), 0
    while not any(goals[row][column] > 0.5 for row, column in edge):
        around = {(r + a, c + b) for r, c in edge for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        edge = {(r, c) for r, c in around & set(cells) if walls[r][c] < 0.5} - seen
        seen, moves = seen | edge, moves + 1
    return moves


# The final test


def test_the_tail_is_ranked_on_some_episodes_and_averaged_on_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "MAX_BATCHED_COPIES", 10_000)
    made: list[DiaryCar] = []
    near = near_the_edge(120)
    assert len(near) == 120

    class Noted(DiaryCar):
        def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
            super().__init__(num_envs, device)
            made.append(self)

        def heldout(self) -> dict[str, Tensor]:
            return {"near": near}

    results = evaluate(Noted, StubLearner(along), 2, kind=FinalEvaluation)
    car = made[-1]  # the last thing that was played
    assert car.num_envs == 90 * 4
    wins = torch.tensor([car.outcome[row] for row in range(360)]).double().view(90, 4)
    first, second = wins[:, :2].mean(1), wins[:, 2:].mean(1)
    assert not torch.equal(first, second)
    # The worst nine of ninety; of those that rank alike, each counts the same.
    worst = first == first.min()
    assert worst.sum() >= 9
    assert results["heldout_cvar10"] == pytest.approx(second[worst].mean().item())
    assert 0 < results["heldout_cvar10"] < results["heldout_success_rate"]


def test_fewer_than_ten_levels_have_no_tail() -> None:
    class Few(Car):
        def heldout(self) -> dict[str, Tensor]:
            return {"few": self.reference_levels(12, torch.Generator().manual_seed(3))}

    results = evaluate(Few, StubLearner(along), 1, kind=FinalEvaluation)
    assert "heldout_cvar10" not in results and results["heldout_levels"] == 9


def test_the_final_test_compares_where_generated_and_reference_levels_lie() -> None:
    levels = Car(1).reference_levels(512, torch.Generator().manual_seed(0))
    results = evaluate(Car, StubLearner(along, levels), 1, 4, kind=FinalEvaluation)
    for name in ("precision", "recall", "density", "coverage", "diversity"):
        assert results[f"levels_{name}"] == pytest.approx(1, abs=0.15), name
    levels[:] = levels[:1]  # a generator that has collapsed
    results = evaluate(Car, StubLearner(along, levels), 1, 4, kind=FinalEvaluation)
    assert results["levels_recall"] < 0.01 and results["levels_diversity"] == 0


def test_validation_has_what_is_cheap_and_the_test_the_rest(make_run: Make) -> None:
    run = make_run(generated_levels=6, min_outcomes=8, evaluation_share=99.0).fit()
    assert "reference_frontier_rate" in run.trainer.callback_metrics
    assert "levels_precision" not in run.trainer.callback_metrics
    run.trainer.test(run.learner, datamodule=run.data, verbose=False)
    found = run.trainer.callback_metrics.keys()
    assert {"reference_frontier_rate", "levels_precision", "heldout_cvar10"} <= found


# What may measure more


@pytest.mark.parametrize(("env_steps", "limit"), [(10**6, 25), (40, 10)])
def test_a_measurement_knows_which_episodes_were_played(env_steps: int, limit: int) -> None:
    asked: list[Played] = []

    def more(learner: Any, played: Played) -> dict[str, float]:
        asked.append(played)
        return {"more": played.mean_return}

    envs = EvaluationEnvs(ShortCar, ShortCar(1))
    evaluation = Evaluation(envs, 3, 0, env_steps, seed=4, more=more)
    results = evaluation.run(StubLearner(along), has_gan=False)
    assert results["more"] == results["target_return_mean"] == asked[0].mean_return
    assert asked[0].limit == limit
    assert asked[0].first_obs is not None
    # A car's observation is its state, and its target levels are where it starts.
    rng = random_stream(evaluation._stream_seed("target levels"), "levels")
    first = ShortCar(1).target_levels(3, rng)[: int(results["target_episodes"])]
    assert torch.equal(asked[0].first_obs, first[:, :2])


# Streams of its own


def test_an_evaluation_repeats_itself_and_draws_from_no_other_stream() -> None:
    levels = Car(1).reference_levels(8, torch.Generator().manual_seed(0))
    evaluation = Evaluation(EvaluationEnvs(MountainCar, MountainCar(1)), 3, 8, 10**6, seed=4)
    learner = StubLearner(along, levels)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = evaluation.run(learner, has_gan=True)
    assert evaluation.run(learner, has_gan=True) == first
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    assert evaluate(MountainCar, learner, 3, 8, seed=4, env_steps=10**6) == first
    assert evaluate(MountainCar, learner, 3, 8, seed=5, env_steps=10**6) != first


def test_evaluation_does_not_change_training(make_run: Make, difference: Difference) -> None:
    never = make_run(validate=False).fit()
    often = make_run(validate_every=100, validation_episodes=3, generated_levels=6).fit()
    rarely = make_run(validate_every=700, validation_episodes=9, generated_levels=0).fit()
    assert never.learner.gan_updates > 4  # so that generated levels were evaluated, too
    assert "levels_frontier_rate" in often.trainer.callback_metrics
    assert difference(never.everything(), often.everything()) is None
    assert difference(never.everything(), rarely.everything()) is None


def test_evaluation_in_gymnasium_does_not_change_training(
    make_run: Make, difference: Difference
) -> None:
    settings = {"env": CartPole, "arm": "target", "env_steps": 600}
    never = make_run(validate=False, **settings).fit()
    often = make_run(validate_every=100, **settings).fit()
    assert difference(never.everything(), often.everything()) is None


class CallsOfEvaluation(Callback):
    """Whether generated levels were measured, at every validation."""

    def __init__(self) -> None:
        self.measured: list[tuple[bool, bool]] = []

    def on_validation_end(self, trainer: Any, learner: Any) -> None:
        found = "levels_valid_rate" in trainer.callback_metrics
        self.measured.append((learner.gan_updates > 0, found))


def test_generated_levels_are_measured_from_the_first_gan_phase_on(make_run: Make) -> None:
    calls = CallsOfEvaluation()
    make_run(callbacks=[calls], validate_every=100, min_outcomes=20).fit()
    assert all(trained == found for trained, found in calls.measured)
    assert {trained for trained, _ in calls.measured} == {True, False}
