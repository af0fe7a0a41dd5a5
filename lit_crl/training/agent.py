"""The learner as the data sees it, so that learner and data need not import each other."""

from typing import Protocol

from torch import Tensor, nn

from lit_crl.core.seeding import RandomStreams
from lit_crl.curriculum.sources import Teacher
from lit_crl.dqn.settings import DqnSettings, NetworkSettings
from lit_crl.gan.settings import GanSettings
from lit_crl.training.flat.network import FlatNetwork
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan


class Agent(Teacher, Protocol):
    """Acts in the environments, and teaches the curriculum."""

    network: NetworkSettings
    dqn: DqnSettings
    gan: GanSettings
    world: WorldSettings
    q_network: nn.Module
    streams: RandomStreams
    #: Acts where little is known, and what it dreams in; None where there is no world.
    explorer: nn.Module | None
    world_gan: TransitionGan | None
    #: Whether updates are compiled, and acting in the environments with them.
    compile_updates: bool
    #: Where updates are graphs: each network with its parameters as one vector.
    flat_networks: dict[nn.Module, FlatNetwork]

    def act(
        self, obs: Tensor, epsilon: Tensor | float = 0.0, explores: Tensor | None = None
    ) -> Tensor:
        """Actions ``[N]``: random with probability ε, else greedy; the explorer's where asked."""

    #: Numbers that the Q-network remembers of an episode; 0: it has no memory.
    memory_size: int

    def act_remembering(
        self, obs: Tensor, memory: Tensor, epsilon: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """The same with a memory ``[N, H]``, which is then the one after ``obs``."""

    def toss(self, n: int, epsilon: Tensor | float) -> tuple[Tensor, Tensor]:
        """Which of ``n`` environments act at random, and their random actions, ``[n]`` each."""

    def acting_noise(self, n: int) -> tuple[Tensor, ...]:
        """What Q-networks take beside ``n`` observations to act: noise ``[n, size]``, if any."""
