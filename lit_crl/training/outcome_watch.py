"""The watch over outcomes: an arm that waits for them in vain is told so, or stopped."""

import torch

from lit_crl.core import distributed
from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.arms import Needs
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.outcomes import OutcomeTiming, unknown_success, why_too_few
from lit_crl.dqn.exploration import Exploration
from lit_crl.training.experience.episode_log import EpisodeLog
from lit_crl.training.schedule import Schedule


def outcome_timing(
    exploration: Exploration,
    label_epsilon: float,
    schedule: Schedule,
    num_envs: int,
    world_size: int,
    time_limit: int | None,
) -> OutcomeTiming:
    """When outcomes can come in a run of ``world_size`` processes; see ``OutcomeTiming``."""
    when = (schedule.warmup, schedule.first_gan_phase, schedule.budget)
    return OutcomeTiming(exploration, label_epsilon, num_envs, world_size, *when, time_limit)


class OutcomeWatch:
    """Knows when outcomes can begin, and looks at the end of every cycle whether they came.

    All processes look at the same time and judge by what all of them know.
    """

    def __init__(self, arm: str, needs: Needs, timing: OutcomeTiming, trains_gan: bool) -> None:
        """Watch one run.

        Args:
            arm: The arm's name.
            needs: What the arm needs.
            timing: When outcomes can come.
            trains_gan: Whether there are GAN phases.
        """
        self.arm, self.needs, self.timing = arm, needs, timing
        self.trains_gan = trains_gan
        #: Env steps after which outcomes can come; None: nobody waits for them.
        self._begin: int | None = None
        #: Env steps after which the first outcome should have come; None: all has been said.
        self._expected: int | None = None

    def start(self) -> None:
        """Wait for outcomes from now on, and say so if they come late.

        Raises:
            ConfigError: If none can ever count.
        """
        self._begin = self.timing.check(self.arm)
        self._expected = self.timing.expected(self._begin)
        if (warning := self.timing.warning(self.arm, self._begin)) is not None:
            distributed.print_once(warning)

    def look(
        self,
        curriculum: Curriculum,
        log: EpisodeLog,
        env_steps: int,
        tells_success: bool,
        device: torch.device,
    ) -> None:
        """See whether the arm gets what it waits for.

        Args:
            curriculum: Has the outcomes, and knows whether a user's arm waits for the GAN.
            log: What the training episodes looked like.
            env_steps: Spent so far, by all processes.
            tells_success: Whether the environment says of its episodes whether they succeeded.
            device: Where processes exchange what they know.

        Raises:
            ConfigError: If the arm can never work.
        """
        waits = not distributed.all_agree(not curriculum.waits_for_gan, device)
        if waits and self._begin is None:
            self._start_late()
        if self.needs.success or waits:
            is_unknown = not tells_success and not log.known
            if distributed.all_agree(is_unknown and log.ended > 0, device):
                raise unknown_success(self.arm, log.ended)
        if self._begin is None or self._expected is None or env_steps < self._expected:
            return
        self._expected = None
        outcomes, needed = len(curriculum.archive.tried), curriculum.min_outcomes
        spent, left = env_steps - self._begin, self.timing.budget - env_steps
        if outcomes < needed and outcomes * (1 + left / max(spent, 1)) < needed:
            distributed.print_once(
                why_too_few(self.arm, env_steps, outcomes, needed, log.ended, log.judged)
            )

    def _start_late(self) -> None:
        """A user's arm has asked for p̂ or for generated levels, which only outcomes can teach."""
        if not self.trains_gan:
            raise ConfigError(
                f"data.gan.updates is 0, but data.curriculum.arm {self.arm!r} asks for p̂ or for "
                "generated levels, which nobody has learned: give data.gan.updates above 0"
            )
        self.start()
