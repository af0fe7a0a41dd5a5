"""The command line: ``python -m lit_crl {fit,validate,test,predict,play}``."""

import functools
import logging
import os
import re
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf.errors import OmegaConfBaseException

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import say
from lit_crl.core.tensor_files import newest_whole, read_checkpoint, read_run
from lit_crl.runs import folders
from lit_crl.runs.callbacks import (
    MetricsCsv,
    RecordMetrics,
    RunCheckpoint,
    RunReport,
    StopOnSignal,
)
from lit_crl.runs.checkpoints.signals import RunStopped, Signals
from lit_crl.runs.cli import trainer_settings, yaml_strings
from lit_crl.runs.cli.arguments import ANY_ID, complete, without
from lit_crl.runs.cli.parser import RunParser
from lit_crl.runs.cli.quiet import quiet_libraries
from lit_crl.runs.cli.usage import (
    DESCRIPTION,
    OPTIONS,
    PROG,
    SUBCOMMANDS,
    answer_help,
    read_words,
)
from lit_crl.runs.dashboard.callback import Dashboard, display
from lit_crl.runs.ending import early_end
from lit_crl.runs.folders import Claim
from lit_crl.runs.naming import refuse_description, written
from lit_crl.runs.play import Player
from lit_crl.training import trainer_checks
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner

#: The environment variable by which processes learn the folder that the first one has chosen.
RUN_FOLDER = "LIT_CRL_RUN_FOLDER"
#: What a stop means to all but ``fit``.
NOTHING_CHANGED = "at once; the run is as it was, and the same command starts again"


