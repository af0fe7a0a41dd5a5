"""What brings them together: learner, data module, rollout, updates."""

from lit_crl.training.ddp import PhaseDDP

__all__ = ["PhaseDDP"]
