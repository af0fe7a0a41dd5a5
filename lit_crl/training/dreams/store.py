"""Dreams of a policy: it acts in a world, and the newest imagined steps are kept."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_crl.core.free_ram import check_fits
from lit_crl.dqn.equations import Transitions
from lit_crl.training.dreams.step import ImaginedSteps, imagine_step
from lit_crl.training.graphs.dreams import GraphedDreams
from lit_crl.world.imagined_env import ImaginedEnv

#: Largest ε of a policy in its dreams; each dream has its own.
DREAM_EPSILON = 0.3


class Dreams:
    """Plays dreams and keeps them until the next ones: those of an older world are forgotten."""

    def __init__(
        self,
        env: ImaginedEnv,
        gamma: float,
        rng: torch.Generator,
        graphs: GraphedDreams | None = None,
    ) -> None:
        """Prepare to dream.

        Args:
            env: The dreams; each ends at the latest after ``env.max_episode_steps``.
            gamma: Discount factor of one step.
            rng: Draws ε, random actions, and which imagined steps are learnt from.
            graphs: Launches each step as a graph; None: they run one operation at a time.

        Raises:
            ConfigError: If the RAM that is free does not hold the steps that will be kept.
        """
        self.env, self.gamma, self.rng, self._graphs = env, gamma, rng, graphs
        check_fits("data.world.dreams", env.num_envs, self.bytes, env.device)
        #: The newest imagined steps ``[n, ...]``; None before the first dream.
        self.store: Transitions | None = None
        #: The world's disagreement ``[n]`` on them. It is that of the present world, because these
        #: steps are forgotten when the world learns.
        self.disagreement = torch.zeros(0, device=env.device)
        #: Imagined steps so far.
        self.steps = 0
        self._rows: ImaginedSteps | None = None

    @property
    def bytes(self) -> int:
        """The memory that the kept steps take once there are any."""
        # On the device "meta" tensors have sizes, but take no RAM.
        room = ImaginedSteps.room(self.env.max_episode_steps, self.env, torch.device("meta"))
        return sum(field.nbytes for field in room)

    @torch.no_grad()
    def play(self, policy: nn.Module) -> None:
        """Dream anew with a policy: as many steps of each dream as its horizon has.

        Args:
            policy: Gives action values, ``[N, ...] -> [N, A]``.
        """
        self.store = None
        uniform = torch.rand(self.env.num_envs, generator=self.rng, device=self.rng.device)
        rows, epsilon = self._room(), DREAM_EPSILON * uniform
        if self._graphs is None:
            self._one_by_one(policy, epsilon, rows)
        else:
            self._graphs(policy, epsilon, rows)
        *fields, self.disagreement = (field.flatten(0, 1) for field in rows)
        self.store = Transitions(*fields)
        self.steps += rows.reward.numel()

    def _room(self) -> ImaginedSteps:
        """Where steps are kept: always at the same place, over the older ones."""
        if self._rows is None:
            steps = self.env.max_episode_steps
            self._rows = ImaginedSteps.room(steps, self.env, self.env.device)
        return self._rows

    def _one_by_one(self, policy: nn.Module, epsilon: Tensor, rows: ImaginedSteps) -> None:
        """Write the steps of all dreams; those that are over start anew."""
        env = self.env
        env.reset()
        steps = torch.arange(env.max_episode_steps, device=env.device)
        for at in torch.split(steps, 1):
            step, after = imagine_step(env, policy, epsilon, self.gamma, self.rng)
            rows.put(at, step)
            env.obs, env.elapsed = after.obs, after.elapsed
            env.reset(options={"reset_mask": after.terminated | after.truncated})

    def draw(self, shape: tuple[int, int]) -> tuple[Transitions, Tensor]:
        """Imagined steps ``[*shape, ...]``, drawn uniformly with replacement, and disagreement."""
        assert self.store is not None  # nobody asks before the first dream
        rows, rng = len(self.store.reward), self.rng
        row = torch.randint(rows, shape, generator=rng, device=rng.device)
        return Transitions(*(field[row] for field in self.store)), self.disagreement[row]

    def state_dict(self) -> dict[str, Any]:
        """Open dreams and kept steps; the random stream is saved by its owner."""
        store = [] if self.store is None else list(self.store)
        kept = {"store": store, "disagreement": self.disagreement}
        return {"env": self.env.state_dict(), "steps": self.steps, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.env.load_state_dict(state["env"])
        kept = [field.to(self.env.device) for field in state["store"]]
        self.store = Transitions(*kept) if kept else None
        self.disagreement = state["disagreement"].to(self.env.device)
        self.steps = state["steps"]
