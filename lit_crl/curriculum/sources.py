"""Where levels come from: the sources, what they may ask, and what they learn about episodes."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from lit_crl.core.levels import UnitBox
from lit_crl.envs import LevelEnv
from lit_crl.envs.factory import EnvFactory

#: ``own`` is a ``CustomSource``.
Source = Literal["target", "reference", "archive", "gan", "own"]
SOURCES: tuple[Source, ...] = get_args(Source)
#: The source of a user's arm, or of a named arm other than the first four:
#: ``(n, curriculum, teacher) -> levels [n, d]`` in the environment's units. ``curriculum`` is a
#: ``SourceContext``. While the source has no levels to give it returns ``[0, d]``: target and
#: reference levels are played instead. An object may also have ``record(FinishedEpisodes)``, which
#: is called with all episodes, whatever source their levels come from; and ``state_dict()`` with
#: ``load_state_dict(state)``, so that a resumed run continues from its state.
CustomSource = Callable[..., Any]


class Teacher(Protocol):
    """What the curriculum asks of the learner; levels are in the environment's units."""

    #: Updates of the DQN and of the GAN so far.
    updates: int
    gan_updates: int

    def generate_levels(self, n: int, difficulty: float | None = None) -> Tensor:
        """New levels, ``[n, d]``; with ``difficulty``, levels whose p̂ is near it."""

    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ of levels, ``[n, d] -> [n]``."""

    def realness(self, levels: Tensor) -> Tensor:
        """The discriminator's logits of levels, ``[n, d] -> [n]``."""

    def action_values(self, obs: Tensor) -> Tensor:
        """Q of the policy that is evaluated, ``[n, ...] -> [n, A]``."""


class SourceContext(Protocol):
    """What a source may ask of the curriculum."""

    #: The environment, which knows its target and reference levels.
    env: LevelEnv
    #: Makes further environments like the one that is trained in.
    make_env: EnvFactory | None
    #: The level space as the cube [−1, 1]ᵈ.
    box: UnitBox
    #: The curriculum's random stream.
    rng: torch.Generator
    #: Env steps of the run, and a function that returns how many of them have been spent.
    budget: int
    spent: Callable[[], int]
    #: Env steps that sources took in addition to the training episodes'.
    charged_steps: int

    def no_levels(self) -> Tensor:
        """An empty table ``[0, d]``: what a source returns while it has no levels to give."""


class FinishedEpisodes(NamedTuple):
    """Episodes that have just ended, one entry each ``[m]``."""

    levels: Tensor
    success: Tensor
    #: Whether ``success`` is known; where it is not, ``success`` says nothing.
    success_known: Tensor
    #: Whether the task ended; False where the time limit cut the episode off.
    terminated: Tensor
    #: Sum of the rewards, not discounted.
    returns: Tensor
    #: Mean over the episode's steps of the discounted return from that step on.
    to_go: Tensor
    #: Mean over the episode's steps of V = max_a Q, in the same unit.
    value: Tensor
    #: Mean over the episode's steps of |δ|, the one-step TD error.
    td_error: Tensor
