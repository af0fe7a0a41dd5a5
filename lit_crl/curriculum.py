"""The curriculum: which levels the environments are reset to.

An *arm* is a set of level sources in the order target < reference < archive < gan. It uses the
mix's shares of the sources before its own, and gives the rest to its own. So one mix serves all
arms: with 25 % each, ``archive`` is 25 % target, 25 % reference and 50 % archive.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from lit_crl.archive import Archive, frontier_weight, novelty
from lit_crl.batches import GanBatch
from lit_crl.checks import ConfigError
from lit_crl.envs import LevelEnv
from lit_crl.gan import learnability
from lit_crl.levels import UnitBox

Source = Literal["target", "reference", "archive", "gan"]
#: Every arm is named after the source that it adds to those before it.
Arm = Source
SOURCES: tuple[Source, ...] = get_args(Source)
#: Equal shares: enough of the user's own task, enough breadth, enough frontier.
EQUAL_MIX: Mapping[str, float] = dict.fromkeys(SOURCES, 0.25)

#: What the GAN takes for real, see ``Curriculum.reals``.
Reals = Literal["frontier", "labelled", "visited"]


class Teacher(Protocol):
    """What the curriculum asks of the GAN; levels are in the environment's units."""

    def generate_levels(self, n: int) -> Tensor:
        """New levels, ``[n, d]``."""

    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ of levels, ``[n, d] -> [n]``."""


def arm_shares(arm: Arm, mix: Mapping[str, float]) -> dict[Source, float]:
    """The share of resets that each source gets under an arm.

    Raises:
        ConfigError: If the mix names an unknown source, has a negative share, or does not sum to 1.
    """
    unknown = set(mix) - set(SOURCES)
    if unknown:
        raise ConfigError(f"data.mix has no source {sorted(unknown)}: use {', '.join(SOURCES)}")
    if any(not share >= 0 for share in mix.values()):
        raise ConfigError(f"data.mix must have shares ≥ 0, got {dict(mix)}")
    if not math.isclose(sum(mix.values()), 1, abs_tol=1e-6):
        raise ConfigError(f"data.mix must sum to 1, got {sum(mix.values()):g}: {dict(mix)}")
    before = SOURCES[: SOURCES.index(arm)]
    shares: dict[Source, float] = {source: mix.get(source, 0.0) for source in before}
    shares[arm] = 1 - sum(shares.values())
    return shares


def unique_rate(unit_levels: Tensor, tolerance: float = 0.01) -> float:
    """Share of distinct levels ``[n, d]`` on a grid of ``tolerance`` times the level space."""
    cells = (unit_levels / (2 * tolerance)).round()
    return len(torch.unique(cells, dim=0)) / max(len(cells), 1)


def on_frontier(p: Tensor) -> Tensor:
    """Which levels the policy solves sometimes: 0.1 < p < 0.9, Florensa et al. 2018, §4.1."""
    return (p > 0.1) & (p < 0.9)


def choose_proposals(valid: Tensor, p: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Which of a generator's candidates to play: at most ``n`` valid ones, near the frontier.

    They are drawn without replacement with weight (4 p̂ (1 − p̂) + 0.01)², so that there are
    proposals even while no candidate has a p̂ between 0.1 and 0.9.

    Args:
        valid: Which candidates can be played, ``[m]``.
        p: Their p̂, ``[m]``.
        n: How many to choose at most.
        rng: Random stream.

    Returns:
        Their indices.
    """
    keep = min(n, int(valid.sum()))
    if keep == 0:
        return torch.empty(0, dtype=torch.long, device=p.device)
    weight = (learnability(p) + 0.01).square() * valid
    return torch.multinomial(weight, keep, replacement=False, generator=rng)


@dataclass
class ProposalCounts:
    """What became of the levels that the generator made, over the whole run."""

    candidates: int = 0
    valid: int = 0
    frontier: int = 0
    unique: float = 0.0
    played: int = 0

    def rates(self) -> dict[str, float]:
        """As metrics: how many were made, which share was any good, how many were played."""
        made = max(self.candidates, 1)
        return {
            "curriculum/generated": self.candidates,
            "curriculum/generated_valid_rate": self.valid / made,
            "curriculum/generated_predicted_frontier_rate": self.frontier / made,
            "curriculum/generated_unique_rate": self.unique / made,
            "curriculum/generated_played": self.played,
        }


