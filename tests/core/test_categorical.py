"""Distributions over atoms, against loops over their atoms and values."""

import bisect

import pytest
import torch
from torch import Tensor

from lit_crl.core.categorical import expected, projected, two_hot
from lit_crl.world.rewards import reward_atoms

EVEN = torch.linspace(-2.0, 2.0, 9)
UNEVEN = torch.tensor([-3.0, -1.0, -0.9, 0.0, 4.0])


def naive_projection(probability: list[float], values: list[float], atoms: list[float]) -> Tensor:
    """Each value's probability goes to the atoms beside it, in proportion to how near they are."""
    found = [0.0] * len(atoms)
    for p, value in zip(probability, values, strict=True):
        value = min(max(value, atoms[0]), atoms[-1])
        below = bisect.bisect_right(atoms, value) - 1
        if atoms[below] == value:
            found[below] += p
        else:
            width = atoms[below + 1] - atoms[below]
            found[below] += p * (atoms[below + 1] - value) / width
            found[below + 1] += p * (value - atoms[below]) / width
    return torch.tensor(found)


@pytest.mark.parametrize("atoms", [EVEN, UNEVEN, reward_atoms()], ids=["even", "uneven", "rewards"])
def test_a_projection_equals_a_double_loop_and_keeps_probability_and_mean(atoms: Tensor) -> None:
    rng = torch.Generator().manual_seed(0)
    width = float(atoms[-1] - atoms[0])
    inside = atoms[0] + width * torch.rand(30, 6, generator=rng)
    beyond = inside.clone()
    beyond[:, 0], beyond[:, 1] = atoms[0] - 1.0, atoms[-1] + 7.0
    on_atoms = atoms[torch.randint(len(atoms), (30, 6), generator=rng)]
    for values in (inside, beyond, on_atoms):
        probability = torch.rand(30, 6, generator=rng).softmax(-1)
        found = projected(probability, values, atoms)
        for row in range(30):
            by_hand = naive_projection(
                probability[row].tolist(), values[row].tolist(), atoms.tolist()
            )
            torch.testing.assert_close(found[row], by_hand, atol=1e-6, rtol=1e-5)
        assert (found >= 0).all()
        torch.testing.assert_close(found.sum(-1), torch.ones(30))
        clipped = values.clamp(atoms[0], atoms[-1])
        torch.testing.assert_close(
            (found * atoms).sum(-1), (probability * clipped).sum(-1), atol=1e-5, rtol=1e-5
        )


def test_a_value_on_an_atom_loses_no_probability() -> None:
    """Where floor and ceiling of a value's place are one, a sum over both may count it as none."""
    for atoms in (EVEN, UNEVEN):
        assert torch.equal(two_hot(atoms, atoms), torch.eye(len(atoms)))


def test_the_mean_is_that_of_the_softmax() -> None:
    rng = torch.Generator().manual_seed(1)
    logits = 5 * torch.randn(4, 3, 9, generator=rng)
    by_hand = (logits.double().exp() / logits.double().exp().sum(-1, keepdim=True)) @ EVEN.double()
    torch.testing.assert_close(expected(logits, EVEN), by_hand.float())
    assert expected(logits.bfloat16(), EVEN).dtype == torch.float32
