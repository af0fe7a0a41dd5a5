"""The curriculum: which levels the environments are reset to, from the sources of an arm."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.levels import UnitBox
from lit_crl.curriculum.archive import (
    KNOWN,
    Archive,
    frontier_weight,
    novelty,
)
from lit_crl.curriculum.arms import arm_name
from lit_crl.curriculum.proposals import (
    COMPARED,
    NEIGHBOURS,
    ProposalCounts,
    Proposals,
    choose_proposals,
    on_frontier,
    projected,
    proposal_weight,
    realistic,
    spacing,
    unique_rate,
)
from lit_crl.curriculum.sources import (
    SOURCES,
    Finished,
    OwnSource,
    Recorder,
    Source,
    Stateful,
    Teacher,
)
from lit_crl.envs import LevelEnv
from lit_crl.gan.batch import GanBatch

#: What the GAN takes for real, see ``Curriculum.reals``.
Reals = Literal["frontier", "labelled", "visited"]


#: Archive levels among which each one is chosen, at least.
CHOICE = 4
#: Of so many levels one is drawn without replacement, and then all can be drawn again: where fewer
#: than that have weight, the others would have to make up the number.
AT_ONCE = 32


class NotLearnedYet(Exception):
    """A source asked for what the GAN does not know before its first update."""


class Beginner:
    """The teacher before the GAN's first update: it knows action values, and nothing of levels."""

    def __init__(self, teacher: Teacher) -> None:
        """Pass on what ``teacher`` knows already."""
        self.updates, self.gan_updates = teacher.updates, 0
        self.action_values = teacher.action_values

    def generate_levels(self, n: int, difficulty: float | None = None) -> Tensor:
        """Nothing: the generator makes noise."""
        raise NotLearnedYet

    def success_probability(self, levels: Tensor) -> Tensor:
        """Nothing: p̂ has seen no outcome."""
        raise NotLearnedYet

    def realness(self, levels: Tensor) -> Tensor:
        """Nothing: the discriminator has seen no level."""
        raise NotLearnedYet


