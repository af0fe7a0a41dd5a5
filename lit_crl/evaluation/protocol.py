"""What a validation measures: target episodes, held-out levels, generated levels.

All processes of a run share an evaluation. Each plays its part of the episodes, and all of them
get the results of all, so that they decide alike what to play next and report the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from lit_crl.core import distributed
from lit_crl.core.levels import UnitBox
from lit_crl.core.seeding import global_streams_kept, random_stream, stream_seed
from lit_crl.envs import LevelEnv
from lit_crl.envs.episodes import Episodes
from lit_crl.evaluation.allowance import Allowance, evenly, longest_episode
from lit_crl.evaluation.level_metrics import (
    BrierScore,
    FrontierHitRate,
    Learnability,
    PathLengthQuantiles,
    UniqueRate,
    measure,
)
from lit_crl.evaluation.pool import EvaluationEnvs, Plan, Pool

#: Episodes of each level whose success probability is measured, and how much they explore: this
#: makes chance where policy and environment have none.
EPISODES_PER_LEVEL = 4
FRONTIER_EPSILON = 0.05
#: One of so many held-out levels is validation's, and the others are the test's.
HELDOUT_PER_VALIDATED = 4


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


#: Plays one part of an evaluation within the allowance, and says what it found.
Part = Callable[[Judge, Allowance], dict[str, float]]


@dataclass
class Evaluation:
    """A validation: every one of a run plays the same episodes, as far as the allowance goes.

    Nothing here touches the training environments or any random stream of training, so evaluating
    more often, or never, leaves the trained weights as they are, bit for bit.

    Args:
        envs: What is played in.
        episodes: Episodes on target levels.
        generated: Generated levels that are examined; 0: none.
        env_steps: Env steps that all of it may take at most.
        seed: Seed of evaluation's own streams.
    """

    #: Of what the random streams and held-out levels are.
    KIND: ClassVar[Literal["validation", "test"]] = "validation"

    envs: EvaluationEnvs
    episodes: int
    generated: int
    env_steps: int
    seed: int

    def __post_init__(self) -> None:
        """Choose the held-out levels."""
        self.heldout = HeldOut.of(self.envs.example, for_test=self.KIND == "test")

    def run(self, judge: Judge, has_gan: bool) -> dict[str, float]:
        """Metrics of the present policy, and of the present generator if there is one."""
        parts = self._parts(has_gan)
        allowance = Allowance(self.env_steps, len(parts))
        results: dict[str, float] = {}
        with global_streams_kept():
            for part in parts:
                results |= part(judge, allowance)
                if "target_success_rate" not in results:  # the first part found no success known
                    allowance.forgo_rest()
        return results | {
            "evaluation_env_steps": float(allowance.spent),
            "evaluation_cut_off": float(allowance.cut_off),
        }

    def _parts(self, has_gan: bool) -> list[Part]:
        parts: list[Part] = [self._target_metrics]
        if len(self.heldout.levels):
            parts.append(self._heldout_metrics)
        if has_gan and self.generated:
            parts.append(self._level_metrics)
        return parts

    def _stream_seed(self, purpose: str) -> int:
        """The seed of a random stream, of which those of validation and of the test differ."""
        return stream_seed(self.seed, f"{purpose} of the {self.KIND}")

    def _plan(self, purpose: str, judge: Judge, levels: Tensor, epsilon: float = 0.0) -> Plan:
        """An episode at each level ``[n, d]`` in the training task."""
        seed = self._stream_seed(purpose) % 2**31
        return Plan(greedy(judge), len(levels), seed, levels, epsilon)

    def _play(self, pool: Pool, plan: Plan, allowance: Allowance, size: int = 1) -> Episodes:
        """As many episodes of a plan as the next part of the allowance has room for.

        An episode is started only if its longest possible course fits. So first come as many as
        surely fit; then, in what these leave, again as many.

        Args:
            pool: What is played in.
            plan: The episodes, of which the first ones are played.
            allowance: Env steps of the whole evaluation.
            size: Episodes that belong together, of which either all are played or none.
        """
        env_steps, wanted = allowance.next_part(), plan.count // size
        limit = self.envs.example.max_episode_steps
        longest = longest_episode(limit, wanted, size, env_steps)
        played = Episodes.none(self.envs.example.device)
        while groups := min(wanted, env_steps // (size * longest)):
            done = len(played.returns)
            first, last = distributed.part_of(groups * size)
            mine = pool.play(plan, done + first, done + last, longest)
            episodes = of_all_processes(mine)
            wanted, env_steps = wanted - groups, env_steps - int(episodes.lengths.sum())
            played = Episodes(*map(torch.cat, zip(played, episodes, strict=True)))
        allowance.spend(int(played.lengths.sum()), int(played.cut_off.sum()))
        return played

    def _target_metrics(self, judge: Judge, allowance: Allowance) -> dict[str, float]:
        """Return and success from the task's own resets."""
        env, levels = self.envs.example, None
        if self.envs.target is self.envs.own and env.level_space is not None:
            rng = random_stream(self._stream_seed("target levels"), "levels", device=env.device)
            levels = env.target_levels(self.episodes, rng)
        seed = self._stream_seed("target episodes") % 2**31
        plan = Plan(greedy(judge), self.episodes, seed, levels, success=self.envs.success)
        episodes = self._play(self.envs.target, plan, allowance)
        results = {
            "target_return_mean": episodes.returns.mean().item(),
            "target_return_std": episodes.returns.std(correction=0).item(),
            "target_episodes": float(len(episodes.returns)),
            "target_cut_off": float(episodes.cut_off.sum()),
        } | success_rate("target_success_rate", episodes)
        # Where others report another return than the one learnt from.
        if hasattr(env, "benchmark_return"):
            reported = env.benchmark_return(episodes.success, episodes.lengths)
            results["target_benchmark_return_mean"] = reported.mean().item()
        return results

    def _heldout_metrics(self, judge: Judge, allowance: Allowance) -> dict[str, float]:
        """Success at held-out levels, each played once: of every set, and of all levels."""
        plan = self._plan("held-out episodes", judge, self.heldout.levels)
        episodes = self._play(self.envs.own, plan, allowance)
        number = self.heldout.number[: len(episodes.returns)]
        results = success_rate("heldout_success_rate", episodes)
        for index, name in enumerate(self.heldout.names):
            of_set = Episodes(*(each[number == index] for each in episodes))
            results |= success_rate(f"heldout_{name}_success_rate", of_set)
        return results | {"heldout_levels": float(len(number))}

    def _level_metrics(self, judge: Judge, allowance: Allowance) -> dict[str, float]:
        """How good generated levels are; reference levels are played in turn with them."""
        env, n = self.envs.example, self.generated
        box = UnitBox.of(env.level_space).to(env.device)
        seed = self._stream_seed("levels")
        noise = judge.draw_noise(n, random_stream(seed, "generated", device=env.device))
        generated = distributed.from_first(judge.generate_levels(noise))
        reference = env.reference_levels(n, random_stream(seed, "reference", device=env.device))
        valid = env.valid(generated)
        results = {
            "levels_valid_rate": measure(MeanMetric, valid.float()),
            "levels_unique_rate": measure(
                UniqueRate, box.to_unit(generated), box.to_unit(reference)
            ),
        }
        if valid.any():
            results |= self._path_lengths(generated[valid])
        success = self._attempts(judge, torch.stack([generated, reference], dim=1), allowance)
        if success is None:
            return results
        for name, each in zip(("levels", "reference"), success.unbind(dim=1), strict=True):
            results[f"{name}_frontier_rate"] = measure(FrontierHitRate, each)
            results[f"{name}_learnability"] = measure(Learnability, each)
        results["levels_measured"] = float(len(success))
        played = valid[: len(success)]
        if played.any():
            p = distributed.from_first(judge.success_probability(generated[: len(played)][played]))
            results |= calibration(p, success[:, 0][played])
        return results

    def _attempts(self, judge: Judge, levels: Tensor, allowance: Allowance) -> Tensor | None:
        """Play levels of two kinds in turn, a few times each with a little exploration.

        Args:
            judge: Who plays.
            levels: Pairs of levels, ``[n, 2, d]``; invalid ones are not played and not solved.
            allowance: Env steps of the whole evaluation.

        Returns:
            Success ``[m, 2, EPISODES_PER_LEVEL]`` at the first pairs, as far as the allowance goes;
            None where success is unknown, or there was no room for a pair.
        """
        both = levels.flatten(0, 1)
        valid = self.envs.example.valid(both)
        repeated = both[valid].repeat_interleave(EPISODES_PER_LEVEL, dim=0)
        plan = self._plan("attempts at levels", judge, repeated, FRONTIER_EPSILON)
        episodes = self._play(self.envs.own, plan, allowance, size=EPISODES_PER_LEVEL)
        if not episodes.known.all():
            return None
        outcomes = episodes.success.float().view(-1, EPISODES_PER_LEVEL)
        success = outcomes.new_zeros(len(both), EPISODES_PER_LEVEL)
        places = valid.nonzero().flatten()
        success[places[: len(outcomes)]] = outcomes
        missing = places[len(outcomes) :].tolist()
        pairs = missing[0] // 2 if missing else len(levels)
        return success.view(-1, 2, EPISODES_PER_LEVEL)[:pairs] if pairs else None

    def _path_lengths(self, levels: Tensor) -> dict[str, float]:
        """Quantiles of the fewest steps to the goal, where the environment knows them."""
        optimal_steps = getattr(self.envs.example, "optimal_steps", None)
        if optimal_steps is None:
            return {}
        metric = PathLengthQuantiles(sync_on_compute=False)
        metric.update(optimal_steps(levels))
        return {f"levels_path_length_{name}": float(v) for name, v in metric.compute().items()}


