"""The curriculum: which levels the environments are reset to, from the sources of an arm."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.levels import UnitBox
from lit_crl.curriculum.archive import NOVELTY_SAMPLE, Archive, frontier_weight, novelty
from lit_crl.curriculum.arms import arm_name
from lit_crl.curriculum.proposals import (
    PROJECTION_SAMPLE,
    UNIQUE_SAMPLE,
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
    CustomSource,
    FinishedEpisodes,
    Source,
    Teacher,
)
from lit_crl.curriculum.symmetries import signed_places, symmetries_of
from lit_crl.curriculum.tiles import with_new_ends
from lit_crl.envs import LevelEnv
from lit_crl.envs.factory import EnvFactory
from lit_crl.gan.batch import GanBatch

#: What the GAN takes for real, see ``Curriculum.reals``.
Reals = Literal["frontier", "labelled", "visited", "target"]
#: The fewest archive levels from which each drawn one is chosen.
CANDIDATES_PER_LEVEL = 4
#: At most one in this many levels is drawn without replacement. A larger part would distort the
#: shares: where few levels have weight, the draw would have to be filled up with others.
LEVELS_PER_DRAW = 32


class GanNotTrained(Exception):
    """A source asked for something that the GAN does not know before its first update."""


class UntrainedTeacher:
    """The teacher before the GAN's first update: it has action values, but no GAN to ask."""

    gan_updates = 0

    def __init__(self, teacher: Teacher) -> None:
        """Pass on what ``teacher`` already knows."""
        self.updates, self.action_values = teacher.updates, teacher.action_values

    def _not_trained(self, *_: object, **__: object) -> NoReturn:
        """The generator still makes noise, and p̂ has seen no outcome."""
        raise GanNotTrained

    generate_levels = success_probability = realness = _not_trained