def draw_by_weight(weight: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """``n`` indices drawn by ``weight [m]``, with few repeats.

    They are drawn in rounds, each without replacement, and each so small a part of all that the
    shares stay those of the weights, nearly.
    """
    rounds = -(-n * AT_ONCE // len(weight))
    at_once = -(-n // rounds)
    drawn = torch.multinomial(weight.expand(rounds, -1), at_once, generator=rng)
    return drawn.flatten()[:n]


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
        budget: int = 0,
        spent: Callable[[], int] = lambda: 0,
        queue: int = 256,
        candidates: int = 1_024,
    ) -> None:
        """Prepare the sources of ``env``.

        Args:
            env: The environment, which knows its target and reference levels.
            archive: Levels met so far.
            shares: Share of resets that each source gets.
            novelty_exponent: How much novelty counts in the frontier weight.
            min_outcomes: Outcomes needed before the GAN learns. Until it has, the generator's share
                goes to the archive.
            rng: Random stream.
            proposals: Which valid generated levels are played: near the ``frontier`` rather
                than others; of these only ``realistic`` ones; in place of each the nearest visited
                state (``projected``); or all ``valid`` ones alike.
            own: The source ``own``, of arms that have one.
            make_env: Makes further environments like ``env``, for sources that try levels.
            budget: Env steps of the run, of which such trials take a share.
            spent: How many of them have been taken.
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
        self._make_env = make_env
        self.budget, self.spent = budget, spent
        #: Whether the own source asked for what the GAN has not learned yet.
        self.waits_for_gan = False
        #: Cycles so far, and env steps that sources took beside the training episodes'.
        self.cycles = self.charged_steps = 0
        self.candidates = candidates
        self.box = UnitBox.of(env.level_space).to(archive.tried.levels.device)
        self.counts = ProposalCounts()
        # A yardstick from a stream of its own: it shifts nothing that is drawn for training.
        yardstick = env.reference_levels(COMPARED, torch.Generator(self.box.low.device))
        self._spacing = spacing(self.box.to_unit(yardstick))
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

    @property
    def record(self) -> Callable[[Finished], None] | None:
        """What wants to know of finished episodes, if anything does."""
        return self.own.record if isinstance(self.own, Recorder) else None

    def draw(self, n: int, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """The next ``n`` levels ``[n, d]`` and the index of each one's source ``[n]``."""
        while (missing := n - len(self._levels)) > 0:
            levels, source = self._fill(missing, teacher)
            self._levels = torch.cat([self._levels, levels])
            self._source = torch.cat([self._source, source])
        levels, self._levels = self._levels[:n], self._levels[n:]
        source, self._source = self._source[:n], self._source[n:]
        self.counts.played += int((source == SOURCES.index("gan")).sum())
        return levels, source

    def _fill(self, missing: int, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """Levels for the queue; only the ``missing`` ones while a source has nothing to give."""
        n = self._queue_size
        share = {source: self.shares.get(source, 0.0) for source in SOURCES}
        drawn: dict[Source, Tensor] = {}
        for name in reversed(SOURCES):
            levels = self._from(name, n, teacher) if share[name] > 0 else self.blank(0)
            if share[name] > 0 and not len(levels):
                hand_on(share, name)
                n = n if name == "gan" else min(n, missing)
            drawn[name] = levels if len(levels) else self.blank(n)
        source = torch.multinomial(
            torch.tensor(list(share.values()), device=self._levels.device),
            n,
            replacement=True,
            generator=self.rng,
        )
        table = torch.stack([drawn[name][:n] for name in SOURCES])
        return table[source, torch.arange(n, device=source.device)], source

    def _from(self, source: Source, n: int, teacher: Teacher) -> Tensor:
        """``n`` levels of a source ``[n, d]``, or none if it has none yet."""
        if source == "target":
            return self.env.target_levels(n, self.rng)
        if source == "reference":
            return self.env.reference_levels(n, self.rng)
        if source == "archive":
            return self.frontier(n, teacher)
        if source == "own":
            return self._own(n, teacher)
        proposals = self._propose(teacher, n)
        return proposals[torch.arange(n) % len(proposals)] if len(proposals) else proposals

    def blank(self, n: int) -> Tensor:
        """``n`` rows of zeros, where levels are to be ``[n, d]``."""
        return torch.zeros(n, self.box.dim, device=self._levels.device)

    def _own(self, n: int, teacher: Teacher) -> Tensor:
        assert self.own is not None
        try:
            levels = self.own(n, self, teacher if teacher.gan_updates else Beginner(teacher))
        except NotLearnedYet:
            self.waits_for_gan = True
            return self.blank(0)
        name, shape = arm_name(cast(Any, self.own)), getattr(levels, "shape", type(levels).__name__)
        if shape not in ((n, self.box.dim), (0, self.box.dim)):
            raise ConfigError(
                f"data.curriculum.arm: {name} was asked for levels of shape {(n, self.box.dim)}, "
                f"but gave {tuple(shape) if isinstance(levels, Tensor) else shape}"
            )
        if not self.env.valid(levels).all() and self._can_sample():
            raise ConfigError(
                f"data.curriculum.arm: {name} gave levels at which no episode can start: return "
                "only levels for which curriculum.env.valid(levels) is true"
            )
        return cast(Tensor, levels)

    def _can_sample(self) -> bool:
        """Whether reference levels are valid, and so can be expected of an own source."""
        levels = self.env.reference_levels(self._queue_size, self.rng)
        return bool(self.env.valid(levels).all())

    def _propose(self, teacher: Teacher, n: int) -> Tensor:
        """At most ``n`` generated levels; none as long as the generator has not been trained."""
        if not (teacher.gan_updates and self.ready(self._known_by_proposals)):
            return self.blank(0)
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
        distinct = unique_rate(self.box.to_unit(candidates[:COMPARED]), self._spacing)
        self.counts.unique += len(candidates) * distinct
        return candidates[choose_proposals(valid, proposal_weight(self.proposals, p), n, self.rng)]

    @property
    def _known_by_proposals(self) -> Reals:
        return "visited" if self.proposals == "projected" else "frontier"

    def frontier(self, n: int, teacher: Teacher) -> Tensor:
        """``n`` archive levels drawn by frontier weight, ``[n, d]``; none if the archive is empty.

        The more are drawn, the more candidates the archive gives, so that none is drawn very often.
        Before the GAN's first update novelty alone counts.
        """
        if n == 0 or not len(self.archive):
            return self.blank(0)
        candidates = self.archive.candidates(max(self.candidates, CHOICE * n), self.rng)
        known = self.archive.candidates(KNOWN, self.rng)
        far = novelty(self.box.to_unit(candidates), self.box.to_unit(known))
        p = teacher.success_probability(candidates) if teacher.gan_updates else 0.5 + 0 * far
        weight = frontier_weight(p, far, self.novelty_exponent)
        return candidates[draw_by_weight(weight, n, self.rng)]

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
        if kind == "labelled" and teacher.gan_updates:
            return levels, on_frontier(teacher.success_probability(levels)).float()
        return levels, torch.ones(n, device=levels.device)

    def _archived(self, kind: Reals, n: int, teacher: Teacher) -> Tensor:
        """``n`` archive levels that are real in that way, ``[n, d]``."""
        if n == 0:
            return self.blank(0)
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
            "waits_for_gan": self.waits_for_gan,
            "own": self.own.state_dict() if isinstance(self.own, Stateful) else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        device = self._levels.device  # files are read to the CPU
        self._levels, self._source = state["levels"].to(device), state["source"].to(device)
        self.counts = ProposalCounts(**state["counts"])
        self.rng.set_state(state["rng"].cpu())
        self.cycles, self.charged_steps = state["cycles"], state["charged_steps"]
        self.waits_for_gan = state["waits_for_gan"]
        if isinstance(self.own, Stateful):
            self.own.load_state_dict(move_data_to_device(state["own"], device))


def hand_on(share: dict[Source, float], source: Source) -> None:
    """Give the share of a source that has no levels yet to others, in place.

    The generator's goes to the archive; that of the archive, or of an own source, to target and
    reference levels, in the proportion that these have, or to target levels if they have none.
    """
    freed, share[source] = share[source], 0.0
    if source == "gan":
        share["archive"] += freed
        return
    known = share["target"] + share["reference"]
    portion = share["target"] / known if known > 0 else 1.0
    share["target"] += freed * portion
    share["reference"] += freed * (1 - portion)
