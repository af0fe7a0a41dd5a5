"""Frame stacks in the replay against Gymnasium's own wrapper and plain lists of its episodes."""

import io
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import registry
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import FrameStackObservation, ReshapeObservation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.hindsight import Hindsight
from lit_crl.envs import GymnasiumEnv

# Halves of 256ths are exact in any order of summation: returns are compared as they are.
GAMMA = 0.5
ID = "lit_crl/Frames-v0"


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Frames(gymnasium.Env[np.ndarray, int]):
    """Short episodes of random length; every frame is a number of its own, in four bytes."""

    numbers = itertools.count()

    def __init__(self, colours: int, terminate: float, truncate: float) -> None:
        self.colours, self.terminate, self.truncate = colours, terminate, truncate
        self.observation_space = Box(0, 255, (colours, 2, 2), np.uint8)
        self.action_space = Discrete(3)

    def frame(self) -> np.ndarray:
        digits = np.frombuffer(next(self.numbers).to_bytes(4, "big"), np.uint8)
        return np.stack([digits.reshape(2, 2) ^ colour for colour in range(self.colours)])

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        return self.frame(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        draw = self.np_random.random()
        truncated = self.terminate <= draw < self.terminate + self.truncate
        reward = float(np.floor(256 * draw) / 256)
        return self.frame(), reward, bool(draw < self.terminate), bool(truncated), {}


def stacked(stack: int, colours: int = 1, padding: str = "reset", **chances: float) -> Any:
    """``stack`` frames of ``colours`` channels each along the first axis."""
    frames = FrameStackObservation(Frames(colours, **chances), stack, padding_type=padding)
    return ReshapeObservation(frames, (stack * colours, 2, 2))


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    gymnasium.register(ID, stacked)
    yield
    del registry[ID]


class Played:
    """A random policy in real environments, whose steps a buffer and plain lists remember."""

    def __init__(self, num_envs: int, room: int, n_steps: int, seed: int, **env: Any) -> None:
        self.stack, self.n_steps = env["stack"], n_steps
        self.env = GymnasiumEnv(num_envs, id=ID, env_kwargs=env, image_layout="CHW")
        self.replay = ReplayBuffer(
            (n_steps + self.stack + room) * num_envs,
            num_envs,
            self.env.single_observation_space,
            n_steps=n_steps,
            frame_stack=self.stack,
        )
        self.rng = rng(seed)
        self.obs, _ = self.env.reset(seed=seed)
        # What each environment wrote: episode, step, observation, (action, reward, discount).
        self.columns: list[list[tuple[int, int, Tensor, tuple[float, ...] | None]]] = [
            [] for _ in range(num_envs)
        ]
        self.episode, self.time = list(range(num_envs)), [0] * num_envs
        self.episodes = itertools.count(num_envs)

    def step(self) -> None:
        num_envs = self.env.num_envs
        action = torch.randint(3, (num_envs,), generator=self.rng)
        after, reward, terminated, truncated, _ = self.env.step(action)
        discount = GAMMA * ~terminated
        self.replay.add(self.obs, action, reward, discount)
        done = terminated | truncated
        if done.any():
            self.replay.add_final(after, done)
        for i, column in enumerate(self.columns):
            numbers = (action[i].item(), reward[i].item(), discount[i].item())
            column.append((self.episode[i], self.time[i], self.obs[i], numbers))
            self.time[i] += 1
            if done[i]:
                self.finish(i, after[i])
        self.obs = self.env.reset(options={"reset_mask": done})[0] if done.any() else after

    def finish(self, i: int, obs: Tensor) -> None:
        self.columns[i].append((self.episode[i], self.time[i], obs, None))
        self.episode[i], self.time[i] = next(self.episodes), 0

    def sampleable(self) -> Counter[tuple[Any, ...]]:
        """Transitions with all their frames and rows in the newest ``length`` ones, as bytes."""
        length = self.replay.length
        found = itertools.chain(*(self.of_column(rows[-length:]) for rows in self.columns))
        return Counter(found)

    def of_column(self, rows: list[Any]) -> Iterator[tuple[Any, ...]]:
        for index, (episode, time, obs, step) in enumerate(rows[: -self.n_steps]):
            earlier = [row[:2] for row in rows[max(0, index - self.stack + 1) : index]]
            frames = [(episode, t) for t in range(max(0, time - self.stack + 1), time)]
            if step is None or frames != earlier[len(earlier) - len(frames) :]:
                continue
            total, weight, k = 0.0, 1.0, 0
            while k < self.n_steps and rows[index + k][3] is not None:
                total += weight * rows[index + k][3][1]
                weight *= rows[index + k][3][2]
                k += 1
            yield as_key(obs, step[0], total, weight, rows[index + k][2])


def as_key(obs: Tensor, action: float, reward: float, discount: float, after: Tensor) -> Any:
    return (obs.numpy().tobytes(), action, reward, discount, after.numpy().tobytes())


def of_buffer(replay: ReplayBuffer) -> Counter[tuple[Any, ...]]:
    """All that could be sampled."""
    found = replay.gather(replay.startable.nonzero().squeeze(1))
    assert found.obs.shape[1:] == found.next_obs.shape[1:]
    numbers = (found.action.tolist(), found.reward.tolist(), found.discount.tolist())
    return Counter(map(as_key, found.obs, *numbers, found.next_obs))


@settings(max_examples=40, deadline=None)
@given(
    stack=st.integers(1, 5),
    colours=st.integers(1, 3),
    n_steps=st.integers(1, 4),
    num_envs=st.integers(1, 3),
    room=st.integers(1, 12),
    steps=st.integers(0, 60),
    terminate=st.sampled_from([0.0, 0.1, 0.5]),
    truncate=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 10**6),
)
def test_sampled_stacks_equal_those_of_gymnasium(
    n_steps: int, num_envs: int, room: int, steps: int, seed: int, **env: Any
) -> None:
    played = Played(num_envs, room, n_steps, seed, **env)
    for _ in range(steps):
        played.step()
    expected = played.sampleable()
    assert of_buffer(played.replay) == expected
    if expected:
        batch = played.replay.sample((2, 50), rng(seed))
        assert batch.obs.shape == (2, 50, env["stack"] * env["colours"], 2, 2)
        assert batch.obs.dtype == batch.next_obs.dtype == torch.uint8
        drawn = {obs.numpy().tobytes() for obs in batch.obs.flatten(0, 1)}
        assert drawn <= {key[0] for key in expected}


