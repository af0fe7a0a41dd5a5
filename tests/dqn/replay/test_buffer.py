"""The ring buffer against a naive store: one Python list of steps for every episode."""

import io
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.core.tensor_files import write_atomically
from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.priorities import Priorities

NUMBERS = Box(-np.inf, np.inf, (2,), np.float32)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Episode:
    """Steps of one episode; ``obs`` has one entry more once its final observation is known."""

    obs: list[float] = field(default_factory=list)
    action: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    ending: str | None = None


class Stream:
    """Random episodes of several environments, given to a buffer and to plain lists.

    Every observation is a number of its own, so that a sampled one tells where it comes from.
    """

    def __init__(
        self, replay: ReplayBuffer, gamma: float, terminate: float, truncate: float, seed: int
    ) -> None:
        self.replay, self.gamma = replay, gamma
        self.terminate, self.truncate = terminate, truncate
        self.random = random.Random(seed)
        self.last = 0.0
        self.now = [self.fresh() for _ in range(replay.num_envs)]
        self.episodes = [[Episode()] for _ in range(replay.num_envs)]
        # What each environment ever wrote, in order: (episode, step); step T is its final obs.
        self.written: list[list[tuple[int, int]]] = [[] for _ in range(replay.num_envs)]

    def fresh(self) -> float:
        self.last += 1.0
        return self.last

    def observations(self) -> Tensor:
        return torch.tensor([[number, -number] for number in self.now])

    def step(self) -> None:
        envs = range(self.replay.num_envs)
        action = [self.random.randrange(7) for _ in envs]
        reward = [self.random.uniform(-2, 2) for _ in envs]
        draws = [self.random.random() for _ in envs]
        ending = [
            "terminated"
            if draw < self.terminate
            else "truncated"
            if draw < self.terminate + self.truncate
            else None
            for draw in draws
        ]
        discount = [0.0 if end == "terminated" else self.gamma for end in ending]
        self.replay.add(
            self.observations(), torch.tensor(action), torch.tensor(reward), torch.tensor(discount)
        )
        for env in envs:
            episode = self.episodes[env][-1]
            self.written[env].append((len(self.episodes[env]) - 1, len(episode.obs)))
            episode.obs.append(self.now[env])
            episode.action.append(action[env])
            episode.reward.append(reward[env])
            episode.ending = ending[env]
            self.now[env] = self.fresh()
        done = torch.tensor([end is not None for end in ending])
        if done.any():
            self.replay.add_final(self.observations(), done)
        for env in envs:
            if ending[env]:
                episode = self.episodes[env][-1]
                self.written[env].append((len(self.episodes[env]) - 1, len(episode.obs)))
                episode.obs.append(self.now[env])
                self.episodes[env].append(Episode())
                self.now[env] = self.fresh()

    def kept(self, env: int) -> list[tuple[int, int]]:
        return self.written[env][-self.replay.length :]

    def transition(self, episode: Episode, start: int, n: int) -> tuple[Any, ...] | None:
        """The n-step transition from a step, or None while its next observation is unknown."""
        total, weight, k = 0.0, 1.0, 0
        while k < n and start + k < len(episode.reward):
            total += weight * episode.reward[start + k]
            last = episode.ending is not None and start + k == len(episode.reward) - 1
            weight *= 0.0 if last and episode.ending == "terminated" else self.gamma
            k += 1
        if start + k >= len(episode.obs):
            return None
        return episode.action[start], total, weight, episode.obs[start + k]

    def sampleable(self, n: int | None = None) -> dict[float, tuple[Any, ...]]:
        """Every transition that should be sampleable, of n steps, by its first observation.

        That is every stored step whose n-window is complete or ended, with one delay: the window
        of an ended episode counts once n further rows of its environment are written.
        """
        found = {}
        for env, episodes in enumerate(self.episodes):
            kept = self.kept(env)
            for age, (number, start) in enumerate(kept):
                episode = episodes[number]
                is_step = start < len(episode.reward)
                if is_step and age + self.replay.n_steps < len(kept):
                    expected = self.transition(episode, start, n or self.replay.n_steps)
                    assert expected is not None
                    found[episode.obs[start]] = expected
        return found

    def complete_or_ended(self) -> set[float]:
        """First observations of all stored steps whose n-window is complete or ended."""
        return {
            episodes[number].obs[start]
            for env, episodes in enumerate(self.episodes)
            for number, start in self.kept(env)
            if start < len(episodes[number].reward)
            and self.transition(episodes[number], start, self.replay.n_steps) is not None
        }


