"""The type of what an optimizer minimises: the loss of a minibatch, and numbers to report."""

from torch import Tensor

#: The loss, and named numbers about it. All are 0-dimensional, except the DQN's TD errors.
LossAndReport = tuple[Tensor, dict[str, Tensor]]
