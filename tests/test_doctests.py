"""Every example in a docstring shows what the code really gives."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import lit_crl

PACKAGE = Path(lit_crl.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("lit_crl", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in PACKAGE.rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


def test_the_pure_functions_have_examples() -> None:
    assert len(WITH_EXAMPLES) >= 1


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name: str) -> None:
    failed, attempted = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)

    assert attempted > 0
    assert failed == 0
