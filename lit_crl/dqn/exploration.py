"""How much each environment explores: ε of every environment as a function of env steps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_crl.core.checks import positive, unit_interval
from lit_crl.dqn.equations import epsilon_ladder


class Exploration(ABC):
    """What gives each environment its ε; a class, so that YAML can name it and its numbers."""

    @abstractmethod
    def __call__(self, num_envs: int, env_steps: int) -> Tensor:
        """ε of every environment after ``env_steps`` env steps."""


@dataclass
class EpsilonLadder(Exploration):
    """A fixed ε for each environment, from exploratory to nearly greedy (Ape-X).

    Args:
        base: ε of the most exploratory environment.
        exponent: The most greedy environment has ε = base^(1 + exponent).
    """

    base: float = 0.4
    exponent: float = 7.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        unit_interval(data__collect__exploration__base=self.base)
        positive(data__collect__exploration__exponent=self.exponent)

    def __call__(self, num_envs: int, env_steps: int) -> Tensor:
        """ε of every environment; the same at all times."""
        return epsilon_ladder(num_envs, self.base, self.exponent)


@dataclass
class LinearEpsilon(Exploration):
    """The same ε for all environments, falling linearly (Mnih et al. 2015).

    Args:
        start: ε at the first env step.
        end: ε from ``steps`` env steps on.
        steps: Env steps until ``end`` is reached.
    """

    start: float = 1.0
    end: float = 0.05
    steps: int = 50_000

    def __post_init__(self) -> None:
        """Check the numbers."""
        unit_interval(
            data__collect__exploration__start=self.start, data__collect__exploration__end=self.end
        )
        positive(data__collect__exploration__steps=self.steps)

    def __call__(self, num_envs: int, env_steps: int) -> Tensor:
        """ε of every environment after ``env_steps`` env steps."""
        progress = min(env_steps / self.steps, 1.0)
        return torch.full((num_envs,), self.start + progress * (self.end - self.start))
