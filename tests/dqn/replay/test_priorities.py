"""Prioritized replay against plain Python: one priority for each step of the lists of episodes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_buffer import NUMBERS, Stream, equal, rng, through_a_file
from test_sampling import chi_square
from torch import Tensor

from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.priorities import (
    MIN_TD_ERROR,
    Priorities,
    importance_weight,
    priority,
)

ALPHA = 0.6


def buffer(capacity: int, num_envs: int, n_steps: int = 1) -> ReplayBuffer:
    return ReplayBuffer(capacity, num_envs, NUMBERS, n_steps=n_steps, priority_exponent=ALPHA)


def priorities_of(replay: ReplayBuffer) -> Priorities:
    assert replay.priorities is not None
    return replay.priorities


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_priority_is_the_size_of_the_td_error_to_the_power_of_alpha(alpha: float) -> None:
    errors = [-3.0, -0.2, 0.0, 1e-4, 2.5]
    expected = [(abs(error) + 1e-6) ** alpha for error in errors]
    assert priority(torch.tensor(errors), alpha).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_importance_weights_are_those_of_the_paper(beta: float) -> None:
    everything = [0.5, 3.0, 0.01, 2.0, 1.0, 7.0]
    drawn = [3.0, 0.5, 7.0, 3.0]
    n, total = len(everything), sum(everything)
    weights = [(1 / n * 1 / (p / total)) ** beta for p in drawn]
    expected = [w / max(weights) for w in weights]
    found = importance_weight(torch.tensor(drawn).view(2, 2), beta)
    assert found.flatten().tolist() == pytest.approx(expected)


class Naive:
    """The priority of every step that was ever stored, by its first observation."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.largest = stream, 1.0
        self.of: dict[float, float] = {}

    def sampleable(self) -> dict[float, float]:
        return {obs: self.of.setdefault(obs, self.largest) for obs in self.stream.sampleable()}

    def update(self, obs: Tensor, errors: Tensor) -> None:
        new: dict[float, float] = {}
        for one, error in zip(obs.flatten().tolist(), errors.flatten().tolist(), strict=True):
            p = (abs(error) + MIN_TD_ERROR) ** ALPHA
            new[one] = max(p, new.get(one, 0.0))
        self.of |= new
        self.largest = max(self.largest, *new.values())


def held(replay: ReplayBuffer) -> dict[float, float]:
    """Priority by first observation of everything that could be drawn."""
    values = priorities_of(replay).values.view(-1)
    row = values.nonzero().squeeze(1)
    return dict(zip(replay.obs[row, 0].tolist(), values[row].tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    n_steps=st.integers(1, 4),
    num_envs=st.integers(1, 3),
    room=st.integers(2, 30),
    rounds=st.lists(st.integers(1, 12), max_size=8),
    terminate=st.sampled_from([0.0, 0.1, 0.4]),
    truncate=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 10**6),
)
def test_priorities_equal_those_of_a_list_of_episodes(
    n_steps: int,
    num_envs: int,
    room: int,
    rounds: list[int],
    terminate: float,
    truncate: float,
    seed: int,
) -> None:
    replay = buffer((n_steps + room) * num_envs, num_envs, n_steps)
    stream = Stream(replay, 0.9, terminate, truncate, seed)
    naive, g = Naive(stream), rng(seed)
    for steps in rounds:
        for _ in range(steps):
            stream.step()
            naive.sampleable()
        expected = naive.sampleable()
        assert held(replay) == pytest.approx(expected)
        assert replay.num_startable == len(expected)
        if not expected:
            with pytest.raises(RuntimeError, match="the replay buffer is empty"):
                replay.sample_prioritized((2, 5), g, 0.5)
            continue
        transitions, row, weight = replay.sample_prioritized((3, 20), g, 0.5)
        assert row.shape == weight.shape == transitions.reward.shape == (3, 20)
        assert torch.equal(replay.obs[row], transitions.obs)
        obs = transitions.obs[..., 0]
        known = stream.sampleable()
        for one, found in zip(
            obs.flatten().tolist(), transitions.next_obs[..., 0].flatten().tolist(), strict=True
        ):
            assert known[one][3] == found
        drawn = [expected[one] for one in obs.flatten().tolist()]
        least = min(drawn)
        assert weight.flatten().tolist() == pytest.approx([(least / p) ** 0.5 for p in drawn])
        errors = 5 * torch.randn(3, 20, generator=g)
        priorities_of(replay).update(row, errors)
        naive.update(obs, errors)
        assert held(replay) == pytest.approx(naive.sampleable())


def test_a_full_buffer_draws_by_priority() -> None:
    replay = buffer(3 * 50, 3, n_steps=2)
    stream = Stream(replay, 0.9, 0.1, 0.1, 0)
    for _ in range(120):
        stream.step()
    row = replay.startable.nonzero().squeeze(1)
    errors = torch.randn(len(row), generator=rng(1)).exp()
    priorities_of(replay).update(row, errors)
    exact = torch.zeros(150)
    exact[row] = torch.tensor([(e + MIN_TD_ERROR) ** ALPHA for e in errors.tolist()])
    drawn = torch.cat([replay.sample_prioritized((16, 64), rng(k), 1.0).row for k in range(50)])
    assert chi_square(drawn, exact / exact.sum()) < 5


