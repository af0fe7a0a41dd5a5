"""Acting and stepping batched environments as one compiled graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_crl.compiled import compiled, compiling
from lit_crl.dqn import greedy_unless
from lit_crl.envs import BatchedEnv
from lit_crl.flat_networks import FlatNetworks
from lit_crl.rollout import Played
from lit_crl.stopwatch import Stopwatch


class CompiledPlay:
    """Steps the environments of one learner, or of several alike at once; see ``Rollout.play``.

    Random numbers are drawn outside, by each learner for itself, as without compilation.
    """

    def __init__(
        self,
        learners: Sequence[Any],
        envs: Sequence[BatchedEnv],
        flat: FlatNetworks,
        clock: Stopwatch,
    ) -> None:
        """Play with the Q-networks ``flat`` of these learners, each in its environment."""
        self._learners, self._envs, self._flat = learners, envs, flat
        self._env, self._sizes = envs[0], [env.num_envs for env in envs]
        self._is_cuda = flat.vector.is_cuda
        self._graph = compiled(self._played, flat.vector.device, [flat.vector])
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
        action = greedy_unless(explore, random, self._flat.forward(obs).flatten(0, -2))
        return action, *self._env.advanced(state, levels, elapsed, action)

    def __call__(self, obs: Sequence[Tensor], epsilon: Sequence[Tensor]) -> list[Played]:
        """From observations and ε of each learner's environments, ``[N, ...]`` and ``[N]``."""
        tossed = [
            learner.toss(len(own), rate)
            for learner, own, rate in zip(self._learners, obs, epsilon, strict=True)
        ]
        explore, random = (_joined(part) for part in zip(*tossed, strict=True))
        where = [
            _joined([getattr(env, name) for env in self._envs])
            for name in ("state", "levels", "elapsed")
        ]
        stack = torch.stack(list(obs)) if self._flat.are_many else obs[0]
        if self._is_compiled:
            results = self._graph(stack, explore, random, *where)
        else:
            with compiling(self._clock):
                results = self._graph(stack, explore, random, *where)
            self._is_compiled = True
        if self._is_cuda:  # a CUDA graph's results are overwritten by its next call
            results = [result.clone() for result in results]
        alone = len(self._envs) == 1
        parts = [results] if alone else zip(*(t.split(self._sizes) for t in results), strict=True)
        return [
            (action, env.take(tuple(advanced)))
            for env, (action, *advanced) in zip(self._envs, parts, strict=True)
        ]


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