def test_numbers_can_be_stacked_too() -> None:
    env = FrameStackObservation(gymnasium.make("CartPole-v1"), 3)
    space = Box(-np.inf, np.inf, (3, 4), np.float64)
    replay = ReplayBuffer(100, 1, space, num_actions=2, frame_stack=3)
    obs, _ = env.reset(seed=0)
    given = []
    for step in range(60):
        given.append(torch.tensor(obs))
        replay.add(given[-1][None].double(), torch.zeros(1), torch.zeros(1), torch.ones(1))
        obs, _, terminated, _, _ = env.step(step % 2)
        if terminated:
            replay.add_final(torch.tensor(obs)[None], torch.tensor([True]))
            obs, _ = env.reset()
    rows = replay.startable.nonzero().squeeze(1)
    assert torch.equal(replay.observations(rows), torch.stack(given)[: len(rows)])
    assert len(rows) >= 59 and replay.boundary.any()
    rows = [t for t in vars(replay).values() if isinstance(t, torch.Tensor) and len(t) == 100]
    assert sum(t.nbytes for t in rows) <= 100 * (4 * 4 + 16)


def test_every_row_can_be_read_that_is_not_among_the_oldest() -> None:
    played = Played(2, 20, 1, 0, stack=4, colours=1, terminate=0.0, truncate=0.0)
    for _ in range(200):
        played.step()
    # One long episode each: three rows hold earlier frames, the newest has no next one yet.
    assert played.replay.num_startable == 2 * (25 - 3 - 1)


def test_saved_stacks_go_on_as_if_nothing_had_happened() -> None:
    chances: dict[str, Any] = {"colours": 1, "terminate": 0.1, "truncate": 0.1}
    played = Played(2, 15, 2, 3, stack=3, **chances)
    for _ in range(33):
        played.step()
    file = io.BytesIO()
    torch.save(played.replay.state_dict(), file)
    file.seek(0)
    again = Played(2, 15, 2, 3, stack=3, **chances).replay
    assert again.num_startable == 0 and played.replay.num_startable > 0
    again.load_state_dict(torch.load(file, weights_only=True))
    played.replay = again
    for _ in range(9):
        played.step()
    assert of_buffer(again) == played.sampleable()


