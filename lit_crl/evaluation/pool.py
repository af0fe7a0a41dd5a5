"""The environments of evaluation: made once, used for every evaluation of a run, and closed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from lit_crl.core.seeding import seed_global_streams
from lit_crl.dqn import equations as dqn
from lit_crl.envs import BatchedEnv, GymnasiumEnv, LevelEnv
from lit_crl.envs.episodes import Episodes, RandomActions, run_episodes
from lit_crl.envs.factory import EnvFactory

#: Copies that play at once: few where each is a Python object, which may hold memory, ports and
#: licences; many where a step costs the same for one or for hundreds.
MOST_COPIES, MOST_ROWS = 16, 256


@dataclass(frozen=True)
class Plan:
    """Episodes that could be played, numbered from 0; each has a chance of its own.

    What happens in an episode depends on its number, and neither on the copies that there are nor
    on the processes that share the episodes.

    Attributes:
        act: Observations ``[n, ...]`` to actions ``[n]``.
        count: How many episodes there are.
        seed: Episode i is reset with ``seed + i``.
        levels: Where they start, ``[count, d]``; None: the environment's own resets.
        epsilon: How often they act at random.
        success: What counts as success, from terminated and truncated; None: the environment
            says it.
    """

    act: Callable[[Tensor], Tensor]
    count: int
    seed: int
    levels: Tensor | None = None
    epsilon: float = 0.0
    success: Callable[[Tensor, Tensor], Tensor] | None = None

    def tosses(self, first: int, last: int, env: LevelEnv) -> RandomActions | None:
        """The coins of the episodes from ``first`` to before ``last``."""
        if self.epsilon == 0:
            return None
        rng = torch.Generator(env.device)
        num_actions = int(env.single_action_space.n)

        def toss(step: int) -> tuple[Tensor, Tensor]:
            rng.manual_seed(self.seed + step)
            at_random, action = dqn.toss(self.count, num_actions, self.epsilon, rng)
            return at_random[first:last], action[first:last]

        return toss


class Pool:
    """Copies of one environment that play episodes in waves."""

    def __init__(self, make: Callable[[int], LevelEnv], device: torch.device) -> None:
        """``make`` so many copies, on ``device``, when they are first needed."""
        self._make, self._device = make, device
        self._env: LevelEnv | None = None

    def play(self, plan: Plan, first: int, last: int, cut_off_after: int) -> Episodes:
        """The episodes of a plan from number ``first`` to before ``last``, in this order."""
        waves = [Episodes.none(self._device)]
        while first < last:
            seed_global_streams(plan.seed + first)  # some environments draw from these
            env = self._with(last - first)
            end = min(first + env.num_envs, last)
            waves.append(
                run_episodes(
                    env, plan.act, seed=plan.seed + first, episodes=end - first,
                    levels=None if plan.levels is None else plan.levels[first:end],
                    random_actions=plan.tosses(first, end, env), success=plan.success,
                    cut_off_after=cut_off_after,
                )
            )  # fmt: skip
            first = end
        return Episodes(*map(torch.cat, zip(*waves, strict=True)))

    def _with(self, wanted: int) -> LevelEnv:
        """The environment with so many copies, or as many as there may be."""
        if self._env is None:
            self._env = self._make(min(wanted, MOST_COPIES))
        most = MOST_COPIES if isinstance(self._env, GymnasiumEnv) else MOST_ROWS
        if self._env.num_envs < min(wanted, most):
            self.close()
            self._env = self._make(min(wanted, most))
        return self._env

    def close(self) -> None:
        """Close the copies; those needed later are made anew."""
        if self._env is not None:
            self._env.close()
        self._env = None


class EvaluationEnvs:
    """What evaluation plays in: the training task, and its target episodes where others play them.

    Attributes:
        example: An environment of the task, of which only levels and limits are asked.
        own: The training task, for held-out, generated and reference levels.
        target: For target episodes: Gymnasium's own environment where the task exists there.
        success: What counts as success in ``target``; None: it says so itself.
    """

    def __init__(self, make_env: EnvFactory, example: LevelEnv) -> None:
        """Environments from ``make_env``, like ``example``, which is neither reset nor stepped."""
        self.example, device = example, example.device
        self.own = self.target = Pool(lambda n: cast(LevelEnv, make_env(n, device)), device)
        self.success: Callable[[Tensor, Tensor], Tensor] | None = None
        if isinstance(example, BatchedEnv) and (id := example.gymnasium_id) is not None:
            self.target = Pool(lambda n: GymnasiumEnv(n, device, id=id), device)
            self.success = example.success

    def close(self) -> None:
        """Close all of them."""
        self.own.close()
        self.target.close()
