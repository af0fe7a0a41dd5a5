"""Running the jobs of a study in parallel, with one progress bar over all of them."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from lit_crl.bars import Bar
from lit_crl.checks import RunError
from lit_crl.study.backends import Backend, Running
from lit_crl.study.plan import Job

#: Seconds between two looks at the runs.
POLL = 0.5


def env_steps_of(run_folder: Path) -> int:
    """Env steps that a run has logged so far: the first number in the last line of its metrics."""
    path = run_folder / "metrics.csv"
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4_096))
        # What is written right now may lack its end.
        lines = file.read().decode(errors="replace").split("\n")[:-1]
    first = lines[-1].split(",")[0] if lines else ""
    return int(first) if first.isdigit() else 0


def run(jobs: Sequence[Job], backend: Backend, console: Console) -> None:
    """Run what is not done yet.

    A job that fails leaves the others alone.

    Args:
        jobs: All jobs of the study.
        backend: Where they run.
        console: Where the bar goes.

    Raises:
        RunError: When all have ended, if some failed.
        KeyboardInterrupt: If the user stopped it; what runs has saved itself by then.
    """
    waiting = [job for job in jobs if not job.is_done]
    running: dict[Job, Running] = {}
    failed: list[Job] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console) as progress:
        budget = sum(len(job.seeds) * job.env_steps for job in jobs)
        bar = progress.add_task("", total=budget)
        try:
            while waiting or running:
                while waiting and len(running) < backend.at_once:
                    job = waiting.pop(0)
                    running[job] = backend.start(job)
                time.sleep(POLL)
                ended = {
                    job: status
                    for job, process in running.items()
                    if (status := process.poll()) is not None
                }
                for job, status in ended.items():
                    del running[job]
                    if status != 0:
                        failed.append(job)
                        progress.print(f"{job.name} failed: see {job.log}")
                _show(progress, bar, jobs)
        except KeyboardInterrupt:
            stop(running.values())
            raise
    if failed:
        raise RunError(
            f"{len(failed)} of {len(jobs)} processes failed ({'; '.join(j.name for j in failed)}): "
            f"see {failed[0].log}, and run the same command again for what is missing"
        )


def stop(running: Iterable[Running]) -> None:
    """Let every job save itself and end."""
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def _show(progress: Bar, bar: TaskID, jobs: Sequence[Job]) -> None:
    steps = done = 0
    for job in jobs:
        done += len(job.seeds) * job.is_done
        steps += sum(
            min(env_steps_of(job.run_folder(seed)), job.env_steps)
            if not job.is_done
            else job.env_steps
            for seed in job.seeds
        )
    runs = sum(len(job.seeds) for job in jobs)
    progress.update(bar, completed=steps, description=f"{done} of {runs} runs")
    progress.refresh()
