"""What is tried for every arm of a study before its runs."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_crl.core.checks import ConfigError, positive
from lit_crl.runs.folders import check_folder_name


@dataclass
class Tuning:
    """What is tried for every arm before its runs, on seeds that are not reported.

    Args:
        trials: Settings of each trial beyond those of an arm, by their dotted keys. Every arm gets
            every trial.
        own: In their place, the trials of single arms, as many for each.
        seeds: Runs of each trial.
        first_seed: The first seed.
    """

    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    own: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    seeds: int = 1
    first_seed: int = 1000

    def of(self, arm: str) -> dict[str, dict[str, Any]]:
        """The trials of an arm."""
        return self.own.get(arm, self.trials)

    def check(self, arms: Collection[str], reported: range, path: Path) -> None:
        """Check that all arms get as many trials, on other seeds than the reported ones.

        Raises:
            ConfigError: If they do not.
        """
        if strangers := self.own.keys() - arms:
            raise ConfigError(
                f"{path}: tuning.own names {', '.join(sorted(strangers))}, which no arm is called: "
                f"use {', '.join(arms)}"
            )
        counts = {arm: len(self.of(arm)) for arm in arms}
        if 0 in counts.values() or len(set(counts.values())) > 1:
            raise ConfigError(
                f"{path}: tuning has {counts} trials: give every arm as many, and at least one"
            )
        for trials in (self.trials, *self.own.values()):
            for name in trials:
                check_folder_name("name of a trial", name)
        positive(tuning__seeds=self.seeds)
        tried = range(self.first_seed, self.first_seed + self.seeds)
        if set(reported) & set(tried):
            raise ConfigError(
                f"{path}: tuning.first_seed is {self.first_seed}, but trials on seeds that are "
                f"reported would flatter an arm: use {reported.stop} or more"
            )
