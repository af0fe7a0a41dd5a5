"""Dreams: what the world learns from, what it imagines, and what the explorer learns from."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_crl.core.seeding import random_stream
from lit_crl.dqn.equations import Transitions, greedy_unless, toss
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.training.batches import DqnMinibatch, WorldMinibatch
from lit_crl.training.settings import DreamSettings
from lit_crl.world.curiosity import reward_scale
from lit_crl.world.gate import gate
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.real_steps import draw, split, steps_at
from lit_crl.world.starts import FirstStates, Starts, StartShares
from lit_crl.world.transition_gan import TransitionGan

#: First states that are remembered.
FIRST_STATES = 500
#: Real steps on which disagreement is measured.
MEASURED = 1_000
#: Largest ε of the explorer in its dreams; each dream has its own.
DREAM_EPSILON = 0.3


class Dreaming:
    """Trains a world on real steps, and keeps the newest dreams of its explorer.

    A world phase is due every ``every`` env steps. After it the explorer dreams anew: the dreams
    of an older world are forgotten.
    """

    def __init__(
        self,
        settings: DreamSettings,
        world: TransitionGan,
        env: Any,
        replay: ReplayBuffer,
        gamma: float,
        seed: int,
    ) -> None:
        """Prepare to dream.

        Args:
            settings: When, how much, and for whom.
            world: Imagines; the learner trains it.
            env: The real environment, for its spaces.
            replay: Real transitions.
            gamma: Discount factor of one step.
            seed: Seed of all random streams.
        """
        device = env.device
        self.settings, self.world, self.replay, self.gamma = settings, world, replay, gamma
        first = FirstStates(FIRST_STATES, env.single_observation_space, torch.float32, device)
        shares = StartShares(settings.first_states, 1 - settings.first_states)
        self.starts = Starts(first, replay, shares)
        self.env = ImaginedEnv(
            settings.dreams,
            world,
            self.starts,
            observation_space=env.single_observation_space,
            action_space=env.single_action_space,
            horizon=settings.horizon,
            device=device,
        )
        self.rng = random_stream(seed, "dreams", device=device)
        self.env.rng = random_stream(seed, "imagined environment", device=device)
        members = world.heads.end.members
        self.member_rngs = [
            random_stream(seed, f"member {i}", device=device) for i in range(members)
        ]
        self.store: Transitions | None = None
        self.phases = self.imagined_steps = self._phase_at = 0
        self._is_stale = False

    def is_due(self, env_steps: int) -> bool:
        """Whether the world should learn now."""
        return env_steps - self._phase_at >= self.settings.every

    def world_batch(self, env_steps: int) -> WorldMinibatch:
        """What the world learns from in the phase that now begins; its units are taken anew."""
        settings = self.settings
        members = len(self.member_rngs)
        rows = split(self.replay, members, settings.member_share, settings.held_back)
        learnable = steps_at(self.replay, rows.members.any(0).nonzero().squeeze(1))
        self.world.fit_normaliser(learnable.obs, learnable.reward, learnable.next_obs)
        updates = settings.updates if self.phases else settings.first_updates
        drawn = draw(
            self.replay,
            rows.members,
            updates,
            settings.batch_size,
            settings.rare,
            self.member_rngs,
        )
        z = self.world.draw_noise(updates, members, settings.batch_size, 2, rng=self.rng)
        self.phases += 1
        self._phase_at, self._is_stale = env_steps, True
        return WorldMinibatch(drawn.rows, drawn.rare, drawn.end_log_odds, z)

    @torch.no_grad()
    def dream(self, explorer: nn.Module, num_actions: int) -> None:
        """Let the explorer dream, if the world has learned since it last did."""
        if not self._is_stale:
            return
        self._is_stale = False
        self._measure()
        steps: list[tuple[Tensor, ...]] = []
        epsilon = DREAM_EPSILON * torch.rand(
            self.env.num_envs, generator=self.rng, device=self.rng.device
        )
        obs, _ = self.env.reset()
        for _ in range(self.settings.horizon):
            explore, random = toss(len(obs), num_actions, epsilon, self.rng)
            action = greedy_unless(explore, random, explorer(obs))
            next_obs, reward, terminated, truncated, _ = self.env.step(action)
            steps.append((obs, action, reward, self.gamma * (~terminated).float(), next_obs))
            obs, _ = self.env.reset(options={"reset_mask": terminated | truncated})
        self.store = Transitions(*(torch.cat(field) for field in zip(*steps, strict=True)))
        self.imagined_steps += self.env.num_envs * self.settings.horizon

    def _measure(self) -> None:
        """Take the unit of disagreement, and the gate, from real steps."""
        rows = self.replay.startable.nonzero().squeeze(1)
        drawn = torch.randint(len(rows), (MEASURED,), generator=self.rng, device=rows.device)
        real = steps_at(self.replay, rows[drawn])
        self.world.fit_disagreement(real.obs, real.action)
        held_back = split(self.replay, 1, 1.0, self.settings.held_back).held_back
        held = steps_at(self.replay, held_back.nonzero().squeeze(1))
        if len(held.action):
            found = self.world.disagreement(held.obs, held.action)
            self.env.gate = gate(found, self.settings.gate).to(self.env.device)

    def explorer_batch(self, shape: tuple[int, int]) -> DqnMinibatch:
        """K minibatches of dreams and real transitions, with rewards in units of their largest.

        The bonus is added when they are used. Before the first dream all of them are real.
        """
        updates, size = shape
        dreamed = 0 if self.store is None else round(self.settings.share * size)
        parts = []
        if size > dreamed:
            parts.append(self.replay.sample((updates, size - dreamed), self.rng))
        if self.store is not None and dreamed:
            row = torch.randint(
                len(self.store.reward),
                (updates, dreamed),
                generator=self.rng,
                device=self.rng.device,
            )
            parts.append(Transitions(*(field[row] for field in self.store)))
        mixed = Transitions(*(torch.cat(fields, 1) for fields in zip(*parts, strict=True)))
        scale = reward_scale(self.replay.reward)
        return DqnMinibatch(mixed._replace(reward=mixed.reward / scale))

    def state_dict(self) -> dict[str, Any]:
        """Dreams, first states, counters and random streams."""
        return {
            "store": [] if self.store is None else list(self.store),
            "starts": self.starts.state_dict(),
            "env": self.env.state_dict(),
            "counters": [self.phases, self.imagined_steps, self._phase_at, int(self._is_stale)],
            "rng": self.rng.get_state(),
            "members": [rng.get_state() for rng in self.member_rngs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        device = self.env.device
        self.store = (
            Transitions(*(x.to(device) for x in state["store"])) if state["store"] else None
        )
        self.starts.load_state_dict(state["starts"])
        self.env.load_state_dict(state["env"])
        self.phases, self.imagined_steps, self._phase_at, stale = state["counters"]
        self._is_stale = bool(stale)
        self.rng.set_state(state["rng"].cpu())
        for rng, saved in zip(self.member_rngs, state["members"], strict=True):
            rng.set_state(saved.cpu())
