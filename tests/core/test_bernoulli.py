"""The likelihood of bits against torch's own cross-entropy, also far out."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lit_crl.core.bernoulli import negative_log_likelihood


@given(st.floats(-200, 200), st.floats(0, 1))
def test_value_and_slope_are_those_of_torch(logit: float, bit: float) -> None:
    mine = torch.tensor([logit], requires_grad=True)
    theirs = mine.detach().clone().requires_grad_()
    target = torch.tensor([bit])
    found = negative_log_likelihood(mine, target).sum()
    expected = F.binary_cross_entropy_with_logits(theirs, target)
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6)
