"""A Ray cluster: every job is a task of one CPU, on whichever machine has one free.

All machines need lit_crl and must share a file system: a task works in the folder where the study
was started. If a machine is lost, Ray restarts its tasks elsewhere, and they go on from their
last checkpoints.
"""

import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, TaskCancelledError

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.runs.study.backends.local import Local
from lit_crl.runs.study.jobs import Job

#: Seconds between two checks of a process.
CHECK_EVERY = 0.2


def work(job: Job, folder: str) -> int:
    """A task: run a job's process in ``folder``; if cancelled, let it save itself."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise RunError(
            f"a machine of the cluster cannot enter {folder}: studies need a file system that all "
            "machines share"
        ) from error
    # Ray cancels a task with SIGINT. As an exception it could come while the process starts, and
    # leave it behind.
    cancelled = threading.Event()
    handler = signal.signal(signal.SIGINT, lambda *_: cancelled.set())
    try:
        process = Local(1).start(job)
        try:
            while (status := process.poll()) is None:
                if cancelled.wait(CHECK_EVERY):
                    process.terminate()
                    return process.wait()
            return status
        except BaseException:
            process.kill()
            raise
    finally:
        signal.signal(signal.SIGINT, handler)


@dataclass(frozen=True)
class Task:
    """A task that was submitted to the cluster."""

    job: Job
    result: Any

    def poll(self) -> int | None:
        """The process's exit status; None while the task runs or waits for a free CPU."""
        ended, _ = ray.wait([self.result], timeout=0)
        return self.wait() if ended else None

    def terminate(self) -> None:
        """Cancel it: a waiting task never starts, a running one saves itself."""
        ray.cancel(self.result)

    def kill(self) -> None:
        """Kill the task's worker."""
        ray.cancel(self.result, force=True)

    def wait(self) -> int:
        """The process's exit status; an error of the task itself goes to the job's log."""
        try:
            return int(ray.get(self.result))
        except TaskCancelledError:
            return -signal.SIGTERM
        except RayError as error:
            self.job.log.parent.mkdir(parents=True, exist_ok=True)
            with self.job.log.open("a", encoding="utf-8") as log:
                log.write(f"{error}\n")
            return 1


@dataclass(frozen=True)
class Cluster:
    """Submits jobs to the cluster, where they wait for free CPUs.

    Args:
        at_once: How many jobs may run or wait at a time.
        is_ours: Whether this object joined Ray, and leaves it when it is closed.
    """

    at_once: int
    is_ours: bool

    def start(self, job: Job) -> Task:
        """Submit a job to the cluster."""
        return Task(job, ray.remote(num_cpus=1)(work).remote(job, str(Path.cwd())))

    def close(self) -> None:
        """Leave Ray, unless it was joined before."""
        if self.is_ours:
            ray.shutdown()


def connect(processes: int | None, address: str | None) -> Cluster:
    """The cluster at an address; None: the one that runs here, or else a new one on this machine.

    A cluster that this process has already joined is used, and stays joined.

    Raises:
        ConfigError: If there is none at the address, or this process has joined a cluster and an
            address is given.
    """
    at_once = processes or sys.maxsize
    if ray.is_initialized():
        if address not in (None, "auto"):
            raise ConfigError(
                f"--address is {address}, but this process has joined a Ray cluster already: leave "
                "the address out to use that one, or call ray.shutdown() first"
            )
        return Cluster(at_once, is_ours=False)
    if address not in (None, "auto", "local"):
        check_answers(str(address))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ConfigError(
            f"there is no Ray cluster to join (--address is {address}): start one with `ray start "
            "--head`, or leave the address out"
        ) from error
    signal.signal(signal.SIGTERM, handler)  # Ray has replaced it
    return Cluster(at_once, is_ours=True)


def check_answers(address: str) -> None:
    """Check that something answers at ``host:port``: Ray itself would try for many minutes.

    Raises:
        ConfigError: If nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers at --address {address}: give the host:port that `ray start "
            "--head` has printed, or leave the address out"
        ) from error
