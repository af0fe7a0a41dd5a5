"""A whole study: do the missing runs, collect the results, compare the arms, draw figures."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console, JustifyMethod
from rich.table import Table

from lit_crl.runs import folders
from lit_crl.runs.bars import line_console
from lit_crl.runs.study import efficiency, figures, galleries, results, runner
from lit_crl.runs.study.backends import Backend, local
from lit_crl.runs.study.code_version import check_same_code
from lit_crl.runs.study.jobs import jobs_of
from lit_crl.runs.study.plan import Study, check_same, find_study, read_study, tuning_of


def run_study(
    given: str | Path, root: Path, connect: Callable[[], Backend] = local.connect
) -> list[results.Row]:
    """Run a study in ``root/<name>``; runs that are there already are not run again.

    Args:
        given: The study's file.
        root: The folder of all studies.
        connect: Gives the backend for the runs, and is called only if some are missing; default:
            this machine, a run for each core at a time.

    Returns:
        The evaluations of all runs.

    Raises:
        ConfigError: If the file is no study, or its folder holds another study or runs of other
            code.
        RunError: If runs failed; the others are still compared.
    """
    return _run(given, root, connect, lambda study: study)


def tune_study(
    given: str | Path, root: Path, connect: Callable[[], Backend] = local.connect
) -> list[results.Row]:
    """Run the trials of a study in ``root/<name>_tuning``, as ``run_study`` runs its arms.

    Raises:
        ConfigError: As ``run_study`` does, and if the study has no trials.
        RunError: If runs failed.
    """
    return _run(given, root, connect, tuning_of)


def _run(
    given: str | Path,
    root: Path,
    connect: Callable[[], Backend],
    part_of: Callable[[Study], Study],
) -> list[results.Row]:
    path = find_study(str(given))
    study = part_of(read_study(path))
    folder = root / study.name
    folders.check_writable(folder)
    copy = folder / "study.yaml"
    if copy.is_file():
        check_same(study, part_of(read_study(copy)), folder)
    jobs = jobs_of(study, folder)
    missing = not all(job.is_done for job in jobs)
    if missing:
        check_same_code(jobs, folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (copy.exists() and copy.samefile(path)):
        shutil.copyfile(path, copy)
    console = line_console()
    try:
        if missing:
            with closing(connect()) as backend:
                runner.run(jobs, backend, console)
    finally:
        rows = results.collect(jobs, results.kept(study))
        if rows:
            # In reverse, so that the first seed of every arm stays.
            done = {job.label: job.run_folder for job in reversed(jobs) if job.is_done}
            examples = {arm: done[arm] for arm in study.arms if arm in done}
            report(study, rows, examples, folder, console)
    return rows


def report(
    study: Study,
    rows: list[results.Row],
    examples: Mapping[str, Path],
    folder: Path,
    console: Console,
) -> None:
    """Write ``results.csv``, ``table.md`` and ``figures/``, and show the table.

    ``examples`` has one run folder of each arm, whose generated levels are shown.
    """
    results.write_csv(rows, folder / "results.csv")
    compared = {f"{study.name}: {figures.label_of(study.metric)}": results.table(study, rows)}
    if not compared[next(iter(compared))][1]:
        score = f"{results.BEST_PREFIX * (study.score == 'best')}{study.metric}"
        console.print(f"No run knows its {score}: name another metric or score in the study.")
    if study.bar is not None:
        solved = f"Env steps until the {figures.label_of(study.metric)} is {study.bar:g}"
        compared[solved] = efficiency.efficiency_table(study, rows)
    tables = [results.markdown(header, cells) for header, cells in compared.values()]
    (folder / "table.md").write_text("\n".join(tables), encoding="utf-8")
    for title, (header, cells) in compared.items():
        console.print(as_shown(title, header, cells))
    pictures = draw(study, rows) | {"levels": galleries.level_galleries(examples, study.name)}
    (folder / "figures").mkdir(exist_ok=True)
    for name, figure in pictures.items():
        if figure is not None:
            figure.savefig(folder / "figures" / f"{name}.png", dpi=150)
    console.print(f"Results, table and figures: {folder}")


def as_shown(title: str, header: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    """A table for the terminal."""
    table = Table(title=title, title_justify="left")
    for name in header:
        is_arm = name == "arm"
        # In a narrow terminal, numbers are wrapped and not cut off.
        justify: JustifyMethod = "left" if is_arm else "right"
        table.add_column(name, justify=justify, no_wrap=is_arm, overflow="fold")
    for line in cells:
        table.add_row(*line)
    return table


def draw(study: Study, rows: list[results.Row]) -> dict[str, Figure]:
    """The figures of a study's numbers, by name."""
    scores = results.compared_scores(study, rows)
    pictures = {}
    if scores:
        profiles = figures.performance_profiles(scores, study.metric, study.name)
        pictures["performance_profiles"] = profiles
    for metric in dict.fromkeys([study.metric, *study.curves]):
        if found := results.curves(rows, metric):
            pictures[metric] = figures.curves_with_bands(found, metric, study.name, study.axis)
    quality = {name: results.curves(rows, metric) for metric, name in results.QUALITY.items()}
    if quality := {name: curves for name, curves in quality.items() if curves}:
        pictures["generator_quality"] = figures.generator_quality(quality, study.name)
    if study.sweep and scores.keys() & study.swept.keys():
        panels = {f"{figures.label_of(study.metric)}\nat the end": scores} | {
            f"{name}\nmean over training": results.over_training(rows, metric)
            for metric, name in results.QUALITY.items()
            if name in quality
        }
        pictures["sweep"] = figures.sweep(panels, study.swept, study.sweep)
    return pictures
