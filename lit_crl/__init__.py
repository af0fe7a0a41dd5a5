"""Creative reinforcement learning: a DQN learns to act, a GAN makes the levels it practises in."""

from importlib import import_module
from typing import TYPE_CHECKING

from lit_crl.core.version import __version__ as __version__

__all__ = ["CreativeLearner", "Policy", "ReplayDataModule", "load", "train", "trainer"]

if TYPE_CHECKING:
    from lit_crl.runs.api import train, trainer
    from lit_crl.runs.policy import Policy, load
    from lit_crl.training.datamodule import ReplayDataModule
    from lit_crl.training.learner import CreativeLearner
else:
    # Imported when they are first asked for: `--help` does without torch.
    _MODULES = {
        "CreativeLearner": "lit_crl.training.learner",
        "Policy": "lit_crl.runs.policy",
        "ReplayDataModule": "lit_crl.training.datamodule",
        "load": "lit_crl.runs.policy",
        "train": "lit_crl.runs.api",
        "trainer": "lit_crl.runs.api",
    }

    def __getattr__(name: str) -> object:
        if name == "envs":
            return import_module("lit_crl.envs")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)
