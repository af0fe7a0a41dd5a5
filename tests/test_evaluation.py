"""Evaluation against loops that play one episode at a time and count by hand.

That evaluation leaves training alone is checked bit for bit, on runs that differ in nothing else.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lit_crl.envs import BatchedEnv, CartPole, GymnasiumEnv, Maze, MountainCar, PointMass
from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.evaluation.protocol import Evaluation, run_episodes
from lit_crl.seeding import stream_seed

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


class Judge:
    """A fixed policy, fixed levels and a fixed opinion of them."""

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
    """Rewards, ends and successes from tables ``[T, N]``; keeps the masks it is reset with."""

    def __init__(self, seed: int, num_envs: int = 6, steps: int = 40) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.num_envs = num_envs
        self.reward = torch.randn(steps, num_envs, generator=rng)
        self.terminated, self.truncated = torch.rand(2, steps, num_envs, generator=rng) < 0.08
        self.terminated[-1] = True
        self.success = torch.rand(steps, num_envs, generator=rng) < 0.5
        self.now = 0
        self.masks: list[tuple[int, Tensor]] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if options:
            self.masks.append((self.now, options["reset_mask"].clone()))
        return torch.zeros(self.num_envs, 1), {}

    def step(self, actions: Tensor) -> Any:
        t, self.now = self.now, self.now + 1
        info = {"success": self.success[t]}
        return (
            torch.zeros(self.num_envs, 1),
            self.reward[t],
            self.terminated[t],
            self.truncated[t],
            info,
        )


@pytest.mark.parametrize("seed", range(5))
def test_what_happens_after_an_episode_is_ignored(seed: int) -> None:
    env = Scripted(seed)
    asked: list[int] = []

    def act(obs: Tensor) -> Tensor:
        asked.append(len(obs))
        return torch.zeros(len(obs), dtype=torch.long)

    episodes = run_episodes(env, act, seed=0)
    ended = env.terminated | env.truncated
    ends = [int(column.nonzero()[0]) for column in ended.T]
    assert episodes.lengths.tolist() == [end + 1 for end in ends]
    returns = [env.reward[: end + 1, i].sum().item() for i, end in enumerate(ends)]
    assert episodes.returns.tolist() == pytest.approx(returns, abs=1e-5)
    assert episodes.success.tolist() == [bool(env.success[end, i]) for i, end in enumerate(ends)]
    assert env.now == max(ends) + 1  # it stops as soon as all are through
    assert asked == [sum(end >= step for end in ends) for step in range(max(ends) + 1)]
    for step, mask in env.masks:  # what has ended is reset before it is stepped again
        assert torch.equal(mask, ended[step - 1])
    assert {step for step, _ in env.masks} == {t + 1 for t in range(max(ends)) if ended[t].any()}


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


@pytest.mark.parametrize(
    ("env", "q"), [(MountainCar, along), (CartPole, upright)], ids=["mountain car", "cart pole"]
)
def test_target_results_are_gymnasiums_own(
    env: type[BatchedEnv], q: Callable[[Tensor], Tensor]
) -> None:
    evaluation = Evaluation(env, CPU, 6, 0, seed=11)
    results = evaluation.run(Judge(q), has_gan=False)
    seed = stream_seed(11, "target evaluation") % 2**31
    played = gymnasium_loop(str(env.gymnasium_id), q, 6, seed)
    returns = np.array([total for total, _, _ in played])
    expected = {
        "target_return_mean": returns.mean(),
        "target_return_std": np.sqrt(((returns - returns.mean()) ** 2).mean()),
        "target_success_rate": sum(won for *_, won in played) / 6,
    }
    assert {name: results[name] for name in expected} == pytest.approx(expected)
    assert returns.std() > 0


def test_a_gymnasium_task_is_evaluated_as_it_was_configured() -> None:
    def make(num_envs: int, device: torch.device) -> GymnasiumEnv:
        return GymnasiumEnv(num_envs, device, id="CartPole-v1", max_episode_steps=7)

    results = Evaluation(make, CPU, 3, 0, seed=0).run(Judge(upright), has_gan=False)
    assert results["target_return_mean"] == 7.0 and results["evaluation_env_steps"] == 21


def test_heldout_success_is_the_mean_over_the_sets() -> None:
    results = Evaluation(Car, CPU, 2, 0, seed=0).run(Judge(along), has_gan=False)
    rates = {}
    for name, levels in Car(1).heldout().items():
        solved = [play_alone(Car(1), level, along)[-1] for level in levels]
        rates[name] = sum(solved) / len(solved)
        assert results[f"heldout_{name}_success_rate"] == pytest.approx(rates[name])
    assert results["heldout_success_rate"] == pytest.approx(sum(rates.values()) / 2)
    assert 0 < results["heldout_success_rate"] < 1 and rates["many"] != rates["few"]


def test_the_steps_of_heldout_episodes_are_reported_too() -> None:
    results = Evaluation(Car, CPU, 2, 0, seed=0).run(Judge(along), has_gan=False)
    levels = torch.cat(list(Car(1).heldout().values()))
    heldout = [play_alone(Car(1), level, along)[1] for level in levels]
    assert results["evaluation_env_steps"] == 2 * 25 + sum(heldout)


# Generated levels


class DiaryCar(Car):
    """Keeps where its first episodes started, how they ended and what was done in them."""

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device)
        self.first: Tensor | None = None
        self.outcome: dict[int, bool] = {}
        self.moves: list[tuple[Tensor, Tensor]] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        result = super().reset(seed=seed, options=options)
        if self.first is None:
            self.first = self.levels.clone()
        return result

    def step(self, actions: Tensor) -> Any:
        first = [row for row in range(self.num_envs) if row not in self.outcome]
        self.moves.append((self.state[first], actions[first]))
        result = super().step(actions)
        for row in (result[2] | result[3]).nonzero().flatten().tolist():
            self.outcome.setdefault(row, bool(result[2][row]))
        return result


def measured(levels: Tensor) -> tuple[dict[str, float], DiaryCar | None]:
    """Evaluate generated ``levels``; also give the environment they were played in."""
    made: list[DiaryCar] = []

    def make(num_envs: int, device: torch.device) -> DiaryCar:
        made.append(DiaryCar(num_envs, device))
        return made[-1]

    evaluation = Evaluation(make, CPU, 1, len(levels), seed=5)
    made.clear()
    results = evaluation.run(Judge(along, levels), has_gan=True)
    # No held-out set has such a size; the last one is for reference levels.
    *played, _ = (env for env in made if env.num_envs % 16 == 0)
    return results, played[0] if played else None


@pytest.fixture(scope="module")
def generated() -> tuple[dict[str, float], DiaryCar, Tensor]:
    rng = torch.Generator().manual_seed(2)
    levels = Car(1).reference_levels(60, rng)
    levels[:, 1] = levels[:, 1].abs()
    levels[50:] = levels[40:50]  # duplicates
    levels[3, 0], levels[7, 1] = 0.55, 0.09  # behind the flag; too fast
    results, car = measured(levels)
    assert car is not None
    return results, car, levels


def test_generated_levels_are_counted_as_valid_and_unique(
    generated: tuple[dict[str, float], DiaryCar, Tensor],
) -> None:
    results, _, levels = generated
    assert results["levels_valid_rate"] == pytest.approx(58 / 60)
    # Levels are the same that fall into one cell of 1 % of the level space.
    space = Car.level_space
    share = (levels.numpy() - (space.low + space.high) / 2) / (space.high - space.low)
    cells = {tuple(round(float(x) / 0.01) for x in level) for level in share}
    assert results["levels_unique_rate"] == pytest.approx(len(cells) / 60)
    assert 40 < len(cells) <= 50


def test_every_valid_level_is_played_sixteen_times_with_a_little_exploration(
    generated: tuple[dict[str, float], DiaryCar, Tensor],
) -> None:
    _, car, levels = generated
    valid = [level for i, level in enumerate(levels) if i not in (3, 7)]
    expected = torch.stack([level for level in valid for _ in range(16)])
    assert torch.allclose(car.first, expected) and car.num_envs == 58 * 16
    greedy = torch.cat([actions == along(state).argmax(1) for state, actions in car.moves])
    # A random move is the greedy one in a third of the cases.
    assert greedy.float().mean().item() == pytest.approx(1 - 0.05 * 2 / 3, abs=0.005)


def test_the_frontier_is_recounted_from_the_outcomes(
    generated: tuple[dict[str, float], DiaryCar, Tensor],
) -> None:
    results, car, _ = generated
    wins = [sum(car.outcome[16 * i + k] for k in range(16)) for i in range(58)]
    frontier = sum(0.1 < won / 16 < 0.9 for won in wins)
    assert results["levels_frontier_rate"] == pytest.approx(frontier / 60)  # of all that were made
    assert results["levels_success_rate"] == pytest.approx(sum(wins) / (58 * 16))
    assert frontier > 0 and 0 in wins and 16 in wins


def test_p_hat_is_scored_by_brier_and_auc(
    generated: tuple[dict[str, float], DiaryCar, Tensor],
) -> None:
    results, car, _ = generated
    outcomes = [car.outcome[i] for i in range(58 * 16)]
    p_hat = Judge(along).success_probability(car.first).tolist()
    brier = sum((p - won) ** 2 for p, won in zip(p_hat, outcomes, strict=True)) / len(outcomes)
    assert results["p_hat_brier"] == pytest.approx(brier, rel=1e-5)
    won, lost = (np.array([p for p, o in zip(p_hat, outcomes, strict=True) if o is k])
                 for k in (True, False))  # fmt: skip
    higher = (won[:, None] > lost).sum() + 0.5 * (won[:, None] == lost).sum()
    assert results["p_hat_auc"] == pytest.approx(higher / (len(won) * len(lost)), rel=1e-5)
    assert 0.5 < results["p_hat_auc"] < 1


def test_levels_that_are_all_invalid_are_not_played() -> None:
    results, car = measured(torch.tensor([[0.55, 0.0], [0.58, 0.0]]))
    assert car is None
    assert results["levels_valid_rate"] == 0.0 and results["levels_frontier_rate"] == 0.0
    assert "p_hat_auc" not in results and "p_hat_brier" not in results


def test_levels_that_all_end_alike_have_no_auc() -> None:
    results, _ = measured(torch.tensor([[0.45, 0.06], [0.44, 0.06]]))
    assert results["levels_success_rate"] == 1.0 and results["levels_frontier_rate"] == 0.0
    assert "p_hat_auc" not in results and "p_hat_brier" in results


def test_without_a_gan_or_levels_to_generate_there_are_no_level_metrics() -> None:
    judge = Judge(along, torch.tensor([[0.45, 0.06]] * 4))
    without = Evaluation(Car, CPU, 1, 4, seed=0).run(judge, has_gan=False)
    none = Evaluation(Car, CPU, 1, 0, seed=0).run(judge, has_gan=True)
    full = Evaluation(Car, CPU, 1, 4, seed=0).run(judge, has_gan=True)
    assert without == none
    # Playing generated levels costs env steps, and changes no other number.
    assert full.pop("evaluation_env_steps") > none.pop("evaluation_env_steps")
    assert full.items() > none.items()
    assert "levels_valid_rate" in full and not any(name.startswith("levels") for name in none)


def test_generated_mazes_have_path_lengths() -> None:
    levels = Maze(1, size=5).reference_levels(20, torch.Generator().manual_seed(0))
    levels[0] = 0.0  # invalid, so no way to measure
    judge = Judge(lambda obs: obs.flatten(1)[:, :4].float(), levels)
    make = functools.partial(Maze, size=5, max_episode_steps=4)
    results = Evaluation(make, CPU, 1, 20, seed=0).run(judge, has_gan=True)
    lengths = [breadth_first(level.view(3, 5, 5).tolist()) for level in levels[1:]]
    for name, share in (("p10", 10), ("p50", 50), ("p90", 90)):
        assert results[f"levels_path_length_{name}"] == pytest.approx(np.percentile(lengths, share))
    assert results["levels_path_length_p10"] < results["levels_path_length_p90"]


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


# Reference levels


def test_reference_levels_are_played_like_generated_ones_with_a_stream_of_their_own() -> None:
    made: list[DiaryCar] = []

    def make(num_envs: int, device: torch.device) -> DiaryCar:
        made.append(DiaryCar(num_envs, device))
        return made[-1]

    class WithoutReference(Evaluation):
        def _reference_metrics(self, judge: Any) -> dict[str, float]:
            return {}

    judge = Judge(along, Car(1).reference_levels(797, torch.Generator().manual_seed(1)))
    without = WithoutReference(make, CPU, 1, 797, seed=0).run(judge, has_gan=True)
    evaluation = Evaluation(make, CPU, 1, 797, seed=0)
    made.clear()
    results = evaluation.run(judge, has_gan=True)
    (car,) = (env for env in made if env.num_envs == 200 * 16)
    wins = [sum(car.outcome[16 * i + k] for k in range(16)) for i in range(200)]
    expected = sum(0.1 < won / 16 < 0.9 for won in wins) / 200
    assert results.pop("reference_frontier_rate") == pytest.approx(expected) and expected > 0
    assert len(torch.unique(car.first, dim=0)) == 200
    # The other numbers stay, and the steps are counted.
    more = results.pop("evaluation_env_steps") - without.pop("evaluation_env_steps")
    assert results == without and 200 * 16 < more <= 200 * 16 * 25
    assert "reference_frontier_rate" not in evaluation.run(judge, has_gan=False)


# The final test


class SlipperyCar(Car):
    """Chance decides: the state alone does not say how an episode ends."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        obs, info = super().reset(seed=seed, options=options)
        if seed is not None:
            self.luck = torch.rand(self.num_envs, generator=torch.Generator().manual_seed(seed))
        return obs, info

    def step(self, actions: Tensor) -> Any:
        obs, reward, terminated, truncated, info = super().step(actions)
        info["success"] = terminated & (self.luck < 0.7)
        return obs, reward, terminated, truncated, info


