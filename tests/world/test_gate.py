"""The gate against counting, and against the share of further real rows that it cuts."""

import math

import pytest
import torch

from lit_crl.world.gate import gate


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("n", [0, 1, 9, 18, 19, 98, 99, 250])
def test_the_gate_is_the_smallest_that_promises_enough(n: int, quantile: float):
    real = torch.rand(n, generator=torch.Generator().manual_seed(n))
    # The i-th smallest of n lets a further row pass with probability i / (n + 1).
    promised = [i for i in range(1, n + 1) if i >= quantile * (n + 1) - 1e-9]
    expected = sorted(real.tolist())[promised[0] - 1] if promised else math.inf
    assert gate(real, quantile) == pytest.approx(expected)


def test_few_rows_promise_nothing():
    assert gate(torch.zeros(98), 0.99).isinf() and not gate(torch.zeros(99), 0.99).isinf()
    assert gate(torch.rand(10_000), 1.0).isinf()


def test_further_real_rows_pass_as_often_as_was_asked():
    """Heavy tails; the mean over many gates, within four standard errors."""
    rng = torch.Generator().manual_seed(0)
    normal = torch.randn(4_000, 119 + 1, generator=rng)
    drawn = (2 * normal).exp()
    cut = torch.stack([row[-1] > gate(row[:-1], 0.9) for row in drawn]).float().mean()
    assert abs(float(cut) - 0.1) < 4 * (0.1 * 0.9 / 4_000) ** 0.5


def test_numbers_that_are_none_count_as_the_largest():
    real = torch.tensor([torch.nan, 3.0, 1.0, 2.0])
    assert gate(real, 0.6) == 3.0
