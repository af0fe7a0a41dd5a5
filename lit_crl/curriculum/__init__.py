"""Which level comes next: arms, archive, proposals, and prioritized or screened levels."""

from lit_crl.curriculum.edits import TargetEdits
from lit_crl.curriculum.gaussian import PcaGaussian
from lit_crl.curriculum.plr import EditedLevelReplay, PrioritizedLevelReplay
from lit_crl.curriculum.sfl import LearnabilityScreen

__all__ = [
    "EditedLevelReplay",
    "LearnabilityScreen",
    "PcaGaussian",
    "PrioritizedLevelReplay",
    "TargetEdits",
]
