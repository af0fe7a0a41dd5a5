"""Where the jobs of a study run. Each backend is a file here with a function ``connect``."""

from importlib import import_module
from typing import Protocol

from lit_crl.core.checks import ConfigError
from lit_crl.runs.study.jobs import Job


class Running(Protocol):
    """A job that was started, with the methods of ``subprocess.Popen``."""

    def poll(self) -> int | None:
        """Its exit status, 0 for success; None while it runs or waits for a place."""

    def terminate(self) -> None:
        """Tell it to save itself and end."""

    def wait(self) -> int:
        """Its exit status, when it has ended after ``terminate``."""

    def kill(self) -> None:
        """Kill it and all processes that it has started."""


class Backend(Protocol):
    """Something that can run jobs."""

    @property
    def at_once(self) -> int:
        """How many jobs may run or wait at a time."""

    def start(self, job: Job) -> Running:
        """Start a job; it goes on where an earlier start stopped."""

    def close(self) -> None:
        """Undo ``connect``."""


def connect(name: str, processes: int | None, address: str | None) -> Backend:
    """The backend of that name: ``lit_crl.runs.study.backends.<name>``.

    Args:
        name: ``local`` or ``ray``.
        processes: How many jobs run at a time; None: as many as there are cores for.
        address: Address of the backend; None: here.

    Raises:
        ConfigError: If it is not installed, or does not answer.
    """
    try:
        module = import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigError(
            f"--backend {name} needs the package {name}, which is missing: "
            f"pip install 'lit_crl[{name}]'"
        ) from error
    backend: Backend = module.connect(processes, address)
    return backend
