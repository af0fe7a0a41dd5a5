"""Which folder a subcommand writes to, and which checkpoint it starts from."""

import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from jsonargparse import Namespace

from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import print_once, process_rank
from lit_crl.core.tensor_files import best_of, newest_whole, read_learner, read_run
from lit_crl.runs import folders
from lit_crl.runs.checkpoints.signals import RunStopped

#: The environment variable that tells other processes which folder the first one has chosen.
RUN_FOLDER = "LIT_CRL_RUN_FOLDER"


class RunPlace(AbstractContextManager["RunPlace"]):
    """The run folder of a command, in a ``with`` block: a run without results is removed."""

    folder: Path

    def __init__(self) -> None:
        """Choose nothing yet: the command line must be read first."""
        self._claim: folders.Claim | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    @property
    def is_scratch(self) -> bool:
        """Whether the folder is deleted at the end, because of ``trainer.fast_dev_run``."""
        return self._scratch is not None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Delete what is not worth keeping, and let other processes use the folder."""
        os.environ.pop(RUN_FOLDER, None)
        if self._scratch is not None:
            self._scratch.cleanup()
        if self._claim is not None:
            if error is not None and not self._has_results(error):
                self._claim.abandon()
            self._claim.close()

    def _has_results(self, error: BaseException) -> bool:
        if isinstance(error, RunStopped):
            return error.run is not None
        return (self.folder / "config.yaml").is_file()

    def choose(self, subcommand: str, config: Namespace) -> str | None:
        """Choose the folder, and return the checkpoint to start from; None if there is none.

        Raises:
            ConfigError: If there is no such run or checkpoint, or the folder cannot be used.
        """
        folders.check_folder_name("experiment", config.experiment)
        if config.name is not None:
            folders.check_folder_name("name", config.name)
        parent = Path(config.trainer.default_root_dir) / config.experiment
        run = (parent, config.name, config.seed_everything)
        given: str | None = config.ckpt_path
        if given == "best" and subcommand == "fit":
            raise ConfigError(
                "--ckpt_path is best, the best policy without optimizers and experience, so fit "
                "cannot go on from it: use last"
            )
        if subcommand != "fit":
            return self._choose_finished(run, "last" if given is None else given)
        if process_rank() > 0:
            # If the first process started this one, it has chosen the folder for both.
            chosen = os.environ.get(RUN_FOLDER)
            self.folder = source = Path(chosen) if chosen else folders.newest_run(*run)
        elif config.trainer.fast_dev_run:
            self._scratch = tempfile.TemporaryDirectory(prefix="lit_crl-")
            self.folder, source = Path(self._scratch.name), folders.newest_run(*run)
        else:
            try:
                self._claim = folders.claim_run(*run, resume=given == "last")
            except UnicodeEncodeError as error:
                raise ConfigError(
                    f"the run folder {parent} has letters that this system's locale cannot encode: "
                    "set PYTHONUTF8=1"
                ) from error
            self.folder = source = self._claim.path
            os.environ[RUN_FOLDER] = str(self.folder)
        found = find_checkpoint(given, source)
        if given is not None and found is None:
            print_once(f"Nothing was saved in {source} yet: starting afresh.")
        return found

    def _choose_finished(self, run: tuple[Path, str | None, int], given: str) -> str:
        is_of_run = given in ("last", "best")
        self.folder = folders.newest_run(*run) if is_of_run else folders.run_of(Path(given))
        if given == "last":
            if (found := find_checkpoint(given, self.folder)) is None:
                raise ConfigError(
                    f"nothing was saved in {self.folder / 'checkpoints'} yet: run "
                    "`python -m lit_crl fit` first, or give --ckpt_path"
                )
            return found
        path = best_of(self.folder) if given == "best" else Path(given)
        read_learner(path)
        return str(path)


def find_checkpoint(given: str | None, folder: Path) -> str | None:
    """The checkpoint that a fit goes on from, as ``--ckpt_path`` says; None if there is none.

    Raises:
        ConfigError: If it cannot be used.
    """
    if given is None:
        return None
    if given != "last":
        read_run(Path(given))
        return given
    path, problems = newest_whole(folder / "checkpoints")
    for problem in problems:
        print_once(f"{problem}.\nUsing {path}, the checkpoint before it.")
    return None if path is None else str(path)
