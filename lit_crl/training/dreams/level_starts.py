"""Dreams that start at generated levels: what an episode there would look like at its start."""

import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.sources import Teacher
from lit_crl.envs import BatchedEnv, LevelEnv
from lit_crl.envs.batched import has_pure_step
from lit_crl.world.starts import DrawObservations

#: Reference levels that are compared to see whether observations hide something of them.
COMPARED = 64


def first_observations(env: BatchedEnv, levels: Tensor) -> Tensor:
    """Observations ``[n, ...]`` in which episodes at ``levels [n, d]`` start; nothing is stepped.

    >>> from lit_crl.envs import PointMass
    >>> first_observations(PointMass(1, dim=2), torch.tensor([[3.0, 4.0]]))  # position, then goal
    tensor([[0., 0., 3., 4.]])
    """
    return env.observe(env.initial_state(levels), levels)


def hides_level(env: BatchedEnv) -> bool:
    """Whether states look alike at two levels and go on differently, for instance by their physics.

    Reference levels are compared in pairs, for every action.
    """
    levels = env.reference_levels(COMPARED, torch.Generator(env.device))
    state, others = env.initial_state(levels), levels.roll(1, 0)
    alike = (env.observe(state, levels) == env.observe(state, others)).flatten(1).all(1)
    for number in range(int(env.single_action_space.n)):
        action = torch.full((COMPARED,), number, device=env.device)
        pairs = zip(
            env.dynamics(state, levels, action), env.dynamics(state, others, action), strict=True
        )
        if any(bool((one[alike] != other[alike]).any()) for one, other in pairs):
            return True
    return False


def check_levels_show(env: LevelEnv) -> None:
    """Refuse ``data.world.level_states`` where a dream cannot start at a level.

    Raises:
        ConfigError: If observations of levels cannot be had, or do not show the whole level.
    """
    if not has_pure_step(env):
        raise ConfigError(
            f"data.world.level_states is above 0, but {env.gymnasium_id or type(env).__name__} "
            "does not tell what its levels look like without an env step: set it to 0, or give "
            "data.env a lit_crl.envs.BatchedEnv"
        )
    if hides_level(env):
        raise ConfigError(
            f"data.world.level_states is above 0, but observations of {type(env).__name__} do not "
            "show all of a level (its physics are hidden), so that a dream would not be that "
            "level: set it to 0"
        )


class LevelStarts:
    """Gives dreams the first observations of the levels that the curriculum would propose."""

    def __init__(self, curriculum: Curriculum, size: int) -> None:
        """Ask ``curriculum`` for ``size`` levels at a time."""
        self.curriculum, self.size = curriculum, size

    def proposed(self, teacher: Teacher) -> DrawObservations | None:
        """Draws from newly proposed levels; None as long as the generator proposes none."""
        env = self.curriculum.env
        assert has_pure_step(env)  # checked before the run
        levels = self.curriculum.propose(teacher, self.size)
        if not len(levels):
            return None
        obs = first_observations(env, levels)

        def draw(n: int, rng: torch.Generator) -> Tensor:
            return obs[torch.randint(len(obs), (n,), generator=rng, device=obs.device)]

        return draw
