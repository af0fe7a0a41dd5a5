"""The rollout against a naive recount of everything that its environment did.

The environment writes down every reset and every step; from these notes the tests rebuild the
episodes one by one and compare them with what the rollout stored and counted.
"""

import copy
import io
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.sources import SOURCES, FinishedEpisodes
from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import GymnasiumEnv, MountainCar
from lit_crl.training.experience.episode_log import MANY, RECENT, EpisodeLog
from lit_crl.training.experience.rollout import VISIT_EVERY, Rollout

GAMMA, LABEL_EPSILON, LIMIT = 0.9, 0.1, 15


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Episode:
    """What happened between two resets of one environment."""

    level: list[float]
    obs: list[list[float]]
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False


class Car(MountainCar):
    """A mountain car that gives up soon, whose rewards differ, and that keeps a diary."""

    max_episode_steps = LIMIT

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device)
        self.episodes: list[list[Episode]] = [[] for _ in range(num_envs)]
        self.finished: list[tuple[int, Episode]] = []  # in the order in which they ended
        self.states: list[Tensor] = []  # after every step

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        state, _, terminated = super().dynamics(state, levels, actions)
        return state, 3 * state[:, 0] + actions, terminated

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        obs, info = super().reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask", torch.ones(self.num_envs, dtype=torch.bool))
        for env in mask.nonzero().flatten().tolist():
            self.episodes[env].append(Episode(self.levels[env].tolist(), [obs[env].tolist()]))
        return obs, info

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        result = super().step(actions)
        obs, reward, terminated, truncated, _ = result
        self.states.append(self.state.clone())
        for env in range(self.num_envs):
            episode = self.episodes[env][-1]
            assert not (episode.terminated or episode.truncated), "stepped after its end"
            episode.obs.append(obs[env].tolist())
            episode.actions.append(int(actions[env]))
            episode.rewards.append(reward[env].item())
            episode.terminated = bool(terminated[env])
            episode.truncated = bool(truncated[env])
            if episode.terminated or episode.truncated:
                self.finished.append((env, episode))
        return result


class Script:
    """Actor, ε and level source of a test, which write down what they were asked."""

    def __init__(self, num_envs: int, seed: int = 0) -> None:
        self.num_envs, self.rng = num_envs, rng(seed)
        self.count = 0
        self.drawn: list[tuple[list[float], int]] = []
        self.requests: list[int] = []
        self.seen: list[Tensor] = []
        self.epsilons: list[Tensor] = []

    def act(self, obs: Tensor, epsilon: Tensor) -> Tensor:
        """Push along the motion, but now and then at random."""
        self.seen.append(obs.clone())
        self.epsilons.append(epsilon.clone())
        stray = torch.rand(self.num_envs, generator=self.rng) < 0.3
        strays = torch.randint(3, (self.num_envs,), generator=self.rng)
        return torch.where(stray, strays, torch.where(obs[:, 1] >= 0, 2, 0))

    def epsilon(self) -> Tensor:
        """Always greedy, always at the limit, always exploring, and exploring at times."""
        self.count += 1
        wavering = 0.5 if self.count % 23 < 4 else 0.02
        return torch.tensor([0.0, LABEL_EPSILON, 0.5, wavering])[: self.num_envs]

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Half of the levels are close to the flag, the others are lost in the valley."""
        levels = torch.rand(n, 2, generator=self.rng) * torch.tensor([0.1, 0.02])
        close = torch.rand(n, generator=self.rng) < 0.5
        levels += torch.where(close[:, None], torch.tensor([0.38, 0.03]), torch.tensor([-0.6, 0.0]))
        source = torch.randint(4, (n,), generator=self.rng)
        self.requests.append(n)
        self.drawn += zip(levels.tolist(), source.tolist(), strict=True)
        return levels, source


@dataclass
class Played:
    env: Car
    replay: ReplayBuffer
    archive: Archive
    rollout: Rollout
    script: Script

    def step(self, steps: int) -> "Played":
        for _ in range(steps):
            self.rollout.step(self.script.act, self.script.epsilon(), self.script.draw)
        return self

    def sources(self) -> dict[int, int]:
        """The source of every episode, by the identity of its diary entry.

        Levels are handed to the finished environments in the order of their numbers.
        """
        drawn = iter(self.script.drawn)
        return {
            id(self.env.episodes[env][number]): 0 if number == 0 else next(drawn)[1]
            for _, env, number in self.starts()
        }

    def starts(self) -> list[tuple[int, int, int]]:
        """Step, environment and number of every episode, in the order of their starts."""
        return sorted(
            (begin, env, number)
            for env, episodes in enumerate(self.env.episodes)
            for number, begin in enumerate(self.begins(episodes))
        )

    @staticmethod
    def begins(episodes: list[Episode]) -> list[int]:
        begins = [0]
        for episode in episodes[:-1]:
            begins.append(begins[-1] + len(episode.actions))
        return begins

    def largest_epsilon(self, env: int, episode: Episode) -> float:
        number = next(i for i, other in enumerate(self.env.episodes[env]) if other is episode)
        begin = self.begins(self.env.episodes[env])[number]
        rows = self.script.epsilons[begin : begin + len(episode.actions)]
        return max(row[env].item() for row in rows)

    def judged(self) -> list[tuple[int, Episode]]:
        """Finished episodes that were never played with more than the label's ε."""
        return [
            (env, episode)
            for env, episode in self.env.finished
            if self.largest_epsilon(env, episode) <= LABEL_EPSILON + 1e-6
        ]


