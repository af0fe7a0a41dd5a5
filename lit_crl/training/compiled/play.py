"""Acting and stepping batched environments as one compiled graph."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.dqn.equations import greedy_unless
from lit_crl.envs import BatchedEnv
from lit_crl.training.compiled.phase import compiled, compiling
from lit_crl.training.experience.rollout import Played
from lit_crl.training.flat.network import FlatNetwork

#: Takes how many environments there are, and ε ``[N]``; gives which of them explore ``[N]``, and
#: a random action for each ``[N]``.
Toss = Callable[[int, Tensor], tuple[Tensor, Tensor]]
#: Gives what Q-networks take beside so many observations to act: noise ``[N, size]``, or nothing.
Noise = Callable[[int], tuple[Tensor, ...]]


class Explorer(NamedTuple):
    """A second Q-network, and in which environments it acts, ``[N]``."""

    q_network: FlatNetwork
    acts: Tensor


class CompiledPlay:
    """Acts and steps the environments in one graph; see ``Rollout.play``.

    Random numbers are drawn outside of the graph, so that they are the same without compilation.
    """

    def __init__(
        self,
        toss: Toss,
        noise: Noise,
        env: BatchedEnv,
        q_network: FlatNetwork,
        explorer: Explorer | None,
        clock: Stopwatch,
    ) -> None:
        """Play in ``env`` with a flat Q-network, exploring as ``toss`` says.

        Args:
            toss: Draws the random actions.
            noise: Draws the noise of noisy layers.
            env: Is stepped.
            q_network: Acts where the ``explorer`` does not.
            explorer: Acts in the other environments; None without a world.
            clock: Times the compilation.
        """
        self._toss, self._noise, self._env, self._q_network = toss, noise, env, q_network
        self._explorer = explorer
        self._graph = compiled(self._played, q_network.vector.device)
        self._clock, self._is_compiled = clock, False

    @torch.no_grad()
    def _played(
        self,
        obs: Tensor,
        explore: Tensor,
        random: Tensor,
        state: Tensor,
        levels: Tensor,
        elapsed: Tensor,
        *noise: Tensor,
    ) -> tuple[Tensor, ...]:
        q = self._q_network.forward(obs, *noise)
        if self._explorer is not None:
            other = self._explorer.q_network.forward(obs, *noise)
            q = torch.where(self._explorer.acts[:, None], other, q)
        action = greedy_unless(explore, random, q)
        return action, *self._env.advanced(state, levels, elapsed, action)

    def __call__(self, obs: Tensor, epsilon: Tensor) -> Played:
        """Act on observations ``[N, ...]`` with ε ``[N]`` and step the environments."""
        self._q_network.rejoin()
        if self._explorer is not None:
            self._explorer.q_network.rejoin()
        explore, random = self._toss(len(obs), epsilon)
        noise = self._noise(len(obs))
        where = (self._env.state, self._env.levels, self._env.elapsed)
        with nullcontext() if self._is_compiled else compiling(self._clock):
            results = self._graph(obs, explore, random, *where, *noise)
        self._is_compiled = True
        action, *advanced = results
        return action, self._env.take(tuple(advanced))
