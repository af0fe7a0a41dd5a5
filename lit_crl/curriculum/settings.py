"""Settings of the curriculum: where levels come from, and what the archive keeps of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from lit_crl.core.checks import Fields
from lit_crl.curriculum.archive import TRIED, VISITED
from lit_crl.curriculum.arms import EQUAL_MIX, Arm, arm_shares
from lit_crl.curriculum.proposals import Proposals
from lit_crl.curriculum.sources import CustomSource, Source


@dataclass(frozen=True)
class CurriculumSettings:
    """Where levels come from, and what is remembered of those that were played.

    Args:
        arm: Where levels come from. ``target``: the task's own resets; ``reference``: also random
            levels; ``archive``: also visited states and tried levels near the frontier; ``gan``:
            also generated levels. In place of archive and generator: ``valid_reference``, legal
            random levels; ``plr``, replay by MaxMC; ``accel``, replay with edits; ``sfl``, levels
            screened for p (1 − p); ``oracle``, the same at no cost in env steps. From the levels of
            ``data.given``: their ``symmetries``; ``edits`` of them; ``gaussian``, a normal
            distribution fitted to vectors; ``tiles``, maps of independent tiles, as often as there.
            Or a function or class of your own.
        mix: Share of resets from each source under the arm ``gan``. Another arm gives the shares
            of the sources that it lacks to its own source. Default: 25 % each.
        proposals: Generated levels to play: ``valid`` ones alike; preferably those at the
            ``frontier``; only ``realistic`` ones among those; in place of each the nearest
            visited state (``projected``); or maps with start and goal ``redrawn``, as often in each
            place as in the maps of ``data.given``.
        min_outcomes: Outcomes needed before the GAN trains.
        novelty_exponent: How much novelty counts when archive levels are drawn; 0: not at all.
        tried: Newest outcomes that the success head learns from.
        visited: Newest visited states that are kept.
        label_epsilon: Only environments that explore at most this much give outcomes.
    """

    arm: Arm | CustomSource = "gan"
    mix: Mapping[str, float] | None = None
    proposals: Proposals = "frontier"
    min_outcomes: int = 50
    novelty_exponent: float = 0.5
    tried: int = TRIED
    visited: int = VISITED
    label_epsilon: float = 0.1

    def __post_init__(self) -> None:
        """Check the numbers, and that the mix leaves a share to the arm."""
        fields = Fields("data.curriculum", self)
        fields.one_of("proposals", Proposals)
        fields.positive("min_outcomes", "tried", "visited")
        fields.non_negative("novelty_exponent")
        fields.unit_interval("label_epsilon")
        arm_shares(self.arm, self.mix or EQUAL_MIX)

    @property
    def shares(self) -> dict[Source, float]:
        """The share of resets that each source gets."""
        return arm_shares(self.arm, self.mix or EQUAL_MIX)