def draw_by_weight(weight: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """``n`` indices drawn by ``weight [m]``, with few repeats.

    They are drawn in rounds. A round draws without replacement, and so few that the shares stay
    close to the weights.
    """
    rounds = -(-n * LEVELS_PER_DRAW // len(weight))
    per_round = -(-n // rounds)
    drawn = torch.multinomial(weight.expand(rounds, -1), per_round, generator=rng)
    return drawn.flatten()[:n]


class Curriculum:
    """Draws the levels of an arm, and the reals of the GAN, from its sources.

    Levels are drawn a few hundred at a time into a queue, because a network call for each reset
    would be slow. A new cycle empties the queue, so that no level is older than a cycle.
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
        own: CustomSource | None = None,
        make_env: EnvFactory | None = None,
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
            min_outcomes: Outcomes needed before the GAN learns. Until then the generator's share
                goes to the archive.
            rng: Random stream.
            proposals: Which valid generated levels are played: preferably those near the
                ``frontier``; of these only ``realistic`` ones; in place of each the nearest visited
                state (``projected``); maps with start and goal ``redrawn``; or all ``valid`` ones
                with equal weight.
            own: The custom source, for arms that have one: in shares and metrics it is ``own``.
            make_env: Makes further environments like ``env``, for sources that try levels.
            budget: Env steps of the run, of which these trials take a share.
            spent: Returns how many of them have been taken.
            queue: Levels drawn at a time.
            candidates: Levels among which the archive and the generator choose.
        """
        self.env = env
        self.archive = archive
        self.shares = dict(shares)
        self.novelty_exponent = novelty_exponent
        self.min_outcomes = min_outcomes
        self.rng = rng
        self.proposals, self.custom, self.make_env = proposals, own, make_env
        self.budget, self.spent = budget, spent
        #: Whether the custom source has asked for what the GAN has not learned yet.
        self.waits_for_gan = False
        #: Cycles so far, and env steps that sources took in addition to the training episodes'.
        self.cycles = self.charged_steps = 0
        self.candidates = candidates
        self.box = UnitBox.of(env.level_space).to(archive.tried.levels.device)
        self.counts = ProposalCounts()
        # These levels have a random stream of their own: training draws the same without them.
        compared = env.reference_levels(UNIQUE_SAMPLE, torch.Generator(self.box.low.device))
        self._spacing = spacing(self.box.to_unit(compared))
        self._queue_size = queue
        self._levels = archive.tried.levels[:0]
        self._source = torch.empty(0, dtype=torch.long, device=self._levels.device)

    def ready(self, kind: Reals = "frontier") -> bool:
        """Whether there are enough outcomes, and reals of that kind, for the GAN to learn from."""
        enough = len(self.archive.tried) >= self.min_outcomes
        return enough and (kind != "visited" or len(self.archive.visited) > 0)

    def new_cycle(self) -> None:
        """Forget the queued levels: the policy and the generator have changed since."""
        self.cycles += 1
        self._levels, self._source = self._levels[:0], self._source[:0]

    @property
    def record(self) -> Callable[[FinishedEpisodes], None] | None:
        """The custom source's ``record``, if it has one: it is called with finished episodes."""
        record: Callable[[FinishedEpisodes], None] | None = getattr(self.custom, "record", None)
        return record

    def draw(self, n: int, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """The next ``n`` levels ``[n, d]`` and the index of each one's source ``[n]``."""
        while (missing := n - len(self._levels)) > 0:
            levels, source = self._refill(missing, teacher)
            self._levels = torch.cat([self._levels, levels])
            self._source = torch.cat([self._source, source])
        levels, self._levels = self._levels[:n], self._levels[n:]
        source, self._source = self._source[:n], self._source[n:]
        self.counts.played += int((source == SOURCES.index("gan")).sum())
        return levels, source

    def give_back(self, source: Tensor) -> None:
        """Levels of these sources ``[n]`` were drawn, but not played."""
        self.counts.played -= int((source == SOURCES.index("gan")).sum())

    def _refill(self, missing: int, teacher: Teacher) -> tuple[Tensor, Tensor]:
        """Levels for the queue; only the ``missing`` ones while a source has none to give."""
        n = self._queue_size
        share = {source: self.shares.get(source, 0.0) for source in SOURCES}
        drawn: dict[Source, Tensor] = {}
        # From the last source to the first: one that has no levels passes its share on to others.
        for name in reversed(SOURCES):
            drawn[name] = self._from(name, n, teacher) if share[name] > 0 else self.no_levels()
            if share[name] > 0 and not len(drawn[name]):
                redistribute(share, name)
                n = n if name == "gan" else min(n, missing)
        weights = torch.tensor(list(share.values()), device=self._levels.device)
        source = torch.multinomial(weights, n, replacement=True, generator=self.rng)
        unused = self._levels.new_zeros(n, self.box.dim)
        table = torch.stack([drawn[name][:n] if len(drawn[name]) else unused for name in SOURCES])
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
            return self._from_custom(n, teacher)
        proposals = self.propose(teacher, n)
        return proposals[torch.arange(n) % len(proposals)] if len(proposals) else proposals

    def no_levels(self) -> Tensor:
        """An empty table ``[0, d]``: what a source returns while it has no levels to give."""
        return self._levels.new_empty(0, self.box.dim)

    def _from_custom(self, n: int, teacher: Teacher) -> Tensor:
        assert self.custom is not None
        try:
            levels: Tensor = self.custom(
                n, self, teacher if teacher.gan_updates else UntrainedTeacher(teacher)
            )
        except GanNotTrained:
            self.waits_for_gan = True
            return self.no_levels()
        name, shape = arm_name(self.custom), getattr(levels, "shape", type(levels).__name__)
        if shape not in ((n, self.box.dim), (0, self.box.dim)):
            raise ConfigError(
                f"data.curriculum.arm: {name} was asked for levels of shape {(n, self.box.dim)}, "
                f"but gave {tuple(shape) if isinstance(levels, Tensor) else shape}"
            )
        # Where even reference levels are not all valid, invalid ones are no mistake of the arm's.
        if not self.env.valid(levels).all() and bool(
            self.env.valid(self.env.reference_levels(self._queue_size, self.rng)).all()
        ):
            raise ConfigError(
                f"data.curriculum.arm: {name} gave levels at which no episode can start: return "
                "only levels for which curriculum.env.valid(levels) is true"
            )
        return levels

    def propose(self, teacher: Teacher, n: int) -> Tensor:
        """At most ``n`` generated levels; none as long as the generator has not been trained."""
        if not (
            teacher.gan_updates
            and self.ready("visited" if self.proposals == "projected" else "frontier")
        ):
            return self.no_levels()
        candidates = teacher.generate_levels(self.candidates)
        if self.proposals == "redrawn":
            candidates = with_new_ends(candidates, self.env, self.rng)
        valid = self.env.valid(candidates)
        self.counts.valid += int(valid.sum())
        if self.proposals == "projected":
            known, _ = self.archive.visited.draw(PROJECTION_SAMPLE, self.rng)
            candidates = known[projected(self.box.to_unit(candidates), self.box.to_unit(known))]
            valid = self.env.valid(candidates)
        p = teacher.success_probability(candidates)
        if self.proposals == "realistic":
            real = teacher.realness(self.frontier(n, teacher))
            valid &= realistic(teacher.realness(candidates), real)
        self.counts.candidates += len(candidates)
        self.counts.frontier += int((valid & on_frontier(p)).sum())
        distinct = unique_rate(self.box.to_unit(candidates[:UNIQUE_SAMPLE]), self._spacing)
        self.counts.unique += len(candidates) * distinct
        return candidates[choose_proposals(valid, proposal_weight(self.proposals, p), n, self.rng)]

    def frontier(self, n: int, teacher: Teacher) -> Tensor:
        """``n`` archive levels drawn by frontier weight, ``[n, d]``; none if the archive is empty.

        The more levels are drawn, the more candidates there are, so that none is drawn very often.
        Before the GAN's first update only novelty counts.
        """
        if n == 0 or not len(self.archive):
            return self.no_levels()
        count = max(self.candidates, CANDIDATES_PER_LEVEL * n)
        candidates = self.archive.candidates(count, self.rng)
        known = self.archive.candidates(NOVELTY_SAMPLE, self.rng)
        distance = novelty(self.box.to_unit(candidates), self.box.to_unit(known))
        trained = teacher.gan_updates > 0
        p = teacher.success_probability(candidates) if trained else 0.5 + 0 * distance
        weight = frontier_weight(p, distance, self.novelty_exponent)
        return candidates[draw_by_weight(weight, n, self.rng)]

    def reals(
        self, kind: Reals, n: int, reference_share: float, teacher: Teacher
    ) -> tuple[Tensor, Tensor]:
        """``n`` real levels for the GAN, shuffled, and whether each is a positive one.

        Args:
            kind: ``frontier``: archive levels by frontier weight; ``labelled``: archive levels
                uniformly, labelled by whether their p̂ is on the frontier; ``visited``: visited
                states uniformly; ``target``: target levels.
            n: How many.
            reference_share: Share of reference levels among them, which keeps the generator
                diverse: it would otherwise train on its own levels. Invalid ones are replaced.
            teacher: Judges the levels.

        Returns:
            Levels ``[n, d]`` and labels ``[n]``.
        """
        num_reference = round(reference_share * n)
        archived = self._real_levels(kind, n - num_reference, teacher)
        reference = self.env.reference_levels(num_reference, self.rng)
        reference = reference[self.env.valid(reference)]
        missing = self._real_levels(kind, num_reference - len(reference), teacher)
        levels = torch.cat([archived, missing, reference])
        levels = levels[torch.randperm(n, generator=self.rng, device=levels.device)]
        if kind == "labelled" and teacher.gan_updates:
            return levels, on_frontier(teacher.success_probability(levels)).float()
        return levels, torch.ones(n, device=levels.device)

    def _real_levels(self, kind: Reals, n: int, teacher: Teacher) -> Tensor:
        """``n`` levels that count as real, ``[n, d]``, beside reference levels."""
        if n == 0:
            return self.no_levels()
        if kind == "frontier":
            return self.frontier(n, teacher)
        if kind == "labelled":
            return self.archive.candidates(n, self.rng)
        if kind == "target":
            return self.env.target_levels(n, self.rng)
        return self.archive.visited.draw(n, self.rng)[0]

    def gan_batch(
        self,
        shape: tuple[int, int],
        kind: Reals,
        reference_share: float,
        teacher: Teacher,
        rng: torch.Generator,
        *,
        symmetries: bool = False,
        noise: float = 0.0,
    ) -> GanBatch:
        """Reals, and outcomes drawn with ``rng``, for G updates on B levels, ``shape = (G, B)``.

        Args:
            shape: Of the batch.
            kind: What is real, as in ``reals``.
            reference_share: Share of reference levels among the reals.
            teacher: Judges the levels.
            rng: Draws outcomes.
            symmetries: The discriminator sees reals and generated levels under random symmetries.
            noise: Standard deviation of the noise on both, as a share of the level space's width.
        """
        n, dim = shape[0] * shape[1], self.box.dim
        real, label = self.reals(kind, n, reference_share, teacher)
        level, success = self.archive.draw_outcomes(n, rng)
        fields = [real, label, level, success]
        batch = GanBatch(*(field.view(*shape, *field.shape[1:]) for field in fields))
        if symmetries:
            places = signed_places(symmetries_of(self.env), self.box)
            pick = torch.randint(len(places), shape, generator=self.rng, device=self.rng.device)
            batch = batch._replace(places=places[pick])
        if noise > 0:
            drawn = torch.randn(*shape, dim, generator=self.rng, device=self.rng.device)
            batch = batch._replace(noise=2 * noise * drawn)  # the unit cube is 2 wide
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The queue, the counts, the random stream, and the custom source's state."""
        return {
            "levels": self._levels,
            "source": self._source,
            "counts": vars(self.counts).copy(),
            "rng": self.rng.get_state(),
            "cycles": self.cycles,
            "charged_steps": self.charged_steps,
            "waits_for_gan": self.waits_for_gan,
            "own": getattr(self.custom, "state_dict", dict)(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        device = self._levels.device  # files are read to the CPU
        self._levels, self._source = state["levels"].to(device), state["source"].to(device)
        self.counts = ProposalCounts(**state["counts"])
        self.rng.set_state(state["rng"].cpu())
        self.cycles, self.charged_steps = state["cycles"], state["charged_steps"]
        self.waits_for_gan = state["waits_for_gan"]
        if (restore := getattr(self.custom, "load_state_dict", None)) is not None:
            restore(move_data_to_device(state["own"], device))


def redistribute(share: dict[Source, float], source: Source) -> None:
    """Give the share of a source that has no levels yet to other sources, in place.

    The generator's share goes to the archive. The share of the archive or of a custom source goes
    to target and reference levels in proportion to their shares, or to target levels if both are 0.

    >>> share = dict(target=0.2, reference=0.2, archive=0.6, gan=0.0, own=0.0)
    >>> redistribute(share, "archive")
    >>> share
    {'target': 0.5, 'reference': 0.5, 'archive': 0.0, 'gan': 0.0, 'own': 0.0}
    """
    freed, share[source] = share[source], 0.0
    if source == "gan":
        share["archive"] += freed
        return
    known = share["target"] + share["reference"]
    portion = share["target"] / known if known > 0 else 1.0
    share["target"] += freed * portion
    share["reference"] += freed * (1 - portion)