def start(num_envs: int = 4, seed: int = 0) -> Played:
    env = Car(num_envs)
    replay = ReplayBuffer(4_000, num_envs, env.single_observation_space)
    archive = Archive(2, tried=1_000, visited=2_000)
    rollout = Rollout(env, replay, archive, gamma=GAMMA, label_epsilon=LABEL_EPSILON, seed=seed)
    return Played(env, replay, archive, rollout, Script(num_envs, seed))


@pytest.fixture(scope="module")
def played() -> Played:
    """120 steps of four environments, for the tests that only look."""
    result = start().step(120)
    ends = {(episode.terminated, episode.truncated) for _, episode in result.env.finished}
    assert {(True, False), (False, True)} <= ends, "both kinds of end must occur"
    return result


def test_first_episodes_start_at_target_levels_of_the_seed() -> None:
    first, same, other = start(seed=3), start(seed=3), start(seed=4)
    assert torch.equal(first.env.levels, same.env.levels)
    assert not torch.equal(first.env.levels, other.env.levels)
    assert ((first.env.levels[:, 0] + 0.5).abs() <= 0.1).all() and (
        first.env.levels[:, 1] == 0
    ).all()
    assert not first.script.drawn and torch.equal(first.rollout.obs, first.env.levels)


def test_the_levels_drawn_are_the_levels_reset_to(played: Played) -> None:
    starts = [start for start in played.starts() if start[2]]
    assert len(starts) == len(played.script.drawn) > 20
    for (_, env, number), (level, _) in zip(starts, played.script.drawn, strict=True):
        episode = played.env.episodes[env][number]
        assert episode.level == pytest.approx(level, abs=1e-7)
        assert episode.obs[0] == pytest.approx(level, abs=1e-7), "a car's level is its state"


def test_only_as_many_levels_are_drawn_as_environments_finished(played: Played) -> None:
    ends: dict[int, int] = {}
    for begin, _, number in played.starts():
        if number:
            ends[begin] = ends.get(begin, 0) + 1
    assert played.script.requests == [ends[step] for step in sorted(ends)]


