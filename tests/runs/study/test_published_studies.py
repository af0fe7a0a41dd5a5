"""The documents agree with the kept results of studies."""

import csv
import re
from itertools import combinations
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lit_crl.evaluation.statistics import (
    Estimate,
    Scores,
    difference,
    interval,
    iqm,
    verdict,
)
from lit_crl.runs.study.efficiency import efficiency_table
from lit_crl.runs.study.plan import read_study, tuning_of
from lit_crl.runs.study.results import (
    compare_pairs,
    compared_scores,
    curves,
    final_scores,
    markdown,
    read_csv,
    table,
)

ROOT = Path(__file__).parents[3]
#: The tables of all studies.
RESULTS = ROOT / "conf" / "study" / "README.md"
KEPT = sorted((ROOT / "tests" / "benchmarks" / "studies").glob("*.csv"))


def test_there_are_some() -> None:
    assert KEPT


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_the_table_follows_from_the_results(path: Path) -> None:
    study, rows = read_study(ROOT / "conf" / "study" / f"{path.stem}.yaml"), read_csv(path)
    seeds = {arm: {row.seed for row in rows if row.arm == arm} for arm in study.arms}
    assert {len(found) for found in seeds.values()} <= {0, study.seeds}
    assert markdown(*table(study, rows)) in RESULTS.read_text()
    if study.bar is not None:
        assert markdown(*efficiency_table(study, rows)) in RESULTS.read_text()


TUNED = sorted((ROOT / "tests" / "benchmarks" / "studies" / "tuning").glob("*.csv"))


@pytest.mark.parametrize("path", TUNED, ids=lambda path: path.stem)
def test_every_arm_has_the_settings_of_its_best_trial(path: Path) -> None:
    study = read_study(ROOT / "conf" / "study" / f"{path.stem}.yaml")
    file = OmegaConf.load(ROOT / "conf" / "experiment" / f"{study.experiment}.yaml")
    assert study.tuning is not None
    scores = compared_scores(tuning_of(study), read_csv(path))
    lines = []
    for arm, settings in study.arms.items():
        trials = study.tuning.of(arm)
        found = [float(scores[f"{arm}-{trial}"].mean()) for trial in trials]
        lines.append([arm, *(f"{score:.3g}" for score in found)])
        if len(set(found)) > 1:
            for key, value in trials[list(trials)[found.index(max(found))]].items():
                of_experiment = OmegaConf.to_object(OmegaConf.select(file, key))
                assert settings.get(key, of_experiment) == value, (arm, key)
    assert "\n".join(f"| {' | '.join(line)} |" for line in lines) in RESULTS.read_text()


#: The rows of the short tables, and the studies that they are from.
SHORT = {
    "point mass, 6-D": "point_mass",
    "point mass, 10-D": "point_mass_10d",
    "point mass, 20-D": "point_mass_20d",
    "spiral": "target_directed_spiral",
    "weak engine": "target_directed_weak_engine",
    "thin manifold": "thin_manifold",
    "mazes": "maze",
}


@pytest.mark.parametrize("task", SHORT)
def test_the_short_table_says_what_the_long_ones_say(task: str) -> None:
    text = RESULTS.read_text()
    study = read_study(ROOT / "conf" / "study" / f"{SHORT[task]}.yaml")
    rows = read_csv(ROOT / "tests" / "benchmarks" / "studies" / f"{SHORT[task]}.csv")
    scores = {arm: each[:, None] for arm, each in final_scores(rows, study.metric).items()}
    pairs = compare_pairs(study, scores)
    cells = [str(pairs.get(("gan", arm), "")) for arm in ("target", "reference", "archive")]
    (line,) = re.findall(rf"^\| {task} \|.*", text, re.MULTILINE)
    assert [cell.strip() for cell in line.split("|")[2:-1]] == cells