def all_sampled(
    sample: Callable[[tuple[int, ...], torch.Generator], Transitions], draws: int = 4000
) -> dict[float, tuple[Any, ...]]:
    """Distinct transitions among many sampled ones, by first observation."""
    batch = sample((draws,), rng())
    found: dict[float, tuple[Any, ...]] = {}
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
    for obs, mirror, action, reward, discount, next_obs, next_mirror in rows.unique(dim=0).tolist():
        assert obs not in found, "the same step must always give the same transition"
        assert mirror == -obs and next_mirror == -next_obs
        found[obs] = (int(action), reward, discount, next_obs)
    return found


@settings(max_examples=120, deadline=None)
@given(
    n_steps=st.integers(1, 5),
    num_envs=st.integers(1, 3),
    room=st.integers(2, 14),
    steps=st.integers(0, 45),
    gamma=st.sampled_from([1.0, 0.9, 0.5]),
    terminate=st.sampled_from([0.0, 0.1, 0.4]),
    truncate=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 10**6),
)
def test_the_buffer_samples_exactly_what_a_list_of_episodes_gives(
    n_steps: int,
    num_envs: int,
    room: int,
    steps: int,
    gamma: float,
    terminate: float,
    truncate: float,
    seed: int,
) -> None:
    replay = ReplayBuffer((n_steps + room) * num_envs, num_envs, NUMBERS, n_steps=n_steps)
    stream = Stream(replay, gamma, terminate, truncate, seed)
    for _ in range(steps):
        stream.step()
    for sample, n in ((replay.sample, n_steps), (replay.sample_steps, 1)):
        expected = stream.sampleable(n)
        assert replay.num_startable == len(expected)
        if not expected:
            with pytest.raises(RuntimeError, match="empty"):
                sample((1,), rng())
            return
        found = all_sampled(sample)
        assert found.keys() == expected.keys()
        for obs, (action, reward, discount, next_obs) in found.items():
            assert action == expected[obs][0]
            assert reward == pytest.approx(expected[obs][1], abs=1e-5)
            assert discount == pytest.approx(expected[obs][2], abs=1e-6)
            assert next_obs == expected[obs][3]


@pytest.mark.parametrize("n_steps", [1, 3, 5])
def test_only_the_ends_of_the_newest_episodes_wait_until_they_can_be_sampled(n_steps: int) -> None:
    replay = ReplayBuffer(3 * 20, 3, NUMBERS, n_steps=n_steps)
    stream = Stream(replay, 0.9, 0.15, 0.15, seed=1)
    waited = 0
    for _ in range(80):
        stream.step()
        ready, all_of_them = set(stream.sampleable()), stream.complete_or_ended()
        assert ready <= all_of_them
        assert replay.num_startable == len(ready)
        waited = max(waited, len(all_of_them - ready))
        newest = {
            stream.episodes[env][number].obs[start]
            for env in range(3)
            for number, start in stream.written[env][-n_steps:]
        }
        assert all_of_them - ready <= newest
    assert (waited > 0) == (n_steps > 1)


def play(replay: ReplayBuffer, discounts: list[float], final: bool) -> None:
    """One episode of one environment: observations 0, 1, 2 …, reward 1 a step."""
    for t, discount in enumerate(discounts):
        replay.add(
            torch.full((1, 2), float(t)), torch.zeros(1), torch.ones(1), torch.tensor([discount])
        )
    if final:
        replay.add_final(torch.full((1, 2), float(len(discounts))), torch.tensor([True]))


def from_step(replay: ReplayBuffer, number: float) -> tuple[float, float, float]:
    batch = replay.sample((500,), rng())
    row = int((batch.obs[:, 0] == number).nonzero()[0])
    return batch.reward[row].item(), batch.discount[row].item(), batch.next_obs[row, 0].item()


def test_a_truncated_episode_bootstraps_from_its_true_final_observation() -> None:
    replay = ReplayBuffer(50, 1, NUMBERS, n_steps=3)
    play(replay, [0.5, 0.5], final=True)  # 0, 1, final 2
    for number in (10.0, 11.0, 12.0):
        replay.add(torch.full((1, 2), number), torch.zeros(1), torch.ones(1), torch.tensor([0.5]))
    assert from_step(replay, 0.0) == (1.5, 0.25, 2.0)
    assert from_step(replay, 1.0) == (1.0, 0.5, 2.0)


def test_a_terminated_episode_does_not_bootstrap() -> None:
    replay = ReplayBuffer(50, 1, NUMBERS, n_steps=3)
    play(replay, [0.5, 0.0], final=True)
    for number in (10.0, 11.0, 12.0):
        replay.add(torch.full((1, 2), number), torch.zeros(1), torch.ones(1), torch.tensor([0.5]))
    assert from_step(replay, 0.0) == (1.5, 0.0, 2.0)
    assert from_step(replay, 1.0) == (1.0, 0.0, 2.0)