def test_the_actor_sees_every_environments_present_observation_and_epsilon(
    played: Played,
) -> None:
    for env, episodes in enumerate(played.env.episodes):
        shown = [row[env].tolist() for row in played.script.seen]
        assert shown == [obs for episode in episodes for obs in episode.obs[: len(episode.actions)]]
    again = Script(4)
    assert all(torch.equal(row, again.epsilon()) for row in played.script.epsilons)


def stored(replay: ReplayBuffer) -> set[tuple[float, ...]]:
    """Every transition among many samples."""
    batch: Transitions = replay.sample((12_000,), rng())
    rows = torch.cat(
        [
            batch.obs,
            batch.action[:, None],
            batch.reward[:, None],
            batch.discount[:, None],
            batch.next_obs,
        ],
        dim=1,
    )
    return {tuple(row) for row in rows.unique(dim=0).tolist()}


def test_the_replay_holds_every_step_and_the_final_observations(played: Played) -> None:
    expected = set()
    gamma = torch.tensor(GAMMA).item()
    for episodes in played.env.episodes:
        for episode in episodes:
            steps = len(episode.actions)
            for t in range(steps):
                last = t == steps - 1
                if last and not (episode.terminated or episode.truncated):
                    continue  # its next observation comes with the next step
                discount = 0.0 if last and episode.terminated else gamma
                taken = (episode.actions[t], episode.rewards[t], discount)
                expected.add((*episode.obs[t], *taken, *episode.obs[t + 1]))
    assert played.replay.num_startable == len(expected)
    assert stored(played.replay) == expected


def test_a_truncated_episode_stores_its_final_observation_and_keeps_its_discount(
    played: Played,
) -> None:
    transitions = {row[:2]: row for row in stored(played.replay)}
    gamma = torch.tensor(GAMMA).item()
    truncated = [e for _, e in played.env.finished if e.truncated and not e.terminated]
    terminated = [e for _, e in played.env.finished if e.terminated]
    assert truncated and terminated
    for episodes, discount in ((truncated, gamma), (terminated, 0.0)):
        for episode in episodes:
            last = transitions[tuple(episode.obs[-2])]
            assert last[4] == discount and list(last[5:]) == episode.obs[-1]
    for _, episode in played.env.finished:
        assert tuple(episode.obs[-1]) not in transitions, "no step starts at a final observation"


def test_outcomes_come_only_from_episodes_that_explored_little(played: Played) -> None:
    judged = played.judged()
    ring = played.archive.tried
    assert len(ring) == len(judged)
    assert ring.levels[: len(ring)].tolist() == [episode.level for _, episode in judged]
    outcomes = [float(episode.terminated) for _, episode in judged]
    assert ring.values[: len(ring)].tolist() == outcomes
    assert set(outcomes) == {0.0, 1.0}
    by_env = {env: sum(e == env for e, _ in judged) for env in range(4)}
    finished = {env: sum(e == env for e, _ in played.env.finished) for env in range(4)}
    assert by_env[0] == finished[0] and by_env[1] == finished[1], "ε up to the limit counts"
    assert by_env[2] == 0
    assert 0 < by_env[3] < finished[3], "one wild step must spoil its episode, and only that"


def test_returns_and_successes_are_those_of_a_naive_recount(played: Played) -> None:
    judged = [episode for _, episode in played.judged()]
    returns = [sum(episode.rewards) for episode in judged]
    assert list(played.rollout.log.returns) == pytest.approx(returns[-100:], abs=1e-4)
    successes = [float(episode.terminated) for episode in judged]
    assert list(played.rollout.log.successes) == successes[-100:]
    means = played.rollout.log.means()
    assert means["behaviour/return_mean"] == pytest.approx(
        sum(returns[-100:]) / len(returns[-100:]), abs=1e-4
    )
    assert means["behaviour/success_rate"] == sum(successes[-100:]) / len(successes[-100:])


