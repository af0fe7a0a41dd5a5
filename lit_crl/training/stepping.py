"""How an agent steps the environments: step after step, or those of a batch by one launch."""

from collections.abc import Callable
from functools import partial
from typing import cast

from torch import Tensor

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.training.agent import Agent
from lit_crl.training.experience.acting import actor, compiled_play
from lit_crl.training.experience.interface import Experience
from lit_crl.training.experience.rollout import Rollout
from lit_crl.training.graphs.capture import Capture
from lit_crl.training.graphs.steps import GraphedSteps, OneByOne, Steps, can_be_graphed


class Stepping:
    """Has an agent act in the environments, and the curriculum choose their levels."""

    def __init__(
        self,
        agent: Agent,
        experience: Experience,
        curriculum: Curriculum | None,
        explores: Tensor | None,
        clock: Stopwatch,
    ) -> None:
        """Step nothing yet.

        Args:
            agent: Acts.
            experience: The environments, or a log in their place.
            curriculum: Chooses levels; None: there are none.
            explores: In which environments the explorer acts, bool ``[N]``; None: in none.
            clock: Times the parts.
        """
        self._agent, self._experience, self._curriculum = agent, experience, curriculum
        self._explores, self._clock = explores, clock

    @property
    def memory(self) -> Tensor | None:
        """What the policy remembers of the running episodes ``[N, H]``, if it has a memory."""
        return self._experience.memory if isinstance(self._experience, Rollout) else None

    def step(self, epsilon: Tensor) -> None:
        """One step of all environments, with ``epsilon [N]``."""
        act = actor(self._agent, self._explores, self.memory)
        with self._clock("environments"):
            self._experience.step(act, epsilon, self._draw_levels)

    def _draw_levels(self, n: int) -> tuple[Tensor, Tensor]:
        curriculum = cast(Curriculum, self._curriculum)  # asked only where there are levels
        with self._clock("gan"):
            return curriculum.draw(n, self._agent)

    def of_a_batch(
        self,
        steps: int,
        step: Callable[[], None],
        epsilon_ahead: Callable[[int], Tensor],
        capture: Capture | None,
    ) -> Steps:
        """The steps between two batches.

        Args:
            steps: How many steps of all environments.
            step: Takes one, where they are taken one after another.
            epsilon_ahead: Tells ε at each of the next ones, ``[steps, N]``.
            capture: Records them as a graph, on a GPU; None: they are taken one after another.
        """
        agent, experience, explores = self._agent, self._experience, self._explores
        if capture is None or not isinstance(experience, Rollout) or not can_be_graphed(experience):
            compiled = compiled_play(agent, experience.env, explores, self._clock)
            experience.play_with(agent, compiled)
            return OneByOne(step, steps)
        experience.play_with(agent)
        assert self._curriculum is not None
        return GraphedSteps(
            experience,
            actor(agent, explores),
            partial(epsilon_ahead, steps),
            self._draw_levels,
            self._curriculum.give_back,
            [agent.q_network] if agent.explorer is None else [agent.q_network, agent.explorer],
            [agent.streams("exploration", experience.obs.device)],
            capture,
            self._clock,
        )
