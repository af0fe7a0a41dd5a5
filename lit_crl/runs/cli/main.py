"""The command line: ``python -m lit_crl {fit,validate,test,predict,play}``."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import print_once
from lit_crl.core.tensor_files import read_checkpoint
from lit_crl.runs import folders
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.runs.checkpoints.signals import Signals
from lit_crl.runs.cli import reading, trainer_settings, yaml_strings
from lit_crl.runs.cli.arguments import ANY_ID, ANY_LOG, complete, without
from lit_crl.runs.cli.parser import RunParser
from lit_crl.runs.cli.quiet import quiet_libraries
from lit_crl.runs.cli.run_place import RunPlace
from lit_crl.runs.cli.trainer_settings import RunCallbacks
from lit_crl.runs.cli.usage import (
    DESCRIPTION,
    OPTIONS,
    PROG,
    SUBCOMMANDS,
    answer_help,
    read_words,
)
from lit_crl.runs.ending import early_end
from lit_crl.runs.play import FilmTrainer
from lit_crl.training import trainer_checks
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner

#: What a stop means to every subcommand but ``fit``.
NOTHING_CHANGED = "at once; the run is as it was, and the same command starts again"


@dataclass
class RunOptions:
    """The options of a run that are not its learner's, data's or Trainer's.

    Args:
        experiment: File of conf/experiment/, if no --config is given; folder of its runs in
            trainer.default_root_dir.
        name: Folder of the run in that of the experiment; null: seed0, seed0-2 and so on.
        logger: metrics.csv alone, or a dashboard as well: Weights & Biases (offline without an
            account), or TensorBoard.
        group: Group of W&B; default: the experiment.
        tags: Tags of W&B.
        threads: CPU threads of one tensor operation; more only pay for large networks.
        seeds: Number of fits: seed_everything and the seeds after it, each in its own process and
            folder.
    """

    experiment: str = "mountain_car"
    name: str | None = None
    logger: Literal["csv", "wandb", "tensorboard"] = "csv"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    threads: int = 1
    seeds: int = 1


class CreativeCLI(LightningCLI):
    """One command, from its words to its end; the methods stand in the order in which they run.

    With several seeds this process builds nothing: each seed runs in another process.
    """

    model: CreativeLearner
    datamodule: ReplayDataModule

    def __init__(
        self,
        *args: Any,
        signals: Signals,
        place: RunPlace,
        objects: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Run the command; ``objects`` are settings by dotted key that only Python can make."""
        self.signals, self.place, self.objects = signals, place, dict(objects or {})
        self.asked = next(iter(kwargs["args"]), None)
        super().__init__(*args, **kwargs)

    @property
    def run_folder(self) -> Path:
        """The folder that the run writes to."""
        return self.place.folder

    @property
    def settings(self) -> Namespace:
        """The configuration of the subcommand."""
        settings: Namespace = self.config[self.config.subcommand]
        return settings

    @property
    def seeds(self) -> int:
        """The number of runs."""
        return int(self.settings.seeds) if self.subcommand == "fit" else 1

    # 1. The options.

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommands, and those of their arguments that are no options."""
        return {**LightningCLI.subcommands(), "play": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of runs; one seed sets those of learner and data."""
        parser.add_class_arguments(RunOptions, as_group=False, instantiate=False)
        parser.add_class_arguments(RunCheckpoint, "checkpoint", skip={"folder"}, instantiate=False)
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Explain Lightning's own options; the report prints the numbers, not Lightning.

        The other subcommands get their names alone: making the options of each takes time.
        """
        if subcommand != self.asked and self.asked in SUBCOMMANDS:
            self._subcommand_method_arguments[subcommand] = []
            return self.init_parser(description=kwargs["description"])
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults(verbose=False)
        for action in parser._actions:
            action.help = OPTIONS.get(action.dest, action.help)
        return parser

    # 2. Reading the command line.

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read the words and the objects."""
        assert isinstance(args, list)  # main() gives one
        self.words = args
        self.config = reading.parse(parser, self.words, self.objects)

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration as given: on resume the command line beats the checkpoint."""

    def _set_seed(self) -> None:
        """Seed the global streams, which initialise the networks."""
        seed = self.settings.seed_everything
        if isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise ConfigError(f"seed_everything is {seed}: give a whole number from 0 to 2³² − 1")
        super()._set_seed()

    # 3. Choosing the folder, and building.

    def before_instantiate_classes(self) -> None:
        """Choose the run folder and the checkpoint before anything is built."""
        config = self.settings
        checks.positive(seeds=config.seeds)
        if self.seeds > 1:
            return
        checks.positive(threads=config.threads)
        torch.set_num_threads(config.threads)
        accelerator = config.trainer.accelerator
        if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
            raise ConfigError(
                f"trainer.accelerator is {accelerator}, but this machine has no CUDA device: use "
                "--trainer.accelerator cpu"
            )
        if self.subcommand != "fit":
            self.signals.message = NOTHING_CHANGED
        config.ckpt_path = self.place.choose(str(self.subcommand), config)

    def instantiate_classes(self) -> None:
        """Build everything; an error of any class means a mistake in the configuration.

        Raises:
            ConfigError: With the class's own words.
        """
        if self.seeds > 1:
            return
        try:
            super().instantiate_classes()
        except (ConfigError, MisconfigurationException):
            raise
        except Exception as error:
            cause = error.__cause__ if isinstance(error.__cause__, ConfigError) else None
            raise cause or ConfigError(f"the configuration cannot be used: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer, with the run's callbacks and loggers beside the user's."""
        config, given = self.settings, self._get(self.config_init, "trainer")
        is_fit = self.subcommand == "fit"
        text = reading.config_text(self._parser(self.subcommand), config, self.objects)
        self.run_callbacks = RunCallbacks(
            self.run_folder,
            config,
            text,
            given,
            self.signals,
            has_dashboard=is_fit and not self.place.is_scratch,
        )
        self.trainer_defaults["callbacks"] = self.run_callbacks.callbacks
        if config.trainer.profiler is not None:  # Lightning logs what its profilers found
            logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.INFO)
        settings = trainer_settings.merged(given, self.run_callbacks.loggers)
        # Lightning's SLURM plugin saves, and looks for, its own checkpoint there.
        settings["default_root_dir"] = self.run_folder / "checkpoints"
        trainer = super().instantiate_trainer(**{**kwargs, **settings})
        if is_fit:
            trainer_checks.check(trainer)
        return trainer

    # 4. Running.

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; several seeds as several processes."""
        if self.seeds == 1:
            super()._run_subcommand(subcommand)
            return
        from lit_crl.runs.study.runner import run_seeds

        config = self.settings
        first = config.seed_everything
        run_seeds(
            [*without(self.words, "--seeds"), "--seeds=1"],
            range(first, first + self.seeds),
            Path(config.trainer.default_root_dir) / config.experiment,
            config.name,
            config.data.collect.env_steps,
        )

    def before_fit(self) -> None:
        """Continue the metrics of a resumed run."""
        config = self.settings
        if (
            config.experiment in (ANY_ID, ANY_LOG)
            and without(self.words, "--experiment") == self.words
        ):
            print_once(f"Settings of conf/experiment/{config.experiment}.yaml.")
        if config.ckpt_path is not None:
            saved = read_checkpoint(Path(config.ckpt_path))
            self.run_callbacks.resume(saved["lit_crl"]["env_steps"])
            print_once(f"Resuming from {config.ckpt_path}.")

    def after_fit(self) -> None:
        """Test the policy and report."""
        if self.trainer.interrupted:
            return
        ended = early_end(self.trainer)
        self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        if self.place.is_scratch:
            print_once(
                "trainer.fast_dev_run: training, validation and test ran through; nothing is kept."
            )
            return
        if ended is not None:
            print_once(ended)
        self.run_callbacks.summarise(self.trainer, self.model)


def main(
    args: Sequence[str] | None = None, objects: Mapping[str, Any] | None = None
) -> CreativeCLI:
    """Run a subcommand, as the command line does; for notebooks: ``main(["fit", ...])``.

    Args:
        args: The command line's words; None: those of this process.
        objects: Settings by dotted key that no text can say, ``{"data.env": MyEnv}``; they
            override the words.

    Raises:
        ConfigError: If a setting is wrong.
    """
    quiet_libraries()
    words = complete(read_words() if args is None else args)
    answer_help(words)
    common = {"parser_mode": yaml_strings.MODE, "exit_on_error": False}
    subcommand = {**common, "default_config_files": [str(folders.conf_folder() / "default.yaml")]}
    with Signals() as signals, RunPlace() as place:
        return CreativeCLI(
            CreativeLearner,
            ReplayDataModule,
            trainer_class=FilmTrainer,
            args=words,
            signals=signals,
            place=place,
            objects=objects,
            parser_class=RunParser,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={
                **common,
                "prog": PROG,
                "description": DESCRIPTION,
                **{name: {**subcommand, "description": does} for name, does in SUBCOMMANDS.items()},
            },
        )
