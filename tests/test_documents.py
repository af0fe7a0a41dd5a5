"""The documents against the code: links, names, commands, and every number that a run writes."""

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from lit_crl.curriculum.sources import SOURCES
from lit_crl.runs.callbacks.report import PARTS
from lit_crl.runs.cli.main import main
from lit_crl.runs.study.plan import read_study

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for folder in (".", ".github", "conf", "lit_crl", "notebooks", "tests")
    for path in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
)
#: Enough for every number there is: a GAN phase, a validation and the test, in mazes of all kinds.
SMALL = [
    "--data.evaluation.share=99",
    "--experiment=maze",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--data.collect.env_steps=2400",
    "--data.collect.num_envs=32",
    "--data.collect.warmup=800",
    "--data.replay.batch_size=16",
    "--data.replay.updates_per_batch=1",
    "--data.gan.every=4",
    "--data.gan.updates=2",
    "--data.gan.batch_size=16",
    "--data.curriculum.min_outcomes=2",
    "--data.curriculum.label_epsilon=1.0",
    "--data.evaluation.every=2400",
    "--data.evaluation.episodes=2",
    "--data.evaluation.test_episodes=2",
    "--data.evaluation.generated_levels=8",
    "--data.env.init_args.size=5",
    "--model.network.hidden=[16]",
    "--model.gan.hidden=[16,16]",
    "--model.network.planning_steps=0",
]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a document in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What links to headings of a document end in."""
    headings = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_readme_is_a_front_door() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    for link in links:
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.is_file(), link
        assert not anchor or anchor in anchors(found), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(path: Path) -> None:
    named = re.findall(r"`((?:conf|lit_crl|tests)/[\w./]+\.\w+)`", path.read_text())
    assert [f for f in named if "NAME" not in f and not (ROOT / f).is_file()] == []


def test_the_tables_of_the_rooms_have_every_module() -> None:
    text = (ROOT / "lit_crl/README.md").read_text()
    rooms = {part[:-1] for part in re.findall(r"^\| `(\w+/)` \| \|$", text, re.MULTILINE)}
    folders = {path.parent.name for path in (ROOT / "lit_crl").glob("*/__init__.py")}
    assert rooms == folders
    for room in rooms:
        table = text.split(f"| `{room}/` | |\n")[1].split("\n\n")[0]
        named = set(re.findall(r"`([\w/.]+)`", table))
        files = {p.name for p in (ROOT / "lit_crl" / room).glob("*.py")} - {"__init__.py"}
        inner = {f"{p.parent.name}/" for p in (ROOT / "lit_crl" / room).glob("*/__init__.py")}
        assert files | inner <= named, room
        known = {p.name for p in (ROOT / "lit_crl" / room).rglob("*.py")} | inner
        assert {n for n in named if n.endswith((".py", "/"))} <= known, room


def commands() -> list[str]:
    """Every ``fit`` of the documents, on one line each and without comment."""
    found = {
        line.partition("  #")[0].strip()
        for path in DOCUMENTS
        for block in blocks(path, "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if "-m lit_crl fit" in line and "torchrun" not in line and "for s in" not in line
    }
    return sorted(line.partition("-m lit_crl ")[2] for line in found)


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples that begin with a comment of their name."""
    for path in DOCUMENTS:
        for block in blocks(path, "python") + blocks(path, "yaml"):
            if title := re.match(r"# (\w+\.(py|yaml))\b", block):
                (tmp_path / title[1]).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("my_arms", "my_levels"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str, examples: Path) -> None:
    assert (examples / "my.yaml").is_file()
    with pytest.raises(SystemExit) as stop:
        main([*shlex.split(command), "--print_config"])
    assert not stop.value.code


def test_the_example_of_a_study_is_one(examples: Path) -> None:
    assert set(read_study(examples / "mine.yaml").arms) == {
        "reference", "gan", "gan_without_challenge"
    }  # fmt: skip


# Every number of a run

NUMBERS = ROOT / "lit_crl/runs/callbacks/README.md"


def documented(section: str) -> list[str]:
    """The keys in the tables of a section, words in capitals being placeholders."""
    _, _, text = NUMBERS.read_text().partition(f"\n## {section}\n")
    return re.findall(r"^\| `([\w/]+)` \|", text.partition("\n## ")[0], re.MULTILINE)


def compare(keys: set[str], rows: list[str]) -> None:
    """Each key has one row, and each row a key at least."""
    patterns = [re.sub(r"[A-Z]+", r"[A-Za-z0-9_]+", row) for row in rows]
    found = {key: [p for p in patterns if re.fullmatch(p, key)] for key in keys}
    assert {key for key, rows in found.items() if len(rows) != 1} == set()
    unused = [p for p in patterns if not any(re.fullmatch(p, key) for key in keys)]
    assert unused == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    main(["fit", "--name=x", f"--trainer.default_root_dir={folder}", *SMALL])
    return folder / "maze" / "x"


def test_every_number_of_a_run_is_explained_and_none_besides(run: Path) -> None:
    training, evaluation = documented("metrics.csv, during training"), documented("Evaluation")
    alone = documented("summary.json alone")
    final = evaluation[evaluation.index("heldout_cvar10") :]
    validation = evaluation[: evaluation.index("heldout_cvar10")]
    with (run / "metrics.csv").open(newline="") as file:
        columns = set(next(csv.reader(file)))
    compare(columns, training + [f"evaluation/{key}" for key in validation])
    compare(set(json.loads((run / "test.json").read_text())), validation + final)
    summary = set(json.loads((run / "summary.json").read_text())) - {"env_steps"}
    compare(summary, validation + final + alone)


