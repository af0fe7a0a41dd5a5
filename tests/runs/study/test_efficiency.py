"""Env steps until an arm solves its task."""

import numpy as np
import pytest

from lit_crl.evaluation.statistics import difference, iqm
from lit_crl.runs.study.efficiency import Solved, efficiency_table, solved_runs
from lit_crl.runs.study.plan import Study
from lit_crl.runs.study.results import Row

#: Returns of validations after 100, 200, ... env steps.
CURVES = {
    "held": [-200, -105, -101, -150, -99, -98],
    "lucky once": [-200, -105, -190, -150, -109, -200],
    "at the end": [-200, -200, -200, -200, -110, -110],
}


def rows(curves: dict[str, list[list[float]]]) -> list[Row]:
    found = []
    for arm, seeds in curves.items():
        for seed, curve in enumerate(seeds):
            found += [
                Row(arm, seed, "validation", 100 * (number + 1), "target_return_mean", value)
                for number, value in enumerate(curve)
            ]
            found.append(Row(arm, seed, "test", 700, "target_return_mean", curve[-1]))
            found.append(Row(arm, seed, "validation", 100, "another", 1.0))
    return found


def test_a_run_is_solved_at_the_first_of_two_validations_running() -> None:
    found = solved_runs(rows({"gan": list(CURVES.values())}), "target_return_mean", -110.0)
    assert found == {
        "gan": [Solved(200, 700, 4 / 5), Solved(None, 700, 0.0), Solved(500, 700, 1.0)]
    }
    assert [run.cost for run in found["gan"]] == [200, 700, 500]


def test_the_table_compares_steps_and_fewer_are_better() -> None:
    fast = [[-100.0] * (k % 2 + 4) for k in range(6)]  # at once
    slow = [[-200.0] * 4 + [-100.0, -100.0], *[[-200.0] * 6] * 5]
    study = Study("s", "mountain_car", {"gan": {}, "replay": {}}, metric="target_return_mean")
    study.against, study.bar, study.equivalence_margin = ["replay"], -110.0, 5.0
    header, cells = efficiency_table(study, rows({"replay": slow, "gan": fast}))
    assert header[-1] == "against replay"
    gan, replay = cells
    assert gan[:4] == ["gan", "6 of 6", "100", "100"] and gan[5] == "100%"
    assert replay[:4] == ["replay", "1 of 6", "700", "700"]
    steps = np.array([[100.0]] * 6), np.array([[500.0], *[[700.0]] * 5])
    value, low, high = difference(iqm, *steps)
    assert gan[-1] == f"{value:+,.0f} [{low:+,.0f}, {high:+,.0f}] ahead" and high < 0
    assert replay[-1] == ""


@pytest.mark.parametrize("bar", [None, -110.0])
def test_without_a_bar_or_its_numbers_there_is_nothing_to_compare(bar: float | None) -> None:
    study = Study("s", "mountain_car", {"gan": {}}, metric="target_return_mean", bar=bar)
    found = [] if bar is not None else rows({"gan": list(CURVES.values())})
    assert efficiency_table(study, found)[1] == []
