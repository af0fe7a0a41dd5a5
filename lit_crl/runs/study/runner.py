"""Runs jobs in parallel, a process each, under one progress bar."""

import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.runs.bars import Bar, line_console
from lit_crl.runs.folders import is_run
from lit_crl.runs.study.backends import Backend, Running, local
from lit_crl.runs.study.jobs import Job

#: Seconds between two checks of the processes.
CHECK_EVERY = 0.5
#: Columns of the table at the end of several seeds: key of ``summary.json``, title and format.
COLUMNS = (
    ("target_return_mean", "mean return", "{:.2f}"),
    ("target_success_rate", "success", "{:.1%}"),
    ("heldout_success_rate", "held-out", "{:.1%}"),
    ("env_steps", "env steps", "{:,.0f}"),
    ("wall_seconds", "seconds", "{:.0f}"),
)


def env_steps_of(run_folder: Path) -> int:
    """Env steps that a run has logged so far: the first number in its last line of metrics."""
    path = run_folder / "metrics.csv"
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4_096))
        # The last line may still be being written.
        lines = file.read().decode(errors="replace").split("\n")[:-1]
    first = lines[-1].split(",")[0] if lines else ""
    return int(first) if first.isdigit() else 0


def run(
    jobs: Sequence[Job],
    backend: Backend,
    console: Console,
    go_on: str = "run the same command again",
) -> None:
    """Run the jobs that are not done yet.

    If a job fails, the others go on. Whatever else goes wrong here, no job outlives this function.

    Args:
        jobs: All jobs, including those that are done.
        backend: Where they run.
        console: Where the bar is shown.
        go_on: What the user can do about jobs that failed, in words.

    Raises:
        RunError: When all have ended, if some failed.
        KeyboardInterrupt: If the user stopped it; running jobs have saved themselves by then.
    """
    waiting = [job for job in jobs if not job.is_done]
    running: dict[Job, Running] = {}
    failed: list[Job] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("", total=sum(job.env_steps for job in jobs))
        try:
            while waiting or running:
                while waiting and len(running) < backend.at_once:
                    job = waiting.pop(0)
                    running[job] = backend.start(job)
                time.sleep(CHECK_EVERY)
                for job, process in list(running.items()):
                    if (status := process.poll()) is None:
                        continue
                    del running[job]
                    if status != 0:
                        failed.append(job)
                    end = "done" if status == 0 else f"failed: see {job.log}"
                    left = len(waiting) + len(running)
                    progress.print(f"{job.name} {end} ({left} left)")
                _show(progress, bar, jobs)
        finally:
            stop(running.values())
    if failed:
        raise RunError(
            f"{len(failed)} of {len(jobs)} processes failed ({'; '.join(j.name for j in failed)}): "
            f"see {failed[0].log}, and {go_on} to do the missing runs"
        )


def stop(processes: Iterable[Running]) -> None:
    """Let every job save itself and end; a second interruption kills all of them."""
    left = list(processes)
    try:
        for process in left:
            process.terminate()
        for process in left:
            process.wait()
    except BaseException:
        for process in left:
            process.kill()
        raise


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a closing terminal, interrupt as Ctrl-C does."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGHUP)}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(signum, signal.default_int_handler)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _show(progress: Bar, bar: TaskID, jobs: Sequence[Job]) -> None:
    done = sum(job.is_done for job in jobs)
    steps = sum(
        job.env_steps if job.is_done else min(env_steps_of(job.run_folder), job.env_steps)
        for job in jobs
    )
    progress.update(bar, completed=steps, description=f"{done} of {len(jobs)} runs")
    progress.refresh()


def run_seeds(
    arguments: Sequence[str],
    seeds: range,
    runs: Path,
    name: str | None = None,
    env_steps: int = 1,
    backend: Backend | None = None,
) -> list[Path]:
    """Run the same ``fit`` with several seeds, a process each, and show their results.

    With ``--ckpt_path last`` among the arguments, runs go on where they stopped, and those that are
    done stay as they are.

    Args:
        arguments: The command line after ``python -m lit_crl``, beginning with ``fit`` and without
            ``--seeds``. Its ``--seed_everything`` and ``--name`` are overridden.
        seeds: The seeds.
        runs: The folder of the run folders, ``<root>/<experiment>``.
        name: The value of ``--name``, if it is given.
        env_steps: The budget of one run, for the progress bar.
        backend: Where they run; default: on this machine, as many at a time as there are cores.

    Returns:
        The run folders, in the order of the seeds.

    Raises:
        ConfigError: If runs of that name exist and are not continued.
        RunError: When all have ended, if some failed.
        KeyboardInterrupt: If the user stopped it; running jobs have saved themselves by then.
    """
    goes_on = "--ckpt_path=last" in arguments or ("--ckpt_path", "last") in pairwise(arguments)
    folders = folders_of(seeds, runs, name, goes_on)
    jobs = []
    for seed, folder in zip(seeds, folders, strict=True):
        given = (*arguments, f"--seed_everything={seed}", f"--name={folder.name}")
        jobs.append(Job(runs.name, seed, folder, given, env_steps))
    console = line_console()
    console.print(f"{len(jobs)} seeds, a process each; their output goes to {runs}/*.log")
    try:
        with interruptible():
            run(jobs, backend or local.connect(), console, "add --ckpt_path last")
    finally:
        console.print(closing_table(jobs))
    return folders


def folders_of(seeds: range, runs: Path, name: str | None, goes_on: bool) -> list[Path]:
    """The run folders of several seeds: ``NAME-seedS``.

    Without a name they are ``seedS``, or ``seedS-2`` and so on where one of them is taken; with
    ``goes_on``, the newest of them.

    Raises:
        ConfigError: If runs of that name exist and are not continued.
    """
    if name is not None:
        folders = [runs / f"{name}-seed{seed}" for seed in seeds]
        taken = [str(folder) for folder in folders if is_run(folder)]
        if taken and not goes_on:
            raise ConfigError(
                f"{taken[0]} already holds a run: choose another --name, or continue with "
                "--ckpt_path last"
            )
        return folders
    sets = [[runs / f"seed{seed}" for seed in seeds]]
    while any(map(is_run, sets[-1])):
        sets.append([runs / f"seed{seed}-{len(sets) + 1}" for seed in seeds])
    return sets[-2] if goes_on and len(sets) > 1 else sets[-1]


def closing_table(jobs: Sequence[Job]) -> Table:
    """The results of several seeds, a line each; unknown numbers stay empty."""
    table = Table(title=f"{jobs[0].label}, {len(jobs)} seeds", title_justify="left")
    for title in ("seed", *(title for _, title, _ in COLUMNS), "run"):
        table.add_column(title, justify="left" if title == "run" else "right", overflow="fold")
    for job in jobs:
        summary = job.summary() if job.is_done else {}
        cells = [
            "" if summary.get(key) is None else form.format(summary[key])
            for key, _, form in COLUMNS
        ]
        table.add_row(str(job.seed), *cells, str(job.run_folder) if job.is_done else "not done")
    return table
