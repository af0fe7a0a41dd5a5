"""Creative reinforcement learning: a DQN learns to act, a GAN makes the levels it practises in."""

from importlib import import_module
from typing import TYPE_CHECKING

from lit_crl.core.version import __version__ as __version__

__all__ = [
    "CollectSettings",
    "CreativeLearner",
    "CurriculumSettings",
    "DqnSettings",
    "DreamSettings",
    "EvaluationSettings",
    "GanPhaseSettings",
    "GanSettings",
    "NetworkSettings",
    "Policy",
    "ReplayDataModule",
    "ReplaySettings",
    "WorldSettings",
    "load",
    "train",
    "trainer",
]

if TYPE_CHECKING:
    from lit_crl.curriculum.settings import CurriculumSettings
    from lit_crl.dqn.replay.settings import ReplaySettings
    from lit_crl.dqn.settings import DqnSettings, NetworkSettings
    from lit_crl.evaluation.settings import EvaluationSettings
    from lit_crl.gan.settings import GanSettings
    from lit_crl.runs.api import train, trainer
    from lit_crl.runs.policy import Policy, load
    from lit_crl.training.datamodule import ReplayDataModule
    from lit_crl.training.learner import CreativeLearner
    from lit_crl.training.settings import CollectSettings, DreamSettings, GanPhaseSettings
    from lit_crl.world.settings import WorldSettings
else:
    # Imported when they are first asked for: `--help` does without torch.
    _MODULES = {
        "CollectSettings": "lit_crl.training.settings",
        "CreativeLearner": "lit_crl.training.learner",
        "CurriculumSettings": "lit_crl.curriculum.settings",
        "DqnSettings": "lit_crl.dqn.settings",
        "DreamSettings": "lit_crl.training.settings",
        "EvaluationSettings": "lit_crl.evaluation.settings",
        "GanPhaseSettings": "lit_crl.training.settings",
        "GanSettings": "lit_crl.gan.settings",
        "NetworkSettings": "lit_crl.dqn.settings",
        "Policy": "lit_crl.runs.policy",
        "ReplayDataModule": "lit_crl.training.datamodule",
        "ReplaySettings": "lit_crl.dqn.replay.settings",
        "WorldSettings": "lit_crl.world.settings",
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
