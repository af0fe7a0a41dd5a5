"""What a validation measures: target episodes, held-out levels, generated levels.

All processes of a run share an evaluation. Each plays a part of the episodes, and all of them get
all results, so that they agree on what to play next and report the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from lit_crl.core import distributed
from lit_crl.core.global_streams import global_streams_kept
from lit_crl.core.levels import UnitBox
from lit_crl.core.seeding import random_stream, stream_seed
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.envs import LevelEnv
from lit_crl.envs.episodes import Act, Episodes, Remembering
from lit_crl.evaluation.allowance import Allowance, evenly, longest_episode
from lit_crl.evaluation.level_metrics import (
    BrierScore,
    FrontierHitRate,
    Learnability,
    PathLengthQuantiles,
    StartGoalPairs,
    UniqueRate,
    measure,
)
from lit_crl.evaluation.pool import EvaluationEnvs, Plan, Pool

#: Episodes at each level whose success probability is measured, and how much they explore: without
#: exploration a deterministic task would give the same outcome every time.
EPISODES_PER_LEVEL = 4
FRONTIER_EPSILON = 0.05
#: One in this many held-out levels is for validation, and the others are for the test.
HELDOUT_PER_VALIDATED = 4


class Played(NamedTuple):
    """Target episodes that were played."""

    #: Where those began that this process played first and together, ``[n, ...]``; None: nowhere.
    first_obs: Tensor | None
    #: Env steps after which an episode was cut off, if it had not ended.
    limit: int
    #: Mean of their returns.
    mean_return: float


class Player(Protocol):
    """What evaluation asks of who plays episodes."""

    #: Numbers that it remembers of an episode; 0: it has no memory.
    memory_size: int

    def action_values(self, obs: Tensor) -> Tensor:
        """Q of the network that is evaluated (the Polyak average), ``[N, A]``."""

    def remembering_values(self, obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The same with a memory ``[N, H]`` of each episode, and the memory after ``obs``."""


