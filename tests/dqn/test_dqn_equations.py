"""The DQN's equations against naive Python loops, closed forms and counted frequencies."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lit_crl.dqn import equations as dqn

Seeds = st.integers(0, 2**31)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(seed: int, rows: int, actions: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, discounts (some 0), target values and online values."""
    g = rng(seed)
    discount = torch.rand(rows, generator=g) * (torch.rand(rows, generator=g) > 0.3)
    next_q, online = torch.randn(2, rows, actions, generator=g)
    return torch.randn(rows, generator=g), discount, next_q, online


@settings(max_examples=30, deadline=None)
@given(Seeds, st.integers(1, 9), st.integers(1, 5))
def test_the_target_of_plain_dqn_takes_the_largest_next_value(
    seed: int, rows: int, actions: int
) -> None:
    reward, discount, next_q, _ = batch_of(seed, rows, actions)
    target = dqn.td_target(reward, discount, next_q)
    for i in range(rows):
        best = max(next_q[i].tolist())
        expected = reward[i].item() + discount[i].item() * best
        assert target[i].item() == pytest.approx(expected, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(Seeds, st.integers(1, 9), st.integers(1, 5))
def test_double_dqn_selects_with_the_online_and_values_with_the_target_network(
    seed: int, rows: int, actions: int
) -> None:
    reward, discount, next_q, online = batch_of(seed, rows, actions)
    target = dqn.double_td_target(reward, discount, next_q, online)
    for i in range(rows):
        choice = max(range(actions), key=online[i].tolist().__getitem__)
        expected = reward[i].item() + discount[i].item() * next_q[i, choice].item()
        assert target[i].item() == pytest.approx(expected, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(Seeds, st.integers(1, 9), st.integers(1, 5))
def test_the_conservative_penalty_and_its_gradient_have_their_closed_forms(
    seed: int, rows: int, actions: int
) -> None:
    """The gradient is softmax(Q) less the logged action, so that all values together stay."""
    q = (3 * torch.randn(rows, actions, generator=rng(seed))).requires_grad_(True)
    action = torch.randint(actions, (rows,), generator=rng(seed))
    penalty = dqn.conservative_penalty(q, action)
    (gradient,) = torch.autograd.grad(penalty, q)
    expected = 0.0
    for i, values in enumerate(q.tolist()):
        total = sum(math.exp(value) for value in values)
        expected += (math.log(total) - values[int(action[i])]) / rows
        for a, value in enumerate(values):
            share = math.exp(value) / total - (a == int(action[i]))
            assert gradient[i, a].item() == pytest.approx(share / rows, abs=1e-5)
    assert penalty.item() == pytest.approx(expected, abs=1e-5) and penalty >= -1e-6


def test_the_conservative_penalty_of_huge_values_is_finite() -> None:
    q = torch.tensor([[1e4, -1e4]])
    assert dqn.conservative_penalty(q, torch.tensor([0])).item() == 0.0
    assert dqn.conservative_penalty(q, torch.tensor([1])).item() == pytest.approx(2e4)


def test_the_two_targets_differ_where_the_networks_disagree() -> None:
    next_q, online = torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0, 0.0]])
    reward, discount = torch.zeros(1), torch.full((1,), 0.5)
    assert dqn.td_target(reward, discount, next_q).item() == 2.5
    assert dqn.double_td_target(reward, discount, next_q, online).item() == 0.5


def test_nothing_beyond_a_termination_enters_a_target() -> None:
    reward, next_q = torch.tensor([3.0]), torch.tensor([[1e6, -1e6]])
    assert dqn.td_target(reward, torch.zeros(1), next_q).item() == 3
    assert dqn.double_td_target(reward, torch.zeros(1), next_q, -next_q).item() == 3


def test_q_of_picks_the_taken_action_under_any_leading_dimensions() -> None:
    q = torch.randn(4, 3, 5, generator=rng())
    action = torch.randint(5, (4, 3), generator=rng(1))
    picked = dqn.q_of(q, action)
    assert picked.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            assert picked[i, j] == q[i, j, int(action[i, j])]


