"""What a study consists of: its file, and the runs that follow from it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lit_crl.arguments import flags
from lit_crl.checks import ConfigError, positive
from lit_crl.run_folder import check_folder_name, conf_folder, experiments

#: What runs of a study may not differ in from those that are there already.
SETTLED = ("experiment", "settings", "seeds_at_once")


@dataclass
class Study:
    """A study file; every arm has the same task, settings and seeds.

    Args:
        name: Folder of the study in the root.
        experiment: Configuration of the task, as for ``--experiment``.
        arms: Settings of each arm beyond those of all, by their dotted keys.
        seeds: Runs of each arm.
        first_seed: Their first seed.
        seeds_at_once: Seeds of an arm that one process trains, see ``--seeds``.
        settings: Settings of all arms, by their dotted keys.
        metric: What arms are compared by, a number of ``summary.json``.
        curves: Further numbers of evaluations to draw over env steps.
        against: The arms that an arm must be apart from to be ahead.
        sweep: A dotted key in which arms differ by a number: the metric is drawn over it too.
    """

    name: str = MISSING
    experiment: str = MISSING
    arms: dict[str, dict[str, Any]] = MISSING
    seeds: int = 10
    first_seed: int = 0
    seeds_at_once: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    metric: str = "target_success_rate"
    curves: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=lambda: ["reference", "archive"])
    sweep: str = ""

    @property
    def swept(self) -> dict[str, float]:
        """The number that ``sweep`` has in each arm that sets it."""
        found = {arm: setting(given, self.sweep) for arm, given in self.arms.items()}
        return {
            arm: float(value) for arm, value in found.items() if isinstance(value, (int, float))
        }


def setting(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, which may lie in the mapping that another key has; or None."""
    for name, value in settings.items():
        if name == key:
            return value
        if key.startswith(f"{name}.") and isinstance(value, Mapping):
            return setting(value, key.removeprefix(f"{name}."))
    return None


@dataclass(frozen=True)
class Job:
    """One process of a study: an arm with one seed, or with several at once.

    ``env_steps`` is the budget of each, for the progress bar.
    """

    arm: str
    seeds: range
    folder: Path
    arguments: tuple[str, ...]
    env_steps: int

    @property
    def name(self) -> str:
        """How it is called in messages."""
        first, last = self.seeds[0], self.seeds[-1]
        return f"{self.arm}, seed {first}" + ("" if first == last else f" to {last}")

    @property
    def log(self) -> Path:
        """Where what it prints goes."""
        return self.folder / f"{self.arm}-seed{self.seeds[0]}.log"

    def run_folder(self, seed: int) -> Path:
        """Where the run of a seed is."""
        return self.folder / f"{self.arm}-seed{seed}"

    @property
    def is_done(self) -> bool:
        """Whether every seed has left its summary."""
        return all((self.run_folder(seed) / "summary.json").is_file() for seed in self.seeds)

    @property
    def command(self) -> list[str]:
        """What to execute; where something was saved, it goes on from there."""
        return [sys.executable, "-m", "lit_crl", *self.arguments]


def find_study(given: str) -> Path:
    """The file that is meant: as given, or the package's own ``conf/study/...``.

    Raises:
        ConfigError: If neither exists.
    """
    folder = conf_folder() / "study"
    for path in (Path(given), folder / Path(given).name):
        if path.is_file():
            return path
    names = ", ".join(f"conf/study/{path.name}" for path in sorted(folder.glob("*.yaml")))
    raise ConfigError(f"the study {given} does not exist: give a YAML file, or one of {names}")


def read_study(path: Path) -> Study:
    """Read and check a study file.

    Raises:
        ConfigError: If it is no study.
    """
    try:
        given = OmegaConf.merge(OmegaConf.structured(Study), OmegaConf.load(path))
        study = OmegaConf.to_object(given)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no study: {str(error).splitlines()[0]}") from error
    assert isinstance(study, Study)
    if study.experiment not in experiments():
        raise ConfigError(
            f"{path}: experiment is {study.experiment!r}: use one of {', '.join(experiments())}"
        )
    if not study.arms:
        raise ConfigError(f"{path}: arms is empty: name at least one")
    for name in (study.name, *study.arms):
        check_folder_name("name of the study or of an arm", name)
    if study.sweep and len(set(study.swept.values())) < 2:
        raise ConfigError(
            f"{path}: sweep is {study.sweep!r}, but fewer than two arms differ in it: name a key "
            "that arms set to different numbers"
        )
    positive(seeds=study.seeds, seeds_at_once=study.seeds_at_once)
    return study


def check_same(study: Study, before: Study, folder: Path) -> None:
    """A study that is continued may get arms and seeds, but no other settings.

    Raises:
        ConfigError: If the runs in ``folder`` had others.
    """
    changed = [key for key in SETTLED if getattr(study, key) != getattr(before, key)]
    both = study.arms.keys() & before.arms.keys()
    changed += [f"arms.{arm}" for arm in sorted(both) if study.arms[arm] != before.arms[arm]]
    if changed:
        raise ConfigError(
            f"{folder} holds runs with other {', '.join(changed)}: give the study another name, or "
            "another --root"
        )


def jobs_of(study: Study, folder: Path) -> list[Job]:
    """The processes of a study whose runs go to ``folder``; seed by seed, so that all arms grow."""
    end = study.first_seed + study.seeds
    jobs = []
    for first in range(study.first_seed, end, study.seeds_at_once):
        seeds = range(first, min(first + study.seeds_at_once, end))
        jobs += [_job(study, arm, seeds, folder) for arm in study.arms]
    return jobs


def _job(study: Study, arm: str, seeds: range, folder: Path) -> Job:
    runs = folder / study.experiment
    # With several seeds the command line adds each one's to the name.
    name = arm if len(seeds) > 1 else f"{arm}-seed{seeds[0]}"
    arguments = [
        "fit",
        f"--experiment={study.experiment}",
        f"--name={name}",
        f"--trainer.default_root_dir={folder}",
        f"--seed_everything={seeds[0]}",
        f"--seeds={len(seeds)}",
        "--ckpt_path=last",
        f"--group={study.name}",
        *flags({"tags": [arm, study.experiment]}),
        *flags(study.settings),
        *flags(study.arms[arm]),
    ]
    return Job(arm, seeds, runs, tuple(arguments), env_step_budget(study, arm))


def env_step_budget(study: Study, arm: str) -> int:
    """Env steps of one run: the arm's, the study's, or else the experiment's."""
    file = OmegaConf.load(conf_folder() / "experiment" / f"{study.experiment}.yaml")
    of_experiment = OmegaConf.select(file, "data.env_steps", default=100_000)
    return int({**study.settings, **study.arms[arm]}.get("data.env_steps", of_experiment))
