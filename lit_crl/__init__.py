"""Creative reinforcement learning: a DQN learns to act, a GAN makes the levels it practises in."""

from lit_crl.datamodule import ReplayDataModule
from lit_crl.learner import CreativeLearner

__all__ = ["CreativeLearner", "ReplayDataModule"]
__version__ = "0.1.0"
