"""Where levels come from: the sources, what they may ask, and what they hear of episodes."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from lit_crl.core.levels import UnitBox
from lit_crl.envs import LevelEnv

Source = Literal["target", "reference", "archive", "gan", "own"]
SOURCES: tuple[Source, ...] = get_args(Source)
#: A user's arm ``(n, curriculum, teacher) -> levels [n, d]`` in the environment's units: how many,
#: the curriculum with all that it knows, and who has p̂, generated levels and action values. While
#: it has no levels to give it returns ``[0, d]``: target and reference levels are played instead.
OwnSource = Callable[..., Any]


class Teacher(Protocol):
    """What the curriculum asks of the learner; levels are in the environment's units."""

    #: Updates of the DQN and of the GAN so far.
    updates: int
    gan_updates: int

    def generate_levels(self, n: int, difficulty: float | None = None) -> Tensor:
        """New levels, ``[n, d]``, of p̂ near ``difficulty`` if that is given."""

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
    #: The level space as the cube [−1, 1]ᵈ.
    box: UnitBox
    #: The curriculum's random stream.
    rng: torch.Generator
    #: Env steps of the run, and how many of them have been spent.
    budget: int
    spent: Callable[[], int]
    #: Env steps that sources took beside the training episodes'.
    charged_steps: int

    def blank(self, n: int) -> Tensor:
        """``n`` rows of zeros, where levels are to be ``[n, d]``."""

    def make_env(self, num_envs: int, device: torch.device) -> Any:
        """Further environments like the one that is trained in."""


class Finished(NamedTuple):
    """Episodes that have just ended, one entry each ``[m]``."""

    levels: Tensor
    success: Tensor
    #: Whether ``success`` is known; where it is not, ``success`` says nothing.
    success_known: Tensor
    #: Whether the task ended, and not the time.
    terminated: Tensor
    #: Sum of the rewards, not discounted.
    returns: Tensor
    #: Mean over the episode's steps of the discounted return from that step on.
    to_go: Tensor
    #: Mean over the episode's steps of V = max_a Q, in the same unit.
    value: Tensor
    #: Mean over the episode's steps of |δ|, the one-step TD error.
    td_error: Tensor


@runtime_checkable
class Recorder(Protocol):
    """A source that learns from all episodes, whatever the source of their levels."""

    def record(self, finished: Finished) -> None:
        """Take notice of episodes."""


@runtime_checkable
class Stateful(Protocol):
    """A source that a resumed run must find as it was."""

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave; its tensors lie where the curriculum's levels do."""