def test_a_final_observation_is_never_a_start() -> None:
    replay = ReplayBuffer(40, 1, NUMBERS, n_steps=2)
    for _ in range(15):  # wraps around several times
        play(replay, [0.9, 0.9, 0.9], final=True)
    starts = replay.sample((2000,), rng()).obs[:, 0]
    assert set(starts.tolist()) == {0.0, 1.0, 2.0}


def test_bytes_stay_bytes() -> None:
    replay = ReplayBuffer(20, 2, Box(0, 255, (3, 2, 1), np.uint8))
    images = torch.randint(256, (6, 2, 3, 2, 1), generator=rng()).to(torch.uint8)
    for image in images:
        replay.add(image, torch.zeros(2), torch.zeros(2), torch.ones(2))
    batch = replay.sample((4, 100), rng())
    assert batch.obs.dtype == batch.next_obs.dtype == torch.uint8
    following = {
        images[t, env].numpy().tobytes(): images[t + 1, env].numpy().tobytes()
        for t in range(5)
        for env in range(2)
    }
    for obs, next_obs in zip(batch.obs.flatten(0, 1), batch.next_obs.flatten(0, 1), strict=True):
        assert following[obs.numpy().tobytes()] == next_obs.numpy().tobytes()


def test_every_field_has_the_asked_shape_and_a_type_that_fits_the_loss() -> None:
    replay = ReplayBuffer(40, 2, NUMBERS, n_steps=2)
    stream = Stream(replay, 0.9, 0.1, 0.1, 0)
    for _ in range(10):
        stream.step()
    batch = replay.sample((3, 5), rng())
    assert batch.obs.shape == batch.next_obs.shape == (3, 5, 2)
    assert batch.action.shape == batch.reward.shape == batch.discount.shape == (3, 5)
    assert batch.action.dtype == torch.int64
    assert batch.obs.dtype == batch.reward.dtype == batch.discount.dtype == torch.float32


def test_sampling_is_uniform_over_what_can_be_sampled() -> None:
    replay = ReplayBuffer(3 * 25, 3, NUMBERS, n_steps=3)
    stream = Stream(replay, 0.9, 0.1, 0.1, 5)
    for _ in range(60):
        stream.step()
    cells, each = replay.num_startable, 400
    assert cells > 40
    obs = replay.sample((cells * each,), rng(2)).obs[:, 0]
    counts = obs.unique(return_counts=True)[1]
    assert len(counts) == cells
    chi_square = ((counts - each) ** 2 / each).sum().item()
    freedom = cells - 1
    assert abs(chi_square - freedom) < 6 * math.sqrt(2 * freedom)


def test_minibatches_are_drawn_independently_of_each_other() -> None:
    replay = ReplayBuffer(200, 1, NUMBERS)
    play(replay, [0.9] * 101, final=False)  # 100 starts
    first, second = replay.sample((2, 10_000), rng(3)).obs[..., 0]
    same = (first == second).float().mean().item()
    assert abs(same - 0.01) < 6 * math.sqrt(0.01 * 0.99 / 10_000)


@pytest.mark.parametrize(
    ("space", "observation_bytes"),
    [
        (NUMBERS, 8),
        (Box(-1, 1, (7,), np.float64), 28),  # stored in single precision
        (Box(0, 255, (84, 84, 4), np.uint8), 84 * 84 * 4),
    ],
)
def test_a_row_costs_its_observation_and_at_most_16_bytes(
    space: Box, observation_bytes: int
) -> None:
    replay = ReplayBuffer(12, 2, space, num_actions=300)
    rows = [t for t in vars(replay).values() if isinstance(t, Tensor) and len(t) == 12]
    assert observation_bytes < sum(t.nbytes for t in rows) / 12 <= observation_bytes + 16


