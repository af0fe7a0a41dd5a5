"""The command line: ``python -m lit_crl {fit,validate,test,predict,play}``."""

import functools
import logging
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ArgumentError, Namespace, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lit_crl import checks, run_folder, trainer_checks, trainer_settings
from lit_crl.arguments import complete
from lit_crl.callbacks import (
    MetricsCsv,
    RecordMetrics,
    RunCheckpoint,
    RunReport,
    StopOnSignal,
)
from lit_crl.checkpoint_files import newest_whole, read_checkpoint, read_run
from lit_crl.checks import ConfigError
from lit_crl.dashboard.callback import Dashboard, display
from lit_crl.datamodule import ReplayDataModule
from lit_crl.distributed import say
from lit_crl.ending import early_end
from lit_crl.learner import CreativeLearner
from lit_crl.naming import refuse_description, written
from lit_crl.play import Player
from lit_crl.quiet import quiet_libraries
from lit_crl.usage import DESCRIPTION, OPTIONS, PROG, SUBCOMMANDS, answer_help


class CreativeCLI(LightningCLI):
    """LightningCLI with run folders, and the command line above the checkpoint on resume."""

    run_folder: Path
    #: Where a run under ``trainer.fast_dev_run`` writes; it is deleted at the end.
    scratch: tempfile.TemporaryDirectory[str] | None = None
    #: What shows the run beside its files, if anything does.
    dashboard: Dashboard | None = None

    def __init__(self, *args: Any, objects: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """As ``LightningCLI``, with ``objects``: settings by dotted key that no text can say."""
        self.objects = dict(objects or {})
        super().__init__(*args, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read the arguments, and put objects over them.

        Raises:
            ConfigError: If a file only describes an object, because Python alone can make it.
        """
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type]
        except ArgumentError as error:
            found = re.search(r'"([\w.]+)"', str(error))  # the key, in jsonargparse's words
            refuse_description(found[1] if found else "a setting", str(error))
            raise
        if self.objects:
            given: dict[str, Any] = {}
            for key, value in self.objects.items():
                group, _, name = key.rpartition(".")
                (given.setdefault(group, {}) if group else given)[name] = value
            subcommand = self.config.subcommand
            over = {"subcommand": subcommand, subcommand: given}
            self.config = parser.parse_object(over, cfg_base=self.config, defaults=False)
        for key, value in self.config[self.config.subcommand].items():
            refuse_description(key, str(value))

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """What there is, and what of it the command line does not ask for."""
        return {**LightningCLI.subcommands(), "play": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what names a run and its loggers; the seed is given once."""
        parser.add_argument(
            "--experiment",
            type=str,
            default="mountain_car",
            help="File of conf/experiment/, if no --config is given; folder of its runs in "
            "trainer.default_root_dir.",
        )
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="Folder of the run in that of the experiment; null: seed0, seed0-2 and so on.",
        )
        parser.add_argument(
            "--logger",
            type=Literal["csv", "wandb", "tensorboard"],
            default="csv",
            help="metrics.csv alone, or a dashboard as well: Weights & Biases (offline without an "
            "account), or TensorBoard.",
        )
        parser.add_argument(
            "--group", type=str | None, default=None, help="Group of W&B; default: the experiment."
        )
        parser.add_argument("--tags", type=list[str], default=[], help="Tags of W&B.")
        parser.add_argument(
            "--threads",
            type=int,
            default=1,
            help="CPU threads of one tensor operation; more only pay for large networks.",
        )
        parser.add_argument(
            "--seeds",
            type=int,
            default=1,
            help="Runs of fit: seed_everything and those after it, a process and a folder each.",
        )
        parser.add_class_arguments(RunCheckpoint, "checkpoint", skip={"folder"}, instantiate=False)
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Say what Lightning's own options mean here."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        for action in parser._actions:
            action.help = OPTIONS.get(action.dest, action.help)
        return parser

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration as given: on resume the command line beats the checkpoint."""

    def _set_seed(self) -> None:
        """Seed the global streams, which initialise the networks."""
        seed = self.config[self.subcommand].seed_everything
        if isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise ConfigError(f"seed_everything is {seed}: give a whole number from 0 to 2³² − 1")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Choose the run folder and the checkpoint before anything is built."""
        config = self.config[self.subcommand]
        checks.positive(threads=config.threads, seeds=config.seeds)
        run_folder.check_folder_name("experiment", config.experiment)
        if config.name is not None:
            run_folder.check_folder_name("name", config.name)
        if config.seeds > 1:
            raise ConfigError("seeds: start one process for each seed, with --seed_everything")
        torch.set_num_threads(config.threads)
        if config.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
            raise ConfigError(
                f"trainer.accelerator is {config.trainer.accelerator}, but this machine has no "
                "CUDA device: use --trainer.accelerator cpu"
            )
        checkpoint = config.ckpt_path
        if self.subcommand == "fit" and config.trainer.fast_dev_run:
            self.scratch = tempfile.TemporaryDirectory(prefix="lit_crl-")
        resume = self.subcommand != "fit" or checkpoint == "last"
        if checkpoint not in (None, "last") and self.subcommand != "fit":
            self.run_folder = run_folder.run_of(Path(checkpoint))
        elif self.scratch is not None and checkpoint != "last":
            self.run_folder = Path(self.scratch.name)
        else:
            self.run_folder = run_folder.choose_run_folder(
                Path(config.trainer.default_root_dir),
                config.experiment,
                config.name,
                config.seed_everything,
                resume or rank_zero_only.rank > 0,  # type: ignore[attr-defined]
            )
        if self.subcommand != "fit" and checkpoint is None:
            checkpoint = "last"
        config.ckpt_path = self._checkpoint(checkpoint)
        if self.scratch is not None:
            self.run_folder = Path(self.scratch.name)
        if self.subcommand == "fit":
            run_folder.check_writable(self.run_folder)

    def _checkpoint(self, given: str | None) -> str | None:
        if given is None:
            return None
        if given != "last":
            read_run(Path(given))
            return given
        folder = self.run_folder / "checkpoints"
        path, problems = newest_whole(folder)
        for problem in problems:
            say(f"{problem}.\nGoing on from {path}, the one before.")
        if path is not None:
            return str(path)
        if self.subcommand != "fit":
            raise ConfigError(
                f"nothing was saved in {folder} yet: run `python -m lit_crl fit` first, or give "
                "--ckpt_path"
            )
        say(f"Nothing was saved in {self.run_folder} yet: starting afresh.")
        return None

    def instantiate_classes(self) -> None:
        """Build everything; what any class refuses is a mistake in the configuration.

        Raises:
            ConfigError: With the class's own words.
        """
        try:
            super().instantiate_classes()
        except (ConfigError, MisconfigurationException):
            raise
        except Exception as error:
            cause = error.__cause__ if isinstance(error.__cause__, ConfigError) else None
            raise cause or ConfigError(f"the configuration cannot be used: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the run's callbacks and loggers to the Trainer's own."""
        config = self.config[self.subcommand]
        given = self._get(self.config_init, "trainer")
        self.csv = MetricsCsv(self.run_folder)
        alone = config.clone()
        alone.seeds = 1
        text = self._written(alone)
        self.report = RunReport(self.run_folder, config.experiment, text)
        checkpoint = RunCheckpoint(self.run_folder / "checkpoints", **vars(config.checkpoint))
        loggers: list[Logger] = [self.csv]
        callbacks: list[Callback] = trainer_settings.progress_bars(given)
        callbacks += [RecordMetrics(), self.report]
        if self.subcommand == "fit" and config.logger != "csv" and self.scratch is None:
            shown = display(
                config.logger, self.run_folder, config.group or config.experiment, config.tags
            )
            self.dashboard = Dashboard(shown, self.report)
            loggers.append(shown)
            callbacks.append(self.dashboard)
        self.trainer_defaults["callbacks"] = [*callbacks, checkpoint, StopOnSignal(checkpoint)]
        # Lightning's SLURM plugin saves, and looks for, its own checkpoint there.
        kwargs["default_root_dir"] = checkpoint.folder
        if config.trainer.profiler is not None:  # Lightning logs what its profilers found
            logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.INFO)
        settings = trainer_settings.merged(given, loggers)
        trainer = super().instantiate_trainer(**settings, **kwargs)
        if self.subcommand == "fit":
            trainer_checks.check(trainer)
        return trainer

    def _written(self, config: Namespace) -> str:
        """The configuration as YAML; objects by what ``written`` calls them."""
        dump = functools.partial(self._parser(self.subcommand).dump, skip_link_targets=True)
        if not self.objects:
            return str(dump(config))
        for key in self.objects:
            config[key] = None
        saved = yaml.safe_load(dump(config, skip_validation=True))
        for key, value in self.objects.items():
            *groups, name = key.split(".")
            functools.reduce(dict.__getitem__, groups, saved)[name] = written(value)
        return yaml.safe_dump(saved, sort_keys=False, allow_unicode=True)

    def before_fit(self) -> None:
        """Take up the metrics of a resumed run."""
        config = self.config[self.subcommand]
        if config.ckpt_path is not None:
            env_steps = read_checkpoint(Path(config.ckpt_path))["lit_crl"]["env_steps"]
            self.csv.resume(env_steps)
            if self.dashboard is not None:
                self.dashboard.display.resume(env_steps)
            say(f"Resuming from {config.ckpt_path}.")

    def after_fit(self) -> None:
        """Test the policy and report."""
        if self.trainer.interrupted:
            return
        ended = early_end(self.trainer)
        self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        if self.scratch is not None:
            self.scratch.cleanup()
            say("trainer.fast_dev_run: training, validation and test ran through; nothing is kept.")
            return
        if ended is not None:
            say(ended)
        self.report.summarise(self.trainer, self.model)
        if self.dashboard is not None:
            self.dashboard.conclude(self.run_folder / "figures")


def main(
    args: Sequence[str] | None = None, objects: Mapping[str, Any] | None = None
) -> CreativeCLI:
    """Run a subcommand, as the command line does; for notebooks: ``main(["fit", ...])``.

    Args:
        args: The command line's words; None: those of this process.
        objects: Settings by dotted key that no text can say, ``{"data.env": MyEnv}``; they win.

    Raises:
        ConfigError: If the user asked for something that makes no sense.
    """
    quiet_libraries()
    # `${data.batch_size}` means the key of the file, not of the parser that holds the subcommands.
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    given = complete(sys.argv[1:] if args is None else args)
    answer_help(given)
    parser = {
        "parser_mode": "omegaconf+",
        "default_config_files": [str(run_folder.conf_folder() / "default.yaml")],
        "exit_on_error": False,
    }
    return CreativeCLI(
        CreativeLearner,
        ReplayDataModule,
        trainer_class=Player,
        args=given,
        objects=objects,
        save_config_callback=None,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        parser_kwargs={name: parser | {"description": does} for name, does in SUBCOMMANDS.items()}
        | {
            "prog": PROG,
            "description": DESCRIPTION,
            "exit_on_error": False,
            "parser_mode": parser["parser_mode"],
        },
    )
