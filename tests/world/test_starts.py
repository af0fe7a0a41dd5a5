"""Where dreams start: shares, what happens without a source, and never at an end."""

import io

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.interface import Imagined
from lit_crl.world.starts import FirstStates, Starts, StartShares, draw_starts, shares_now

#: An observation is (number, whether it is final).
SPACE = Box(-1e6, 1e6, (2,))
FIRST, VISITED, GENERATED = 1.0, 2.0, 3.0


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(number: float, n: int) -> Tensor:
    return torch.tensor([[number, 0.0]]).expand(n, -1)


def first_states(*numbers: float, capacity: int = 16) -> FirstStates:
    ring = FirstStates(capacity, SPACE, torch.float32)
    for number in numbers:
        ring.add(rows(number, 1))
    return ring


def replay(steps: int, capacity: int = 64, length: int = 4, start: float = VISITED) -> ReplayBuffer:
    """Two environments, whose episodes end after ``length`` steps, by turns truly and by a cut."""
    buffer = ReplayBuffer(capacity, 2, SPACE)
    ending = torch.tensor([[start, 1.0]]).expand(2, -1)
    for step in range(steps):
        over = step % length == length - 1
        is_end = over and step % (2 * length) == length - 1
        discount = torch.full((2,), 0.0 if is_end else 0.9)
        buffer.add(rows(start, 2), torch.zeros(2), torch.zeros(2), discount)
        if over:
            buffer.add_final(ending, torch.ones(2, dtype=torch.bool))
    return buffer


def generated(n: int, rng: torch.Generator) -> Tensor:
    return rows(GENERATED, n)


@pytest.mark.parametrize(
    "wanted", [StartShares(), StartShares(0.25, 0.5, 0.25), StartShares(2.0, 1.0, 1.0)]
)
def test_dreams_start_in_the_shares_that_were_asked_for(wanted: StartShares):
    starts = Starts(first_states(FIRST), replay(40), wanted, generated)
    n = 20_000
    drawn = starts.draw(n, rng())
    for number, share, count in zip(
        (FIRST, VISITED, GENERATED), wanted, starts.counts.tolist(), strict=True
    ):
        p = share / sum(wanted)
        found = int((drawn[:, 0] == number).sum())
        assert found == count
        assert abs(found - n * p) <= 4 * (n * p * (1 - p)) ** 0.5
    assert starts.notice() == ""


def test_the_share_of_a_source_that_has_nothing_goes_to_the_others():
    starts = Starts(first_states(FIRST), replay(0), StartShares(0.2, 0.4, 0.4))
    assert starts.shares == (1.0, 0.0, 0.0)
    assert starts.notice() == (
        "No dream can start from visited or generated states yet: now 100% first."
    )
    starts.visited = replay(40)
    assert starts.shares == pytest.approx((1 / 3, 2 / 3, 0.0))
    starts.generated = generated
    assert starts.shares == pytest.approx((0.2, 0.4, 0.4))
    starts.first = first_states()
    assert starts.shares == pytest.approx((0.0, 0.5, 0.5))
    assert (starts.draw(1_000, rng())[:, 0] != FIRST).all()


def test_shares_against_the_rule_in_words():
    """A share's own part, plus its part, in proportion, of those that have nothing."""
    draws = torch.rand(50, 3, generator=rng())
    for wanted in draws.tolist():
        for gone in range(3):
            now = shares_now(wanted, [index != gone for index in range(3)])
            others = sum(wanted) - wanted[gone]
            for index in range(3):
                own = wanted[index] / sum(wanted)
                more = wanted[gone] / sum(wanted) * wanted[index] / others
                assert now[index] == pytest.approx(0 if index == gone else own + more)
    with pytest.raises(RunError, match="no dream can start"):
        shares_now((0.5, 0.5), (False, False))


def test_each_start_comes_from_its_source():
    which = torch.randint(3, (50,), generator=rng())
    asked: list[int] = []

    def source(number: int) -> Tensor:
        def draw(n: int, rng: torch.Generator) -> Tensor:
            asked.append(number)
            return 100.0 * number + torch.arange(n)

        return draw

    found = draw_starts([source(0), source(1), source(2)], which, rng())
    drawn = [0, 0, 0]
    for index, number in enumerate(which.tolist()):
        assert found[index] == 100 * number + drawn[number]
        drawn[number] += 1
    asked.clear()
    draw_starts([source(0), source(1), source(2)], torch.ones(4).long(), rng())
    assert asked == [1]


@pytest.mark.parametrize("steps", [3, 5, 40, 203])  # from unfinished episodes to a full ring
def test_no_dream_starts_where_an_episode_had_ended(steps: int):
    starts = Starts(first_states(FIRST), replay(steps), StartShares(), None)
    drawn = starts.draw(5_000, rng())
    assert (drawn[:, 1] == 0).all()
    assert (drawn[:, 0] == VISITED).any() and (drawn[:, 0] == FIRST).any()


def test_no_dream_goes_on_from_an_end():
    """Dreams in which every fourth step ends, marked: what follows a reset has no mark."""

    class Marked:
        def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
            assert (obs[:, 1] == 0).all()
            ends = torch.rand(len(obs), generator=rng) < 0.25
            after = torch.stack((obs[:, 0], ends.float()), 1)
            return Imagined(after, torch.zeros(len(obs)), ends, torch.ones(len(obs)))

    starts = Starts(first_states(FIRST), replay(203), StartShares())
    env = ImaginedEnv(
        32, Marked(), starts, observation_space=SPACE, action_space=Discrete(2), horizon=10
    )
    obs, _ = env.reset(seed=0)
    for _ in range(200):
        assert (obs[:, 1] == 0).all()
        obs, _, terminated, truncated, _ = env.step(torch.zeros(32).long())
        assert torch.equal(obs[:, 1] == 1, terminated)
        obs, _ = env.reset(options={"reset_mask": terminated | truncated})
    assert starts.counts.sum() > 1_000


def test_the_ring_keeps_the_newest_first_states():
    ring = FirstStates(4, SPACE, torch.float32)
    naive: list[float] = []
    number = 0
    for size in (1, 2, 0, 3, 9, 1):
        batch = torch.tensor([[float(number + index), 0.0] for index in range(size)])
        ring.add(batch.view(size, 2))
        naive = (naive + [float(number + index) for index in range(size)])[-4:]
        number += size
        assert len(ring) == len(naive)
        assert set(ring.draw(500, rng())[:, 0].tolist()) == set(naive)


def test_saved_starts_go_on_alike():
    def filled() -> Starts:
        return Starts(first_states(), replay(40), StartShares())

    starts = filled()
    starts.first.add(torch.randn(21, 2, generator=rng()))
    starts.draw(100, rng())
    file = io.BytesIO()
    torch.save(starts.state_dict(), file)
    file.seek(0)
    again = filled()
    again.load_state_dict(torch.load(file, weights_only=True))
    for each in (starts, again):
        each.first.add(torch.full((3, 2), 7.0))
    assert torch.equal(starts.draw(500, rng(1)), again.draw(500, rng(1)))
    assert torch.equal(starts.counts, again.counts)
    smaller = Starts(first_states(capacity=8), replay(40), StartShares())
    with pytest.raises(ConfigError, match="resume with the settings"):
        smaller.load_state_dict(starts.state_dict())


def test_shares_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"shares.visited is -1"):
        Starts(first_states(), replay(0), StartShares(1, -1, 0))
    with pytest.raises(ConfigError, match="all 0"):
        Starts(first_states(), replay(0), StartShares(0, 0, 0))
