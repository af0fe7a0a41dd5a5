"""Real steps for a world, against plain lists of episodes and Python's own integers."""

import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_crl.core.checks import RunError
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.world.real_steps import (
    HELD_BACK,
    draw,
    is_rare,
    numbered,
    split,
    steps_at,
    uniform_hash,
)

NUMBERS = Box(-np.inf, np.inf, (2,), np.float32)
GAMMA = 0.9


def streams(members: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + member) for member in range(members)]


@dataclass
class Written:
    """One row, as its environment wrote it."""

    obs: float
    action: int = 0
    reward: float = 0.0
    terminated: bool = False
    is_final: bool = False


def filled(
    length: int, num_envs: int, steps: int, seed: int = 0, n_steps: int = 1
) -> tuple[ReplayBuffer, list[list[Written]]]:
    """A buffer after ``steps`` steps of random episodes, and all rows that were ever written."""
    replay = ReplayBuffer(length * num_envs, num_envs, NUMBERS, n_steps=n_steps)
    draws, written = random.Random(seed), [[] for _ in range(num_envs)]  # type: ignore[var-annotated]
    now = [float(env) for env in range(num_envs)]
    fresh = float(num_envs)
    for _ in range(steps):
        rows = []
        for env in range(num_envs):
            over = draws.random()
            rows.append(
                Written(
                    now[env], draws.randrange(3), draws.choice([0.0, 0.0, 0.0, 5.0]), over < 0.1
                )
            )
            written[env].append(rows[-1])
        obs = torch.tensor([[row.obs, -row.obs] for row in rows])
        replay.add(
            obs,
            torch.tensor([row.action for row in rows]),
            torch.tensor([row.reward for row in rows]),
            torch.tensor([0.0 if row.terminated else GAMMA for row in rows]),
        )
        now = [fresh + env for env in range(num_envs)]
        fresh += num_envs
        done = [row.terminated or draws.random() < 0.05 for row in rows]
        if any(done):
            replay.add_final(torch.tensor([[x, -x] for x in now]), torch.tensor(done))
            for env, is_done in enumerate(done):
                if is_done:
                    written[env].append(Written(now[env], is_final=True))
                    now[env] = fresh
                    fresh += 1
    return replay, written


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 12), st.integers(1, 3), st.integers(1, 40), st.integers(0, 99))
def test_rows_are_numbered_as_they_were_written(
    length: int, num_envs: int, steps: int, seed: int
) -> None:
    replay, written = filled(length, num_envs, steps, seed)
    serial, final = numbered(replay.boundary.view(-1, num_envs), replay.cursor)
    for env, rows in enumerate(written):
        stored = {number % length: number for number in range(len(rows))}
        for position in range(length):
            number = stored.get(position, -1)
            assert serial[position, env] == number
            later = range(number, len(rows)) if number >= 0 else ()
            ends = (later_number for later_number in later if rows[later_number].is_final)
            assert final[position, env] == next(ends, -1)


def test_the_hash_is_split_mix_64() -> None:
    mask = 2**64 - 1
    for number, salt in ((0, 0), (3, 1), (10**12, 5), (7, 2)):
        mixed = (number + salt * 2**48 + 1) * 0x9E3779B97F4A7C15 & mask
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & mask
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & mask
        expected = ((mixed ^ mixed >> 31) >> 11) * 2.0**-53
        assert uniform_hash(torch.tensor([number]), salt).item() == expected


def test_hashes_are_uniform_and_those_of_two_members_have_nothing_in_common() -> None:
    numbers = torch.arange(20_000)
    first, second = (uniform_hash(numbers, salt) for salt in (1, 2))
    counts = torch.histc(first, 20, 0, 1)
    assert ((counts - 1_000).abs() < 5 * math.sqrt(1_000)).all()
    both = torch.corrcoef(torch.stack([first, second]))[0, 1]
    neighbours = torch.corrcoef(torch.stack([first[1:], first[:-1]]))[0, 1]
    assert abs(both) < 0.04 and abs(neighbours) < 0.04


def test_whole_episodes_are_held_back_and_never_learnt() -> None:
    replay, _ = filled(2_000, 4, 1_500)
    found = split(replay, members=3, member_share=0.8, held_back_share=0.2)
    assert not (found.members & found.held_back).any()
    startable = replay.startable
    assert (found.members.any(0) | found.held_back)[startable].float().mean() > 0.95
    _, final = numbered(replay.boundary.view(-1, 4), replay.cursor)
    episodes: dict[tuple[int, int], set[bool]] = {}
    for row in startable.nonzero().flatten().tolist():
        key = (row % 4, int(final.flatten()[row]))
        if key[1] >= 0:
            episodes.setdefault(key, set()).add(bool(found.held_back[row]))
    assert all(len(held) == 1 for held in episodes.values())
    rate = sum(True in held for held in episodes.values()) / len(episodes)
    assert rate == pytest.approx(0.2, abs=0.07)
    learners = found.members.float().mean(1) / (startable & ~found.held_back).float().mean()
    assert torch.allclose(learners, torch.full((3,), 0.8), atol=0.03)
    # Members differ: a share of .8² of the steps is common to two of them.
    common = (found.members[0] & found.members[1]).sum() / found.members[0].sum()
    assert common.item() == pytest.approx(0.8, abs=0.03)