def test_episodes_and_solved_ones_are_counted_by_the_source_of_their_level(
    played: Played,
) -> None:
    sources = played.sources()
    episodes, solved = [0] * 5, [0] * 5
    for _, episode in played.env.finished:
        source = sources[id(episode)]
        episodes[source] += 1
        solved[source] += episode.terminated
    assert list(played.rollout.log.episodes.values()) == episodes
    assert list(played.rollout.log.solved.values()) == solved
    assert list(played.rollout.log.episodes) == list(SOURCES) and min(episodes[:4]) > 0
    means = played.rollout.log.means()
    for index, source in enumerate(SOURCES):
        assert means[f"curriculum/{source}_episodes"] == episodes[index]
        assert means[f"curriculum/{source}_solved"] == solved[index]


def test_the_log_forgets_all_but_the_last_hundred_episodes() -> None:
    log, naive = EpisodeLog(), deque[float](maxlen=RECENT)
    for first in range(0, 260, 13):
        returns = torch.arange(first, first + 13).float()
        known = torch.ones(13, dtype=torch.bool)
        log.add(returns, returns % 2 == 0, known, torch.full((13,), 2), returns % 3 > 0)
        naive.extend(r for r in returns.tolist() if r % 3)
    assert list(log.returns) == list(naive)
    assert list(log.successes) == [float(r % 2 == 0) for r in naive]
    assert log.episodes == {"target": 0, "reference": 0, "archive": 260, "gan": 0, "own": 0}
    assert log.solved["archive"] == 130


def test_no_mean_is_told_before_an_episode_has_finished() -> None:
    assert set(EpisodeLog().means().values()) == {0}
    assert not [name for name in EpisodeLog().means() if name.startswith("behaviour")]


def test_unknown_success_is_never_a_failure() -> None:
    log, nothing = EpisodeLog(), torch.zeros(4, dtype=torch.bool)
    log.add(torch.ones(4), nothing, nothing, torch.zeros(4), ~nothing)
    means = log.means()
    assert means["behaviour/return_mean"] == 1 and means["curriculum/target_episodes"] == 4
    assert not [name for name in means if "success" in name or "solved" in name]
    half = torch.tensor([True, False, True, False])
    log.add(torch.ones(4), half, half, torch.zeros(4), ~nothing)
    means = log.means()
    assert means["behaviour/success_rate"] == 1, "of the two that are known"
    assert means["curriculum/target_solved"] == 2
    assert (log.ended, log.known, log.judged) == (8, 2, 2)


class Reticent(Car):
    """Says of two environments in four whether they succeeded."""

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        *result, info = super().step(actions)
        known = torch.tensor([True, False, True, False])
        return (*result, info | {"success_known": known})  # type: ignore[return-value]


def test_outcomes_are_recorded_only_where_success_is_known() -> None:
    env, archive = Reticent(4), Archive(2, tried=1_000, visited=2_000)
    replay = ReplayBuffer(4_000, 4, env.single_observation_space)
    heard: list[FinishedEpisodes] = []
    rollout = Rollout(
        env, replay, archive, gamma=GAMMA, label_epsilon=1.0, seed=0, record=heard.append
    )
    run = Played(env, replay, archive, rollout, Script(4)).step(120)
    expected = [(e.level, float(e.terminated)) for i, e in run.env.finished if i in (0, 2)]
    ring = archive.tried
    found = zip(ring.levels[: len(ring)].tolist(), ring.values[: len(ring)].tolist(), strict=True)
    assert list(found) == expected and len(expected) > 10
    assert rollout.log.known == len(expected) < rollout.log.ended


def test_every_step_of_every_environment_is_counted() -> None:
    for num_envs in (1, 3):
        run = start(num_envs)
        for steps in range(1, 20):
            run.step(1)
            assert run.rollout.env_steps == steps * num_envs


