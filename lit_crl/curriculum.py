"""The curriculum: which levels the environments are reset to, from the sources of an arm."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, cast

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from lit_crl.archive import Archive, frontier_weight, novelty
from lit_crl.arms import SOURCES, Finished, OwnSource, Recorder, Source, Stateful, arm_name
from lit_crl.batches import GanBatch
from lit_crl.checks import ConfigError
from lit_crl.envs import LevelEnv
from lit_crl.levels import UnitBox
from lit_crl.proposals import (
    NEIGHBOURS,
    ProposalCounts,
    Proposals,
    choose_proposals,
    on_frontier,
    projected,
    proposal_weight,
    realistic,
    unique_rate,
)

#: What the GAN takes for real, see ``Curriculum.reals``.
Reals = Literal["frontier", "labelled", "visited"]


class Teacher(Protocol):
    """What the curriculum asks of the GAN; levels are in the environment's units."""

    def generate_levels(self, n: int, difficulty: float | None = None) -> Tensor:
        """New levels, ``[n, d]``, of p̂ near ``difficulty`` if that is given."""

    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ of levels, ``[n, d] -> [n]``."""

    def realness(self, levels: Tensor) -> Tensor:
        """The discriminator's logits of levels, ``[n, d] -> [n]``."""

    def action_values(self, obs: Tensor) -> Tensor:
        """Q of the policy that is evaluated, ``[n, ...] -> [n, A]``."""


class Curriculum:
    """Draws the levels of an arm, and the reals of the GAN, from its sources.

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
        proposals: Proposals = "frontier",
        own: OwnSource | None = None,
        make_env: Callable[[int, torch.device], Any] | None = None,
        steps_left: Callable[[], int] | None = None,
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
            proposals: Which valid generated levels are played: near the ``frontier`` rather
                than others; of these only ``realistic`` ones; in place of each the nearest visited
                state (``projected``); or all ``valid`` ones alike.
            own: The source ``own``, of arms that have one.
            make_env: Makes further environments like ``env``, for sources that try levels.
            steps_left: How many env steps these may take.
            queue: Levels drawn at a time.
            candidates: Levels among which the archive and the generator choose.
        """
        self.env = env
        self.archive = archive
        self.shares = dict(shares)
        self.novelty_exponent = novelty_exponent
        self.min_outcomes = min_outcomes
        self.rng = rng
        self.proposals, self.own = proposals, own
        self._make_env, self._steps_left = make_env, steps_left
        #: Cycles so far, and env steps that sources took beside the training episodes'.
        self.cycles = self.charged_steps = 0
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
        self.cycles += 1
        self._levels, self._source = self._levels[:0], self._source[:0]

    def make_env(self, num_envs: int, device: torch.device) -> Any:
        """Further environments like the one that is trained in."""
        assert self._make_env is not None
        return self._make_env(num_envs, device)

    def can_afford(self, env_steps: int) -> bool:
        """Whether the run's budget still has so many env steps."""
        return self._steps_left is None or env_steps <= self._steps_left()

    @property
    def record(self) -> Callable[[Finished], None] | None:
        """What wants to know of finished episodes, if anything does."""
        return self.own.record if isinstance(self.own, Recorder) else None

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
        if shares[3] and self.ready("visited" if self.proposals == "projected" else "frontier"):
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
                self._own(n, teacher) if shares[4] else self._blank(n),
            ]
        )
        return drawn[source, torch.arange(n, device=source.device)], source

    def _blank(self, n: int) -> Tensor:
        return torch.zeros(n, self.box.dim, device=self._levels.device)

    def _own(self, n: int, teacher: Teacher) -> Tensor:
        assert self.own is not None
        levels = self.own(n, self, teacher)
        name, shape = arm_name(cast(Any, self.own)), getattr(levels, "shape", type(levels).__name__)
        if shape != (n, self.box.dim):
            raise ConfigError(
                f"data.arm: {name} was asked for levels of shape {(n, self.box.dim)}, but gave "
                f"{tuple(shape) if isinstance(levels, Tensor) else shape}"
            )
        if not self.env.valid(levels).all() and self._can_sample():
            raise ConfigError(
                f"data.arm: {name} gave levels at which no episode can start: return only levels "
                "for which curriculum.env.valid(levels) is true"
            )
        return cast(Tensor, levels)

    def _can_sample(self) -> bool:
        """Whether reference levels are valid, and so can be expected of an own source."""
        levels = self.env.reference_levels(self._queue_size, self.rng)
        return bool(self.env.valid(levels).all())

    def _propose(self, teacher: Teacher, n: int) -> Tensor:
        candidates = teacher.generate_levels(self.candidates)
        valid = self.env.valid(candidates)
        self.counts.valid += int(valid.sum())
        if self.proposals == "projected":
            known, _ = self.archive.visited.draw(NEIGHBOURS, self.rng)
            candidates = known[projected(self.box.to_unit(candidates), self.box.to_unit(known))]
            valid = self.env.valid(candidates)
        p = teacher.success_probability(candidates)
        if self.proposals == "realistic":
            real = teacher.realness(self.frontier(n, teacher))
            valid &= realistic(teacher.realness(candidates), real)
        self.counts.candidates += len(candidates)
        self.counts.frontier += int((valid & on_frontier(p)).sum())
        self.counts.unique += len(candidates) * unique_rate(self.box.to_unit(candidates))
        return candidates[choose_proposals(valid, proposal_weight(self.proposals, p), n, self.rng)]

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
                trains on its own doings from losing diversity; the invalid ones make room.
            teacher: Judges the levels.

        Returns:
            Levels ``[n, d]`` and labels ``[n]``.
        """
        num_reference = round(reference_share * n)
        archived = self._archived(kind, n - num_reference, teacher)
        reference = self.env.reference_levels(num_reference, self.rng)
        reference = reference[self.env.valid(reference)]
        missing = self._archived(kind, num_reference - len(reference), teacher)
        levels = torch.cat([archived, missing, reference])
        levels = levels[torch.randperm(n, generator=self.rng, device=levels.device)]
        if kind == "labelled":
            return levels, on_frontier(teacher.success_probability(levels)).float()
        return levels, torch.ones(n, device=levels.device)

    def _archived(self, kind: Reals, n: int, teacher: Teacher) -> Tensor:
        """``n`` archive levels that are real in that way, ``[n, d]``."""
        if n == 0:
            return self._blank(0)
        if kind == "frontier":
            return self.frontier(n, teacher)
        if kind == "labelled":
            return self.archive.candidates(n, self.rng)
        return self.archive.visited.draw(n, self.rng)[0]

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
        """The queue, the counts, the random stream, and the own source's."""
        return {
            "levels": self._levels,
            "source": self._source,
            "counts": vars(self.counts).copy(),
            "rng": self.rng.get_state(),
            "cycles": self.cycles,
            "charged_steps": self.charged_steps,
            "own": self.own.state_dict() if isinstance(self.own, Stateful) else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        device = self._levels.device  # files are read to the CPU
        self._levels, self._source = state["levels"].to(device), state["source"].to(device)
        self.counts = ProposalCounts(**state["counts"])
        self.rng.set_state(state["rng"].cpu())
        self.cycles, self.charged_steps = state["cycles"], state["charged_steps"]
        if isinstance(self.own, Stateful):
            self.own.load_state_dict(move_data_to_device(state["own"], device))
