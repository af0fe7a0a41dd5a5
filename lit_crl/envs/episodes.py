"""Whole episodes of a batch of environments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_crl.envs import LevelEnv

#: From the number of the env step (0 is the first): which episodes act at random ``[E]``, and the
#: random actions ``[E]``.
RandomActions = Callable[[int], tuple[Tensor, Tensor]]


class Remembering(NamedTuple):
    """A policy that acts by what it has seen since an episode began."""

    #: Makes what it remembers before the first observation of ``n`` episodes, ``[n, H]``.
    begin: Callable[[int], Tensor]
    #: Takes observations ``[n, ...]`` and what it remembers ``[n, H]``; gives actions ``[n]``, and
    #: what it remembers then.
    act: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


#: Gives the actions ``[n]`` for observations ``[n, ...]``.
Act = Callable[[Tensor], Tensor]


class Episodes(NamedTuple):
    """Episodes that were played, one entry each: ``[E]``."""

    returns: Tensor
    lengths: Tensor
    #: Whether it was solved; False where that is unknown.
    success: Tensor
    #: Whether ``success`` is known.
    known: Tensor
    #: Whether it was still running when it was cut off; then it counts as not solved.
    cut_off: Tensor

    @staticmethod
    def begun(running: Tensor) -> "Episodes":
        """Before the first step; where ``running [N]`` is false, nobody plays."""
        number, flag = torch.zeros_like(running, dtype=torch.float32), torch.zeros_like(running)
        return Episodes(number, number, flag, flag, running)

    def after(self, reward: Tensor, ended: Tensor, solved: Tensor, known: Tensor) -> "Episodes":
        """After a step of all environments, of which those that do not run count for nothing.

        An environment waits after its episode, without a reset. What it returns then is ignored; it
        may be NaN, which no product with 0 would remove.

        Args:
            reward: Of the step, ``[N]``.
            ended: Where it was the last one of the episode.
            solved: Where the episode is solved.
            known: Where it has ended, and ``solved`` tells.
        """
        running = self.cut_off
        told = known & running
        return Episodes(
            (self.returns + torch.where(running, reward, 0)).to(self.returns.dtype),
            self.lengths + running,
            self.success | (solved & told),
            self.known | told,
            running & ~ended,
        )

    @staticmethod
    def none(device: torch.device) -> "Episodes":
        """No episodes at all."""
        number, flag = torch.zeros(0, device=device), torch.zeros(0, device=device).bool()
        return Episodes(number, number, flag, flag, flag)


@torch.no_grad()
def run_episodes(
    env: LevelEnv,
    act: Act | Remembering,
    *,
    seed: int,
    levels: Tensor | None = None,
    random_actions: RandomActions | None = None,
    success: Callable[[Tensor, Tensor], Tensor] | None = None,
    watch: Callable[[Tensor], None] | None = None,
    episodes: int | None = None,
    cut_off_after: int | None = None,
) -> Episodes:
    """Play one episode in every environment, or in the first few, all at once.

    Args:
        env: The environments.
        act: Gives the actions ``[n]`` for the observations ``[n, ...]`` of running episodes; if it
            remembers them, it has a memory for each episode.
        seed: Seed of the environments' reset.
        levels: Where the episodes start, ``[E, d]``; None: target levels.
        random_actions: Which episodes act at random, and how; None: none does.
        success: Decides from terminated and truncated whether episodes are solved; None: the
            environment decides.
        watch: Called after the reset and after every step, with the mask ``[N]`` of the episodes
            that were running before it.
        episodes: How many environments E play, counted from the first; None: all N.
        cut_off_after: Env steps after which episodes are cut off; None: never. Episodes without a
            time limit may then run for ever.
    """
    size = env.num_envs if episodes is None else episodes
    running = torch.arange(env.num_envs, device=env.device) < size
    obs, _ = env.reset(seed=seed, options=_reset_options(running, levels))
    played = Episodes.begun(running)
    actions = torch.zeros(env.num_envs, dtype=torch.long, device=env.device)
    act_in = _actor(act, env.num_envs)
    if watch is not None:
        watch(running)
    step = 0
    while running.any() and step != cut_off_after:
        # Only running episodes are asked for actions: a few long ones often take most of the time.
        actions[running] = act_in(obs[running], running)
        if random_actions is not None:
            is_random, action = random_actions(step)
            actions[:size] = torch.where(is_random, action, actions[:size])
        obs, reward, terminated, truncated, info = env.step(actions)
        if watch is not None:
            watch(running)
        step += 1
        if success is None:
            outcome = _outcomes(env, info, terminated | truncated)
        else:
            outcome = success(terminated, truncated), terminated | truncated
        played = played.after(reward, terminated | truncated, *outcome)
        running = played.cut_off
    if success is not None or _has_success(env):
        # An episode that was cut off is known to be unsolved.
        played = played._replace(known=played.known | running)
    return Episodes(*(each[:size] for each in played))


def _actor(act: Act | Remembering, n: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Actions for the observations of the episodes, out of ``n``, that a mask says are running."""
    if not isinstance(act, Remembering):
        return lambda obs, running: act(obs)
    memory, remembering = act.begin(n), act.act

    def act_in(obs: Tensor, running: Tensor) -> Tensor:
        actions, memory[running] = remembering(obs, memory[running])
        return actions

    return act_in


def _reset_options(asked: Tensor, levels: Tensor | None) -> dict[str, Tensor]:
    """How to reset only the environments that play ``[N]``, to levels ``[E, d]``."""
    options = {} if asked.all() else {"reset_mask": asked}
    if levels is not None:
        rows = levels.new_full((len(asked), levels.shape[1]), torch.nan)
        rows[: len(levels)] = levels
        options["levels"] = rows
    return options


def _outcomes(env: LevelEnv, info: dict[str, Any], ended: Tensor) -> tuple[Tensor, Tensor]:
    """What the environment says of episodes that ended now: solved, and whether that is known."""
    if not _has_success(env):
        return ended, torch.zeros_like(ended)
    return info["success"], info.get("success_known", ended) & ended


def _has_success(env: LevelEnv) -> bool:
    return bool(getattr(env, "has_success", True))
