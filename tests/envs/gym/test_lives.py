"""What transitions learn from, against what a game pays: lives and clipped rewards."""

from typing import Any

import pytest
import torch
from lives import LIFE, POINTS, ThreeLives

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import GymnasiumEnv
from lit_crl.envs.episodes import run_episodes
from lit_crl.training.experience.rollout import Rollout
from lit_crl.training.experience.value_trace import ValueTrace

GAMMA = 0.9
STACK = [{"class_path": "gymnasium.wrappers.FrameStackObservation", "init_args": {"stack_size": 4}}]


def game(num_envs: int = 1, **changes: Any) -> GymnasiumEnv:
    rules = {"clip_rewards": 1.0, "terminal_on_life_loss": True, **changes}
    return GymnasiumEnv(num_envs, make=ThreeLives, wrappers=STACK, **rules)


def collected(env: GymnasiumEnv, steps: int, n_steps: int = 1) -> tuple[ReplayBuffer, Rollout]:
    """Steps by actions 0, 1, 0, 1, ...; nothing is drawn at random."""
    space = env.single_observation_space
    replay = ReplayBuffer(400, env.num_envs, space, n_steps=n_steps, num_actions=2, frame_stack=4)
    rollout = Rollout(env, replay, None, gamma=GAMMA, label_epsilon=1.0, seed=0)
    for step in range(steps):
        rollout.step(
            lambda obs, _, step=step: torch.full((len(obs),), step % 2),  # type: ignore[misc]
            torch.zeros(env.num_envs),
            lambda n: (torch.empty(n, 0), torch.zeros(n, dtype=torch.long)),
        )
    return replay, rollout


def test_lives_and_clipping_are_for_the_replay_alone() -> None:
    env = game()
    length = 3 * LIFE
    replay, rollout = collected(env, 2 * length)
    rows = [row for row in range(int(replay.cursor[0])) if not replay.boundary[row]]
    assert [replay.reward[row].item() for row in rows] == [1.0, -1.0] * length
    ends = [step % LIFE == LIFE - 1 for step in range(length)] * 2
    expected = [0.0 if end else GAMMA for end in ends]
    assert [replay.discount[row].item() for row in rows] == pytest.approx(expected)
    # The games went on: two of them, with the points that they pay, and a reset before each.
    whole = [sum(POINTS[step % 2] for step in range(k, k + length)) for k in (0, length)]
    assert list(rollout.log.returns) == whole
    assert rollout.log.ended == 2 and int(replay.boundary.sum()) == 2
    assert env.envs.envs[0].unwrapped.resets == 2 + 1  # the first one tried the game out


def test_a_stack_runs_on_through_a_lost_life() -> None:
    replay, _ = collected(game(), 3 * LIFE)
    row = torch.tensor([LIFE + 1])  # the frames around the first lost life
    frames = replay.observations(row)[0, :, 0, 0].tolist()
    assert frames == [LIFE - 2, LIFE - 1, LIFE, LIFE + 1]


@pytest.mark.parametrize("n_steps", [1, 3])
def test_folded_transitions_end_at_a_lost_life(n_steps: int) -> None:
    replay, _ = collected(game(2), 40, n_steps)
    start = replay.startable.nonzero().flatten()
    found = replay.gather(start)
    length = 3 * LIFE
    for index, row in enumerate(start.tolist()):
        step = row // 2 % (length + 1)  # rows of a game and the one after its end
        reward, discount = 0.0, 1.0
        for k in range(step, min(step + n_steps, length)):
            action = int(replay.action[row + 2 * (k - step)])
            reward += discount * (1.0, -1.0)[action]
            discount *= 0.0 if k % LIFE == LIFE - 1 else GAMMA
        assert found.reward[index].item() == pytest.approx(reward, abs=1e-6)
        assert found.discount[index].item() == pytest.approx(discount, abs=1e-6)


def test_evaluation_plays_whole_games_for_their_own_points() -> None:
    env = game(2)
    episodes = run_episodes(env, lambda obs: torch.zeros(len(obs), dtype=torch.long), seed=0)
    assert episodes.returns.tolist() == [3 * LIFE * POINTS[0]] * 2
    assert episodes.lengths.tolist() == [3 * LIFE] * 2
    again = run_episodes(env, lambda obs: torch.ones(len(obs), dtype=torch.long), seed=1)
    assert again.lengths.tolist() == [3 * LIFE] * 2  # a reset starts a new game, with all lives
    assert again.returns.tolist() == [3 * LIFE * POINTS[1]] * 2


def test_without_the_rules_nothing_differs() -> None:
    env = game(clip_rewards=None, terminal_on_life_loss=False)
    env.reset(seed=0)
    info = env.step(torch.zeros(1, dtype=torch.long))[-1]
    assert info.keys() == {"success", "success_known"}
    assert "rewards not clipped, a lost life ends nothing" in env.game_in_words


def test_a_bonus_life_and_a_time_limit_end_no_transition() -> None:
    class Bonus(ThreeLives):
        def step(self, action: Any) -> Any:
            obs, reward, terminated, truncated, _ = super().step(action)
            return obs, reward, terminated, truncated, {"lives": self.lives + self.steps}

    env = GymnasiumEnv(1, make=Bonus, terminal_on_life_loss=True, max_episode_steps=4)
    env.reset(seed=0)
    for step in range(4):
        result = env.step(torch.zeros(1, dtype=torch.long))
        assert not result[-1]["replay_terminated"].item()
        assert result[3].item() == (step == 3)


def test_a_game_that_does_not_tell_its_lives_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"infos without lives, but terminal_on_life_loss"):
        game(env_kwargs={"tells_lives": False})
    with pytest.raises(ConfigError, match=r"clip_rewards is 0.0: give a bound above 0, or null"):
        game(clip_rewards=0.0)


def test_returns_of_a_trace_do_not_reach_past_a_lost_life() -> None:
    trace = ValueTrace(1, GAMMA, torch.device("cpu"))
    obs, action = torch.zeros(1, 1), torch.zeros(1, dtype=torch.long)
    ends = [False, True, False, True]
    for end in ends:
        step = obs, torch.ones(1), torch.tensor([end])
        trace.see(lambda obs: torch.zeros(len(obs), 1), obs, action, step)
    to_go = [1 + GAMMA, 1.0] * 2
    assert trace.finish(torch.tensor([0])).to_go.item() == pytest.approx(sum(to_go) / 4)
