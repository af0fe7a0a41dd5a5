"""Notebooks: what is kept of their outputs is fit to be read, and they run from start to end.

They are executed by Jupyter's own client in temporary folders, with smaller numbers in the cell
that is tagged ``parameters``. Starting a kernel takes longer than running most of them, so they
share one; each begins without the names and settings of the others.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.util import run_sync
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
#: The parameters with which a notebook takes seconds; each must be one that the notebook sets.
SMALL: dict[str, dict[str, Any]] = {
    "01_quickstart": {"env_steps": 24_000, "validate_every": 12_000},
    "02_how_it_works": {"env_steps": 7_100, "generator_updates": 4},
    "03_your_own_environment": {"env_steps": 3_000, "required_success": 0.0},
    "04_compare_curricula": {"env_steps": 8_000, "seeds": 1},
    "05_explore_a_run": {"env_steps": 10_000},
    "06_worlds": {"env_steps": 2_400, "validate_every": 1_200, "log_updates": 2_000},
}
#: Of nobody's machine: absolute paths of the usual homes and temporary folders, and dates.
PRIVATE = {
    "absolute path": re.compile(r"(?<![\w.])/(home|root|tmp|Users|work|opt|usr|var|mnt|private)/"),
    "Windows path": re.compile(r"\b[A-Z]:\\\\"),
    "date and time": re.compile(r"\b20\d\d-\d\d-\d\d[ T]\d\d:\d\d"),
}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """Jupyter's manager of one kernel, which the first notebook starts."""
    manager = NotebookClient(new_notebook(), kernel_name="python3").create_kernel_manager()
    yield manager
    if manager.has_kernel:
        run_sync(manager.shutdown_kernel)(now=True)


#: What a notebook finds as in a fresh kernel; imported modules stay.
FRESH = """
%reset -f
import os, matplotlib.pyplot
matplotlib.pyplot.close("all")
matplotlib.rcdefaults()
os.chdir({folder!r})
del os, matplotlib
"""


def execute(
    notebook: NotebookNode, folder: Path, kernel: Any, *, allow_errors: bool = False
) -> NotebookNode:
    notebook.cells.insert(0, new_code_cell(FRESH.format(folder=str(folder))))
    client = NotebookClient(
        notebook, km=kernel, timeout=900, coalesce_streams=True, allow_errors=allow_errors
    )
    try:
        client.execute()
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
    del notebook.cells[0]
    return notebook


def test_there_are_six_and_each_has_small_parameters() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(SMALL)


@each_notebook
def test_what_is_kept_is_a_whole_run_and_small(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size <= 1_000_000
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output.output_type for output in outputs(notebook)}
    assert "error" not in kinds
    shown = {kind for output in outputs(notebook) for kind in output.get("data", {})}
    assert "image/png" in shown or "image/gif" in shown
    # Widgets are lost when a notebook is saved, and metadata says who ran it, and when.
    assert "application/vnd.jupyter.widget-view+json" not in shown
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@each_notebook
def test_what_is_kept_has_no_noise_and_nothing_private(path: Path) -> None:
    notebook = read(path)
    for output in outputs(notebook):
        if output.output_type == "stream":
            assert output.name == "stdout", output.text  # warnings go to the other
            assert "\x1b" not in output.text
            assert "\r" not in output.text
    text = json.dumps(notebook, ensure_ascii=False)
    for what, pattern in PRIVATE.items():
        assert not pattern.search(text), f"{what}: {pattern.search(text)}"


@each_notebook
def test_figures_are_shown_once(path: Path) -> None:
    for cell in code_cells(read(path)):
        images = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
        assert len(images) == len(set(images))


#: Beside the others these show what tests of studies and of runs show, too.
LONG = ("04_compare_curricula", "05_explore_a_run", "06_worlds")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in LONG else [])
        for p in NOTEBOOKS
    ],
)
def test_it_runs_with_small_parameters(path: Path, tmp_path: Path, kernel: Any) -> None:
    notebook = read(path)
    (position,) = (
        index
        for index, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )
    lines = [f"{name} = {value!r}" for name, value in SMALL[path.stem].items()]
    source = notebook.cells[position].source
    assert all(re.search(rf"\b{name}\b.*=", source) for name in SMALL[path.stem])
    notebook.cells.insert(position + 1, new_code_cell("\n".join(lines)))
    execute(notebook, tmp_path, kernel)
    # Nothing is left beside the runs.
    assert {child.name for child in tmp_path.iterdir()} <= {"runs"}


@pytest.mark.slow
@each_notebook
def test_it_runs_as_it_is(path: Path, tmp_path: Path, kernel: Any) -> None:
    execute(read(path), tmp_path, kernel)


PREPARE = """
import os, signal
import torch
from lightning.pytorch import Callback
from lit_crl import CreativeLearner, ReplayDataModule, trainer
from lit_crl.envs import MountainCar

class StopButton(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.datamodule.batches_done == 5:
            os.kill(os.getpid(), signal.SIGINT)  # what a kernel gets when its cell is interrupted

data = ReplayDataModule(
    MountainCar, collect={"env_steps": 4_000}, evaluation={"every": 10_000}, seed=1
)
learner = CreativeLearner()
"""
INTERRUPTED = "trainer(callbacks=[StopButton()]).fit(learner, datamodule=data)"
USABLE = """
assert 2_000 < data.env_steps < 4_000
assert learner.act(torch.zeros(3, 2)).shape == (3,)
assert learner.generate_levels(4).shape == (4, 2)
"""
GOES_ON = """
trainer().fit(learner, datamodule=data)
assert data.env_steps >= 4_000
"""
AGAIN = """
other = ReplayDataModule(MountainCar, collect={"env_steps": 3_000}, evaluation={"every": 10_000})
updates = learner.updates
trainer().fit(learner, datamodule=other)
assert learner.updates > updates
"""


def test_an_interrupted_cell_leaves_a_learner_that_acts_and_can_be_trained_on(
    tmp_path: Path, kernel: Any
) -> None:
    cells = [PREPARE, INTERRUPTED, USABLE, GOES_ON, AGAIN]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    execute(notebook, tmp_path, kernel, allow_errors=True)
    errors = [
        [output.ename for output in cell.outputs if output.output_type == "error"]
        for cell in notebook.cells
    ]
    assert errors == [[], ["SystemExit"], [], [], []]  # Lightning's way to say it
    text = "".join(
        output.text for output in notebook.cells[3].outputs if output.output_type == "stream"
    )
    assert "\x1b" not in text
    assert "4,000 env steps" in text
    # The bar is one display, updated in place, and gone at the end.
    (bar,) = (o for o in notebook.cells[3].outputs if o.output_type == "display_data")
    assert bar.data == {"text/plain": ""}