def test_weights_make_a_prioritized_mean_that_of_all_transitions() -> None:
    replay = buffer(2_000, 4)
    stream = Stream(replay, 0.9, 0.05, 0.05, 0)
    for _ in range(600):
        stream.step()
    row = replay.startable.nonzero().squeeze(1)
    reward = replay.reward[row]
    priorities_of(replay).update(row, reward)
    transitions, _, weight = replay.sample_prioritized((400, 256), rng(), 1.0)
    mean = (weight * transitions.reward.abs()).sum() / weight.sum()
    assert mean.item() == pytest.approx(reward.abs().mean().item(), rel=0.01)
    plain = transitions.reward.abs().mean().item()
    assert plain > 1.1 * reward.abs().mean().item()


def filled(num_rows: int = 100) -> Priorities:
    found = Priorities(num_rows, 1.0)
    rows = torch.arange(num_rows)
    found.insert(rows, torch.ones(num_rows, dtype=torch.bool), rows[:0])
    return found


def test_a_row_drawn_twice_keeps_its_larger_error_and_new_rows_get_the_largest() -> None:
    found = filled()
    found.update(torch.tensor([[3, 4], [3, 5]]), torch.tensor([[-9.0, 0.5], [0.1, 2.0]]))
    assert found.values.view(-1)[3:6].tolist() == pytest.approx([9, 0.5, 2], abs=1e-5)
    found.update(torch.tensor([3]), torch.tensor([0.1]))
    found.insert(torch.tensor([7, 8]), torch.tensor([True, False]), torch.tensor([9]))
    assert found.values.view(-1)[7:10].tolist() == pytest.approx([9, 0, 0])


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_an_error_that_is_not_finite_changes_nothing(error: float) -> None:
    found = filled()
    found.update(torch.tensor([3, 4]), torch.tensor([error, 3.0]))
    assert found.values.view(-1)[2:5].tolist() == pytest.approx([1, 1, 3])
    assert found.largest.item() == pytest.approx(3)
    assert found.draw((2, 50), rng())[0].max() < 100


def test_a_row_overwritten_before_its_update_is_not_drawn() -> None:
    found = filled()
    found.insert(torch.tensor([20]), torch.tensor([False]), torch.tensor([21]))
    found.update(torch.tensor([20, 21, 22]), torch.tensor([1e6, 1e6, 1.0]))
    rows, p = found.draw((16, 64), rng())
    assert not ((rows == 20) | (rows == 21)).any() and (p > 0).all()
    assert found.largest < 2


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 200), seed=st.integers(0, 10**6), turns=st.integers(0, 6))
def test_block_sums_are_those_of_the_values(rows: int, seed: int, turns: int) -> None:
    found, g = filled(rows), rng(seed)
    for _ in range(turns):
        some = torch.randint(rows, (7,), generator=g)
        found.update(some, torch.randn(7, generator=g))
        one, other = torch.randint(rows, (2, 1), generator=g)
        found.insert(one, torch.rand(1, generator=g) < 0.5, other)
    assert torch.equal(found.sums, found.values.sum(dim=1))
    assert not found.values.view(-1)[rows:].any()


def test_a_saved_buffer_draws_on_as_if_it_had_never_stopped() -> None:
    whole = buffer(2 * 40, 2, n_steps=3)
    stream = Stream(whole, 0.9, 0.1, 0.1, 7)
    for turn in range(70):
        stream.step()
        if turn > 10:
            row = whole.sample_prioritized((2, 8), rng(turn), 0.4).row
            priorities_of(whole).update(row, torch.randn(2, 8, generator=rng(turn)))
    again = buffer(2 * 40, 2, n_steps=3)
    assert again.num_startable == 0
    again.load_state_dict(through_a_file(whole.state_dict()))
    for replay in (whole, again):
        replay.add(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2), torch.ones(2))
    mine, theirs = (replay.sample_prioritized((4, 50), rng(1), 0.4) for replay in (whole, again))
    assert equal(mine.transitions, theirs.transitions)
    assert torch.equal(mine.row, theirs.row) and torch.equal(mine.weight, theirs.weight)


def test_a_state_without_priorities_is_refused() -> None:
    plain = ReplayBuffer(40, 2, NUMBERS)
    with pytest.raises(ValueError, match=r"the saved replay's .*data\.replay\.priority_exponent"):
        buffer(40, 2).load_state_dict(plain.state_dict())


def test_uniform_sampling_asks_for_no_priorities() -> None:
    replay = buffer(40, 2)
    stream = Stream(replay, 0.9, 0.1, 0.1, 3)
    for _ in range(9):
        stream.step()
    drawn = replay.sample((400,), rng()).obs[:, 0]
    assert set(drawn.tolist()) == stream.sampleable().keys()
