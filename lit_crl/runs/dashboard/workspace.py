"""The layout of the W&B workspace: the same dashboard for everybody in a team."""

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from lit_crl.core.checks import ConfigError, RunError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

AXIS = "env_steps"


class Lines(NamedTuple):
    """Metrics over env steps in one panel."""

    title: str
    keys: tuple[str, ...]


class Gallery(NamedTuple):
    """Pictures or films, with a slider over training."""

    title: str
    keys: tuple[str, ...]


class LastTable(NamedTuple):
    """The newest state of a table, of all runs."""

    title: str
    keys: tuple[str]


SOURCES = ("target", "reference", "archive", "gan")
#: Sections from top to bottom, and the panels of each.
SECTIONS: dict[str, list[Lines | Gallery | LastTable]] = {
    "Results": [
        Lines("return, target levels", ("evaluation/target_return_mean",)),
        Lines("success, target levels", ("evaluation/target_success_rate",)),
        Lines("success, held-out levels", ("evaluation/heldout_success_rate",)),
    ],
    "Levels": [
        *(Gallery(f"levels: {source}", (f"levels/{source}",)) for source in SOURCES),
        LastTable("levels of the newest validation", ("levels/table",)),
    ],
    "Episodes": [
        Gallery("greedy policy, target level", ("episodes/target",)),
        Gallery("greedy policy, generated level", ("episodes/gan",)),
    ],
    "Generator": [
        Lines(
            "generated levels",
            (
                "evaluation/levels_valid_rate",
                "evaluation/levels_unique_rate",
                "evaluation/levels_frontier_rate",
            ),
        ),
        Lines(
            "on the frontier: generated, reference",
            ("evaluation/levels_frontier_rate", "evaluation/reference_frontier_rate"),
        ),
        Lines("error of p̂ (Brier score)", ("evaluation/p_hat_brier",)),
        Lines("losses", ("gan/generator_loss", "gan/discriminator_loss", "gan/success_loss")),
        Lines("challenge", ("gan/challenge",)),
        Lines("what is minimised", ("gan/generator_objective", "gan/discriminator_objective")),
        Lines("gradients", ("gan/generator_gradient_norm", "gan/discriminator_gradient_norm")),
    ],
    "Curriculum": [
        Lines("episodes by source", tuple(f"curriculum/{s}_episodes" for s in SOURCES)),
        Lines("solved episodes by source", tuple(f"curriculum/{s}_solved" for s in SOURCES)),
        Lines(
            "candidates of the generator",
            (
                "curriculum/generated_valid_rate",
                "curriculum/generated_unique_rate",
                "curriculum/generated_predicted_frontier_rate",
            ),
        ),
    ],
    "Behaviour": [
        Lines("return, training episodes", ("behaviour/return_mean",)),
        Lines("success, training episodes", ("behaviour/success_rate",)),
        Lines("ε", ("behaviour/epsilon",)),
    ],
    "DQN": [
        Lines("loss", ("dqn/loss",)),
        Lines("Q", ("dqn/q_mean",)),
        Lines("gradient", ("dqn/gradient_norm",)),
    ],
    "Speed": [
        Lines("env steps per second", ("system/env_steps_per_second",)),
        Lines(
            "seconds by part",
            tuple(
                f"system/seconds_{part}"
                for part in ("environments", "replay", "dqn", "gan", "evaluation", "saving")
            ),
        ),
        Lines("share of the replay that is filled", ("system/replay_fill",)),
        Lines("peak memory (GiB)", ("system/memory_gib",)),
    ],
}
#: Numbers of ``summary.json`` and settings that stand beside each run's name.
COLUMNS = (
    "config:arm.value",
    "config:seed_everything.value",
    "summary:target_return_mean",
    "summary:target_success_rate",
    "summary:heldout_success_rate",
    "summary:env_steps",
)


def shown_keys() -> Iterator[str]:
    """Every key that a panel shows."""
    for panels in SECTIONS.values():
        for panel in panels:
            yield from panel.keys


def workspace(entity: str, project: str, name: str) -> "Workspace":
    """The workspace, not saved yet; W&B adds a panel for whatever else is logged.

    Raises:
        ConfigError: If the package that makes workspaces is missing.
    """
    if find_spec("wandb_workspaces") is None:
        raise ConfigError(
            "saving a workspace needs a package that is missing: pip install 'lit_crl[workspaces]'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own use of pydantic
        import wandb_workspaces.reports.v2.interface as reports
        import wandb_workspaces.workspaces as workspaces

    def panel(of: Lines | Gallery | LastTable) -> reports.PanelTypes:
        match of:
            case Lines(title, keys):
                return reports.LinePlot(title=title, x=AXIS, y=list(keys), title_x="env steps")
            case Gallery(title, keys):
                return reports.MediaBrowser(title=title, media_keys=list(keys), num_columns=4)
            case LastTable(_, (key,)):
                return reports.WeavePanelSummaryTable(table_name=key)

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        auto_generate_panels=True,
        sections=[
            workspaces.Section(name=title, panels=[panel(of) for of in panels], is_open=True)
            for title, panels in SECTIONS.items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis=AXIS, group_by_prefix="first"),
        runset_settings=workspaces.RunsetSettings(pinned_columns=list(COLUMNS)),
    )


def save(entity: str, project: str, name: str) -> str:
    """Save a new workspace; returns its address.

    Raises:
        ConfigError: If a package or the key of W&B is missing.
        RunError: If W&B cannot be reached, or refuses.
    """
    made = workspace(entity, project, name)
    import wandb

    if not wandb.login(prompt=False):
        raise ConfigError("W&B knows no key: run `wandb login`")
    try:
        return str(made.save().url)  # type: ignore[no-untyped-call]
    except (wandb.errors.Error, OSError) as error:  # the second: requests' own
        raise RunError(
            f"W&B did not save the workspace of {entity}/{project} ({error}): see that the "
            "project has a run and that the key may write to it"
        ) from error