def test_every_fourth_state_is_archived_if_an_episode_could_start_there(played: Played) -> None:
    assert VISIT_EVERY == 4
    visited = torch.cat(played.env.states[3::4])
    inside = visited[:, 0] < 0.5
    assert not inside.all(), "a car at the flag must be among them"
    ring = played.archive.visited
    assert torch.equal(ring.levels[: len(ring)], visited[inside])


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_equal(mine: Any, theirs: Any, path: str = "") -> None:
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys(), path
        for key, value in mine.items():
            assert_equal(value, theirs[key], f"{path}.{key}")
    elif isinstance(mine, Tensor):
        assert torch.equal(mine, theirs), path
    else:
        assert mine == theirs, path


@pytest.mark.parametrize("before", [1, 15, 16, 52])
def test_a_saved_rollout_continues_as_if_it_had_never_stopped(before: int) -> None:
    whole = start(seed=1).step(before)
    parts = ("replay", "archive", "rollout")
    state = through_a_file({part: getattr(whole, part).state_dict() for part in parts})
    again = start(seed=2)
    for part in parts:
        getattr(again, part).load_state_dict(state[part])
    again.script.rng.set_state(whole.script.rng.get_state())
    again.script.count = whole.script.count
    for part in parts:
        assert_equal(getattr(again, part).state_dict(), state[part], part)
    whole.step(40)
    again.step(40)
    for part in parts:
        assert_equal(getattr(whole, part).state_dict(), getattr(again, part).state_dict(), part)
    for mine, theirs in zip(whole.script.seen[-40:], again.script.seen, strict=True):
        assert torch.equal(mine, theirs)


# Gymnasium environments: the task's own resets are rows of NaN, and nothing can be resumed.


def put_car(env: Any, level: np.ndarray) -> np.ndarray:
    env.state = level.astype(np.float64)
    return level


def gymnasium_rollout(archive: Archive | None, limit: int = 8, **changes: Any) -> Rollout:
    space = MountainCar.level_space if archive is not None else None
    env = GymnasiumEnv(
        3,
        id="MountainCar-v0",
        level_space=space,
        set_level=put_car if space is not None else None,
        max_episode_steps=limit,
    )
    assert isinstance(env.single_observation_space, Box)
    replay = ReplayBuffer(600, 3, env.single_observation_space)
    return Rollout(env, replay, archive, gamma=GAMMA, label_epsilon=1.0, seed=5, **changes)


def idle(obs: Tensor, epsilon: Tensor) -> Tensor:
    return torch.ones(len(obs), dtype=torch.long)


def test_the_tasks_own_resets_give_no_outcome_and_nobody_hears_of_them() -> None:
    archive, heard = Archive(2), list[FinishedEpisodes]()
    rollout = gymnasium_rollout(archive, record=heard.append)
    values = lambda obs: torch.zeros(len(obs), 3)  # noqa: E731
    rollout._action_values = values
    given = torch.tensor([-0.9, 0.01])
    turn = [0]

    def draw(n: int) -> tuple[Tensor, Tensor]:
        turn[0] += 1
        level = given if turn[0] % 2 else torch.full((2,), torch.nan)
        return level.expand(n, 2), torch.zeros(n, dtype=torch.long)

    for _ in range(8 * 5):  # five episodes: the first at the task's own reset, then in turn
        rollout.step(idle, torch.zeros(3), draw)
    assert turn[0] == 4 and rollout.log.episodes["target"] == 15
    assert len(archive.tried) == 2 * 3
    assert torch.equal(archive.tried.levels[:6], given.expand(6, 2))
    levels = torch.cat([finished.levels for finished in heard])
    assert torch.equal(levels, given.expand(6, 2))
    to_go = sum((1 - GAMMA**left) / (1 - GAMMA) for left in range(1, 9)) / 8
    assert heard[0].to_go.tolist() == pytest.approx([-to_go] * 3)
    assert heard[0].returns.tolist() == [-8.0] * 3 and not heard[0].terminated.any()
    assert len(archive.visited) == 0, "this environment cannot tell where it is"


