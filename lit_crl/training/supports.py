"""The supports of distributions of returns, which reach as far as returns can."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.c51 import support_of
from lit_crl.dqn.networks import ActionValues, spread

#: A Q-network and its target network.
Pair = tuple[ActionValues, ActionValues]


def spread_as_given(support: Sequence[float], pair: Pair) -> None:
    """Let the distributions of ``pair`` reach from the lowest to the highest return given."""
    spread(torch.tensor(list(support), device=next(pair[0].parameters()).device), *pair)


def spread_as_possible(returns: Tensor | None, pair: Pair, atoms: int) -> None:
    """Let the distributions of ``pair`` reach as far as the ``returns [K, 2]`` of a batch can.

    Raises:
        ConfigError: If the batch names no possible returns.
    """
    if returns is None:
        raise ConfigError(
            f"model.network.atoms is {atoms}, but batches name no possible "
            "returns: give the lowest and the highest return as model.dqn.support"
        )
    spread(support_of(returns[0]), *pair)
