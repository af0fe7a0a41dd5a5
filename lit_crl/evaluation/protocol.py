"""Greedy evaluation: whole episodes on target and held-out levels, with streams of its own.

Nothing here touches the training environments or random streams, so evaluating more often, or
never, leaves the trained weights as they are, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from lit_crl.dqn import epsilon_greedy
from lit_crl.envs import BatchedEnv, GymnasiumEnv, LevelEnv
from lit_crl.envs.factory import EnvFactory as EnvFactory
from lit_crl.evaluation.generator_metrics import (
    BrierScore,
    FrontierHitRate,
    PathLengthQuantiles,
    UniqueRate,
    measure,
)
from lit_crl.levels import UnitBox
from lit_crl.seeding import random_stream, stream_seed

#: Observations ``[N, ...]`` to action values ``[N, A]``.
ActionValues = Callable[[Tensor], Tensor]

#: Episodes a level that the frontier hit rate is measured with, and how much they explore.
EPISODES_PER_LEVEL = 16
FRONTIER_EPSILON = 0.05


class Judge(Protocol):
    """What evaluation asks of the learner."""

    def action_values(self, obs: Tensor) -> Tensor:
        """Q of the network that is evaluated (the Polyak average), ``[N, A]``."""

    def draw_noise(self, n: int, rng: torch.Generator) -> Tensor:
        """Noise for ``n`` levels."""

    def generate_levels(self, z: Tensor) -> Tensor:
        """The levels of noise ``z``."""

    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ of levels."""


class Episodes(NamedTuple):
    """Finished episodes, one entry each: ``[E]``."""

    returns: Tensor
    lengths: Tensor
    success: Tensor


@torch.no_grad()
def run_episodes(
    env: LevelEnv,
    act: Callable[[Tensor], Tensor],
    *,
    seed: int,
    levels: Tensor | None = None,
    success: Callable[[Tensor, Tensor], Tensor] | None = None,
    watch: Callable[[Tensor], None] | None = None,
) -> Episodes:
    """One episode of every environment, all at once.

    Args:
        env: The environments; as many episodes as it has copies.
        act: Observations ``[n, ...]`` of the episodes that are not over to actions ``[n]``.
        seed: Seed of the environments' reset.
        levels: Where the episodes start, ``[N, d]``; None: target levels.
        success: What counts as success, from terminated and truncated; None: the environment
            says it.
        watch: Called when all have been reset, and after every step before those that ended are:
            with the mask ``[N]`` of the episodes that it led on.
    """
    obs, _ = env.reset(seed=seed, options={} if levels is None else {"levels": levels})
    running = torch.ones(env.num_envs, dtype=torch.bool, device=obs.device)
    returns, lengths = running.float() * 0, running.float() * 0
    solved = ~running
    actions = running.long() * 0
    if watch is not None:
        watch(running)
    while running.any():
        # The last few episodes often take most of the time.
        actions[running] = act(obs[running])
        obs, reward, terminated, truncated, info = env.step(actions)
        if watch is not None:
            watch(running)
        returns += reward * running
        lengths += running
        ended = terminated | truncated
        won = info["success"] if success is None else success(terminated, truncated)
        solved |= won & ended & running
        running &= ~ended
        if ended.any() and running.any():
            obs, _ = env.reset(options={"reset_mask": ended})
    return Episodes(returns, lengths, solved)