class Learner(Player, Protocol):
    """What evaluation asks of the learner."""

    #: Times the parts of the work.
    clock: Stopwatch

    def draw_noise(self, n: int, rng: torch.Generator) -> Tensor:
        """Noise for ``n`` levels."""

    def generate_levels(self, z: Tensor) -> Tensor:
        """The levels of noise ``z``."""

    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ of levels."""


#: Plays one part of an evaluation within the allowance, and returns its metrics.
Part = Callable[[Learner, Allowance], dict[str, float]]
#: Measures more of a learner, once its target episodes were played; None: nobody can play them.
More = Callable[[Learner, Played | None], dict[str, float]]


@dataclass
class Evaluation:
    """A validation: all validations of a run play the same episodes, as far as the allowance goes.

    Nothing here touches the training environments or any random stream of training. So evaluating
    more often, or never, gives the same trained weights, bit for bit.

    Args:
        envs: The environments that are played in.
        episodes: Episodes on target levels.
        generated: Generated levels that are examined; 0: none.
        env_steps: Most env steps that the whole evaluation may take.
        seed: Seed of evaluation's random streams, which training does not use.
        more: Measures more than episodes; None: nothing does.
    """

    #: Validation and test have different random streams and held-out levels.
    KIND: ClassVar[Literal["validation", "test"]] = "validation"

    envs: EvaluationEnvs
    episodes: int
    generated: int
    env_steps: int
    seed: int
    more: More | None = None

    def __post_init__(self) -> None:
        """Choose the held-out levels."""
        self.heldout = HeldOut.of(self.envs.example, for_test=self.KIND == "test")

    def run(self, learner: Learner, has_gan: bool) -> dict[str, float]:
        """Metrics of the present policy, and of the present generator if there is one."""
        parts = self._parts(has_gan)
        allowance = Allowance(self.env_steps, len(parts))
        results: dict[str, float] = {}
        with global_streams_kept():
            for part in parts:
                results |= part(learner, allowance)
                if "target_success_rate" not in results:  # success is unknown in this environment
                    allowance.forgo_rest()
            if self.more is not None:
                results |= self.more(learner, self.played)
        return results | {
            "evaluation_env_steps": float(allowance.spent),
            "evaluation_cut_off": float(allowance.cut_off),
        }

    def _parts(self, has_gan: bool) -> list[Part]:
        parts: list[Part] = [self._target_metrics]
        if len(self.heldout.levels):
            parts.append(self._heldout_metrics)
        # Visited states are levels only in the run that has visited them.
        if has_gan and self.generated and getattr(self.envs.example, "has_levels", True):
            parts.append(self._level_metrics)
        return parts

    def _stream_seed(self, purpose: str) -> int:
        """The seed of a random stream; validation and test have different ones."""
        return stream_seed(self.seed, f"{purpose} of the {self.KIND}")

    def _plan(self, purpose: str, learner: Learner, levels: Tensor, epsilon: float = 0.0) -> Plan:
        """An episode at each level ``[n, d]`` in the training task."""
        seed = self._stream_seed(purpose) % 2**31
        act = greedy(learner, self.envs.example.device)
        return Plan(act, len(levels), seed, levels, epsilon)

    def _play(self, pool: Pool, plan: Plan, allowance: Allowance, size: int = 1) -> Episodes:
        """Play as many episodes of a plan as the next part of the allowance has room for.

        An episode is started only if the longest possible episode fits. So the first round plays
        as many as fit for certain; the next one does the same with the env steps that are left.

        Args:
            pool: The environments that are played in.
            plan: The episodes, of which the first ones are played.
            allowance: Env steps of the whole evaluation.
            size: Episodes in a group; either all episodes of a group are played or none.
        """
        env_steps, wanted = allowance.next_part(), plan.count // size
        limit = self.envs.example.max_episode_steps
        longest = self._longest = longest_episode(limit, wanted, size, env_steps)
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

    def _target_metrics(self, learner: Player, allowance: Allowance) -> dict[str, float]:
        """Return and success from the task's own resets."""
        env, levels = self.envs.example, None
        if self.envs.target is self.envs.training and env.level_space is not None:
            rng = random_stream(self._stream_seed("target levels"), "levels", device=env.device)
            levels = env.target_levels(self.episodes, rng)
        seed = self._stream_seed("target episodes") % 2**31
        act, first_obs = noting_the_first(greedy(learner, env.device))
        plan = Plan(act, self.episodes, seed, levels, success=self.envs.success)
        episodes = self._play(self.envs.target, plan, allowance)
        mean_return = episodes.returns.mean().item()
        self.played = Played(first_obs[0] if first_obs else None, self._longest, mean_return)
        results = {
            "target_return_mean": mean_return,
            "target_return_std": episodes.returns.std(correction=0).item(),
            "target_episodes": float(len(episodes.returns)),
            "target_cut_off": float(episodes.cut_off.sum()),
        } | success_rate("target_success_rate", episodes)
        # The literature may report another return than the one that the policy learns from.
        if hasattr(env, "benchmark_return"):
            reported = env.benchmark_return(episodes.success, episodes.lengths)
            results["target_benchmark_return_mean"] = reported.mean().item()
        return results

    def _heldout_metrics(self, learner: Learner, allowance: Allowance) -> dict[str, float]:
        """Success at held-out levels, each played once: of every set, and of all levels."""
        plan = self._plan("held-out episodes", learner, self.heldout.levels)
        episodes = self._play(self.envs.training, plan, allowance)
        sets = self.heldout.set_index[: len(episodes.returns)]
        results = success_rate("heldout_success_rate", episodes)
        for index, name in enumerate(self.heldout.names):
            of_set = Episodes(*(field[sets == index] for field in episodes))
            results |= success_rate(f"heldout_{name}_success_rate", of_set)
        return results | {"heldout_levels": float(len(sets))}

    def _level_metrics(self, learner: Learner, allowance: Allowance) -> dict[str, float]:
        """How good generated levels are; reference levels are played alternately with them."""
        env, n = self.envs.example, self.generated
        box = UnitBox.of(env.level_space).to(env.device)
        seed = self._stream_seed("levels")
        noise = learner.draw_noise(n, random_stream(seed, "generated", device=env.device))
        generated = distributed.from_first(learner.generate_levels(noise))
        reference = env.reference_levels(n, random_stream(seed, "reference", device=env.device))
        valid = env.valid(generated)
        results = {
            "levels_valid_rate": measure(MeanMetric, valid.float()),
            "levels_unique_rate": measure(
                UniqueRate, box.to_unit(generated), box.to_unit(reference)
            ),
        }
        if hasattr(env, "optimal_steps") and valid.any():
            lengths = PathLengthQuantiles(sync_on_compute=False)
            lengths.update(env.optimal_steps(generated[valid]))
            quantiles = lengths.compute().items()
            results |= {f"levels_path_length_{name}": float(value) for name, value in quantiles}
        if (shape := getattr(env, "level_shape", None)) is not None:
            pairs = measure(StartGoalPairs, generated.view(-1, *shape))
            results["levels_start_goal_pairs"] = pairs
        success = self._attempts(learner, torch.stack([generated, reference], dim=1), allowance)
        if success is None:
            return results
        for name, each in zip(("levels", "reference"), success.unbind(dim=1), strict=True):
            results[f"{name}_frontier_rate"] = measure(FrontierHitRate, each)
            results[f"{name}_learnability"] = measure(Learnability, each)
        results["levels_measured"] = float(len(success))
        played = valid[: len(success)]
        if played.any():
            p = learner.success_probability(generated[: len(played)][played])
            results |= calibration(distributed.from_first(p), success[:, 0][played])
        return results

    def _attempts(self, learner: Learner, levels: Tensor, allowance: Allowance) -> Tensor | None:
        """Play levels of two kinds alternately, several times each with a little exploration.

        Args:
            learner: Who plays.
            levels: Pairs of levels, ``[n, 2, d]``; an invalid level is not played, and counts as
                not solved.
            allowance: Env steps of the whole evaluation.

        Returns:
            Success ``[m, 2, EPISODES_PER_LEVEL]`` at the first pairs, as far as the allowance goes;
            None if success is unknown, or there was no room for a pair.
        """
        both = levels.flatten(0, 1)
        valid = self.envs.example.valid(both)
        repeated = both[valid].repeat_interleave(EPISODES_PER_LEVEL, dim=0)
        plan = self._plan("attempts at levels", learner, repeated, FRONTIER_EPSILON)
        episodes = self._play(self.envs.training, plan, allowance, size=EPISODES_PER_LEVEL)
        if not episodes.known.all():
            return None
        outcomes = episodes.success.float().view(-1, EPISODES_PER_LEVEL)
        success = outcomes.new_zeros(len(both), EPISODES_PER_LEVEL)
        places = valid.nonzero().flatten()
        success[places[: len(outcomes)]] = outcomes
        missing = places[len(outcomes) :].tolist()
        pairs = missing[0] // 2 if missing else len(levels)
        return success.view(-1, 2, EPISODES_PER_LEVEL)[:pairs] if pairs else None


