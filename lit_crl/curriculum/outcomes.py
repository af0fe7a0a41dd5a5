"""When outcomes come, and the messages for runs in which they come late or never.

An *outcome* is the success or failure of an episode that explored little. p̂, and with it the GAN,
learn only from outcomes: without them an arm that needs the GAN would silently be another arm.
"""

from dataclasses import dataclass

import torch

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.exploration import Exploration

#: At how many points of a run ε is computed to find out when outcomes begin.
CHECKED_POINTS = 1_000


@dataclass(frozen=True)
class OutcomeTiming:
    """The settings that decide when outcomes come.

    Args:
        exploration: ε of the environments.
        label_epsilon: Only episodes that explore at most this much give outcomes.
        num_envs: Environments of one process.
        world_size: Processes.
        warmup: Env steps with random actions.
        first_phase: Env steps until the first GAN phase.
        budget: Env steps of the run.
        time_limit: Longest episode, in steps; None where there is no limit.
    """

    exploration: Exploration
    label_epsilon: float
    num_envs: int
    world_size: int
    warmup: int
    first_phase: int
    budget: int
    time_limit: int | None

    def begin(self) -> int | None:
        """Env steps after which some environment explores little enough; None: it never does."""
        points = torch.linspace(self.warmup, self.budget, CHECKED_POINTS).tolist()
        steps = map(int, points)
        return next((step for step in steps if self._lowest(step) <= self.label_epsilon), None)

    def _lowest(self, env_steps: int) -> torch.Tensor:
        return self.exploration(self.num_envs, env_steps).min()

    def expected(self, begin: int) -> int:
        """Env steps until which the first outcome should have come.

        The episodes that are running when outcomes ``begin`` have explored too much; the next ones
        count. The result is never less than a tenth of the budget.
        """
        longest = (self.time_limit or 0) * self.num_envs * self.world_size
        return max(self.budget // 10, begin + 2 * longest)

    def check(self, arm: str) -> int:
        """The env steps after which outcomes begin.

        Raises:
            ConfigError: If every episode of the run explores too much.
        """
        if (begin := self.begin()) is None:
            raise ConfigError(
                f"data.curriculum.arm {arm!r} learns from episodes with ε of at most "
                f"data.curriculum.label_epsilon ({self.label_epsilon:g}), but the smallest ε is "
                f"still {self._lowest(self.budget).item():.2g} when data.collect.env_steps "
                f"{self.budget:,} are spent: let data.collect.exploration fall earlier or lower "
                "(data.collect.exploration.steps, data.collect.exploration.end), or raise "
                "data.curriculum.label_epsilon"
            )
        return begin

    def warning(self, arm: str, begin: int) -> str | None:
        """A warning for the start of a run whose GAN learns late, or perhaps not at all."""
        if self.first_phase > self.budget:
            return (
                f"The GAN that arm {arm!r} needs will not learn: its first phase comes after "
                f"{self.first_phase:,} env steps, and data.collect.env_steps is {self.budget:,}; "
                "give more env steps, or a smaller data.gan.every."
            )
        if begin > max(self.budget // 10, self.warmup):
            return (
                f"Outcomes, which arm {arm!r} learns from, begin after about {begin:,} of "
                f"{self.budget:,} env steps, when ε has fallen to data.curriculum.label_epsilon "
                f"{self.label_epsilon:g}; a lower data.collect.exploration.steps lets them begin "
                "earlier."
            )
        if self.expected(begin) > self.budget:
            return (
                f"Perhaps no outcome, which arm {arm!r} learns from, will count within "
                f"data.collect.env_steps {self.budget:,}: episodes last up to {self.time_limit:,} "
                f"steps in each of {self.num_envs * self.world_size} environments; give more "
                "env_steps or fewer data.collect.num_envs."
            )
        return None


def unknown_success(arm: str, episodes: int) -> ConfigError:
    """The error for an arm that needs success where it is unknown for all ``episodes``."""
    return ConfigError(
        f"data.curriculum.arm is {arm!r}, but after {episodes} episodes it is unknown whether any "
        "succeeded: "
        'give success_return in data.env, let the environment\'s step report info["success"], or '
        "use data.curriculum.arm target or reference"
    )


def why_too_few(
    arm: str, env_steps: int, outcomes: int, needed: int, ended: int, judged: int
) -> str:
    """One sentence that says why an arm's GAN cannot learn yet, and what helps.

    Args:
        arm: Its name.
        env_steps: Env steps so far.
        outcomes: Outcomes so far.
        needed: Outcomes that the GAN needs before it learns.
        ended: Episodes that have ended.
        judged: Those of them that explored little.
    """
    if not ended:
        reason = "no episode has ended: give max_episode_steps, or a larger data.collect.env_steps"
    elif not judged:
        reason = (
            f"all {ended:,} episodes that ended have explored more than "
            "data.curriculum.label_epsilon, or were an explorer's: raise it, or let "
            "data.collect.exploration fall earlier"
        )
    elif not outcomes:
        reason = (
            f"none of {judged:,} episodes started at a valid level: give data.curriculum.mix more "
            "reference levels, or the environment target_levels that are levels"
        )
    else:
        reason = (
            f"only {outcomes:,} outcomes count so far, and at this rate "
            f"data.curriculum.min_outcomes ({needed:,}) will not be reached: lower it, raise "
            "data.curriculum.label_epsilon, or give a larger data.collect.env_steps"
        )
    return f"After {env_steps:,} env steps the GAN that arm {arm!r} needs cannot learn: {reason}."