def held_bytes(thing: object) -> int:
    """Memory behind all tensors of an object and of what it holds."""
    if isinstance(thing, Tensor):
        return thing.untyped_storage().nbytes()
    if type(thing) in (ReplayBuffer, Priorities):
        return sum(map(held_bytes, vars(thing).values()))
    return 0


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("dims", [1, 4, 64])
def test_a_vector_takes_its_own_memory_and_at_most_16_bytes(dims: int, alpha: float) -> None:
    space = Box(-1, 1, (dims,), np.float32)
    replay = ReplayBuffer(100_000, 10, space, n_steps=3, num_actions=300, priority_exponent=alpha)

    assert held_bytes(replay) <= 100_000 * (4 * dims + 16)
    # What it states, also without the memory.
    unmade = ReplayBuffer(
        100_000, 10, space, n_steps=3, num_actions=300, priority_exponent=alpha, device="meta"
    )
    assert replay.bytes == unmade.bytes == held_bytes(replay)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_four_frames_of_84_by_84_pixels_take_little_more_than_one(alpha: float) -> None:
    space = Box(0, 255, (4, 84, 84), np.uint8)
    replay = ReplayBuffer(2_000, 10, space, frame_stack=4, priority_exponent=alpha)
    assert 2_000 * 84 * 84 < held_bytes(replay) <= 2_000 * (84 * 84 + 24)


def test_a_hundred_times_the_rows_do_not_make_sampling_slow() -> None:
    replays = [ReplayBuffer(rows, 10, NUMBERS, n_steps=3) for rows in (10_000, 1_000_000)]
    seconds: list[list[float]] = [[], []]
    for replay in replays:
        replay.startable.fill_(True)
        replay.cursor.fill_(replay.length)
    for _ in range(20):
        for replay, taken in zip(replays, seconds, strict=True):
            start = time.thread_time()
            replay.sample((16, 256), rng())
            taken.append(time.thread_time() - start)
    # Twice in practice, as memory is farther away than the caches; looking at every row took 18.
    assert median(seconds[1]) < 6 * median(seconds[0])


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def equal(mine: Transitions, theirs: Transitions) -> bool:
    return all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("before", [1, 9, 50])
def test_a_saved_buffer_continues_as_if_it_had_never_stopped(before: int) -> None:
    whole = ReplayBuffer(2 * 15, 2, NUMBERS, n_steps=3)
    stream = Stream(whole, 0.9, 0.1, 0.1, 7)
    for _ in range(before):
        stream.step()
    again = ReplayBuffer(2 * 15, 2, NUMBERS, n_steps=3)
    again.load_state_dict(through_a_file(whole.state_dict()))
    if whole.num_startable:
        assert equal(whole.sample((200,), rng(1)), again.sample((200,), rng(1)))
    copied = random.Random()
    copied.setstate(stream.random.getstate())
    other = Stream(again, 0.9, 0.1, 0.1, 0)
    other.random, other.now, other.last = copied, list(stream.now), stream.last
    for _ in range(20):
        stream.step()
        other.step()
    assert whole.num_startable == again.num_startable
    assert equal(whole.sample((200,), rng(1)), again.sample((200,), rng(1)))


@pytest.mark.parametrize(
    "other",
    [
        ReplayBuffer(48, 3, NUMBERS),  # other capacity
        ReplayBuffer(36, 2, NUMBERS),  # other number of environments
        ReplayBuffer(36, 3, Box(-1, 1, (3,), np.float32)),  # other observations
        ReplayBuffer(36, 3, Box(0, 255, (2,), np.uint8)),  # other type
    ],
)
def test_a_state_of_another_shape_is_refused(other: ReplayBuffer) -> None:
    with pytest.raises(ValueError, match=r"the saved replay.*resume with the data\."):
        ReplayBuffer(36, 3, NUMBERS).load_state_dict(other.state_dict())


def test_a_state_of_shorter_transitions_gives_none_with_rows_that_were_never_written() -> None:
    short = ReplayBuffer(10, 1, NUMBERS, n_steps=1)
    play(short, [0.9] * 6, final=False)
    long = ReplayBuffer(10, 1, NUMBERS, n_steps=3)
    try:
        long.load_state_dict(short.state_dict())
    except ValueError:
        return  # to refuse it would do as well
    assert set(long.sample((500,), rng()).obs[:, 0].tolist()) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_capacity_too_small_is_refused_with_the_least_that_works(n_steps: int) -> None:
    least = (n_steps + 2) * 4
    with pytest.raises(ValueError, match=f"data.replay.capacity is {least - 1}.*at least {least}"):
        ReplayBuffer(least - 1, 4, NUMBERS, n_steps=n_steps)
    replay = ReplayBuffer(least, 4, NUMBERS, n_steps=n_steps)
    stream = Stream(replay, 0.9, 0.1, 0.1, 0)
    for _ in range(n_steps + 20):
        stream.step()
    assert replay.num_startable == len(stream.sampleable()) > 0


def test_an_empty_buffer_says_so() -> None:
    replay = ReplayBuffer(20, 2, NUMBERS, n_steps=2)
    assert replay.num_startable == 0
    with pytest.raises(RuntimeError, match="the replay buffer is empty"):
        replay.sample((1,), rng())


