"""The schedule against a run counted out step by step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_crl.core.checks import ConfigError
from lit_crl.training.schedule import Schedule
from lit_crl.training.settings import CollectSettings

small = st.integers(1, 9)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), small, st.integers(0, 60), small, small, st.integers(1, 120))
def test_warm_up_and_whole_batches_use_the_budget_up(
    budget: int, num_envs: int, warmup: int, steps: int, gan_every: int, validate_every: int
) -> None:
    fits = budget >= 1 and -(-warmup // num_envs) * num_envs + steps * num_envs <= budget
    if not fits:
        with pytest.raises(ConfigError, match="env_steps"):
            Schedule(CollectSettings(budget, num_envs, warmup, steps), gan_every, validate_every)
        return
    collect = CollectSettings(budget, num_envs, warmup, steps)
    schedule = Schedule(collect, gan_every, validate_every)
    env_steps, batches, gan_phases = 0, 0, 0
    while schedule.is_warming_up(env_steps):
        env_steps += num_envs
    assert warmup <= env_steps < warmup + num_envs * (1 + steps)
    while not schedule.is_spent(env_steps):
        env_steps += num_envs * steps
        batches += 1
        gan_phases += schedule.ends_cycle(batches)
    assert budget - num_envs < env_steps <= budget  # less than one vector step is left over
    assert batches >= 1 and gan_phases == batches // gan_every
    epoch = schedule.batches_per_epoch * num_envs * steps
    assert epoch <= max(validate_every, num_envs * steps) < epoch + num_envs * steps
