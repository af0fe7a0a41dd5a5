"""C51's equations, against double loops over rows and atoms, and against plain values."""

import math

import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from lit_crl.core.categorical import expected
from lit_crl.dqn import equations as dqn
from lit_crl.dqn.c51 import (
    categorical_td_target,
    clipped_share,
    divergence,
    evenly_spaced,
    of_action,
    support_of,
)
from lit_crl.dqn.networks import CategoricalQNetwork, spread
from lit_crl.dqn.possible_returns import possible_returns, reward_range

ROWS = 40


def naive_target(reward: float, discount: float, probability: list[float], z: list[float]) -> list:
    """Bellemare et al. 2017, algorithm 1, with the case that it forgets: a value on an atom."""
    found, gap = [0.0] * len(z), z[1] - z[0]
    for p, atom in zip(probability, z, strict=True):
        place = (min(max(reward + discount * atom, z[0]), z[-1]) - z[0]) / gap
        lower, upper = math.floor(place), min(math.ceil(place), len(z) - 1)
        if lower == upper:
            found[lower] += p
        else:
            found[lower] += p * (upper - place)
            found[upper] += p * (place - lower)
    return found


def rows(atoms: Tensor, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards on atoms, beyond both ends and elsewhere; discounts of 0, γ, γ² and γ³."""
    rng = torch.Generator().manual_seed(seed)
    reward = 2 * torch.randn(ROWS, generator=rng)
    reward[:10] = atoms[torch.randint(len(atoms), (10,), generator=rng)]
    reward[10], reward[11] = atoms[0] - 5, atoms[-1] + 5
    discount = 0.9 ** torch.randint(1, 4, (ROWS,), generator=rng).float()
    discount[::3] = 0.0
    discount[1] = 1.0  # moves by as much as the reward, from atom to atom
    reward[1] = atoms[1] - atoms[0]
    probability = (3 * torch.randn(ROWS, len(atoms), generator=rng)).softmax(-1)
    return reward, discount, probability


@pytest.mark.parametrize("support", [(-10.0, 10.0), (0.0, 4.0), (-3.0, 1.0)])
@pytest.mark.parametrize("count", [2, 11, 51])
def test_a_target_equals_a_double_loop(support: tuple[float, float], count: int) -> None:
    atoms = evenly_spaced(torch.tensor(support), count)
    reward, discount, probability = rows(atoms)
    target = categorical_td_target(reward, discount, probability, atoms)
    for row in range(ROWS):
        by_hand = naive_target(
            reward[row].item(), discount[row].item(), probability[row].tolist(), atoms.tolist()
        )
        torch.testing.assert_close(target[row], torch.tensor(by_hand), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(target.sum(-1), torch.ones(ROWS))


def test_an_end_is_worth_its_clipped_reward_alone() -> None:
    atoms = evenly_spaced(torch.tensor([-10.0, 10.0]), 51)
    reward, _, probability = rows(atoms)
    target = categorical_td_target(reward, torch.zeros(ROWS), probability, atoms)
    assert ((target > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(target @ atoms, reward.clamp(-10, 10), atol=1e-4, rtol=1e-4)


def test_the_mean_of_a_target_is_the_target_of_the_means() -> None:
    """With a support that holds all that atoms move to, distributions and values agree."""
    atoms = evenly_spaced(torch.tensor([-30.0, 30.0]), 51)
    reward, discount, _ = rows(atoms)
    logits = torch.randn(ROWS, 4, 51, generator=torch.Generator().manual_seed(2))
    logits[..., :15], logits[..., -15:] = -30.0, -30.0  # nothing near the ends
    values = expected(logits, atoms)
    best = of_action(logits, values.argmax(-1)).softmax(-1)
    reward = reward.clamp(-5, 5)
    target = categorical_td_target(reward, discount, best, atoms)
    torch.testing.assert_close(
        target @ atoms, dqn.td_target(reward, discount, values), atol=1e-4, rtol=1e-4
    )


def test_targets_are_possible_returns() -> None:
    atoms = evenly_spaced(torch.tensor([-4.0, 4.0]), 9)
    reward, discount, probability = rows(atoms)
    target = categorical_td_target(reward, discount, probability, atoms, torch.tensor([-1.0, 2.0]))
    assert (target[:, atoms < -1] == 0).all() and (target[:, atoms > 2] == 0).all()
    torch.testing.assert_close(target.sum(-1), torch.ones(ROWS))
    moved = reward[:, None] + discount[:, None] * atoms
    torch.testing.assert_close(
        target @ atoms, (probability * moved.clamp(-1, 2)).sum(-1), atol=1e-5, rtol=1e-4
    )


def test_what_a_support_clips_is_counted() -> None:
    atoms = evenly_spaced(torch.tensor([-2.0, 2.0]), 21)
    reward, discount, probability = rows(atoms)
    beyond = 0.0
    for row in range(ROWS):
        for p, atom in zip(probability[row].tolist(), atoms.tolist(), strict=True):
            place = reward[row].item() + discount[row].item() * atom
            beyond += p * (place < -2.001 or place > 2.001)
    assert clipped_share(reward, discount, probability, atoms).item() == pytest.approx(
        beyond / ROWS, rel=1e-4
    )


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-1.0, -1.0), (1.0, 1.0), (-3.0, 0.5), (0.0, 0.0)]
)
@pytest.mark.parametrize("n", [1, 3, 10])
def test_the_support_holds_every_target_whatever_n(low: float, high: float, n: int) -> None:
    """Played episodes, and n-step targets from both ends of the support: nothing is clipped."""
    gamma, rng = 0.9, torch.Generator().manual_seed(0)
    reward = low + (high - low) * torch.rand(300, n, generator=rng)
    reward[:20], reward[20:40] = low, high
    ended = torch.rand(300, generator=rng) < 0.3
    seen = reward_range(reward.flatten(), ended.repeat_interleave(n), torch.ones(300 * n).bool())
    support = support_of(possible_returns(seen, gamma))
    atoms = evenly_spaced(support, 51)
    folded = (reward * gamma ** torch.arange(n)).sum(-1)
    discount = torch.where(ended, 0.0, gamma**n)
    everywhere = torch.ones(300, 51) / 51
    assert clipped_share(folded, discount, everywhere, atoms).item() == 0
    reach = max(abs(low), abs(high)) / (1 - gamma)
    assert support.abs().max().item() == pytest.approx(reach or 1.0, rel=1e-4)


def test_a_network_that_predicts_0_does_so_after_the_support_has_widened() -> None:
    torch.manual_seed(0)
    network = CategoricalQNetwork(51, Box(-1, 1, (2,)), 3, (8,))
    for before, after in (([0.0, 0.0], [0.0, 7.0]), ([-2.0, -1.0], [-9.0, 0.0]),
                          ([-1.0, 2.0], [-5.0, 30.0])):  # fmt: skip
        spread(support_of(torch.tensor(before)), network)
        with torch.no_grad():
            network.advantage.weight.zero_()
            bias = torch.full((51,), -50.0)
            bias[network.atoms.abs().argmin()] = 0.0
            network.advantage.bias.copy_(bias.repeat_interleave(3))
        obs = torch.rand(5, 2)
        assert network(obs).abs().max() < 1e-15
        spread(support_of(torch.tensor(after)), network)
        assert network.atoms.abs().max() == max(map(abs, after))
        assert network(obs).abs().max() < 1e-15


def test_the_divergence_is_that_of_torch_and_its_gradient_the_cross_entropys() -> None:
    rng = torch.Generator().manual_seed(3)
    target = torch.rand(ROWS, 7, generator=rng)
    target[:5, :6] = 0.0  # all on one atom
    target = target / target.sum(-1, keepdim=True)
    logits = (3 * torch.randn(ROWS, 7, generator=rng)).requires_grad_()
    found = divergence(target, logits)
    theirs = kl_divergence(Categorical(target), Categorical(logits=logits))
    torch.testing.assert_close(found, theirs.detach(), check_stride=False, atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    torch.testing.assert_close(gradient, logits.softmax(-1) - target, atol=1e-5, rtol=1e-4)
    assert divergence(target[5:], target[5:].log()).abs().max() < 1e-5


def test_the_distribution_of_an_action_is_its_row() -> None:
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(4))
    action = torch.randint(3, (2, 5), generator=torch.Generator().manual_seed(5))
    found = of_action(logits, action)
    for i in range(2):
        for j in range(5):
            assert torch.equal(found[i, j], logits[i, j, action[i, j]])
