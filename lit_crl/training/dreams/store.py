"""Dreams of a policy: it acts in a world, and the newest imagined steps are kept."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_crl.dqn.equations import Transitions, greedy_unless, toss
from lit_crl.world.imagined_env import ImaginedEnv

#: Largest ε of a policy in its dreams; each dream has its own.
DREAM_EPSILON = 0.3


class Dreams:
    """Plays dreams and keeps them until the next ones: those of an older world are forgotten."""

    def __init__(self, env: ImaginedEnv, gamma: float, rng: torch.Generator) -> None:
        """Prepare to dream.

        Args:
            env: The dreams; each ends at the latest after ``env.max_episode_steps``.
            gamma: Discount factor of one step.
            rng: Draws ε, random actions, and which imagined steps are learnt from.
        """
        self.env, self.gamma, self.rng = env, gamma, rng
        #: The newest imagined steps ``[n, ...]``; None before the first dream.
        self.store: Transitions | None = None
        #: The world's disagreement ``[n]`` on them. It is that of the present world, because these
        #: steps are forgotten when the world learns.
        self.disagreement = torch.zeros(0, device=env.device)
        #: Imagined steps so far.
        self.steps = 0

    @property
    def bytes(self) -> int:
        """The memory that the kept steps take once there are any."""
        obs = self.env.obs[0]
        # Two observations, an action, and in float32 reward, discount and disagreement.
        of_a_step = 2 * obs.nbytes + torch.int64.itemsize + 3 * torch.float32.itemsize
        return self.env.num_envs * self.env.max_episode_steps * of_a_step

    @torch.no_grad()
    def play(self, action_values: Callable[[Tensor], Tensor]) -> None:
        """Dream anew with a policy: as many steps of each dream as its horizon has.

        Args:
            action_values: Q of the policy, ``[N, ...] -> [N, A]``.
        """
        env, actions = self.env, self.env.num_actions
        epsilon = torch.rand(env.num_envs, generator=self.rng, device=self.rng.device)
        self.store = None  # two stores at a time would take more memory
        steps: list[tuple[Tensor, ...]] = []
        obs, _ = env.reset()
        for _ in range(env.max_episode_steps):
            explore, random = toss(len(obs), actions, DREAM_EPSILON * epsilon, self.rng)
            action = greedy_unless(explore, random, action_values(obs))
            next_obs, reward, terminated, truncated, info = env.step(action)
            discount = self.gamma * (~terminated).float()
            steps.append((obs, action, reward, discount, next_obs, info["disagreement"]))
            obs, _ = env.reset(options={"reset_mask": terminated | truncated})
        *fields, self.disagreement = (torch.cat(field) for field in zip(*steps, strict=True))
        self.store = Transitions(*fields)
        self.steps += len(self.store.reward)

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
