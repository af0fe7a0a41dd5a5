"""Which level comes next: arms, the archive, proposals, prioritized and screened levels."""

from lit_crl.curriculum.plr import EditedLevelReplay, PrioritizedLevelReplay
from lit_crl.curriculum.sfl import LearnabilityScreen

__all__ = ["EditedLevelReplay", "LearnabilityScreen", "PrioritizedLevelReplay"]
