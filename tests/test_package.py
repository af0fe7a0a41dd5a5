"""What a package index, a type checker and a citation would read of this project."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

import lit_crl

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def test_the_metadata_are_complete(project: dict[str, Any]) -> None:
    assert project.keys() >= {
        "name", "description", "readme", "license", "license-files", "authors", "keywords",
        "classifiers", "requires-python", "dependencies", "scripts",
    }  # fmt: skip
    assert (ROOT / project["readme"]).is_file()
    assert all((ROOT / name).is_file() for name in project["license-files"])
    # The licence is an expression: its classifier is deprecated beside it (PEP 639).
    assert not any(name.startswith("License") for name in project["classifiers"])
    assert "Typing :: Typed" in project["classifiers"]
    assert all(url.startswith("https://") for url in project.get("urls", {}).values())


def test_the_pythons_are_the_same_everywhere(project: dict[str, Any]) -> None:
    named = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier)
             for classifier in project["classifiers"]]  # fmt: skip
    assert tuple(match[1] for match in named if match) == PYTHONS
    assert project["requires-python"] == f">={PYTHONS[0]}"
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["ci"]
    assert tuple(job["strategy"]["matrix"]["python"]) == PYTHONS
    assert job["steps"][-1]["run"] == "bash .ci/run"


def test_the_workflow_may_little_and_uses_what_nobody_can_replace() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in workflow["jobs"]["ci"]["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    assert "version" in project["dynamic"]  # from the package
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == lit_crl.__version__
    assert citation["license"] == project["license"]
    assert f"## [{lit_crl.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_says_that_it_is_typed() -> None:
    assert (files("lit_crl") / "py.typed").is_file()


def test_every_dependency_has_a_floor(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    given = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    own = {"types-PyYAML", "gymnasium[box2d]"}  # no code of ours runs them, or the floor is above
    loose = [d for d in given if ">=" not in d and not d.startswith("lit_crl[") and d not in own]
    assert loose == []
