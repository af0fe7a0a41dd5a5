"""The rooms of the package: what may import what, read from the syntax trees."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lit_crl

PACKAGE = Path(lit_crl.__file__).parent
#: Each room may import from itself and from those before it.
ROOMS = (
    "core",
    "envs",
    "dqn",
    "gan",
    "world",
    "curriculum",
    "evaluation",
    "training",
    "runs",
)
#: Neighbours that must not know each other, although the list alone would allow it.
STRANGERS = {("gan", "dqn"), ("curriculum", "world")}
ENTRANCES = {"__init__", "__main__"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, without the package's own."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports anywhere: lazily, or for types alone, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] != "lit_crl":
                continue
            dotted = name.removeprefix("lit_crl").removeprefix(".")
            while dotted and dotted not in MODULES:
                dotted = dotted.rpartition(".")[0]
            yield dotted or "__init__"


GRAPH = {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def room(module: str) -> str:
    return module.split(".")[0]


def test_the_root_holds_the_rooms_and_two_entrances():
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert len(entries) <= 13
    folders = {name for name in entries if (PACKAGE / name).is_dir()} - {"conf"}
    assert folders <= set(ROOMS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == ENTRANCES


@pytest.mark.parametrize("module", sorted(set(MODULES) - ENTRANCES))
def test_imports_go_down_the_list(module: str):
    for other in GRAPH[module]:
        assert other not in ENTRANCES, f"{module} imports the package's entrance {other}"
        assert ROOMS.index(room(other)) <= ROOMS.index(room(module)), f"{module} imports {other}"
        assert (room(module), room(other)) not in STRANGERS, f"{module} imports {other}"


def test_no_files_import_each_other_in_a_circle():
    try:
        tuple(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")