def test_without_levels_episodes_follow_each_other_and_no_level_is_drawn() -> None:
    rollout = gymnasium_rollout(None)

    def fail(n: int) -> tuple[Tensor, Tensor]:
        raise AssertionError("there are no levels")

    for _ in range(20):
        rollout.step(idle, torch.zeros(3), fail)
    assert rollout.level is None and rollout.log.episodes["target"] == 6
    starts = rollout.replay.obs.view(-1, 3, 2)[[0, 9, 18]].flatten(0, 1)
    assert ((starts[:, 0] + 0.5).abs() <= 0.1).all() and len(starts.unique(dim=0)) == 9


def test_what_cannot_be_resumed_is_cut_off_like_at_a_time_limit() -> None:
    archive = Archive(2)
    rollout = gymnasium_rollout(archive, limit=8)
    rollout.env.resumable = False  # as that of an environment that is not Gymnasium's own
    level = torch.tensor([[-0.9, 0.01]])

    def draw(n: int) -> tuple[Tensor, Tensor]:
        return level.expand(n, 2), torch.full((n,), 3)

    for _ in range(12):
        rollout.step(idle, torch.full((3,), 0.3), draw)
    assert rollout.level is not None and rollout.level.isfinite().all()
    assert rollout.source.all() and rollout.episode_return.all() and rollout.largest_epsilon.all()
    last = rollout.obs.clone()
    state = through_a_file({"replay": rollout.replay.state_dict(), "rollout": rollout.state_dict()})
    again = gymnasium_rollout(Archive(2), limit=8)
    again.env.resumable = False
    again.replay.load_state_dict(state["replay"])
    again.load_state_dict(state["rollout"])
    assert again.env_steps == 36
    assert not torch.equal(again.obs, last) and (again.obs[:, 1] == 0).all()
    assert torch.equal(again.obs, again.env.current_observations())
    assert again.level is not None and again.level.isnan().all()
    assert not again.done.any() and not again.source.any()
    assert not again.episode_return.any() and not again.largest_epsilon.any()
    # Rows of an environment: eight steps, their end, four steps, the cut, the next episode.
    rows = again.replay.obs.view(-1, 3, 2)
    assert torch.equal(rows[13], last)
    for _ in range(3):
        again.step(idle, torch.zeros(3), draw)
    assert again.replay.num_startable == 3 * (8 + 4 + 2)
    batch = again.replay.sample((3_000,), rng())
    cut = (batch.next_obs[:, None] == last).all(dim=2).any(dim=1)
    assert cut.any() and (batch.discount == torch.tensor(GAMMA)).all()
    assert not (batch.obs[:, None] == last).all(dim=2).any()
    assert torch.equal(again.episode_return, torch.full((3,), -3.0))


def test_a_copy_of_the_state_is_all_that_a_second_rollout_shares() -> None:
    whole = start(seed=1).step(20)
    state = copy.deepcopy(whole.rollout.state_dict())
    again = start(seed=2)
    again.rollout.load_state_dict(state)
    before = copy.deepcopy(whole.rollout.state_dict())
    again.step(30)
    assert_equal(whole.rollout.state_dict(), before)


@pytest.mark.parametrize("episodes", [MANY + 1, 3 * RECENT])
def test_many_episodes_at_once_are_logged_as_one_by_one(episodes: int) -> None:
    draws, n = rng(episodes), episodes
    returns, (success, known, greedy) = (
        torch.randn(n, generator=draws), torch.rand(3, n, generator=draws) < 0.5
    )  # fmt: skip
    source = torch.randint(len(SOURCES), (n,), generator=draws)
    at_once, one_by_one = EpisodeLog(), EpisodeLog()
    for log, size in ((at_once, n), (one_by_one, 1)):
        for rows in torch.arange(n).split(size):
            fields = (returns, success, known, source, greedy)
            log.add(*(field[rows] for field in fields))
    assert at_once.state_dict() == one_by_one.state_dict()