steps_of_a_window = st.lists(
    st.tuples(
        st.floats(-5, 5, width=32),  # reward
        st.sampled_from([0.0, 0.5, 0.9, 1.0]),  # discount
        st.booleans(),  # boundary
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(steps_of_a_window)
def test_the_n_step_fold_equals_a_loop_that_stops_at_the_boundary(
    steps: list[tuple[float, float, bool]],
) -> None:
    steps[0] = (*steps[0][:2], False)
    total, weight, span = 0.0, 1.0, 0
    for reward, discount, boundary in steps:
        if boundary:
            break
        total, weight, span = total + weight * reward, weight * discount, span + 1
    rewards, discounts, boundaries = zip(*steps, strict=True)
    folded = dqn.n_step(
        torch.tensor([rewards]), torch.tensor([discounts]), torch.tensor([boundaries])
    )
    assert folded[0].item() == pytest.approx(total, abs=1e-4)
    assert folded[1].item() == pytest.approx(weight, abs=1e-6)
    assert folded[2].item() == span


def test_the_n_step_fold_treats_every_row_by_itself() -> None:
    g = rng(3)
    reward, discount = torch.randn(2, 5, 7, 4, generator=g)
    boundary = torch.rand(5, 7, 4, generator=g) < 0.3
    boundary[..., 0] = False
    together = dqn.n_step(reward, discount, boundary)
    for i in range(5):
        for j in range(7):
            alone = dqn.n_step(reward[i, j], discount[i, j], boundary[i, j])
            for whole, part in zip(together, alone, strict=True):
                assert torch.allclose(whole[i, j], part)


@settings(max_examples=30, deadline=None)
@given(Seeds, st.integers(1, 6), st.integers(1, 6))
def test_dueling_adds_to_the_value_an_advantage_of_mean_zero(
    seed: int, rows: int, actions: int
) -> None:
    g = rng(seed)
    value = torch.randn(rows, 1, generator=g)
    advantage = torch.randn(rows, actions, generator=g)
    q = dqn.dueling(value, advantage)
    for i in range(rows):
        mean = sum(advantage[i].tolist()) / actions
        expected = [value[i].item() + a - mean for a in advantage[i].tolist()]
        assert q[i].tolist() == pytest.approx(expected, abs=1e-5)
        assert q[i].mean().item() == pytest.approx(value[i].item(), abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 1.0])
def test_epsilon_greedy_explores_as_often_as_it_should(epsilon: float) -> None:
    draws, actions, greedy = 20_000, 4, 2
    q = torch.tensor([0.0, -1.0, 3.0, 1.0]).expand(draws, actions)
    taken = dqn.epsilon_greedy(q, epsilon, rng()).bincount(minlength=actions) / draws
    for action in range(actions):
        expected = epsilon / actions + (1 - epsilon) * (action == greedy)
        margin = 5 * math.sqrt(expected * (1 - expected) / draws)
        assert abs(taken[action].item() - expected) <= margin


def test_epsilon_greedy_gives_every_row_its_own_rate_and_coin() -> None:
    rows, repeats = 3, 20_000
    rates = torch.tensor([0.0, 0.3, 1.0])
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    best = torch.tensor([0, 1, 0])
    taken = dqn.epsilon_greedy(q.repeat(repeats, 1), rates.repeat(repeats), rng(1))
    wrong = taken.view(repeats, rows) != best
    assert not wrong[:, 0].any()
    for row, expected in ((1, 0.15), (2, 0.5)):
        rate = wrong[:, row].float().mean().item()
        assert abs(rate - expected) < 5 * math.sqrt(expected * (1 - expected) / repeats)
    both = (wrong[:, 1] & wrong[:, 2]).float().mean().item()
    assert abs(both - 0.075) < 5 * math.sqrt(0.075 * 0.925 / repeats), "coins must be independent"


def test_epsilon_greedy_repeats_with_its_stream_alone() -> None:
    q = torch.randn(50, 3, generator=rng())
    torch.manual_seed(1)
    first = dqn.epsilon_greedy(q, 0.5, rng(7))
    torch.manual_seed(2)
    assert torch.equal(first, dqn.epsilon_greedy(q, 0.5, rng(7)))
    assert not torch.equal(first, dqn.epsilon_greedy(q, 0.5, rng(8)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.floats(0.05, 0.95), st.floats(0.5, 9))
def test_the_epsilon_ladder_follows_its_formula(n: int, base: float, exponent: float) -> None:
    ladder = dqn.epsilon_ladder(n, base, exponent)
    for i in range(n):
        power = 1 + exponent * (i / (n - 1) if n > 1 else 1)  # one alone is nearly greedy
        assert ladder[i].item() == pytest.approx(base**power, rel=1e-4)


def test_the_default_ladder_runs_from_04_to_04_to_the_8th() -> None:
    ladder = dqn.epsilon_ladder(32)
    assert ladder[0].item() == pytest.approx(0.4)
    assert ladder[-1].item() == pytest.approx(0.4**8)
    assert (ladder.diff() < 0).all()


def small_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


@pytest.mark.parametrize("rate", [0.005, 0.3, 0.7, 1.0])
def test_polyak_update_moves_each_weight_by_its_share(rate: float) -> None:
    target, online = small_network(0), small_network(1)
    before_target, before_online = copy.deepcopy(target), copy.deepcopy(online)
    dqn.polyak_update([*target.parameters()], [*online.parameters()], rate)
    after = dict(target.named_parameters())
    source = dict(before_online.named_parameters())
    for name, old in before_target.named_parameters():
        expected = (1 - rate) * old + rate * source[name]
        assert torch.allclose(after[name], expected, atol=1e-6)
    for name, weight in online.named_parameters():
        assert torch.equal(weight, source[name]), "the online network must not move"


def test_a_hard_update_copies_exactly_and_records_no_graph() -> None:
    target, online = small_network(0), small_network(1)
    dqn.polyak_update([*target.parameters()], [*online.parameters()], 1.0)
    for mine, theirs in zip(target.parameters(), online.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.grad_fn is None and mine.data_ptr() != theirs.data_ptr()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=12))
def test_td_losses_equal_their_definitions(pairs: list[tuple[float, float]]) -> None:
    q, target = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    errors = [abs(a - b) for a, b in pairs]
    huber = [e * e / 2 if e <= 1 else e - 0.5 for e in errors]
    assert dqn.td_loss(q, target, "huber").item() == pytest.approx(sum(huber) / len(huber))
    squares = [e * e for e in errors]
    assert dqn.td_loss(q, target, "mse").item() == pytest.approx(sum(squares) / len(squares))


def test_td_loss_is_huber_unless_told_otherwise_and_clips_the_gradient() -> None:
    q = torch.tensor([10.0, 0.25], requires_grad=True)
    target = torch.zeros(2)
    assert torch.equal(dqn.td_loss(q, target), F.smooth_l1_loss(q, target, beta=1.0))
    (gradient,) = torch.autograd.grad(dqn.td_loss(q, target), q)
    assert gradient.tolist() == pytest.approx([0.5, 0.125])  # clipped error over two rows
