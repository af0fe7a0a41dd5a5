"""When what happens in a run, counted in env steps and in batches."""

from typing import Literal

from lit_crl.core.checks import ConfigError
from lit_crl.training.settings import CollectSettings, DataSettings

#: In what a budget is counted.
Unit = Literal["env steps", "updates"]
#: The settings that are budgets.
BUDGETS: dict[Unit, str] = {
    "env steps": "data.collect.env_steps",
    "updates": "data.replay.log_updates",
}


class Schedule:
    """Warm-up, then batches, each after ``steps_per_batch`` steps of every environment.

    After ``data.gan.every`` batches a GAN phase follows, and after about ``data.evaluation.every``
    env steps an epoch ends with a validation. From a log everything is counted in updates.
    """

    def __init__(
        self,
        collect: CollectSettings,
        gan_every: int,
        validate_every: int,
        unit: Unit = "env steps",
    ) -> None:
        """Fit whole batches into the budget; warm-up takes the remainder.

        Args:
            collect: Has the budget, the environments of one process, warm-up and steps per batch.
            gan_every: Batches from one GAN phase to the next.
            validate_every: Env steps from one validation to the next.
            unit: In what all this is counted.

        Raises:
            ConfigError: If the budget has no room for a batch.
        """
        self.budget, self.unit = collect.env_steps, unit
        self._warmup, self.steps_per_batch = collect.warmup, collect.steps_per_batch
        self._gan_every, self._validate_every = gan_every, validate_every
        self.share(collect.num_envs)

    def share(self, num_envs: int) -> None:
        """Take another number of environments into account, of all processes together.

        Raises:
            ConfigError: If the budget has no room for a batch of them.
        """
        random_steps = -(-self._warmup // num_envs)
        least = (random_steps + self.steps_per_batch) * num_envs
        if self.budget < least:
            raise ConfigError(
                f"{BUDGETS[self.unit]} is {self.budget}, but warm-up and one batch already take "
                f"{least}: give more, or a smaller data.collect.warmup"
            )
        random_steps += (self.budget // num_envs - random_steps) % self.steps_per_batch
        self.warmup = random_steps * num_envs
        self.steps_of_a_batch = num_envs * self.steps_per_batch
        self.batches_per_epoch = max(1, self._validate_every // self.steps_of_a_batch)
        #: Env steps from one validation to the next.
        self.steps_of_an_epoch = min(self.batches_per_epoch * self.steps_of_a_batch, self.budget)

    @property
    def first_gan_phase(self) -> int:
        """Env steps until the first GAN phase."""
        return self.warmup + self._gan_every * self.steps_of_a_batch

    def nothing_left(self, spent: int) -> str:
        """The sentence about a budget that was spent before."""
        return (
            f"Nothing is left to train: {spent:,} {self.unit} were taken, and the budget "
            f"({BUDGETS[self.unit]}) is {self.budget:,}. Raise it to go on, or start a new run."
        )

    def is_warming_up(self, env_steps: int) -> bool:
        """Whether actions are still random and nothing is learnt."""
        return env_steps < self.warmup

    def is_spent(self, env_steps: int) -> bool:
        """Whether the budget has no room for another batch."""
        return env_steps + self.steps_of_a_batch > self.budget

    def ends_cycle(self, batches_done: int) -> bool:
        """Whether the newest batch brings the GAN phase, and the next one new levels."""
        return batches_done % self._gan_every == 0


def schedule(settings: DataSettings) -> Schedule:
    """The schedule of a run that steps environments."""
    return Schedule(settings.collect, settings.gan.every, settings.evaluation.every)