#: Settings of a run with a world that takes seconds.
SMALL_WITH_A_WORLD = (
    "--data.collect.num_envs=8",
    "--data.collect.warmup=400",
    "--data.replay.batch_size=16",
    "--data.replay.updates_per_batch=2",
    "--data.evaluation.test_episodes=2",
    "--data.evaluation.episodes=2",
    "--data.world.every=200",
    "--data.world.updates=2",
    "--data.world.first_updates=2",
    "--data.world.dreams=8",
    "--data.env.init_args.max_episode_steps=60",
)


def test_every_number_of_a_world_is_explained_and_none_besides(tmp_path: Path) -> None:
    columns: set[str] = set()
    for loss in ("gan_reconstruction", "likelihood"):
        main(
            [
                "fit",
                "--experiment=plain_dqn",
                f"--name={loss}",
                f"--trainer.default_root_dir={tmp_path}",
                "--trainer.log_every_n_steps=1",
                "--data.collect.env_steps=900",
                *SMALL_WITH_A_WORLD,
                "--data.world.held_back=0.5",
                "--data.evaluation.every=400",
                "--data.world.horizon=4",
                "--data.world.error_bound=100",
                "--model.network.hidden=[8]",
                f"--model.world.loss={loss}",
                "--model.world.hidden=[8]",
                "--model.world.members=2",
            ]
        )
        with (tmp_path / "plain_dqn" / loss / "metrics.csv").open(newline="") as file:
            columns |= set(next(csv.reader(file)))
        summary = json.loads((tmp_path / "plain_dqn" / loss / "summary.json").read_text())
        assert summary["world_updates"] >= 2 and summary["imagined_steps"] >= 32
        assert summary["world_error_1"] > 0 and summary["world_error_20"] > 0
        assert summary["dream_return_gap"] is not None and summary["seconds_watch"] > 0
    kinds = ("world/", "explorer/")
    of_world = {key for key in columns if key.startswith(kinds)}
    compare(of_world, documented("metrics.csv, with a world"))


def test_every_number_of_distributions_is_explained_and_none_besides(tmp_path: Path) -> None:
    rainbow = ["--config=conf/experiment/rainbow.yaml", "--model.network.atoms=5"]
    world = ["--model.world.loss=likelihood", "--data.world.horizon=4", "--model.world.members=2"]
    main(
        [
            "fit",
            "--experiment=plain_dqn",
            "--name=x",
            f"--trainer.default_root_dir={tmp_path}",
            "--trainer.log_every_n_steps=1",
            *rainbow,
            *world,
            "--data.collect.env_steps=800",
            *SMALL_WITH_A_WORLD,
            "--data.evaluation.every=400",
            "--model.network.hidden=[8]",
            "--model.world.hidden=[8]",
        ]
    )
    with (tmp_path / "plain_dqn" / "x" / "metrics.csv").open(newline="") as file:
        columns = set(next(csv.reader(file)))
    elsewhere = {
        *documented("metrics.csv, during training"),
        *documented("metrics.csv, with a world"),
    }
    of_q_networks = {key for key in columns if key.startswith(("dqn/", "explorer/"))}
    compare(of_q_networks - elsewhere, documented("metrics.csv, with distributions of returns"))


def test_every_number_of_a_run_from_a_log_is_explained_and_none_besides(tmp_path: Path) -> None:
    obs, flags = np.arange(60, dtype=np.float32).reshape(-1, 1), np.arange(60) % 9 == 8
    log = {"obs": obs, "next_obs": obs + 1, "action": np.arange(60) % 2, "reward": 1.0 * flags,
           "terminated": flags, "truncated": ~flags & False, "num_actions": 2, "obs_low": 0,
           "obs_high": 60}  # fmt: skip
    np.savez(tmp_path / "log.npz", **log)
    main(
        [
            "fit",
            f"--data.transitions={tmp_path}/log.npz",
            "--name=x",
            f"--trainer.default_root_dir={tmp_path}",
            "--trainer.log_every_n_steps=1",
            "--data.replay.log_updates=24",
            "--data.replay.updates_per_batch=8",
            "--data.evaluation.every=8",
            "--data.world.updates=2",
            "--data.world.first_updates=2",
            "--data.world.dreams=8",
            "--data.world.error_bound=100",
            "--data.world.horizon=4",
            "--model.dqn.conservative_weight=0.5",
            "--model.network.hidden=[8]",
            "--model.world.hidden=[8]",
            "--model.world.members=2",
        ]
    )
    folder = tmp_path / "from_log" / "x"
    with (folder / "metrics.csv").open(newline="") as file:
        columns = set(next(csv.reader(file)))
    elsewhere = {
        *documented("metrics.csv, during training"),
        *documented("metrics.csv, with a world"),
    }
    assert "env_steps" in columns and not any("return" in key for key in columns)
    compare(columns - elsewhere, documented("metrics.csv, from a log"))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["env_steps"] == 60 and summary["updates"] == 24
    assert summary["target_return_mean"] is None and summary["target_success_rate"] is None


def test_every_part_of_the_time_and_every_source_of_levels_is_named() -> None:
    text = NUMBERS.read_text()
    assert {part for part in (*PARTS, "lightning", *SOURCES) if f"`{part}`" not in text} == set()
