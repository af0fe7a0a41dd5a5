"""Bits, and ends of a task, as draws with a probability: pure functions of its log odds."""

from torch import Tensor
from torch.nn import functional as F


def negative_log_likelihood(logit: Tensor, bit: Tensor) -> Tensor:
    """−log P(y) = y · softplus(−x) + (1 − y) · softplus(x), for log odds x and bits y of one shape.

    It is written out because torch's own cross-entropy is rounded otherwise where it is recorded.

    >>> import torch
    >>> negative_log_likelihood(torch.tensor([0.0, 2.0, -100.0]), torch.ones(3))
    tensor([  0.6931,   0.1269, 100.0000])
    """
    return bit * F.softplus(-logit) + (1 - bit) * F.softplus(logit)