@pytest.mark.parametrize("count", [2, 256, 257, 32_768, 32_769, 2**31, 2**31 + 1, None])
def test_every_action_is_kept_as_it_was(count: int | None) -> None:
    largest = 2**40 if count is None else count - 1
    replay = ReplayBuffer(8, 2, Box(0, 1, (1,)), num_actions=count)
    action = torch.tensor([0, largest])
    for _ in range(3):
        replay.add(torch.zeros(2, 1), action, torch.zeros(2), torch.ones(2))
    found = replay.sample((64,), torch.Generator().manual_seed(0)).action
    assert set(found.tolist()) == {0, largest}
    bytes_needed = {2: 1, 256: 1, 257: 2, 32_768: 2, 32_769: 4, 2**31: 4}
    assert replay.action.element_size() == bytes_needed.get(count or 0, 8)


def test_a_boundary_written_over_a_row_forgets_its_reward() -> None:
    """Zero times what an environment once gave must be zero, be that infinite."""
    space = Box(-1, 1, (2,))
    buffer, zeros = ReplayBuffer(8, 1, space, n_steps=2), torch.zeros(1, 2)
    add = lambda reward: buffer.add(  # noqa: E731
        zeros, torch.zeros(1, dtype=torch.long), torch.tensor([reward]), torch.tensor([0.9])
    )
    for _ in range(8):
        add(float("inf"))
    for _ in range(3):
        add(1.0)
        add(1.0)
        buffer.add_final(zeros, torch.tensor([True]))
    add(1.0)
    add(1.0)
    batch = buffer.sample((500,), torch.Generator().manual_seed(0))
    assert batch.reward.isfinite().all()


@pytest.mark.parametrize("exponent", [0.0, 0.6])
def test_a_file_holds_the_rows_that_were_written_and_no_more(
    exponent: float, tmp_path: Path
) -> None:
    def empty() -> ReplayBuffer:
        images = Box(0, 255, (1000,), np.uint8)
        return ReplayBuffer(50_000, 5, images, n_steps=3, priority_exponent=exponent)

    replay, draw = empty(), rng()
    for _ in range(20):
        obs = torch.randint(256, (5, 1000), generator=draw, dtype=torch.uint8)
        replay.add(obs, torch.ones(5), torch.rand(5, generator=draw), torch.ones(5))
        replay.add_final(obs, torch.tensor([True, False, False, True, False]))
    path = tmp_path / "replay.pt"
    write_atomically(replay.state_dict(), path)
    assert 200 * 1000 <= path.stat().st_size < 250 * 1000  # of 50 MB
    again = empty()
    again.obs.fill_(7)  # what a buffer held before is gone
    again.load_state_dict(torch.load(path, weights_only=True))
    for name, tensor in replay._tensors().items():
        assert torch.equal(tensor, again._tensors()[name]), name


def test_a_file_of_another_capacity_is_refused() -> None:
    saved = ReplayBuffer(60, 2, NUMBERS).state_dict()
    with pytest.raises(ValueError, match="30 rows for each of 2 environments, this run's 40"):
        ReplayBuffer(80, 2, NUMBERS).load_state_dict(saved)


@given(
    seed=st.integers(0, 10**6),
    stack=st.integers(1, 4),
    n_steps=st.integers(1, 3),
    length=st.integers(9, 14),
    often=st.sampled_from([0.1, 0.6]),
)
@settings(max_examples=25, deadline=None)
def test_final_observations_by_mask_are_stored_like_those_by_number(
    seed: int, stack: int, n_steps: int, length: int, often: float
) -> None:
    space = Box(0, 255, (stack, 2), np.uint8) if stack > 1 else NUMBERS
    by_number, by_mask = (
        ReplayBuffer(4 * length, 4, space, n_steps=n_steps, frame_stack=stack) for _ in range(2)
    )
    for replay in (by_number, by_mask):
        replay._unchecked = 0  # these stacks are of no episodes
    draws = rng(seed)
    for _ in range(3 * length):
        obs, final = torch.randint(256, (2, 4, *space.shape), generator=draws)
        action, reward = torch.randint(2, (4,), generator=draws), torch.rand(4, generator=draws)
        done = torch.rand(4, generator=draws) < often
        for replay in (by_number, by_mask):
            replay.add(obs, action, reward, torch.full((4,), 0.9))
        by_number.add_final(final, done)
        by_mask.add_final_where(final, done)
        for name, tensor in by_number.state_dict().items():
            assert torch.equal(by_mask.state_dict()[name], tensor), name
