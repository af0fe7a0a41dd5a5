"""A whole study: run what is missing, collect, compare, draw."""

import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from lit_crl import run_folder
from lit_crl.study import figures, results, runner
from lit_crl.study.backends import Backend
from lit_crl.study.plan import Study, check_same, env_step_budget, find_study, jobs_of, read_study


def run_study(given: str, root: Path, connect: Callable[[], Backend]) -> None:
    """Run a study in ``root/<name>``; what is there already is not run again.

    Args:
        given: The study's file.
        root: Where studies live.
        connect: Gives the backend that the runs go to, once it is known that there are any.

    Raises:
        ConfigError: If the file is no study, or its folder holds another one.
        RunError: If runs failed; the others are compared all the same.
    """
    path = find_study(given)
    study = read_study(path)
    folder = root / study.name
    run_folder.check_writable(folder)
    copy = folder / "study.yaml"
    if copy.is_file():
        check_same(study, read_study(copy), folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (copy.exists() and copy.samefile(path)):
        shutil.copyfile(path, copy)
    jobs = jobs_of(study, folder)
    console = Console(highlight=False, soft_wrap=True)
    try:
        if not all(job.is_done for job in jobs):
            runner.run(jobs, connect(), env_step_budget(study), console)
    finally:
        rows = results.collect(jobs)
        if rows:
            report(study, rows, folder, console)


def report(study: Study, rows: list[results.Row], folder: Path, console: Console) -> None:
    """Write ``results.csv``, ``table.md`` and ``figures/``, and show the table."""
    results.write_csv(rows, folder / "results.csv")
    header, cells = results.table(study, results.compare(study, rows))
    (folder / "table.md").write_text(results.markdown(header, cells))
    shown = Table(title=f"{study.name}: {figures.label_of(study.metric)}", title_justify="left")
    for name in header:
        is_arm = name == "arm"
        shown.add_column(name, justify="left" if is_arm else "right", no_wrap=is_arm)
    for line in cells:
        shown.add_row(*line)
    console.print(shown)
    drawn = folder / "figures"
    drawn.mkdir(exist_ok=True)
    pictures = {
        "performance_profiles": figures.performance_profiles(
            results.final_scores(rows, study.metric), study.metric, study.name
        )
    }
    for metric in dict.fromkeys([study.metric, *study.curves]):
        found = results.curves(rows, metric)
        if found:
            pictures[metric] = figures.curves_with_bands(found, metric, study.name)
    for name, figure in pictures.items():
        figure.savefig(drawn / f"{name}.png", dpi=150)
        plt.close(figure)
    console.print(f"Results, table and figures: {folder}")
