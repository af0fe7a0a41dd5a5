"""Dreaming: what the world learns from, when it is dreamt in, and who learns from dreams."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_crl.core import distributed
from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import random_stream
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.possible_returns import ENDING, HIGH, LOW, possible_returns
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import LevelEnv
from lit_crl.training.agent import Agent
from lit_crl.training.batches import DqnMinibatch, WorldMinibatch
from lit_crl.training.dreams.condition import DreamCondition
from lit_crl.training.dreams.explorers import acting
from lit_crl.training.dreams.level_starts import LevelStarts
from lit_crl.training.dreams.store import Dreams
from lit_crl.training.graphs.capture import Capture
from lit_crl.training.graphs.dreams import GraphedDreams
from lit_crl.training.settings import DreamSettings
from lit_crl.world.caution import doubt
from lit_crl.world.curiosity import (
    bonus,
    explorer_reward,
    falling,
    novelty_ahead,
    reward_scale,
)
from lit_crl.world.gate import gate
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.interface import World
from lit_crl.world.perfect import PerfectWorld, TrueDynamics
from lit_crl.world.real_steps import draw, of_all_processes, split, steps_at, unseen
from lit_crl.world.starts import FirstStates, Starts, StartShares
from lit_crl.world.transition_gan import TransitionGan

#: First states that are remembered.
FIRST_STATES = 500
#: Real steps on which disagreement is measured.
MEASURED = 1_000


class Mixed(NamedTuple):
    """K minibatches of real transitions and, behind them, dreamed ones."""

    transitions: Transitions
    #: How many of each minibatch are real.
    real: int
    #: The world's disagreement on the dreamed ones, ``[K, B - real]``.
    disagreement: Tensor


class Dreaming:
    """Trains a world on real steps, dreams in it, and mixes dreams into minibatches.

    A world phase is due every ``every`` env steps. After it the explorer dreams anew (the judge, if
    there is nothing for an explorer to learn), as soon as the world errs little enough.

    A phase makes a program wait for a GPU some thirty times, for the numbers of rows of the replay
    that are drawn from. It does not in a batch without a phase, nor in the steps of a dream.
    """

    def __init__(
        self,
        settings: DreamSettings,
        world: TransitionGan,
        env: LevelEnv,
        replay: ReplayBuffer,
        gamma: float,
        seed: int,
        clock: Stopwatch,
        level_starts: LevelStarts | None = None,
        at_once: bool = False,
        explores: Tensor | None = None,
        capture: Capture | None = None,
    ) -> None:
        """Prepare to dream.

        Args:
            settings: When, how much, and for whom.
            world: Imagines; the learner trains it.
            env: The real environment, for its spaces, and for ``perfect`` dynamics.
            replay: Real transitions.
            gamma: Discount factor of one step.
            seed: Seed of all random streams.
            clock: Times the recording of graphs.
            level_starts: Where dreams of generated levels start; asked if ``settings`` wants any.
            at_once: Whether the first world phase is due with the first batch, because all the
                experience is there by then, as in a log.
            explores: In which environments the explorer acts, bool ``[N]``; None: in none. It is
                changed in place: as long as there is nothing to judge, the explorer acts in all.
            capture: Records a step of all dreams as a graph, on a GPU; None: dreams run one
                operation at a time.

        Raises:
            ConfigError: If dynamics should be perfect, and cannot be; or if dreams do not fit into
                the RAM that is free.
        """
        device = env.device
        self.settings, self.world, self.replay = settings, world, replay
        first = FirstStates(FIRST_STATES, env.single_observation_space, torch.float32, device)
        from_first, from_levels = settings.first_states, settings.level_states
        shares = StartShares(from_first, 1 - from_first - from_levels, from_levels)
        self.starts = Starts(first, replay, shares)
        self._level_starts = level_starts if from_levels else None
        self._was_noticed = False
        self.env = ImaginedEnv(
            settings.dreams,
            dream_world(settings, world, env),
            self.starts,
            observation_space=env.single_observation_space,
            action_space=env.single_action_space,
            horizon=settings.horizon,
            device=device,
        )
        self.rng = random_stream(seed, "dreams", device=device)
        self.env.rng = random_stream(seed, "imagined environment", device=device)
        graphs = None
        if capture is not None:
            given = (self.env, self.starts, gamma, self.rng, world, capture, clock)
            graphs = GraphedDreams(*given)
        self.dreams = Dreams(self.env, gamma, self.rng, graphs)
        self.condition = DreamCondition(settings.error_bound)
        members = world.generators.members
        self.member_rngs = [
            random_stream(seed, f"member {i}", device=device) for i in range(members)
        ]
        self.phases = self._phase_at = 0
        #: Whether the world has learnt since it was last dreamt in.
        self.is_stale = False
        self._at_once = at_once
        self._explores = explores
        self._places = None if explores is None else explores.clone()
        self._novelty_ahead = torch.zeros((), device=device)
        #: How many rows of the replay were written when the world last learnt, ``[N]``.
        self._learnt = replay.cursor.clone()

    @property
    def store(self) -> Transitions | None:
        """The newest imagined steps; None before the first dream."""
        return self.dreams.store

    @property
    def imagined_steps(self) -> int:
        """Imagined steps so far."""
        return self.dreams.steps

    def is_due(self, env_steps: int) -> bool:
        """Whether the world should learn now."""
        is_first = self._at_once and not self.phases
        return is_first or env_steps - self._phase_at >= self.settings.every

    def world_batch(self, env_steps: int) -> WorldMinibatch | None:
        """What the world learns from in the phase that now begins; its units are taken anew.

        None as long as a member, in any process, has no real step to learn from: all wait for it.
        """
        settings = self.settings
        members = len(self.member_rngs)
        rows = split(self.replay, members, settings.member_share, settings.held_back)
        if not distributed.all_agree(bool(rows.members.any(1).all()), self.rng.device):
            return None
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
        draws = self.world.generators.draws_learnt_from
        z = self.world.draw_noise(updates, members, settings.batch_size, draws, rng=self.rng)
        self.phases += 1
        self._phase_at, self.is_stale = env_steps, True
        self._learnt.copy_(self.replay.cursor)
        return WorldMinibatch(drawn.rows, drawn.rare, drawn.end_log_odds, z)

    def dream(self, agent: Agent, when: str) -> None:
        """Measure the world and dream in it, if it has learnt since that was last done.

        Args:
            agent: Dreams.
            when: How much of the run is spent, in words.
        """
        if not self.is_stale:
            return
        self.is_stale = False
        self._fit_ends()
        self._measure_disagreement()
        self._look_ahead(agent)
        if not self.settings.makes_dreams:
            return
        if self.settings.dynamics == "learnt":
            if not self.condition.is_met:
                self.condition.look(self._one_step_error(), when)
            if not self.condition.is_met:
                return
        self._prepare_starts(agent)
        explorer = agent.explorer if self.settings.has_explorer else None
        self.dreams.play(agent.q_network if explorer is None else explorer)

    def say_if_never(self) -> None:
        """At the end of a run, say why there were no dreams, if that is so."""
        if self.settings.makes_dreams and self.settings.dynamics == "learnt":
            self.condition.say_if_never()

    def held_back(self) -> Tensor:
        """Rows of the replay, bool ``[rows]``, whose episodes no member learns from."""
        return split(self.replay, 1, 1.0, self.settings.held_back).held_back

    def unseen(self) -> Tensor:
        """Rows of the replay, bool ``[rows]``, that no member has learnt from so far."""
        return unseen(self.replay, self.settings.held_back, self._learnt)

    def _measure_disagreement(self) -> None:
        """Take the unit of disagreement, and the gate, from real steps."""
        rows = self.replay.startable.nonzero().squeeze(1)
        drawn = torch.randint(len(rows), (MEASURED,), generator=self.rng, device=rows.device)
        real = steps_at(self.replay, rows[drawn])
        self.world.fit_disagreement(real.obs, real.action)
        if self.settings.gate == 1:
            return  # it cuts nothing
        held = of_all_processes(steps_at(self.replay, self.held_back().nonzero().squeeze(1)))
        if len(held.action):
            found = self.world.disagreement(held.obs, held.action)
            self.env.gate = gate(found, self.settings.gate).to(self.env.device)

    def _fit_ends(self) -> None:
        """Let the world's ends be as frequent as those in the real steps that it learns from."""
        rows = self.replay.startable & ~self.held_back()
        ended = rows & (self.replay.discount == 0)
        drawn, weights = [], []
        for kind in (ended, rows & ~ended):  # ends are few: none of them may be missed
            row = kind.nonzero().squeeze(1)
            some = torch.randperm(len(row), generator=self.rng, device=row.device)[:MEASURED]
            drawn.append(row[some])
            weights.append(torch.full_like(some, len(row) / max(1, len(some)), dtype=torch.float32))
        real = of_all_processes(steps_at(self.replay, torch.cat(drawn)))
        weight = distributed.gather_rows(torch.cat(weights))
        self.world.fit_ends(real.obs, real.action, real.next_obs, weight, real.terminated)

    @torch.no_grad()
    def _look_ahead(self, agent: Agent) -> None:
        """Where the explorer acts from now on, and what novelty is worth to it after an end."""
        if self._explores is not None and self._places is not None:
            self._explores.copy_(acting(self._places, self.replay))
        if agent.explorer is not None and self.settings.curiosity > 0:
            first = self.starts.first.obs[: len(self.starts.first)]
            scale = self._reward_scale()
            explorer, judge = agent.explorer(first).amax(1), agent.q_network(first).amax(1)
            novelty = novelty_ahead(explorer, judge, scale, self._most_novelty())
            self._novelty_ahead = distributed.mean_of_rows(novelty).float()

    def _one_step_error(self) -> float | None:
        """The world's error on steps that no member has learnt from; None while there are none."""
        steps = of_all_processes(steps_at(self.replay, self.unseen().nonzero().squeeze(1)))
        fields = (steps.obs, steps.action, steps.next_obs)
        obs, action, next_obs = (field[steps.learns_next] for field in fields)
        return self.world.one_step_error(obs, action, next_obs).item() if len(action) else None

    def _prepare_starts(self, agent: Agent) -> None:
        """Ask for newly generated levels, and say once which starts there are not yet."""
        if self._level_starts is not None:
            self.starts.generated = self._level_starts.proposed(agent)
        if not self._was_noticed and (notice := self.starts.notice()):
            distributed.print_once(notice)
            self._was_noticed = True

    def explorer_batch(
        self, shape: tuple[int, int], progress: float, rewards: Tensor
    ) -> tuple[DqnMinibatch, Tensor]:
        """K minibatches for the explorer, with rewards in units of the largest real one.

        The bonus is computed now and stored nowhere, since the world goes on learning. Before the
        first dream all transitions are real.

        Args:
            shape: Minibatches K and their size.
            progress: Share of the run that is over, by which curiosity has fallen.
            rewards: The range of the task's rewards ``[2, 2]``.

        Returns:
            The minibatches, and the mean bonus in each ``[K]``.
        """
        # Of single steps, since the bonus is that of one step.
        sample = partial(self.replay.sample_steps, rng=self.rng)
        mixed = self._mixed(shape, self.settings.share, sample)
        extra = self._bonus(mixed, falling(self.settings.curiosity, progress))
        reward = explorer_reward(mixed.transitions.reward, self._reward_scale(), extra)
        after = self.dreams.gamma * self._novelty_ahead
        reward = reward + torch.where(mixed.transitions.discount == 0, after, 0.0)
        transitions = mixed.transitions._replace(reward=reward)
        returns = possible_returns(self._explorers_rewards(rewards), self.dreams.gamma)
        return DqnMinibatch(transitions, returns=returns.expand(shape[0], -1)), extra.mean(1)

    def judge_batch(
        self, shape: tuple[int, int], sample: Callable[[tuple[int, int]], Transitions]
    ) -> Transitions:
        """K minibatches for the judge: real transitions from ``sample``, and its share of dreams.

        It learns the task's reward. Curiosity never enters; caution does, in dreams alone, in the
        unit of the task's rewards.
        """
        mixed = self._mixed(shape, self.settings.judge_share, sample)
        transitions, weight = mixed.transitions, self.settings.curiosity
        if weight >= 0 or not mixed.disagreement.numel():
            return transitions
        cost = self._reward_scale() * self._bonus(mixed, weight)
        return transitions._replace(reward=transitions.reward + cost)

    def judges_rewards(self, rewards: Tensor) -> Tensor:
        """The range ``[2, 2]`` of the judge's rewards, if that of the task's is ``rewards``."""
        found = rewards.clone()
        if self.settings.judge_share:
            found[:, LOW] += self._reward_scale() * min(self.settings.curiosity, 0)
        return found

    def _explorers_rewards(self, rewards: Tensor) -> Tensor:
        """The range ``[2, 2]`` of the explorer's rewards, if that of the task's is ``rewards``."""
        weight = self.settings.curiosity
        found = rewards / self._reward_scale()
        found[:, LOW] += min(weight, 0)
        found[:, HIGH] += max(weight, 0)
        found[ENDING, HIGH] += self.dreams.gamma * self._most_novelty().clamp_min(0)
        return found

    def _most_novelty(self) -> Tensor:
        """The largest return of bonuses, a scalar."""
        # Filled in place: to copy a number from the host, a GPU's program would wait.
        weight = torch.full((), self.settings.curiosity, device=self.env.device)
        return weight / (1 - self.dreams.gamma)

    def _reward_scale(self) -> Tensor:
        """The largest size of a real reward in any process."""
        return reward_scale(distributed.largest(self.replay.reward.abs().amax(0, keepdim=True)))

    def _mixed(
        self,
        shape: tuple[int, int],
        share: float,
        sample: Callable[[tuple[int, int]], Transitions],
    ) -> Mixed:
        """Minibatches of ``shape``, of which dreams have a share as soon as there are any."""
        updates, size = shape
        dreamed = 0 if self.store is None else round(share * size)
        real = size - dreamed
        if not dreamed:
            return Mixed(sample(shape), real, self.dreams.disagreement.new_zeros(updates, 0))
        imagined, found = self.dreams.draw((updates, dreamed))
        if not real:
            return Mixed(imagined, real, found)
        pairs = zip(sample((updates, real)), imagined, strict=True)
        return Mixed(Transitions(*(torch.cat(pair, 1) for pair in pairs)), real, found)

    def _bonus(self, mixed: Mixed, weight: float) -> Tensor:
        """The bonus ``[K, B]``: curiosity everywhere, caution in dreams alone."""
        obs, action, real = mixed.transitions.obs, mixed.transitions.action, mixed.real
        extra = torch.zeros_like(mixed.transitions.reward)
        if weight < 0:
            extra[:, real:] = weight * doubt(mixed.disagreement)
            return extra
        extra[:, real:] = bonus(mixed.disagreement, weight)
        if weight > 0 and real:
            met, taken = obs[:, :real].flatten(0, 1), action[:, :real]
            found = self.world.disagreement(met, taken.flatten())
            extra[:, :real] = bonus(found, weight).view(taken.shape)
        return extra

    def state_dict(self) -> dict[str, Any]:
        """Dreams, first states, counters and random streams."""
        return {
            "dreams": self.dreams.state_dict(),
            "starts": self.starts.state_dict(),
            "condition": self.condition.state_dict(),
            "counters": [self.phases, self._phase_at, int(self.is_stale)],
            "learnt": self._learnt,
            "explores": self._explores,
            "novelty_ahead": self._novelty_ahead,
            "rng": self.rng.get_state(),
            "members": [rng.get_state() for rng in self.member_rngs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.dreams.load_state_dict(state["dreams"])
        self.starts.load_state_dict(state["starts"])
        self.condition.load_state_dict(state["condition"])
        self.phases, self._phase_at, stale = state["counters"]
        self.is_stale = bool(stale)
        self._learnt.copy_(state["learnt"])
        if self._explores is not None:
            self._explores.copy_(state["explores"])
        self._novelty_ahead.copy_(state["novelty_ahead"])
        self.rng.set_state(state["rng"].cpu())
        for rng, saved in zip(self.member_rngs, state["members"], strict=True):
            rng.set_state(saved.cpu())


def dream_world(settings: DreamSettings, learnt: TransitionGan, env: LevelEnv) -> World:
    """The world in which dreams are dreamt.

    Raises:
        ConfigError: If dynamics should be perfect, and cannot be.
    """
    if settings.dynamics == "learnt":
        return learnt
    try:
        return TrueDynamics(PerfectWorld(env), learnt)
    except ConfigError as error:
        raise ConfigError(f"data.world.dynamics is 'perfect', but {error}") from error
