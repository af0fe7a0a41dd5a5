"""Which code made the runs of a study: runs of two versions are not compared."""

from collections.abc import Iterable
from pathlib import Path

from lit_crl.core.checks import ConfigError
from lit_crl.core.version import __version__
from lit_crl.runs.callbacks.report import git_commit
from lit_crl.runs.study.jobs import Job

#: File of a study's folder that says which code started its runs.
FILE = "code_version.txt"


def described(commit: str | None, version: str | None) -> str:
    """A version of the code in words.

    >>> described("0123456789abcdef", "0.1.0"), described(None, "0.1.0")
    ('commit 0123456789ab', 'lit_crl 0.1.0')
    """
    if commit:
        return f"commit {commit[:12]}"
    return f"lit_crl {version}" if version else "an unknown version"


def check_same_code(jobs: Iterable[Job], folder: Path) -> None:
    """Check that the runs in a study's folder are of the present code, and note that it is used.

    Raises:
        ConfigError: If some are of other code.
    """
    now, file = described(git_commit(), __version__), folder / FILE
    found = {file.read_text().strip()} if file.is_file() else set()
    for job in jobs:
        if job.is_done:
            summary = job.summary()
            version = (summary.get("versions") or {}).get("lit_crl")
            found.add(described(summary.get("git_commit"), version))
    if others := sorted(found - {now}):
        raise ConfigError(
            f"{folder} holds runs of {', '.join(others)}, but this is {now}, and runs of different "
            "code may not compare: go back to that code, or give the study another name or another "
            "--root"
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{now}\n")
