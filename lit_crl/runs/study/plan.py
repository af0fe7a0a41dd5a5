"""A study file: what it compares, by which number, and what was tried for its arms before."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lit_crl.core.checks import ConfigError, positive
from lit_crl.runs.folders import check_folder_name, conf_folder, experiments
from lit_crl.runs.study.tuning import Tuning

#: What of the metric can be compared.
SCORES = ("test", "best", "last_half")


@dataclass
class Study:
    """A study file; every arm has the same task, settings and seeds.

    Args:
        name: Folder of the study in the root.
        experiment: Configuration of the task, as for ``--experiment``.
        arms: Settings of each arm beyond those of all arms, by their dotted keys.
        seeds: Runs of each arm.
        first_seed: The first seed.
        settings: Settings of all arms, by their dotted keys. Here and in an arm, ``{seed}`` in a
            text stands for the seed of the run.
        metric: The number of ``summary.json`` by which arms are compared.
        score: What of the metric is compared: its value in the ``test`` at the end of a run; that
            of the ``best`` policy of the run, measured anew at its end; or its mean over the
            validations in the ``last_half`` of the run.
        curves: Further numbers of evaluations to draw over env steps.
        against: The arms that every arm is compared with.
        paired: Whether a seed brings the same luck to every arm, for instance the same given levels
            or the same log. Arms are then compared seed by seed.
        equivalence_margin: The largest difference in the metric that does not matter. Arms are
            called equivalent only if this is given; choose it before the runs.
        bar: The value of the metric from which on a validation counts as solved. Arms are then also
            compared by their env steps until two validations running are; None: they are not.
        sweep: A dotted key that arms set to different numbers; the metric is drawn over it, too.
        tuning: Trials for every arm, on other seeds than those of the study; None: there are none.
    """

    name: str = MISSING
    experiment: str = MISSING
    arms: dict[str, dict[str, Any]] = MISSING
    seeds: int = 10
    first_seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    metric: str = "target_success_rate"
    score: str = "test"
    curves: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=lambda: ["reference", "archive"])
    paired: bool = False
    equivalence_margin: float | None = None
    bar: float | None = None
    sweep: str = ""
    tuning: Tuning | None = None

    @property
    def axis(self) -> str:
        """What passes in a run: env steps or, from a log, updates."""
        return "updates" if "data.transitions" in self.settings else "env steps"

    @property
    def swept(self) -> dict[str, float]:
        """The number that ``sweep`` has in each arm that sets it."""
        found = ((arm, setting(given, self.sweep)) for arm, given in self.arms.items())
        return {arm: float(value) for arm, value in found if isinstance(value, (int, float))}


def tuning_of(study: Study) -> Study:
    """The study of the trials: an arm ``ARM-TRIAL`` for each arm and trial.

    Raises:
        ConfigError: If the study has no trials.
    """
    if study.tuning is None:
        raise ConfigError(f"the study {study.name} has no tuning: name its trials there")
    arms = {
        f"{arm}-{trial}": {**settings, **tried}
        for arm, settings in study.arms.items()
        for trial, tried in study.tuning.of(arm).items()
    }
    tuning = study.tuning
    return replace(
        study, name=f"{study.name}_tuning", arms=arms, against=[], sweep="", tuning=None,
        seeds=tuning.seeds, first_seed=tuning.first_seed,
    )  # fmt: skip


def setting(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, which may lie in another key's mapping; None if there is none.

    >>> setting({"data.curriculum.mix": {"gan": 0.25}}, "data.curriculum.mix.gan")
    0.25
    """
    for name, value in settings.items():
        if name == key:
            return value
        if key.startswith(f"{name}.") and isinstance(value, Mapping):
            return setting(value, key.removeprefix(f"{name}."))
    return None


def find_study(given: str) -> Path:
    """The file of a study; ``conf/study/NAME`` also finds the studies of the package.

    Raises:
        ConfigError: If neither exists.
    """
    path = Path(given)
    if path.is_file():
        return path
    folder = conf_folder() / "study"
    if path.parent == Path("conf/study") and (folder / path.name).is_file():
        return folder / path.name
    names = ", ".join(f"conf/study/{file.name}" for file in sorted(folder.glob("*.yaml")))
    raise ConfigError(f"the study {given} does not exist: give a YAML file, or one of {names}")


def read_study(path: Path) -> Study:
    """Read and check a study file.

    Raises:
        ConfigError: If it is no study.
    """
    try:
        file = OmegaConf.load(path)
        if "seeds_at_once" in file:
            raise ConfigError(
                f"{path}: seeds_at_once is gone, because every run is a separate process: delete "
                "the line, and say how many run at a time with --processes"
            )
        study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), file))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no study: {str(error).splitlines()[0]}") from error
    assert isinstance(study, Study)
    if study.experiment not in experiments():
        raise ConfigError(
            f"{path}: experiment is {study.experiment!r}: use one of {', '.join(experiments())}"
        )
    if study.score not in SCORES:
        raise ConfigError(f"{path}: score is {study.score!r}: use one of {', '.join(SCORES)}")
    if not study.arms:
        raise ConfigError(f"{path}: arms is empty: name at least one")
    for name in (study.name, *study.arms):
        check_folder_name("name of the study or of an arm", name)
    strangers = [arm for arm in study.against if arm not in study.arms] if "against" in file else []
    if strangers:
        raise ConfigError(
            f"{path}: against is {strangers}, which no arm is called: use {', '.join(study.arms)}"
        )
    if study.sweep and len(set(study.swept.values())) < 2:
        raise ConfigError(
            f"{path}: sweep is {study.sweep!r}, but fewer than two arms differ in it: name a key "
            "that arms set to different numbers"
        )
    positive(seeds=study.seeds)
    if study.tuning is not None:
        study.tuning.check(
            study.arms, range(study.first_seed, study.first_seed + study.seeds), path
        )
    if study.equivalence_margin is not None:
        positive(equivalence_margin=study.equivalence_margin)
    return study


def check_same(study: Study, before: Study, folder: Path) -> None:
    """Check that a study that is continued has the same settings; it may get arms and seeds.

    Raises:
        ConfigError: If the runs in ``folder`` had other settings.
    """
    keys = ("experiment", "settings")
    changed = [key for key in keys if getattr(study, key) != getattr(before, key)]
    both = study.arms.keys() & before.arms.keys()
    changed += [f"arms.{arm}" for arm in sorted(both) if study.arms[arm] != before.arms[arm]]
    if changed:
        raise ConfigError(
            f"{folder} holds runs with other {', '.join(changed)}: give the study another name, or "
            "another --root"
        )
