"""``fit --help``: every option is explained, in its unit, on lines that fit the terminal."""

import argparse
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from lit_crl import envs
from lit_crl.curriculum import plr, sfl
from lit_crl.dqn import exploration
from lit_crl.runs.cli.main import CreativeCLI, main
from lit_crl.runs.cli.usage import OPTIONS, SUBCOMMANDS
from lit_crl.training import ddp

#: What a few descriptions must name.
UNITS = {
    "data.collect.env_steps": "steps",
    "data.collect.num_envs": "Environments",
    "data.replay.capacity": "Rows",
    "data.collect.warmup": "Env steps",
    "data.replay.batch_size": "Transitions",
    "data.replay.updates_per_batch": "updates",
    "data.collect.steps_per_batch": "Steps",
    "data.gan.every": "Batches",
    "data.gan.updates": "Updates",
    "data.gan.batch_size": "Levels",
    "data.curriculum.min_outcomes": "Outcomes",
    "data.curriculum.tried": "outcomes",
    "data.curriculum.visited": "states",
    "data.evaluation.every": "Env steps",
    "data.evaluation.episodes": "episodes",
    "data.evaluation.test_episodes": "episodes",
    "data.evaluation.generated_levels": "levels",
    "data.replay.hindsight": "Share",
    "data.gan.reference_reals": "Share",
    "data.curriculum.mix": "Share",
    "model.network.hidden": "Width",
    "model.dqn.target_rate": "Share",
    "model.dqn.target_period": "updates",
    "model.dqn.final_lr": "share",
    "model.gan.level_noise": "share of the level space",
    "checkpoint.every_env_steps": "env steps",
    "checkpoint.every_minutes": "minutes",
    "threads": "CPU threads",
}
#: Classes that YAML can name, and their arguments.
CLASSES = [
    *(getattr(envs, name) for name in envs.__all__ if name not in ("BatchedEnv", "LevelEnv")),
    exploration.EpsilonLadder,
    exploration.LinearEpsilon,
    plr.PrioritizedLevelReplay,
    plr.EditedLevelReplay,
    sfl.LearnabilityScreen,
    ddp.PhaseDDP,
]


def explained(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Every option and its help text."""
    return {action.dest: " ".join((action.help or "").split()) for action in parser._actions}


@pytest.fixture(scope="module")
def options() -> dict[str, dict[str, str]]:
    """The options of each subcommand."""
    found: dict[str, dict[str, str]] = {}

    class Looked(CreativeCLI):
        def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> Any:
            parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
            if subcommand == self.asked:  # the others' options are not made
                found[subcommand] = explained(parser)
            return parser

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_crl.runs.cli.main.CreativeCLI", Looked)
        for subcommand in SUBCOMMANDS:
            with pytest.raises(SystemExit):
                main([subcommand, "--print_config"])
    return found


def test_every_option_of_every_subcommand_is_explained(options: dict[str, dict[str, str]]) -> None:
    assert list(options) == list(SUBCOMMANDS)
    for subcommand, help_of in options.items():
        assert len(help_of) > 100
        assert [option for option, words in help_of.items() if not words] == []
        for option in OPTIONS.keys() - ({"weights_only"} if subcommand == "play" else set()):
            assert help_of[option] == OPTIONS[option], (subcommand, option)


def test_what_is_counted_is_named(options: dict[str, dict[str, str]]) -> None:
    help_of = options["fit"]
    assert {option for option, unit in UNITS.items() if unit not in help_of[option]} == set()


@pytest.mark.parametrize("given", CLASSES, ids=lambda given: given.__name__)
def test_every_argument_of_a_class_that_yaml_can_name_is_explained(given: type) -> None:
    parser = ArgumentParser()
    skipped = {"num_envs", "device", "kwargs"}  # the caller's, and those for Lightning
    arguments = parser.add_class_arguments(given, "x", skip=skipped)
    help_of = explained(parser)
    mine = [name for name in arguments if name in help_of and not _is_lightnings(given, name)]
    assert [name for name in mine if not help_of[name]] == []


def _is_lightnings(given: type, name: str) -> bool:
    return given is ddp.PhaseDDP and name != "x.timeout_seconds"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_help_fits_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    _, _, printed = capsys.readouterr().out.partition("\n\n")  # everything except the usage
    lines = printed.splitlines()
    assert len(lines) > 300
    # The name of an option is never broken.
    assert [line for line in lines if len(line) > columns and not line.startswith("  --")] == []
