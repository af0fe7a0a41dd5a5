"""What the README says of studies is what their kept results say."""

from pathlib import Path

import pytest

from lit_crl.study.plan import read_study
from lit_crl.study.results import compare, markdown, read_csv, table

ROOT = Path(__file__).parents[1]
KEPT = sorted((ROOT / "tests" / "benchmarks" / "studies").glob("*.csv"))


def test_there_are_some() -> None:
    assert KEPT


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_the_readme_has_the_table_that_follows_from_the_results(path: Path) -> None:
    study, rows = read_study(ROOT / "conf" / "study" / f"{path.stem}.yaml"), read_csv(path)
    seeds = {arm: {row.seed for row in rows if row.arm == arm} for arm in study.arms}
    assert {len(found) for found in seeds.values()} <= {0, study.seeds}
    header, cells = table(study, compare(study, rows))
    assert markdown(header, cells) in (ROOT / "README.md").read_text()
