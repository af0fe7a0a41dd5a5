"""Processes on this machine."""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from lit_crl.core.checks import ConfigError
from lit_crl.runs.study.jobs import Job

#: Seconds that a run has to save itself after ``terminate``, before it is killed.
GRACE = 120.0


def cores() -> int:
    """How many cores this process may use; containers and ``taskset`` may allow fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalProcess(subprocess.Popen[bytes]):
    """A process that leads its own process group, so that all its children can be killed."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status; it is killed if it has not ended after ``GRACE`` seconds."""
        with suppress(subprocess.TimeoutExpired):
            super().wait(GRACE if timeout is None else timeout)
        self.kill()
        return self.returncode

    def kill(self) -> None:
        """Kill it and all processes that it has started."""
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(self.pid, signal.SIGKILL)
        super().wait()


@dataclass(frozen=True)
class Local:
    """Runs each job in its own process, ``at_once`` at a time."""

    at_once: int

    def start(self, job: Job) -> LocalProcess:
        """Start a job; its output goes to its log."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            return LocalProcess(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this process, which passes it on.
                start_new_session=True,
                # One core each: more threads would get in each other's way. Notebook kernels set
                # FORCE_COLOR, but a log is a file.
                env=os.environ | {"OMP_NUM_THREADS": "1", "FORCE_COLOR": ""},
            )

    def close(self) -> None:
        """Do nothing: the runner ends its processes."""


def connect(processes: int | None = None, address: str | None = None) -> Local:
    """This machine: by default as many jobs at a time as there are cores for this process.

    Raises:
        ConfigError: If an address is given.
    """
    if address is not None:
        raise ConfigError(
            f"--address is {address!r}, but the local backend has none: leave it out, or use "
            "--backend ray"
        )
    return Local(processes or cores())
