"""What brings them together: learner, data module, rollout, updates."""

from typing import TYPE_CHECKING

__all__ = ["PhaseDDP"]

if TYPE_CHECKING:
    from lit_crl.training.ddp import PhaseDDP
else:
    # Imported when it is first asked for: a policy is loaded without Lightning.
    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from lit_crl.training.ddp import PhaseDDP

        return PhaseDDP