class CreativeCLI(LightningCLI):
    """LightningCLI with run folders, and the command line above the checkpoint on resume."""

    run_folder: Path
    #: Where a run under ``trainer.fast_dev_run`` writes; it is deleted at the end.
    scratch: tempfile.TemporaryDirectory[str] | None = None
    #: What shows the run beside its files, if anything does.
    dashboard: Dashboard | None = None
    #: The folder that a fit writes to, in the process that has chosen it.
    claim: Claim | None = None

    def __init__(
        self, *args: Any, signals: Signals, objects: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """As ``LightningCLI``; a run that does not begin leaves no folder.

        Args:
            *args: As ``LightningCLI``.
            signals: What stops it.
            objects: Settings by dotted key that only Python can make.
            **kwargs: As ``LightningCLI``.
        """
        self.signals, self.objects = signals, dict(objects or {})
        self.asked = next(iter(kwargs["args"]), None)
        try:
            super().__init__(*args, **kwargs)
        except BaseException as error:
            if self.claim is not None and not self._is_worth_keeping(error):
                self.claim.abandon()
            if self.scratch is not None:
                self.scratch.cleanup()
            raise
        finally:
            os.environ.pop(RUN_FOLDER, None)
            if self.claim is not None:
                self.claim.close()

    def _is_worth_keeping(self, error: BaseException) -> bool:
        if isinstance(error, RunStopped):
            return error.run is not None
        return (self.run_folder / "config.yaml").is_file()

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read the arguments, and put objects over them.

        Raises:
            ConfigError: If a file only describes an object, because Python alone can make it; or
                if a module of the user's cannot be imported.
        """
        self.given = [*args]  # type: ignore[misc]
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type]
        except ArgumentError as error:
            found = re.search(r'"([\w.]+)"', str(error))  # the key, in jsonargparse's words
            refuse_description(found[1] if found else "a setting", str(error))
            raise
        except OmegaConfBaseException:
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = type(error).__name__
            raise ConfigError(
                f"{kind} in {place.filename}, line {place.lineno}: {error}"
            ) from error
        if self.objects:
            given: dict[str, Any] = {}
            for key, value in self.objects.items():
                *groups, name = key.split(".")
                inner = given
                for group in groups:
                    inner = inner.setdefault(group, {})
                inner[name] = value
            subcommand = self.config.subcommand
            over = yaml_strings.quoted({"subcommand": subcommand, subcommand: given})
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
        """Say what Lightning's own options mean here; the report prints what was found.

        Of the subcommands that are not asked for, the name is enough: each one's arguments take
        a twentieth of a second.
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

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration as given: on resume the command line beats the checkpoint."""

    @property
    def seeds(self) -> int:
        """How many runs are asked for."""
        return int(self.config[self.subcommand].seeds) if self.subcommand == "fit" else 1

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; several seeds as several processes."""
        if self.seeds == 1:
            super()._run_subcommand(subcommand)
            return
        from lit_crl.runs.study.runner import run_seeds

        config = self.config[subcommand]
        first = config.seed_everything
        run_seeds(
            [*without(self.given, "--seeds"), "--seeds=1"],
            range(first, first + self.seeds),
            Path(config.trainer.default_root_dir) / config.experiment,
            config.name,
            config.data.collect.env_steps,
        )

    def _set_seed(self) -> None:
        """Seed the global streams, which initialise the networks."""
        seed = self.config[self.subcommand].seed_everything
        if isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise ConfigError(f"seed_everything is {seed}: give a whole number from 0 to 2³² − 1")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Choose the run folder and the checkpoint before anything is built."""
        config = self.config[self.subcommand]
        checks.positive(seeds=config.seeds)
        if self.seeds > 1:
            return
        checks.positive(threads=config.threads)
        folders.check_folder_name("experiment", config.experiment)
        if config.name is not None:
            folders.check_folder_name("name", config.name)
        torch.set_num_threads(config.threads)
        if config.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
            raise ConfigError(
                f"trainer.accelerator is {config.trainer.accelerator}, but this machine has no "
                "CUDA device: use --trainer.accelerator cpu"
            )
        checkpoint = config.ckpt_path
        if self.subcommand != "fit" and checkpoint is None:
            checkpoint = "last"
        parent = Path(config.trainer.default_root_dir) / config.experiment
        which = (parent, config.name, config.seed_everything)
        if self.subcommand != "fit":
            is_given = checkpoint != "last"
            found = folders.run_of(Path(checkpoint)) if is_given else None
            self.run_folder = found or folders.newest_run(*which)
            self.signals.words = NOTHING_CHANGED
        elif rank_zero_only.rank > 0:  # type: ignore[attr-defined]
            # Where the first process started this one, it says which folder is theirs.
            chosen = os.environ.get(RUN_FOLDER)
            self.run_folder = Path(chosen) if chosen else folders.newest_run(*which)
        elif config.trainer.fast_dev_run:
            self.scratch = tempfile.TemporaryDirectory(prefix="lit_crl-")
            is_last = checkpoint == "last"
            self.run_folder = folders.newest_run(*which) if is_last else Path(self.scratch.name)
        else:
            try:
                self.claim = folders.claim_run(*which, resume=checkpoint == "last")
            except UnicodeEncodeError as error:
                raise ConfigError(
                    f"the run folder {parent} has letters that this system's locale has not: set "
                    "PYTHONUTF8=1"
                ) from error
            self.run_folder = self.claim.path
            os.environ[RUN_FOLDER] = str(self.run_folder)
        config.ckpt_path = self._checkpoint(checkpoint)
        if self.scratch is not None:
            self.run_folder = Path(self.scratch.name)

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

        For several seeds nothing is built: each has a process of its own.

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
        self.trainer_defaults["callbacks"] = [
            *callbacks,
            checkpoint,
            StopOnSignal(checkpoint, self.signals),
        ]
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
        if config.experiment == ANY_ID and without(self.given, "--experiment") == self.given:
            say(f"Settings of conf/experiment/{ANY_ID}.yaml.")
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
    given = complete(read_words() if args is None else args)
    answer_help(given)
    parser = {
        "parser_mode": yaml_strings.MODE,
        "default_config_files": [str(folders.conf_folder() / "default.yaml")],
        "exit_on_error": False,
    }
    with Signals() as signals:
        return CreativeCLI(
            CreativeLearner,
            ReplayDataModule,
            trainer_class=Player,
            args=given,
            signals=signals,
            objects=objects,
            parser_class=RunParser,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={
                name: parser | {"description": does} for name, does in SUBCOMMANDS.items()
            }
            | {
                "prog": PROG,
                "description": DESCRIPTION,
                "exit_on_error": False,
                "parser_mode": yaml_strings.MODE,
            },
        )