def test_the_tail_is_ranked_on_one_pass_and_averaged_on_another() -> None:
    passes: list[Tensor] = []

    class Noted(FinalEvaluation):
        def _heldout_success(self, judge: Any, seed: int) -> dict[str, Tensor]:
            success = super()._heldout_success(judge, seed)
            passes.append(torch.cat([success["many"], success["few"]]).double())
            return success

    results = Noted(SlipperyCar, CPU, 2, 0, seed=0).run(Judge(along), has_gan=False)
    first, second = passes
    assert not torch.equal(first, second)
    # Under a tenth of 13 levels always lies within the failures of the first pass.
    failed = first == 0
    assert failed.sum() > 1.3
    assert results["heldout_cvar10"] == pytest.approx(second[failed].mean().item())
    once = Evaluation(SlipperyCar, CPU, 2, 0, seed=0).run(Judge(along), has_gan=False)
    assert once["heldout_success_rate"] == results["heldout_success_rate"]
    lengths = results["evaluation_env_steps"] - once["evaluation_env_steps"]
    assert lengths == once["evaluation_env_steps"] - 2 * 25  # the second pass is counted, too


def test_the_tail_of_a_deterministic_task_is_nought_where_a_tenth_fails() -> None:
    results = FinalEvaluation(Car, CPU, 2, 0, seed=0).run(Judge(along), has_gan=False)
    assert results["heldout_success_rate"] < 0.9 and results["heldout_cvar10"] == 0


