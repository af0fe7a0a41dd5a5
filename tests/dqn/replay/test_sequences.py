"""Sequences of the replay against plain lists of everything that was ever written."""

from typing import NamedTuple

import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.dqn.memory import Sequences
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.sequences import sample_sequences

GAMMA, ENVS, SIZE = 0.5, 3, 2


class Row(NamedTuple):
    """A row as it was written."""

    obs: Tensor
    action: int
    reward: float
    discount: float
    memory: Tensor
    is_boundary: bool


def filled(steps: int, capacity: int, n_steps: int, stack: int = 1) -> tuple[ReplayBuffer, list]:
    """A replay, and for each column a list of the rows that were written; observations differ."""
    space = Box(-1e6, 1e6, (stack, 1) if stack > 1 else (1,))
    replay = ReplayBuffer(
        capacity, ENVS, space, n_steps=n_steps, num_actions=4, memory_size=SIZE, frame_stack=stack
    )
    rng = torch.Generator().manual_seed(1)
    columns: list[list[Row]] = [[] for _ in range(ENVS)]
    frames = [[float(1000 * c)] * stack for c in range(ENVS)]
    counter = 0

    def seen() -> Tensor:
        stacked = torch.tensor(frames)
        return stacked[..., None] if stack > 1 else stacked[:, -1:]

    for _ in range(steps):
        obs, memory = seen(), torch.rand(ENVS, SIZE, generator=rng)
        action = torch.randint(4, (ENVS,), generator=rng)
        reward = torch.rand(ENVS, generator=rng)
        # A lost life ends what a transition is worth, and the episode goes on.
        terminated, done = (torch.rand(ENVS, generator=rng) < p for p in (0.15, 0.25))
        discount = GAMMA * ~terminated
        replay.add(obs, action, reward, discount, memory)
        for c in range(ENVS):
            row = (int(action[c]), float(reward[c]), float(discount[c]), memory[c], False)
            columns[c].append(Row(obs[c], *row))
            counter += 1
            frames[c] = [*frames[c][1:], 1000.0 * c + counter]
        final = seen()
        if done.any():
            replay.add_final(final, done)
        for c in done.nonzero().flatten().tolist():
            columns[c].append(Row(final[c], 0, 0.0, 0.0, memory[c], True))
            counter += 1
            frames[c] = [1000.0 * c + counter] * stack
    return replay, columns


def check(found: Sequences, rows: list[Row], burn_in: int, length: int, n: int) -> None:
    """One sequence ``[...]`` is these rows, and its targets are those of a loop."""
    if not rows[0].is_boundary:  # what is remembered there matters to no step
        assert torch.equal(found.memory, rows[0].memory)
    assert torch.equal(torch.cat([found.burn_in, found.obs]), torch.stack([r.obs for r in rows]))
    begins = [i > 0 and rows[i - 1].is_boundary for i in range(len(rows))]
    assert found.begins.tolist() == begins
    for t in range(length):
        row = rows[burn_in + t]
        assert bool(found.counts[t]) == (not row.is_boundary)
        if row.is_boundary:
            continue
        folded, weight, end = 0.0, 1.0, t
        for k in range(n):
            step = rows[burn_in + t + k]
            if step.is_boundary:
                break
            folded += weight * step.reward
            weight *= step.discount
            end += 1
        assert int(found.action[t]) == row.action
        assert float(found.reward[t]) == pytest.approx(folded, abs=1e-6)
        assert float(found.discount[t]) == pytest.approx(weight)
        if weight:
            assert int(found.after[t]) == end


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize(("burn_in", "length", "n"), [(0, 2, 1), (3, 4, 2), (2, 5, 3)])
@pytest.mark.parametrize("steps", [12, 75])
def test_sequences_are_what_was_written_in_a_row(
    steps: int, burn_in: int, length: int, n: int, stack: int
) -> None:
    """Also where episodes end, and after the ring was overwritten twice."""
    replay, columns = filled(steps, 90, n, stack)
    rows, whole = burn_in + length + n, 30 - (stack - 1)
    possible = {
        (c, float(written[first].obs.flatten()[-1])): written[first : first + rows]
        for c, written in enumerate(columns)
        for first in range(max(0, len(written) - whole), len(written) - rows + 1)
    }
    found = sample_sequences(
        replay, (2, 2000), torch.Generator().manual_seed(0), burn_in=burn_in, length=length
    )
    assert found.action.shape == (2, 2000, length) and found.obs.shape[:3] == (2, 2000, length + n)
    drawn: dict[tuple[int, float], int] = {}
    for i in range(2000):
        one = Sequences(*(field[i % 2, i] for field in found))
        begin = torch.cat([one.burn_in, one.obs])[0].flatten()[-1].item()
        key = next(k for k in possible if k[1] == begin)
        drawn[key] = drawn.get(key, 0) + 1
        if drawn[key] == 1:
            check(one, possible[key], burn_in, length, n)
    assert drawn.keys() == possible.keys(), "every stretch can be drawn, and no other"
    expected = 2000 / len(possible)
    assert max(abs(count - expected) for count in drawn.values()) < 6 * expected**0.5


def test_too_few_rows_are_refused() -> None:
    replay, _ = filled(3, 90, 2)
    with pytest.raises(RuntimeError, match="empty"):
        sample_sequences(replay, (1, 4), torch.Generator(), burn_in=20, length=5)
