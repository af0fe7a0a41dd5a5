"""What an optimizer minimises: a loss of a minibatch, and what to report of it."""

from torch import Tensor

#: The loss, and named numbers about it: all are 0-dimensional but for the DQN's TD errors.
LossAndReport = tuple[Tensor, dict[str, Tensor]]
