"""When what happens in a run, counted in env steps and in batches."""

from lit_crl import checks
from lit_crl.checks import ConfigError


class Schedule:
    """Warm-up, then batches, each after ``steps_per_batch`` steps of every environment.

    Every ``gan_every``-th batch brings a GAN phase, and about every ``validate_every`` env steps
    end an epoch with a validation.
    """

    def __init__(
        self,
        budget: int,
        num_envs: int,
        warmup: int,
        steps_per_batch: int,
        gan_every: int,
        validate_every: int,
    ) -> None:
        """Fit whole batches into ``budget`` env steps; warm-up takes the remainder.

        Raises:
            ConfigError: If a number makes no sense, or the budget has no room for a batch.
        """
        checks.positive(
            data__env_steps=budget,
            data__num_envs=num_envs,
            data__steps_per_batch=steps_per_batch,
            data__gan_every=gan_every,
            data__validate_every=validate_every,
        )
        checks.non_negative(data__warmup=warmup)
        random_steps = -(-warmup // num_envs)
        least = (random_steps + steps_per_batch) * num_envs
        if budget < least:
            raise ConfigError(
                f"data.env_steps is {budget}, but warm-up and one batch already take {least}: "
                "give more, or a smaller data.warmup"
            )
        random_steps += (budget // num_envs - random_steps) % steps_per_batch
        self.budget = budget
        self.warmup = random_steps * num_envs
        self.steps_of_a_batch = num_envs * steps_per_batch
        self.batches_per_epoch = max(1, validate_every // self.steps_of_a_batch)
        self._gan_every = gan_every

    def is_warming_up(self, env_steps: int) -> bool:
        """Whether actions are still random and nothing is learnt."""
        return env_steps < self.warmup

    def is_spent(self, env_steps: int) -> bool:
        """Whether the budget has no room for another batch."""
        return env_steps + self.steps_of_a_batch > self.budget

    def ends_cycle(self, batches_done: int) -> bool:
        """Whether the newest batch brings the GAN phase, and the next one new levels."""
        return batches_done % self._gan_every == 0
