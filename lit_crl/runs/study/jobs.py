"""The runs of a study, each in its own process."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lit_crl.runs.cli.arguments import flags
from lit_crl.runs.folders import conf_folder
from lit_crl.runs.study.plan import Study


@dataclass(frozen=True)
class Job:
    """One run, in its own process.

    Args:
        label: The arm of a study, or the experiment, of which this is one seed.
        seed: The seed.
        run_folder: The folder of the run.
        arguments: The command line after ``python -m lit_crl``.
        env_steps: The budget, for the progress bar.
    """

    label: str
    seed: int
    run_folder: Path
    arguments: tuple[str, ...]
    env_steps: int

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.label}, seed {self.seed}"

    @property
    def log(self) -> Path:
        """The file for its output, beside its folder."""
        return self.run_folder.parent / f"{self.run_folder.name}.log"

    @property
    def is_done(self) -> bool:
        """Whether it has written its summary."""
        return (self.run_folder / "summary.json").is_file()

    def summary(self) -> dict[str, Any]:
        """Its ``summary.json``, once it is done."""
        text = (self.run_folder / "summary.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        return found

    @property
    def command(self) -> list[str]:
        """The command to execute; it goes on where an earlier start stopped."""
        return [sys.executable, "-m", "lit_crl", *self.arguments]


def jobs_of(study: Study, folder: Path) -> list[Job]:
    """The runs of a study in ``folder``, seed by seed, so that all arms grow together."""
    jobs = []
    for seed in range(study.first_seed, study.first_seed + study.seeds):
        for arm, settings in study.arms.items():
            run_folder = folder / study.experiment / f"{arm}-seed{seed}"
            arguments = (
                "fit",
                f"--experiment={study.experiment}",
                f"--name={run_folder.name}",
                f"--trainer.default_root_dir={folder}",
                f"--seed_everything={seed}",
                "--ckpt_path=last",
                f"--group={study.name}",
                *flags({"tags": [arm, study.experiment]}),
                *flags(of_seed(study.settings, seed)),
                *flags(of_seed(settings, seed)),
            )
            jobs.append(Job(arm, seed, run_folder, arguments, env_step_budget(study, arm)))
    return jobs


def of_seed(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Settings in whose texts ``{seed}`` is the number of a seed.

    >>> of_seed({"data.transitions": "logs/{seed}.npz", "data.gan.updates": 0}, 7)
    {'data.transitions': 'logs/7.npz', 'data.gan.updates': 0}
    """
    return {
        key: value.replace("{seed}", str(seed)) if isinstance(value, str) else value
        for key, value in settings.items()
    }


def env_step_budget(study: Study, arm: str) -> int:
    """Env steps of one run: the arm's, the study's, or else the experiment's."""
    file = OmegaConf.load(conf_folder() / "experiment" / f"{study.experiment}.yaml")
    of_experiment = OmegaConf.select(file, "data.collect.env_steps", default=100_000)
    return int({**study.settings, **study.arms[arm]}.get("data.collect.env_steps", of_experiment))
