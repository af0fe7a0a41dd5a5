"""A process that holds some copies of a Gymnasium environment, and does what it is asked.

``main`` is started with the number of an open pipe. Messages come only from the process that
started it; it ends when that process closes the pipe or dies. It imports torch, which takes longer
than all the rest, only to save episodes, or because the environment does.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.core.global_streams import seed_global_streams
from lit_crl.envs.gym import making
from lit_crl.envs.gym.copies import Copies
from lit_crl.envs.gym.guard import Env, SetLevel

#: The arrays that come with every answer.
ARRAYS = ("observations", "running", "terminated", "truncated", "lost_life", "reported")


@dataclass(frozen=True)
class Job:
    """What a process makes: the arguments of ``Copies``, and what is known of its id."""

    make: Callable[[], Env]
    count: int
    name: str
    kept_space: Callable[[Env], Box]
    set_level: SetLevel | None
    counts_lives: bool
    spec: EnvSpec | None


@dataclass(frozen=True)
class Failure:
    """An error in a process, in words."""

    is_config: bool
    message: str

    def error(self) -> Exception:
        """The same error for the process that asked."""
        return ConfigError(self.message) if self.is_config else RunError(self.message)


def main() -> None:
    """Work for the process at the other end of the pipe that the command line names."""
    # That process decides when to stop, and may still want to save.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    work(Connection(int(sys.argv[1])))


def work(pipe: Connection) -> None:
    """Make the copies of the first message, and answer all others until the pipe is closed.

    Messages may run code. Only the process that started this one holds the pipe's other end, and
    none of them comes from a file: saved states travel as bytes that are read with
    ``weights_only=True``.
    """
    copies: Copies | None = None
    while True:
        try:
            message = cloudpickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):  # the process that asks has ended
            return
        try:
            if copies is None:
                copies = _made(message)
                answer: Any = copies.kind
            else:
                answer = _answer(copies, *message)
        except (ConfigError, RunError) as error:
            answer = Failure(isinstance(error, ConfigError), str(error))
        except Exception:
            answer = Failure(False, f"a process of vectorization async: {traceback.format_exc()}")
        pipe.send_bytes(_packed(answer))
        if isinstance(answer, Failure) and copies is None:
            return
        if not isinstance(message, Job) and message[0] == "close":
            return


def _packed(answer: Any) -> bytes:
    try:
        packed: bytes = cloudpickle.dumps(answer)
    except Exception as error:  # what a user's render() returned, for instance
        failure = Failure(False, f"a process of vectorization async cannot send this: {error}")
        packed = cloudpickle.dumps(failure)
    return packed


def _made(job: Job) -> Copies:
    if job.spec is not None:
        making.import_module_of(job.name)
        # A script may have registered it, which this process does not run.
        gymnasium.registry.setdefault(job.spec.id, job.spec)
    made = Copies(job.make, job.count, job.name, job.kept_space, job.set_level, job.counts_lives)
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(1)  # reads no variable of the environment
    return made


def _answer(copies: Copies, what: str, *args: Any) -> Any:
    """What was asked for, with the arrays and flags that it may have changed."""
    found: Any = None
    if what == "reset":
        chosen, seed, options, levels = args
        if seed is not None:
            seed_global_streams(seed)  # some environments draw from these
        copies.reset(chosen, seed=seed, options=options, levels=levels)
    elif what == "state_dict":
        from lit_crl.envs.gym.snapshots import in_bytes

        found = in_bytes(copies.state_dict())
    elif what == "load_state_dict":
        from lit_crl.envs.gym.snapshots import from_bytes

        copies.load_state_dict(from_bytes(args[0]))
    else:
        found = getattr(copies, what)(*args)
    arrays = [getattr(copies, name) for name in ARRAYS]
    return found, arrays, (copies.reports_success, copies.has_lives)