@dataclass
class Evaluation:
    """What a validation or a test runs: target episodes, held-out levels, generated levels.

    Args:
        make_env: Makes the training task's environment.
        device: Where environments run and observations come from.
        episodes: Episodes on target levels; where the task exists in Gymnasium they are played
            in Gymnasium's own environment.
        generated: Generated levels that are examined; 0: none.
        seed: Seed of evaluation's own streams.
    """

    #: Of so many generated levels one reference level is played beside them: their episodes last
    #: longest.
    GENERATED_PER_REFERENCE: ClassVar[int] = 4

    make_env: EnvFactory
    device: torch.device
    episodes: int
    generated: int
    seed: int

    def __post_init__(self) -> None:
        """Make the environments once; every call of ``run`` plays the same episodes anew."""
        own = self._make(1)
        self._own = own
        self._success: Callable[[Tensor, Tensor], Tensor] | None = None
        if isinstance(own, BatchedEnv) and own.gymnasium_id is not None:
            self._success = own.success
            self._target: LevelEnv = GymnasiumEnv(self.episodes, self.device, id=own.gymnasium_id)
        else:
            self._target = self._make(self.episodes)

    def _make(self, num_envs: int) -> LevelEnv:
        return cast(LevelEnv, self.make_env(num_envs, self.device))

    def run(self, judge: Judge, has_gan: bool) -> dict[str, float]:
        """Metrics of the present policy, and of the present generator if there is one."""
        self._env_steps = 0.0
        results = self._target_metrics(judge) | self._heldout_metrics(judge)
        if has_gan and self.generated:
            results |= self._generated_metrics(judge) | self._reference_metrics(judge)
        return results | {"evaluation_env_steps": self._env_steps}

    def _play(self, env: LevelEnv, act: Callable[[Tensor], Tensor], **options: Any) -> Episodes:
        episodes = run_episodes(env, act, **options)
        self._env_steps += episodes.lengths.sum().item()
        return episodes

    def _target_metrics(self, judge: Judge) -> dict[str, float]:
        episodes = self._play(
            self._target,
            lambda obs: judge.action_values(obs).argmax(1),
            seed=stream_seed(self.seed, "target evaluation") % 2**31,
            success=self._success,
        )
        results = {
            "target_return_mean": episodes.returns.mean().item(),
            "target_return_std": episodes.returns.std(correction=0).item(),
            "target_success_rate": episodes.success.float().mean().item(),
        }
        # Where others report another return than the one learnt from.
        if hasattr(self._own, "benchmark_return"):
            reported = self._own.benchmark_return(episodes.success, episodes.lengths)
            results["target_benchmark_return_mean"] = reported.mean().item()
        return results

    def _heldout_metrics(self, judge: Judge) -> dict[str, float]:
        return success_rates(self._heldout_success(judge, self.seed))

    def _heldout_success(self, judge: Judge, seed: int) -> dict[str, Tensor]:
        """Play every held-out level once, greedily: success ``[m]`` of each set."""
        return {
            name: self._play(
                self._make(len(levels)),
                lambda obs: judge.action_values(obs).argmax(1),
                seed=seed,
                levels=levels,
            ).success
            for name, levels in self._own.heldout().items()
        }

    def _attempts(
        self, judge: Judge, levels: Tensor, valid: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Play levels 16 times each with a little exploration: ``[n, 16]``; invalid ones fail."""
        success = torch.zeros(len(levels), EPISODES_PER_LEVEL, device=self.device)
        if valid.any():
            played = levels[valid].repeat_interleave(EPISODES_PER_LEVEL, dim=0)
            episodes = self._play(
                self._make(len(played)),
                lambda obs: epsilon_greedy(judge.action_values(obs), FRONTIER_EPSILON, rng),
                seed=self.seed,
                levels=played,
            )
            success[valid] = episodes.success.float().view(-1, EPISODES_PER_LEVEL)
        return success

    def _generated_metrics(self, judge: Judge) -> dict[str, float]:
        """Play generated levels, and compare with p̂."""
        rng = random_stream(self.seed, "generated evaluation", device=self.device)
        box = UnitBox.of(self._own.level_space).to(self.device)
        levels = judge.generate_levels(judge.draw_noise(self.generated, rng))
        valid = self._own.valid(levels)
        success = self._attempts(judge, levels, valid, rng)
        results = {
            "levels_valid_rate": measure(MeanMetric(), valid.float()),
            "levels_unique_rate": measure(UniqueRate(), box.to_unit(levels)),
            "levels_frontier_rate": measure(FrontierHitRate(), success),
        }
        if valid.any():
            results |= self._path_lengths(levels[valid])
            results |= calibration(judge.success_probability(levels[valid]), success[valid])
        return results

    def _path_lengths(self, levels: Tensor) -> dict[str, float]:
        """Quantiles of the fewest steps to the goal, where the environment knows them."""
        optimal_steps = getattr(self._own, "optimal_steps", None)
        if optimal_steps is None:
            return {}
        metric = PathLengthQuantiles()
        metric.update(optimal_steps(levels))
        return {f"levels_path_length_{name}": float(v) for name, v in metric.compute().items()}

    def _reference_metrics(self, judge: Judge) -> dict[str, float]:
        """The frontier hit rate of reference levels, to compare the generated ones' with."""
        rng = random_stream(self.seed, "reference evaluation", device=self.device)
        n = -(-self.generated // self.GENERATED_PER_REFERENCE)
        levels = self._own.reference_levels(n, rng)
        success = self._attempts(judge, levels, self._own.valid(levels), rng)
        return {"reference_frontier_rate": measure(FrontierHitRate(), success)}


def success_rates(success: dict[str, Tensor]) -> dict[str, float]:
    """Success rate of every held-out set ``[m]``, and the mean over the sets, if there are any."""
    rates = {
        f"heldout_{name}_success_rate": each.float().mean().item() for name, each in success.items()
    }
    return rates | ({"heldout_success_rate": sum(rates.values()) / len(rates)} if rates else {})


def calibration(p: Tensor, success: Tensor) -> dict[str, float]:
    """How well p̂ of levels ``[n]`` foretells their episodes ``[n, k]``; AUC only if some differ."""
    predicted = p[:, None].expand_as(success)
    results = {
        "levels_success_rate": measure(MeanMetric(), success),
        "p_hat_brier": measure(BrierScore(), predicted, success),
    }
    if success.any() and not success.all():
        results["p_hat_auc"] = measure(BinaryAUROC(), predicted.flatten(), success.flatten().long())
    return results
