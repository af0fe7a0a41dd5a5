"""Acting and stepping batched environments as one compiled graph."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.dqn.equations import greedy_unless
from lit_crl.envs import BatchedEnv
from lit_crl.training.compiled.parameters import FlatNetwork
from lit_crl.training.compiled.phase import compiled, compiling
from lit_crl.training.rollout import Played


class CompiledPlay:
    """Acts and steps the environments of a learner in one graph; see ``Rollout.play``.

    Random numbers are drawn outside, by the learner, as without compilation.
    """

    def __init__(
        self, learner: Any, env: BatchedEnv, q_network: FlatNetwork, clock: Stopwatch
    ) -> None:
        """Play with the learner's ``q_network`` in ``env``."""
        self._learner, self._env, self._q_network = learner, env, q_network
        self._is_cuda = q_network.vector.is_cuda
        self._graph = compiled(self._played, q_network.vector.device, [q_network.vector])
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
    ) -> tuple[Tensor, ...]:
        action = greedy_unless(explore, random, self._q_network.forward(obs))
        return action, *self._env.advanced(state, levels, elapsed, action)

    def __call__(self, obs: Tensor, epsilon: Tensor) -> Played:
        """Act on observations ``[N, ...]`` with ε ``[N]`` and step the environments."""
        explore, random = self._learner.toss(len(obs), epsilon)
        where = (self._env.state, self._env.levels, self._env.elapsed)
        with nullcontext() if self._is_compiled else compiling(self._clock):
            results = self._graph(obs, explore, random, *where)
        self._is_compiled = True
        if self._is_cuda:  # a CUDA graph's results are overwritten by its next call
            results = [result.clone() for result in results]
        action, *advanced = results
        return action, self._env.take(tuple(advanced))
