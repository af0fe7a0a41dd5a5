"""Processes on this machine."""

import os
import subprocess
from dataclasses import dataclass

from lit_crl.checks import ConfigError
from lit_crl.study.plan import Job


@dataclass(frozen=True)
class Local:
    """Runs every job in a process of its own, ``at_once`` at a time."""

    at_once: int

    def start(self, job: Job) -> "subprocess.Popen[bytes]":
        """Start a job; what it prints goes to its log."""
        job.folder.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            return subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the study, which passes it on.
                start_new_session=True,
                # One core each: more threads would be in each other's way. A notebook's kernel asks
                # for colours, which are not for files.
                env=os.environ | {"OMP_NUM_THREADS": "1", "FORCE_COLOR": ""},
            )


def connect(processes: int | None = None, address: str | None = None) -> Local:
    """This machine: by default as many jobs at a time as it has cores.

    Raises:
        ConfigError: If an address is given.
    """
    if address is not None:
        raise ConfigError(
            f"--address is {address!r}, but the local backend has none: leave it out, or use "
            "--backend ray"
        )
    return Local(processes or os.cpu_count() or 1)
