"""The layout of the W&B workspace: the same dashboard for everybody in a team."""

import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lit_crl.core.checks import ConfigError, RunError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

AXIS = "env_steps"
SOURCES = ("target", "reference", "archive", "gan")
#: Sections from top to bottom; in each, the titles of panels and the keys that they show: the table
#: of levels; pictures or films with a slider over training (``levels/``, ``episodes/``); or lines.
SECTIONS: dict[str, dict[str, list[str]]] = {
    "Results": {
        "return, target levels": ["evaluation/target_return_mean"],
        "success, target levels": ["evaluation/target_success_rate"],
        "success, held-out levels": ["evaluation/heldout_success_rate"],
    },
    "Levels": {f"levels: {source}": [f"levels/{source}"] for source in SOURCES}
    | {"levels of the newest validation": ["levels/table"]},
    "Episodes": {
        "greedy policy, target level": ["episodes/target"],
        "greedy policy, generated level": ["episodes/gan"],
    },
    "Generator": {
        "generated levels": [
            f"evaluation/levels_{name}_rate" for name in ("valid", "unique", "frontier")
        ],
        "on the frontier: generated, reference": [
            "evaluation/levels_frontier_rate",
            "evaluation/reference_frontier_rate",
        ],
        "error of p̂ (Brier score)": ["evaluation/p_hat_brier"],
        "losses": ["gan/generator_loss", "gan/discriminator_loss", "gan/success_loss"],
        "challenge": ["gan/challenge"],
        "objectives": ["gan/generator_objective", "gan/discriminator_objective"],
        "gradients": ["gan/generator_gradient_norm", "gan/discriminator_gradient_norm"],
    },
    "Curriculum": {
        "episodes by source": [f"curriculum/{source}_episodes" for source in SOURCES],
        "solved episodes by source": [f"curriculum/{source}_solved" for source in SOURCES],
        "candidates of the generator": [
            f"curriculum/generated_{name}_rate"
            for name in ("valid", "unique", "predicted_frontier")
        ],
    },
    "World": {
        "error after 1 to 50 imagined steps": [f"world/error_{steps}" for steps in (1, 5, 20, 50)],
        "return in dreams, and beyond the real one": [
            "world/dream_return",
            "world/dream_return_gap",
        ],
        "ends in 1,000 steps: dreamed, real": ["world/dreamed_ends", "world/real_ends"],
        "rare rewards in 1,000 steps: dreamed, real": [
            "world/dreamed_rare_rewards",
            "world/real_rare_rewards",
        ],
        "disagreement: on real steps, at random points": [
            "world/disagreement",
            "world/disagreement_far",
        ],
        "share of the cells visited: dreamed, real": [
            "world/coverage_dreams",
            "world/coverage_real",
        ],
        "errors of rewards and ends": ["world/reward_error", "world/end_calibration_error"],
        "noise: of the data, share that z makes": ["world/data_noise", "world/z_used"],
        "steps that a bound has stopped": ["world/beyond_bounds"],
        "losses": [
            f"world/{name}_loss"
            for name in ("generator", "discriminator", "reconstruction", "likelihood")
        ],
        "losses of the heads": ["world/reward_loss", "world/end_loss"],
        "gradients": [
            f"world/{name}_gradient_norm" for name in ("generators", "discriminators", "heads")
        ],
        "explorer: loss": ["explorer/loss"],
        "explorer: Q, bonus": ["explorer/q_mean", "explorer/bonus"],
        "impossible targets: judge, explorer": [
            "dqn/impossible_targets",
            "explorer/impossible_targets",
        ],
        "seconds": ["system/seconds_world", "system/seconds_watch"],
    },
    "Behaviour": {
        "return, training episodes": ["behaviour/return_mean"],
        "success, training episodes": ["behaviour/success_rate"],
        "ε": ["behaviour/epsilon"],
    },
    "DQN": {"loss": ["dqn/loss"], "Q": ["dqn/q_mean"], "gradient": ["dqn/gradient_norm"]},
    "Speed": {
        "env steps per second": ["system/env_steps_per_second"],
        "seconds by part": [
            f"system/seconds_{part}"
            for part in ("environments", "replay", "dqn", "gan", "evaluation", "saving")
        ],
        "share of the replay that is filled": ["system/replay_fill"],
        "peak RAM (GiB)": ["system/ram_gib"],
    },
}
#: Settings and numbers of ``summary.json`` beside each run's name.
COLUMNS = [
    "config:arm.value",
    "config:seed_everything.value",
    "summary:target_return_mean",
    "summary:target_success_rate",
    "summary:heldout_success_rate",
    "summary:env_steps",
]


def workspace(entity: str, project: str, name: str) -> "Workspace":
    """The workspace, not saved yet; W&B adds a panel for everything else that is logged.

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

    def panel(title: str, keys: list[str]) -> reports.PanelTypes:
        if keys == ["levels/table"]:
            return reports.WeavePanelSummaryTable(table_name=keys[0])
        if keys[0].startswith(("levels/", "episodes/")):
            return reports.MediaBrowser(title=title, media_keys=keys, num_columns=4)
        return reports.LinePlot(title=title, x=AXIS, y=list(keys), title_x="env steps")

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        auto_generate_panels=True,
        sections=[
            workspaces.Section(
                name=section, panels=[panel(*each) for each in panels.items()], is_open=True
            )
            for section, panels in SECTIONS.items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis=AXIS, group_by_prefix="first"),
        runset_settings=workspaces.RunsetSettings(pinned_columns=COLUMNS),
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
    except (wandb.errors.Error, OSError) as error:  # the second from requests
        raise RunError(
            f"W&B did not save the workspace of {entity}/{project} ({error}): see that the "
            "project has a run and that the key may write to it"
        ) from error
