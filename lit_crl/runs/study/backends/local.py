"""Processes on this machine."""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from lit_crl.core.checks import ConfigError
from lit_crl.runs.study.plan import Job

#: Seconds in which a run that is told to end can save itself; then it is killed.
GRACE = 120.0


def cores() -> int:
    """How many cores this process may use: a container or ``taskset`` may leave it fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class LocalProcess:
    """A process that leads a process group of its own, in which all that it starts are."""

    leader: "subprocess.Popen[bytes]"

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.leader.poll()

    def terminate(self) -> None:
        """Tell it to save itself and end."""
        self.leader.terminate()

    def wait(self) -> int:
        """Its exit status; what has not ended ``GRACE`` seconds after ``terminate`` is killed."""
        with suppress(subprocess.TimeoutExpired):
            self.leader.wait(GRACE)
        self.kill()
        return self.leader.returncode

    def kill(self) -> None:
        """End it and all processes that it has started."""
        with suppress(ProcessLookupError):  # none of them is left
            os.killpg(self.leader.pid, signal.SIGKILL)
        self.leader.wait()


@dataclass(frozen=True)
class Local:
    """Runs every job in a process of its own, ``at_once`` at a time."""

    at_once: int

    def start(self, job: Job) -> LocalProcess:
        """Start a job; what it prints goes to its log."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            leader = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this process, which passes it on.
                start_new_session=True,
                # One core each: more threads would be in each other's way. A notebook's kernel asks
                # for colours, which are not for files.
                env=os.environ | {"OMP_NUM_THREADS": "1", "FORCE_COLOR": ""},
            )
        return LocalProcess(leader)

    def close(self) -> None:
        """Nothing: its processes are the runner's."""


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