class Curriculum:
    """Draws the levels of an arm, and the reals of the GAN, from the four sources.

    Levels are drawn a few hundred at a time into a queue, and the queue is thrown away when a
    new cycle begins, so that no reset waits for a network and no level is staler than a cycle.
    """

    def __init__(
        self,
        env: LevelEnv,
        archive: Archive,
        shares: Mapping[Source, float],
        *,
        novelty_exponent: float,
        min_outcomes: int,
        rng: torch.Generator,
        queue: int = 256,
        candidates: int = 1_024,
    ) -> None:
        """Prepare the sources of ``env``.

        Args:
            env: The environment, which knows its target and reference levels.
            archive: Levels met so far.
            shares: Share of resets that each source gets.
            novelty_exponent: How much novelty counts in the frontier weight.
            min_outcomes: Outcomes needed before p̂, and so the generator, is trusted; until
                then its share goes to the archive.
            rng: Random stream.
            queue: Levels drawn at a time.
            candidates: Levels among which the archive and the generator choose.
        """
        self.env = env
        self.archive = archive
        self.shares = dict(shares)
        self.novelty_exponent = novelty_exponent
        self.min_outcomes = min_outcomes
        self.rng = rng
        self.candidates = candidates
        self.box = UnitBox.of(env.level_space).to(archive.tried.levels.device)
        self.counts = ProposalCounts()
        self._queue_size = queue
        self._levels = archive.tried.levels[:0]
        self._source = torch.empty(0, dtype=torch.long, device=self._levels.device)

    def ready(self, kind: Reals = "frontier") -> bool:
        """Whether enough outcomes, and reals of that kind, are known for the GAN to learn from."""
        enough = len(self.archive.tried) >= self.min_outcomes
        return enough and (kind != "visited" or len(self.archive.visited) > 0)

    def new_cycle(self) -> None:
        """Forget the queued levels: the policy and the generator have moved on."""
        self._levels, self._source = self._levels[:0], self._source[:0]

    def draw(self, n: int, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """The next ``n`` levels ``[n, d]`` and the index of each one's source ``[n]``."""
        while len(self._levels) < n:
            levels, source = self._fill(teacher)
            self._levels = torch.cat([self._levels, levels])
            self._source = torch.cat([self._source, source])
        levels, self._levels = self._levels[:n], self._levels[n:]
        source, self._source = self._source[:n], self._source[n:]
        self.counts.played += int((source == SOURCES.index("gan")).sum())
        return levels, source

    def _fill(self, teacher: Teacher) -> tuple[Tensor, Tensor]:
        n = self._queue_size
        shares = [self.shares.get(source, 0.0) for source in SOURCES]
        proposals = self._levels[:0]
        if shares[3] and self.ready():
            proposals = self._propose(teacher, n)
        if not len(proposals):
            shares[2], shares[3] = shares[2] + shares[3], 0.0
        if shares[2] and not len(self.archive):
            shares[1], shares[2] = shares[1] + shares[2], 0.0
        source = torch.multinomial(
            torch.tensor(shares, device=self._levels.device),
            n,
            replacement=True,
            generator=self.rng,
        )
        drawn = torch.stack(
            [
                self.env.target_levels(n, self.rng) if shares[0] else self._blank(n),
                self.env.reference_levels(n, self.rng) if shares[1] else self._blank(n),
                self.frontier(n, teacher) if shares[2] else self._blank(n),
                proposals[torch.arange(n) % len(proposals)] if shares[3] else self._blank(n),
            ]
        )
        return drawn[source, torch.arange(n, device=source.device)], source

    def _blank(self, n: int) -> Tensor:
        return torch.zeros(n, self.box.dim, device=self._levels.device)

    def _propose(self, teacher: Teacher, n: int) -> Tensor:
        candidates = teacher.generate_levels(self.candidates)
        valid = self.env.valid(candidates)
        p = teacher.success_probability(candidates)
        self.counts.candidates += len(candidates)
        self.counts.valid += int(valid.sum())
        self.counts.frontier += int((valid & on_frontier(p)).sum())
        self.counts.unique += len(candidates) * unique_rate(self.box.to_unit(candidates))
        return candidates[choose_proposals(valid, p, n, self.rng)]

    def frontier(self, n: int, teacher: Teacher) -> Tensor:
        """``n`` archive levels drawn by frontier weight, with replacement, ``[n, d]``."""
        candidates = self.archive.candidates(self.candidates, self.rng)
        weight = frontier_weight(
            teacher.success_probability(candidates),
            novelty(self.box.to_unit(candidates)),
            self.novelty_exponent,
        )
        return candidates[torch.multinomial(weight, n, replacement=True, generator=self.rng)]

    def reals(
        self, kind: Reals, n: int, reference_share: float, teacher: Teacher
    ) -> tuple[Tensor, Tensor]:
        """``n`` real levels for the GAN, shuffled, and whether each is a positive one.

        Args:
            kind: ``frontier``: archive levels by frontier weight; ``labelled``: archive levels
                uniformly, labelled by whether their p̂ is on the frontier; ``visited``: visited
                states uniformly.
            n: How many.
            reference_share: Share of reference levels among them, which keeps a generator that
                trains on its own doings from losing diversity.
            teacher: Judges the levels.

        Returns:
            Levels ``[n, d]`` and labels ``[n]``.
        """
        num_reference = round(reference_share * n)
        num_archive = n - num_reference
        if num_archive == 0:
            archived = self._blank(0)
        elif kind == "frontier":
            archived = self.frontier(num_archive, teacher)
        elif kind == "labelled":
            archived = self.archive.candidates(num_archive, self.rng)
        else:
            archived, _ = self.archive.visited.draw(num_archive, self.rng)
        levels = torch.cat([archived, self.env.reference_levels(num_reference, self.rng)])
        levels = levels[torch.randperm(n, generator=self.rng, device=levels.device)]
        if kind == "labelled":
            return levels, on_frontier(teacher.success_probability(levels)).float()
        return levels, torch.ones(n, device=levels.device)

    def gan_batch(
        self,
        shape: tuple[int, int],
        kind: Reals,
        reference_share: float,
        teacher: Teacher,
        rng: torch.Generator,
    ) -> GanBatch:
        """Reals, and outcomes drawn with ``rng``, for G updates on B levels, ``shape = (G, B)``."""
        n = shape[0] * shape[1]
        real, label = self.reals(kind, n, reference_share, teacher)
        level, success = self.archive.draw_outcomes(n, rng)
        fields = (real, label, level, success)
        return GanBatch(*(field.view(*shape, *field.shape[1:]) for field in fields))

    def state_dict(self) -> dict[str, Any]:
        """The queue, the counts and the random stream."""
        return {
            "levels": self._levels,
            "source": self._source,
            "counts": vars(self.counts).copy(),
            "rng": self.rng.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._levels, self._source = state["levels"], state["source"]
        self.counts = ProposalCounts(**state["counts"])
        self.rng.set_state(state["rng"].cpu())
