"""Creative reinforcement learning: a DQN learns to act, a GAN makes the levels it practises in."""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["CreativeLearner", "Policy", "ReplayDataModule", "load", "train", "trainer"]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from lit_crl.datamodule import ReplayDataModule
    from lit_crl.learner import CreativeLearner
    from lit_crl.policy import Policy, load
    from lit_crl.training import train, trainer
else:
    # Imported when they are first asked for: `--help` does without torch.
    _MODULES = {
        "CreativeLearner": "lit_crl.learner",
        "Policy": "lit_crl.policy",
        "ReplayDataModule": "lit_crl.datamodule",
        "load": "lit_crl.policy",
        "train": "lit_crl.training",
        "trainer": "lit_crl.training",
    }

    _PACKAGES = ("envs", "pictures")

    def __getattr__(name: str) -> object:
        if name in _PACKAGES:
            return import_module(f"lit_crl.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)