def test_a_step_belongs_to_the_same_members_for_as_long_as_it_is_kept() -> None:
    early, _ = filled(300, 2, 200)
    late, written = filled(300, 2, 330)  # the same beginning; the ring has wrapped by now
    before, after = (split(replay, 2, 0.5, 0.3) for replay in (early, late))
    still = 0
    for env, rows in enumerate(written):
        for number in range(max(0, len(rows) - 300), 180):
            row = number % 300 * 2 + env
            if early.startable[row] and late.startable[row] and not after.held_back[row]:
                assert torch.equal(before.members[:, row], after.members[:, row])
                still += 1
            assert not before.held_back[row] or not late.startable[row] or after.held_back[row]
    assert still > 50


@pytest.mark.parametrize("n_steps", [1, 3])
def test_single_steps_are_what_happened_whatever_n_is(n_steps: int) -> None:
    replay, written = filled(400, 2, 120, n_steps=n_steps)
    rows = replay.startable.nonzero().squeeze(1)
    found = steps_at(replay, rows)
    for k, row in enumerate(rows.tolist()):
        env, number = row % 2, row // 2
        here, below = written[env][number], written[env][number + 1]
        assert found.obs[k].tolist() == [here.obs, -here.obs]
        assert found.next_obs[k].tolist() == [below.obs, -below.obs]
        assert (found.action[k].item(), found.reward[k].item()) == (here.action, here.reward)
        assert found.terminated[k].item() == here.terminated
        assert found.learns_next[k].item() != here.terminated


def test_each_member_draws_its_own_rows_from_its_own_stream() -> None:
    replay, written = filled(600, 2, 500)
    learns = split(replay, 3, 0.5, 0.1).members
    drawn = draw(replay, learns, updates=4, size=64, extra=16, rngs=streams(3))
    assert drawn.rows.obs.shape == (4, 3, 64, 2) and drawn.rare.reward.shape == (4, 3, 16)
    allowed = [
        {written[row % 2][row // 2].obs for row in mask.nonzero().flatten().tolist()}
        for mask in learns
    ]
    for member, own in enumerate(allowed):
        taken = drawn.rows.obs[:, member, :, 0].flatten().tolist()
        assert set(taken) <= own and len(set(taken)) > 80
        extra = drawn.rare
        special = extra.terminated[:, member] | (extra.reward[:, member] > 1)
        assert special.all()
    # Another stream for one member leaves the draws of the others as they are.
    other = draw(replay, learns, 4, 64, 16, [*streams(3)[:2], *streams(1, seed=99)])
    same = [torch.equal(other.rows.obs[:, m], drawn.rows.obs[:, m]) for m in range(3)]
    assert same == [True, True, False]


def test_log_odds_are_those_of_the_rows_that_were_drawn() -> None:
    """Brute force: how often ends come among the rows that the end head counts."""
    replay, _ = filled(2_000, 2, 1_800)
    learns = split(replay, 1, 1.0, 0.0).members
    drawn = draw(replay, learns, updates=400, size=50, extra=25, rngs=streams(1))
    ends = drawn.rows.terminated.sum() + drawn.rare.terminated.sum()
    odds = ends / (~drawn.rows.terminated).sum()
    share = (replay.discount == 0)[learns[0]].double().mean()
    raised = math.log(odds / (share / (1 - share)))
    assert drawn.end_log_odds[0, 0].item() == pytest.approx(raised, abs=0.05)


def test_without_ends_and_rare_rewards_usual_rows_stand_in() -> None:
    replay = ReplayBuffer(100, 1, NUMBERS)
    for number in range(30):
        obs = torch.full((1, 2), float(number))
        replay.add(obs, torch.zeros(1), torch.ones(1), torch.full((1,), GAMMA))
    assert not is_rare(replay, replay.startable).any()
    drawn = draw(replay, split(replay, 1, 1.0, 0.0).members, 2, 8, 4, streams(1))
    assert not drawn.rare.terminated.any() and not drawn.end_log_odds.any()


def test_a_member_without_steps_is_refused() -> None:
    replay, _ = filled(100, 1, 5)
    nothing = torch.zeros(1, 100, dtype=torch.bool)
    with pytest.raises(RunError, match="collect more"):
        draw(replay, nothing, 1, 2, 1, streams(1))


def test_the_salt_of_held_back_episodes_is_no_members() -> None:
    numbers: Tensor = torch.arange(100)
    assert not torch.equal(uniform_hash(numbers, HELD_BACK), uniform_hash(numbers, 1))
