"""Copies of one Gymnasium environment in processes of their own, stepped at the same time.

Each process holds a part of the copies and steps them one after another; there are no more
processes than cores. They give the same transitions as copies in one process. ``worker.py`` is what
a process runs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs.gym.copies import SAVED
from lit_crl.envs.gym.guard import Env, SetLevel
from lit_crl.envs.gym.returned import Array, told
from lit_crl.envs.gym.snapshots import from_bytes, in_bytes
from lit_crl.envs.gym.vectorized import Kind
from lit_crl.envs.gym.worker import ARRAYS, Failure, Job

#: Variables by which libraries learn how many threads they may start: a process is to take a core.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
#: Seconds that a process gets to end by itself.
_PATIENCE = 10


class _Died(RunError):
    """A process has ended that should not have."""


class Workers:
    """Copies in processes, with what they return in arrays; see ``vectorized.Vectorized``."""

    kind: Kind
    observations: Array
    running: Array
    terminated: Array
    truncated: Array
    lost_life: Array
    reported: Array

    def __init__(
        self,
        make: Callable[[], Env],
        count: int,
        name: str,
        kept_space: Callable[[Env], Box],
        set_level: SetLevel | None = None,
        counts_lives: bool = False,
    ) -> None:
        """Start the processes and make the environments; see ``copies.Copies``.

        Raises:
            ConfigError: If something cannot be sent to a process, or cannot be made there.
        """
        self._name, self._workers = name, list[_Worker]()
        parts = np.array_split(np.arange(count), min(count, _cores()))
        self._slices = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
        spec = gymnasium.registry.get(name.rpartition(":")[2])
        jobs = [
            Job(make, x.stop - x.start, name, kept_space, set_level, counts_lives, spec)
            for x in self._slices
        ]
        try:
            sent = [_packed(job, name) for job in jobs]
            self._workers = [_Worker(name) for _ in jobs]
            for worker, job in zip(self._workers, sent, strict=True):
                worker.send_packed(job)
            kinds: list[Kind] = [worker.receive() for worker in self._workers]
        except Exception:
            with contextlib.suppress(RunError):
                self.close()
            raise
        self.kind = kinds[0]
        self._check_alike(kinds)
        space = self.kind.space
        self.observations = np.zeros((count, *space.shape), space.dtype)
        self.running, self.terminated, self.truncated, self.lost_life = np.zeros((4, count), bool)
        self.reported = np.full(count, -1, np.int8)
        self.reports_success = self.has_lives = False

    def _check_alike(self, kinds: Sequence[Kind]) -> None:
        for other in kinds[1:]:
            mine = self.kind.space.shape, self.kind.space.dtype, self.kind.num_actions
            if (other.space.shape, other.space.dtype, other.num_actions) != mine:
                self.close()
                raise ConfigError(
                    f"{self._name}: copies have different spaces, {self.kind.space} with "
                    f"{self.kind.num_actions} actions and {other.space} with {other.num_actions}: "
                    "all must have the same"
                )

    def try_out(self, levels: Array | None) -> None:
        """Reset and step the first environment once; see ``copies.Copies.try_out``."""
        self._ask([(0, ("try_out", None if levels is None else levels[self._slices[0]]))])

    def reset(
        self,
        chosen: Array,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
        levels: Array | None = None,
    ) -> None:
        """Start new episodes; see ``copies.Copies.reset``."""
        asked = []
        for index, part in enumerate(self._slices):
            if chosen[part].any():
                first = None if seed is None else seed + part.start
                rows = None if levels is None else levels[part]
                asked.append((index, ("reset", chosen[part], first, options, rows)))
        self._ask(asked)

    def step(self, actions: Array) -> Array:
        """Advance every copy whose episode is running; see ``copies.Copies.step``."""
        rewards = np.zeros(len(self.running))
        moving = [
            (index, ("step", actions[part]))
            for index, part in enumerate(self._slices)
            if self.running[part].any()
        ]
        for (index, _), found in zip(moving, self._ask(moving), strict=True):
            rewards[self._slices[index]] = found
        return rewards

    def why_not_saved(self) -> str | None:
        """Why ``state_dict`` cannot hold the running episodes, in words; None: it can."""
        found: str | None = self._ask([(0, ("why_not_saved",))])[0]
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the running episodes, as copies in one process do."""
        states = [from_bytes(state) for state in self._ask_all("state_dict")]
        return {
            name: [env for state in states for env in state["envs"]]
            if name == "envs"
            else torch.cat([state[name] for state in states])
            for name in states[0]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        of_copies = {name: state[name] for name in ("envs", *SAVED) if name in state}
        self._ask(
            [
                (
                    index,
                    ("load_state_dict", in_bytes({n: each[part] for n, each in of_copies.items()})),
                )
                for index, part in enumerate(self._slices)
            ]
        )

    def kept_state(self, i: int) -> bytes:
        """The running episode of a copy; see ``copies.Copies.kept_state``."""
        kept: bytes = self._ask_about(i, "kept_state")
        return kept

    def start_from(self, i: int, kept: bytes) -> None:
        """Start an episode in a kept state; see ``copies.Copies.start_from``."""
        self._ask_about(i, "start_from", kept)

    def render(self) -> tuple[Any, ...]:
        """Return an image of every copy."""
        return tuple(image for images in self._ask_all("render") for image in images)

    def close(self) -> None:
        """Close every copy, and end the processes.

        Raises:
            RunError: If a copy cannot be closed.
        """
        workers, self._workers = self._workers, []
        failed: Exception | None = None
        for worker in workers:
            try:
                worker.close()
            except RunError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _ask_all(self, what: str) -> list[Any]:
        return self._ask([(index, (what,)) for index in range(len(self._slices))])

    def _ask_about(self, i: int, what: str, *args: Any) -> Any:
        """Ask the process that holds copy ``i``."""
        index = next(n for n, part in enumerate(self._slices) if i < part.stop)
        return self._ask([(index, (what, i - self._slices[index].start, *args))])[0]

    def _ask(self, questions: Sequence[tuple[int, tuple[Any, ...]]]) -> list[Any]:
        """Let some processes work at the same time, and take over what their arrays hold now."""
        for index, question in questions:
            self._workers[index].send(question)
        answers, failed = [], None
        for index, _ in questions:
            # All answers are fetched, so that none is taken for that to a later question.
            try:
                answer, arrays, flags = self._workers[index].receive()
            except Exception as error:
                failed = failed or error
                continue
            for name, array in zip(ARRAYS, arrays, strict=True):
                getattr(self, name)[self._slices[index]] = array
            self.reports_success |= flags[0]
            self.has_lives |= flags[1]
            answers.append(answer)
        if failed is not None:
            raise failed
        return answers


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self._name = name
        self._pipe, theirs = Pipe()
        program = "from lit_crl.envs.gym.worker import main; main()"
        command = [sys.executable, "-c", program, str(theirs.fileno())]
        # It finds the same modules, in the same order.
        variables = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(command, env=variables, pass_fds=[theirs.fileno()])
        theirs.close()

    def send(self, message: Any) -> None:
        """Ask for something."""
        self.send_packed(_packed(message, self._name))

    def send_packed(self, message: bytes) -> None:
        """The same, for a message that was packed before."""
        try:
            self._pipe.send_bytes(message)
        except OSError as error:
            raise self._died() from error

    def receive(self) -> Any:
        """Its answer.

        Raises:
            RunError: If the environment fails there, or the process has died.
            ConfigError: If it cannot be made there.
        """
        try:
            answer = cloudpickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(answer, Failure):
            raise answer.error()
        return answer

    def _died(self) -> _Died:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        return _Died(
            f"{self._name}: a process of vectorization async has died with exit status "
            f"{self._process.returncode}: look at what it printed, or try sync"
        )

    def close(self) -> None:
        """Let it close its copies, and end it."""
        try:
            with contextlib.suppress(_Died):
                self.send(("close",))
                self.receive()
        finally:
            self._pipe.close()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _packed(message: Any, name: str) -> bytes:
    try:
        packed: bytes = cloudpickle.dumps(message)
    except Exception as error:
        raise ConfigError(
            f"vectorization is async, but {name} cannot be sent to a process ({told(error)}): use "
            "sync, or let the environment be made from an id or a module's function"
        ) from error
    return packed


def _cores() -> int:
    return len(os.sched_getaffinity(0))