class Numbered:
    """Hindsight in which the goal is the newest frame that was reached, and replaces the oldest."""

    def achieved_goal(self, obs: Tensor) -> Tensor:
        return obs[..., -1, :, :].flatten(-2)

    def relabel(self, obs: Tensor, goal: Tensor) -> Tensor:
        goal = goal.unflatten(-1, (1, 2, 2))
        return torch.cat([goal, obs[..., 1:, :, :]], dim=-3)

    def goal_reward(self, next_obs: Tensor) -> tuple[Tensor, Tensor]:
        reached = (next_obs[..., 0, :, :] == next_obs[..., -1, :, :]).all(dim=-1).all(dim=-1)
        return reached.float(), reached


def test_hindsight_sees_whole_stacks() -> None:
    played = Played(2, 25, 2, 4, stack=3, colours=1, terminate=0.1, truncate=0.1)
    for _ in range(90):
        played.step()
    # Of every frame: the observations from there to the end of its episode, as far as stored.
    following = {}
    for column in played.columns:
        kept = column[-played.replay.length :]
        for index, (episode, _, obs, _) in enumerate(kept):
            path = [row[2] for row in kept[index:] if row[0] == episode]
            following[obs[-1].numpy().tobytes()] = path
    batch = played.replay.sample((400,), rng(), Hindsight(Numbered(), 1.0, 50, GAMMA))
    goals = set()
    for obs, _, reward, discount, after in zip(*batch, strict=True):
        path = following[obs[-1].numpy().tobytes()]
        reached = [later[-1].tolist() for later in path]
        goal = reached.index(obs[0].tolist())
        goals.add(goal)
        span = min(played.n_steps, len(path) - 1)
        assert goal >= 1 and torch.equal(obs[1:], path[0][1:])
        assert torch.equal(after[0], obs[0]) and torch.equal(after[1:], path[span][1:])
        arrives = goal <= span
        assert reward == pytest.approx(GAMMA ** (goal - 1) if arrives else 0)
        assert discount == pytest.approx(0 if arrives else GAMMA**span)
    assert {1, 2, 3, 4} <= goals


@pytest.mark.parametrize(("shape", "stack"), [((4, 84, 84), 3), ((), 2), ((3,), 2)])
def test_a_shape_that_cannot_hold_the_frames_is_refused(shape: tuple[int, ...], stack: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"^data\.replay\.frame_stack is {stack}, .*: give [^.]*$"
    ):
        ReplayBuffer(100, 1, Box(0, 255, shape, np.uint8), frame_stack=stack)


@pytest.mark.parametrize(
    ("stack", "padding", "assumed"),
    [(4, "reset", 2), (6, "reset", 3), (4, "zero", 4)],
)
def test_stacks_that_could_not_be_rebuilt_are_refused(
    stack: int, padding: str, assumed: int
) -> None:
    env = stacked(stack, padding=padding, terminate=0.0, truncate=0.0)
    replay = ReplayBuffer(100, 1, env.observation_space, frame_stack=assumed)
    obs, _ = env.reset(seed=0)
    with pytest.raises(
        ConfigError, match=rf"^data\.replay\.frame_stack is {assumed}, .*: give [^.]*$"
    ):
        for _ in range(5):
            replay.add(torch.tensor(obs)[None], torch.zeros(1), torch.zeros(1), torch.ones(1))
            obs = env.step(0)[0]


def test_colours_are_not_frames() -> None:
    replay = ReplayBuffer(100, 1, Box(0, 255, (3, 2, 2), np.uint8), frame_stack=3)
    obs = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    with pytest.raises(ConfigError, match=r"data\.replay\.frame_stack is 3"):
        replay.add(obs, torch.zeros(1), torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_capacity_too_small_for_the_stacks_is_refused(n_steps: int) -> None:
    space = Box(0, 255, (4, 2, 2), np.uint8)
    least = (n_steps + 4 + 1) * 2
    with pytest.raises(ConfigError, match=f"data.replay.capacity is {least - 1}.*at least {least}"):
        ReplayBuffer(least - 1, 2, space, n_steps=n_steps, frame_stack=4)
    ReplayBuffer(least, 2, space, n_steps=n_steps, frame_stack=4)