def greedy(learner: Player, device: torch.device) -> Act | Remembering:
    """The policy that is evaluated: observations ``[n, ...]`` to actions ``[n]``.

    Args:
        learner: Values actions.
        device: Where the memory of episodes is kept, if the learner has one.
    """
    if not learner.memory_size:
        return lambda obs: learner.action_values(obs).argmax(dim=1)

    def act(obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        values, memory = learner.remembering_values(obs, memory)
        return values.argmax(dim=1), memory

    return Remembering(lambda n: torch.zeros(n, learner.memory_size, device=device), act)


def noting_the_first(act: Act | Remembering) -> tuple[Act | Remembering, list[Tensor]]:
    """A policy that acts alike, and a list of the observations that it is asked about first."""
    asked: list[Tensor] = []
    of_episodes = act.act if isinstance(act, Remembering) else act

    def noting(obs: Tensor, *memory: Tensor) -> Any:
        if not asked:
            asked.append(obs.clone())
        return of_episodes(obs, *memory)

    return Remembering(act.begin, noting) if isinstance(act, Remembering) else noting, asked


def of_all_processes(episodes: Episodes) -> Episodes:
    """The episodes of all processes in order of rank; every process gets the same bits."""
    rows = distributed.gather_rows(torch.stack([field.float() for field in episodes], dim=1))
    returns, lengths, *flags = rows.unbind(dim=1)
    return Episodes(returns, lengths, *(flag.bool() for flag in flags))


class HeldOut(NamedTuple):
    """Held-out levels of all sets, ordered so that the first k of them are spread evenly.

    Attributes:
        levels: The levels ``[m, d]``.
        set_index: The index in ``names`` of each level's set, ``[m]``.
        names: The names of the sets.
    """

    levels: Tensor
    set_index: Tensor
    names: tuple[str, ...]

    @staticmethod
    def of(env: LevelEnv, for_test: bool) -> "HeldOut":
        """Validation's part of an environment's held-out levels, or the test's: all others."""
        sets = env.heldout()
        parts, indices = [torch.zeros(0, 0, device=env.device)] if not sets else [], []
        for index, levels in enumerate(sets.values()):
            order, validated = evenly(len(levels)), len(levels) // HELDOUT_PER_VALIDATED
            chosen = order[validated:] if for_test else order[:validated]
            parts.append(levels[chosen.sort().values.to(levels.device)])
            indices += [index] * len(chosen)
        order = evenly(len(indices)).to(env.device)
        pooled = torch.cat(parts)[order]
        return HeldOut(pooled, torch.tensor(indices, device=env.device)[order], tuple(sets))


def success_rate(name: str, episodes: Episodes) -> dict[str, float]:
    """The share of solved episodes among those whose success is known; empty if there are none."""
    known = int(episodes.known.sum())
    return {name: float(episodes.success.sum()) / known} if known else {}


def calibration(p: Tensor, success: Tensor) -> dict[str, float]:
    """How well p̂ of levels ``[n]`` predicts their episodes ``[n, k]``; AUC only if some differ.

    >>> calibration(torch.tensor([0.5]), torch.tensor([[1.0, 0.0]]))
    {'levels_success_rate': 0.5, 'p_hat_brier': 0.25, 'p_hat_auc': 0.5}
    """
    predicted = p[:, None].expand_as(success)
    results = {
        "levels_success_rate": measure(MeanMetric, success),
        "p_hat_brier": measure(BrierScore, predicted, success),
    }
    if success.any() and not success.all():
        results["p_hat_auc"] = measure(BinaryAUROC, predicted.flatten(), success.flatten().long())
    return results