def greedy(judge: Judge) -> Callable[[Tensor], Tensor]:
    """The policy that is evaluated: observations ``[n, ...]`` to actions ``[n]``."""
    return lambda obs: judge.action_values(obs).argmax(dim=1)


def of_all_processes(episodes: Episodes) -> Episodes:
    """The episodes of all processes, in order of rank: in all the same, bit for bit."""
    rows = distributed.gather_rows(torch.stack([each.float() for each in episodes], dim=1))
    returns, lengths, *flags = rows.unbind(dim=1)
    return Episodes(returns, lengths, *(flag.bool() for flag in flags))


class HeldOut(NamedTuple):
    """Held-out levels of all sets, in an order of which every beginning is spread evenly.

    Attributes:
        levels: The levels ``[m, d]``.
        number: The number of each one's set ``[m]``.
        names: The names of the sets.
    """

    levels: Tensor
    number: Tensor
    names: tuple[str, ...]

    @staticmethod
    def of(env: LevelEnv, for_test: bool) -> "HeldOut":
        """Validation's part of an environment's held-out levels, or the test's: all others."""
        sets = env.heldout()
        parts, numbers = [torch.zeros(0, 0, device=env.device)] if not sets else [], []
        for number, levels in enumerate(sets.values()):
            order, validated = evenly(len(levels)), len(levels) // HELDOUT_PER_VALIDATED
            mine = order[validated:] if for_test else order[:validated]
            parts.append(levels[mine.sort().values.to(levels.device)])
            numbers += [number] * len(mine)
        order = evenly(len(numbers)).to(env.device)
        pooled = torch.cat(parts)[order]
        return HeldOut(pooled, torch.tensor(numbers, device=env.device)[order], tuple(sets))


def success_rate(name: str, episodes: Episodes) -> dict[str, float]:
    """The share of episodes that were solved, of those of which it is known, if there are any."""
    known = int(episodes.known.sum())
    return {name: float(episodes.success.sum()) / known} if known else {}


def calibration(p: Tensor, success: Tensor) -> dict[str, float]:
    """How well p̂ of levels ``[n]`` foretells their episodes ``[n, k]``; AUC only if some differ."""
    predicted = p[:, None].expand_as(success)
    results = {
        "levels_success_rate": measure(MeanMetric, success),
        "p_hat_brier": measure(BrierScore, predicted, success),
    }
    if success.any() and not success.all():
        results["p_hat_auc"] = measure(BinaryAUROC, predicted.flatten(), success.flatten().long())
    return results