@pytest.mark.parametrize("task", SHORT)
def test_the_front_page_says_what_the_results_say(task: str) -> None:
    study = read_study(ROOT / "conf" / "study" / f"{SHORT[task]}.yaml")
    rows = read_csv(ROOT / "tests" / "benchmarks" / "studies" / f"{SHORT[task]}.csv")
    scores = final_scores(rows, study.metric)
    cells = []
    for arm in ("target", "reference", "archive", "gan"):
        found = interval(iqm, scores[arm][:, None]) if arm in scores else None
        cells.append(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" if found else "")
    (line,) = re.findall(rf"^\| {task} \|.*", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [cell.strip() for cell in line.split("|")[2:-1]] == cells


def test_the_front_page_says_how_soon_worlds_solve_the_weak_engine() -> None:
    study = read_study(ROOT / "conf" / "study" / "world_weak_engine.yaml")
    rows = read_csv(ROOT / "tests" / "benchmarks" / "studies" / "world_weak_engine.csv")
    _, cells = efficiency_table(study, rows)
    text = (ROOT / "README.md").read_text()
    for arm, *numbers in cells:
        assert f"| `{arm}` | {' | '.join(numbers[:4])} |" in text


def test_the_front_page_says_how_mountain_car_ends() -> None:
    rows = read_csv(ROOT / "tests" / "benchmarks" / "studies" / "world_mountain_car.csv")
    scores = final_scores(rows, "target_return_mean")
    (mean, worst), (other, its_worst) = (
        (scores[arm].mean(), scores[arm].min()) for arm in ("gan", "replay")
    )
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"mean return of {mean:.1f} after 3,000 env steps, {worst:.1f} on the worst" in text
    assert f"(`replay`: {other:.1f}, {its_worst:.1f})" in text


def test_the_front_page_says_what_is_learnt_from_a_log() -> None:
    study = read_study(ROOT / "conf" / "study" / "world_log_cartpole.yaml")
    scores = compared_scores(
        study, read_csv(ROOT / "tests" / "benchmarks" / "studies" / "world_log_cartpole.csv")
    )
    arms = ("gan_reconstruction", "conservative", "replay")
    world, penalty, neither = (round(scores[arm].mean()) for arm in arms)
    text = " ".join((ROOT / "README.md").read_text().split())
    assert (
        f"is {world} with a world, {penalty} with a conservative penalty, and {neither} with"
        in text
    )


#: Rows of the page of experiments, and the study and arm that they are from.
EXPERIMENTS = {
    "ours | 500,000": ("minatar_breakout", "dqn"),
    "Breakout: DQN": ("minatar_rainbow_breakout", "dqn"),
    "Breakout: Rainbow": ("minatar_rainbow_breakout", "rainbow"),
    "Space Invaders: DQN": ("minatar_rainbow_space_invaders", "dqn"),
    "Space Invaders: Rainbow": ("minatar_rainbow_space_invaders", "rainbow"),
    "Space Invaders": ("minatar_games", "space_invaders"),
    "Freeway": ("minatar_games", "freeway"),
    "Asterix": ("minatar_games", "asterix"),
    "Seaquest": ("minatar_games", "seaquest"),
}


@pytest.mark.parametrize("row", EXPERIMENTS)
def test_the_page_of_experiments_says_what_the_results_say(row: str) -> None:
    name, arm = EXPERIMENTS[row]
    rows = read_csv(ROOT / "tests" / "benchmarks" / "studies" / f"{name}.csv")
    scores = final_scores(rows, "target_return_mean")[arm]
    found = interval(iqm, scores[:, None])
    text = (ROOT / "conf" / "experiment" / "README.md").read_text()
    (line,) = re.findall(rf"^\| {re.escape(row)} \|.*", text, re.MULTILINE)
    assert f"| {len(scores)} | {found.value:.1f} [{found.low:.1f}, {found.high:.1f}] |" in line


@pytest.mark.parametrize("game", ["Breakout", "Space Invaders"])
def test_the_page_of_experiments_says_how_far_rainbow_is_ahead(game: str) -> None:
    name = f"minatar_rainbow_{game.lower().replace(' ', '_')}"
    study = read_study(ROOT / "conf" / "study" / f"{name}.yaml")
    rows = read_csv(ROOT / "tests" / "benchmarks" / "studies" / f"{name}.csv")
    scores = {arm: each[:, None] for arm, each in compared_scores(study, rows).items()}
    found = compare_pairs(study, scores)["rainbow", "dqn"].difference
    text = (ROOT / "conf" / "experiment" / "README.md").read_text()
    (line,) = re.findall(rf"^\| {game}: Rainbow \|.*", text, re.MULTILINE)
    assert line.endswith(f"| {shown(found, 1)} |")


def test_the_page_of_experiments_says_how_soon_doors_are_opened() -> None:
    study = read_study(ROOT / "conf" / "study" / "minigrid_doorkey.yaml")
    rows = read_csv(ROOT / "tests" / "benchmarks" / "studies" / "minigrid_doorkey.csv")
    scores = final_scores(rows, study.metric)["dqn"]
    found = interval(iqm, scores[:, None])
    _, ((_, solved, median, worst, *_),) = efficiency_table(study, rows)
    assert solved == "5 of 5"
    cells = [str(len(scores)), f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"]
    cells += [f"{scores.min():.3f}", median, worst]
    text = (ROOT / "conf" / "experiment" / "README.md").read_text()
    assert f"| ours | {' | '.join(cells)} |" in text


def final(study: str) -> dict[str, Scores]:
    rows = read_csv(ROOT / "tests" / "benchmarks" / "studies" / f"{study}.csv")
    return {arm: s[:, None] for arm, s in final_scores(rows, "heldout_success_rate").items()}


def shown(found: Estimate, digits: int) -> str:
    value, low, high = (f"{number:+.{digits}f}" for number in found)
    return f"{value} [{low}, {high}]"


def test_what_the_text_says_of_other_gans_follows_from_their_results() -> None:
    text = " ".join(RESULTS.read_text().split())
    scores = final("point_mass_arms") | final("point_mass")
    pairs = list(combinations(["gan", "gan_fit_all", "goal_gan", "goal_gan_fit_all"], 2))
    for one, other in pairs:
        found = difference(iqm, scores[one], scores[other], len(pairs))
        if {one, other} in ({"gan", "gan_fit_all"}, {"goal_gan", "goal_gan_fit_all"}):
            assert verdict(found) == "undecided"
            assert f"`{one}` minus `{other}` is {shown(found, 3)}" in text
        else:
            assert verdict(found) == "ahead"


def test_what_the_text_says_of_twenty_dimensions_halfway_follows_from_the_results() -> None:
    text = " ".join(RESULTS.read_text().split())
    rows = read_csv(ROOT / "tests" / "benchmarks" / "studies" / "point_mass_20d.csv")
    halfway = {}
    for arm, (steps, values) in curves(rows, "heldout_success_rate").items():
        assert round(steps[4], -4) == 500_000 and len(steps) == 10
        halfway[arm] = values[4][:, None]
    found = difference(iqm, halfway["gan"], halfway["archive"])
    assert f"a difference of {shown(found, 2)} if it is taken alone" in text


#: Studies that were run anew, by code whose numbers are what their names say.
RENEWED = ("given_poses",)


@pytest.mark.parametrize(
    "path", [path for path in KEPT if path.stem not in RENEWED], ids=lambda path: path.stem
)
def test_no_number_is_kept_whose_name_says_what_it_is_not(path: Path) -> None:
    """Earlier code had a tail that followed from the mean, and a uniqueness blind to collapse."""
    with path.open(newline="") as file:
        columns = set(next(csv.reader(file)))
    assert not columns & {"heldout_cvar10", "levels_unique_rate"}
    assert path.stem != "maze" or "heldout_success_rate" not in columns
