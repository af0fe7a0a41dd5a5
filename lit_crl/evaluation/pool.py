"""The environments of evaluation: made once, used for every evaluation of a run, and closed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_crl.core.global_streams import seed_global_streams
from lit_crl.dqn import equations as dqn
from lit_crl.envs import BatchedEnv, GymnasiumEnv, LevelEnv
from lit_crl.envs.episodes import Act, Episodes, RandomActions, Remembering, run_episodes
from lit_crl.envs.factory import EnvFactory, level_env

#: Most copies that play at once: few of Gymnasium's, because each is a Python object and may hold
#: RAM, ports and licences; many batched ones, because a step takes about as long for one as for
#: hundreds.
MAX_GYMNASIUM_COPIES, MAX_BATCHED_COPIES = 16, 256


@dataclass(frozen=True)
class Plan:
    """Episodes that could be played, numbered from 0.

    An episode's random numbers depend on its number only, not on how many copies of the environment
    there are, nor on how many processes share the episodes. So the results do not depend on them.

    Attributes:
        act: Observations ``[n, ...]`` to actions ``[n]``, with a memory of each episode or without.
        count: How many episodes there are.
        seed: Episode i is reset with ``seed + i``.
        levels: Where they start, ``[count, d]``; None: the environment's default resets.
        epsilon: Probability of a random action.
        success: Which episodes succeeded, from terminated and truncated; None: the environment
            reports it.
    """

    act: Act | Remembering
    count: int
    seed: int
    levels: Tensor | None = None
    epsilon: float = 0.0
    success: Callable[[Tensor, Tensor], Tensor] | None = None

    def random_actions(self, first: int, last: int, env: LevelEnv) -> RandomActions | None:
        """The random actions of the episodes from ``first`` to before ``last``; None: none."""
        if self.epsilon == 0:
            return None
        rng = torch.Generator(env.device)
        num_actions = int(env.single_action_space.n)

        def toss(step: int) -> tuple[Tensor, Tensor]:
            # For all episodes, so that the numbers are the same whichever of them are played here.
            rng.manual_seed(self.seed + step)
            at_random, action = dqn.toss(self.count, num_actions, self.epsilon, rng)
            return at_random[first:last], action[first:last]

        return toss


class Pool:
    """Copies of one environment that play episodes in waves."""

    def __init__(self, make: Callable[[int], LevelEnv], device: torch.device) -> None:
        """``make(n)`` makes n copies on ``device``; it is not called before they are needed."""
        self._make, self._device = make, device
        self._env: LevelEnv | None = None

    def play(self, plan: Plan, first: int, last: int, cut_off_after: int) -> Episodes:
        """Play the episodes of a plan from number ``first`` to before ``last``, in this order."""
        waves = [Episodes.none(self._device)]
        while first < last:
            seed_global_streams(plan.seed + first)  # some environments draw from these
            env = self._with_copies(last - first)
            end = min(first + env.num_envs, last)
            waves.append(
                run_episodes(
                    env, plan.act, seed=plan.seed + first, episodes=end - first,
                    levels=None if plan.levels is None else plan.levels[first:end],
                    random_actions=plan.random_actions(first, end, env), success=plan.success,
                    cut_off_after=cut_off_after,
                )
            )  # fmt: skip
            first = end
        return Episodes(*map(torch.cat, zip(*waves, strict=True)))

    def copies(self, n: int) -> LevelEnv:
        """``n`` more copies, for somebody else, who closes them."""
        return self._make(n)

    def _with_copies(self, wanted: int) -> LevelEnv:
        """The environment with ``wanted`` copies, or as many as are allowed."""
        if self._env is None:  # of which kind it is shows when there is one
            self._env = self._make(min(wanted, MAX_GYMNASIUM_COPIES))
        is_gymnasium = isinstance(self._env, GymnasiumEnv)
        most = MAX_GYMNASIUM_COPIES if is_gymnasium else MAX_BATCHED_COPIES
        if self._env.num_envs < min(wanted, most):
            self.close()
            self._env = self._make(min(wanted, most))
        return self._env

    def close(self) -> None:
        """Close the copies; ``play`` makes new ones."""
        if self._env is not None:
            self._env.close()
        self._env = None


class EvaluationEnvs:
    """The environments that evaluation plays in.

    Attributes:
        example: An environment of the task that tells its levels and limits; it is never stepped.
        training: The training task, for held-out, generated and reference levels.
        target: For target episodes: Gymnasium's environment if the task exists there, else the
            training task.
        success: Which episodes succeeded in ``target``, from terminated and truncated; None: the
            environment reports it.
    """

    def __init__(self, make_env: EnvFactory, example: LevelEnv) -> None:
        """Environments from ``make_env``, like ``example``, which is neither reset nor stepped."""
        self.example, device = example, example.device
        self.training = self.target = Pool(lambda n: level_env(make_env(n, device)), device)
        self.success: Callable[[Tensor, Tensor], Tensor] | None = None
        if isinstance(example, BatchedEnv) and (id := example.gymnasium_id) is not None:
            self.target = Pool(lambda n: GymnasiumEnv(n, device, id=id), device)
            self.success = example.success

    def close(self) -> None:
        """Close all of them."""
        self.training.close()
        self.target.close()
