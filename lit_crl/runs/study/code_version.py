"""Which code made the runs of a study: those of two versions are not compared."""

import json
from collections.abc import Iterable
from pathlib import Path

from lit_crl.core.checks import ConfigError
from lit_crl.core.version import __version__
from lit_crl.runs.callbacks.report import git_commit
from lit_crl.runs.study.plan import Job

#: File of a study's folder that says which code its runs were started with.
FILE = "code_version.txt"


def present() -> str:
    """The code that runs now."""
    return described(git_commit(), __version__)


def described(commit: str | None, version: str | None) -> str:
    """A version of the code in words: its commit, or what was installed."""
    if commit:
        return f"commit {commit[:12]}"
    return f"lit_crl {version}" if version else "an unknown version"


def of_run(run_folder: Path) -> str:
    """The code that made a run which is done, by its ``summary.json``."""
    summary = json.loads((run_folder / "summary.json").read_text())
    return described(summary.get("git_commit"), (summary.get("versions") or {}).get("lit_crl"))


def check_same_code(jobs: Iterable[Job], folder: Path) -> None:
    """See that the runs in a study's folder are of the present code; write down that it is used.

    Raises:
        ConfigError: If some are of other code.
    """
    now, file = present(), folder / FILE
    found = {of_run(job.run_folder) for job in jobs if job.is_done}
    found |= {file.read_text().strip()} if file.is_file() else set()
    if others := sorted(found - {now}):
        raise ConfigError(
            f"{folder} holds runs of {', '.join(others)}, but this is {now}, whose runs may not "
            "compare with them: go back to that code, or give the study another name or another "
            "--root"
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{now}\n")
