"""TensorBoard: Lightning's logger, with env steps as the steps."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_crl.core.checks import ConfigError
from lit_crl.runs.callbacks.metrics import EnvStepAxis

if TYPE_CHECKING:
    from lit_crl.runs.dashboard.overview import Overview


class TensorBoardDisplay(EnvStepAxis, TensorBoardLogger):
    """Events in ``tensorboard/`` of the run folder: ``tensorboard --logdir runs`` shows them."""

    def __init__(self, folder: Path) -> None:
        """Write into ``folder``.

        Raises:
            ConfigError: If TensorBoard is not installed.
        """
        if find_spec("tensorboard") is None:
            raise ConfigError(
                "--logger tensorboard needs a package that is missing: "
                "pip install 'lit_crl[tensorboard]'"
            )
        super().__init__(folder, name="tensorboard", version="")

    def resume(self, env_steps: int) -> None:
        """Hide the points after the checkpoint at ``env_steps``."""
        self._kwargs["purge_step"] = env_steps + 1

    @rank_zero_only
    def begin(self, config: Mapping[str, Any]) -> None:
        """Show the configuration as text."""
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        self.experiment.add_text("config", f"```yaml\n{text}```")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers over env steps."""
        numbers = {name: number for name, number in metrics.items() if name != "env_steps"}
        if self.is_training:
            super().log_metrics(numbers, self.at(step))

    @rank_zero_only
    def show(self, shown: "Overview", env_steps: int) -> None:
        """Add a picture of each source's levels, and a histogram of their p̂."""
        from lit_crl.runs.dashboard.overview import gallery

        for source, views in shown.views.items():
            picture = gallery(views)
            self.experiment.add_image(f"levels/{source}", picture, env_steps, dataformats="HWC")
        for source, p_hat in shown.p_hat.items():
            self.experiment.add_histogram(f"p_hat/{source}", p_hat, env_steps, bins=20)

    @rank_zero_only
    def conclude(self, summary: Mapping[str, Any], figures: Mapping[str, Path]) -> None:
        """Add the results of the test, and write everything."""
        numbers = {
            f"summary/{name}": number
            for name, number in summary.items()
            if isinstance(number, (int, float))
        }
        super().log_metrics(numbers, summary["env_steps"])
        self.experiment.close()

    @rank_zero_only
    def save(self) -> None:
        """Write pending events, but no hyperparameters: ``config.yaml`` has them."""
        self.experiment.flush()