def test_the_final_test_compares_where_generated_and_reference_levels_lie() -> None:
    levels = Car(1).reference_levels(512, torch.Generator().manual_seed(0))
    results = FinalEvaluation(Car, CPU, 1, 4, seed=0).run(Judge(along, levels), has_gan=True)
    for name in ("precision", "recall", "density", "coverage", "diversity"):
        assert results[f"levels_{name}"] == pytest.approx(1, abs=0.15), name
    levels[:] = levels[:1]  # a generator that has collapsed
    results = FinalEvaluation(Car, CPU, 1, 4, seed=0).run(Judge(along, levels), has_gan=True)
    assert results["levels_recall"] < 0.01 and results["levels_diversity"] == 0


def test_validation_has_what_is_cheap_and_the_test_the_rest(make_run: Make) -> None:
    run = make_run(generated_levels=6, min_outcomes=8).fit()
    assert "reference_frontier_rate" in run.trainer.callback_metrics
    assert "levels_precision" not in run.trainer.callback_metrics
    run.trainer.test(run.learner, datamodule=run.data, verbose=False)
    found = run.trainer.callback_metrics.keys()
    assert {"reference_frontier_rate", "levels_precision", "heldout_cvar10"} <= found


# Streams of its own


def test_an_evaluation_repeats_itself_and_draws_from_no_other_stream() -> None:
    levels = Car(1).reference_levels(8, torch.Generator().manual_seed(0))
    evaluation = Evaluation(MountainCar, CPU, 3, 8, seed=4)
    judge = Judge(along, levels)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = evaluation.run(judge, has_gan=True)
    assert evaluation.run(judge, has_gan=True) == first
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    assert Evaluation(MountainCar, CPU, 3, 8, seed=4).run(judge, has_gan=True) == first
    assert Evaluation(MountainCar, CPU, 3, 8, seed=5).run(judge, has_gan=True) != first


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


class MadeCar(Car):
    """Remembers how many copies were ever made at once."""

    sizes: ClassVar[list[int]] = []

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device)
        self.sizes.append(num_envs)


def test_validation_and_test_play_their_own_number_of_episodes(make_run: Make) -> None:
    run = make_run(env=MadeCar, validation_episodes=3, test_episodes=5)
    for play, episodes in ((run.trainer.validate, 3), (run.trainer.test, 5)):
        MadeCar.sizes.clear()
        play(run.learner, datamodule=run.data, verbose=False)
        assert episodes in MadeCar.sizes and 8 - episodes not in MadeCar.sizes
