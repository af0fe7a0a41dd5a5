"""The learner and the data of a Trainer, with their types."""

from lightning.pytorch import Trainer

from lit_crl.core.checks import ConfigError
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner


def learner_of(trainer: Trainer) -> CreativeLearner:
    """The learner that a Trainer trains or evaluates.

    Raises:
        ConfigError: If it has another LightningModule.
    """
    learner = trainer.lightning_module
    if not isinstance(learner, CreativeLearner):
        raise ConfigError(
            f"the Trainer has a {type(learner).__name__}: give it a lit_crl.CreativeLearner"
        )
    return learner


def data_of(trainer: Trainer) -> ReplayDataModule:
    """The DataModule that a Trainer takes batches from.

    Raises:
        ConfigError: If it has another one, or none.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ReplayDataModule):
        raise ConfigError(
            f"the Trainer has data of the type {type(data).__name__}: give it a "
            "lit_crl.ReplayDataModule"
        )
    return data
