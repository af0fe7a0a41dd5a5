"""Whole episodes of a batch of environments."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_crl.envs import LevelEnv

#: The env step of the episodes, from 0, to which environments act at random ``[N]``, and how
#: ``[N]``.
Tosses = Callable[[int], tuple[Tensor, Tensor]]


class Episodes(NamedTuple):
    """Episodes that were played, one entry each: ``[E]``."""

    returns: Tensor
    lengths: Tensor
    #: Whether it was solved; False where that is unknown.
    success: Tensor
    #: Whether that is known.
    known: Tensor
    #: Whether it still ran when it was cut off: then it is not solved.
    cut_off: Tensor

    @staticmethod
    def none(device: torch.device) -> "Episodes":
        """No episodes at all."""
        number, flag = torch.zeros(0, device=device), torch.zeros(0, device=device).bool()
        return Episodes(number, number, flag, flag, flag)


@torch.no_grad()
def run_episodes(
    env: LevelEnv,
    act: Callable[[Tensor], Tensor],
    *,
    seed: int,
    levels: Tensor | None = None,
    tosses: Tosses | None = None,
    success: Callable[[Tensor, Tensor], Tensor] | None = None,
    watch: Callable[[Tensor], None] | None = None,
    episodes: int | None = None,
    cut_off_after: int | None = None,
) -> Episodes:
    """One episode of every environment, or of the first few, all at once.

    An environment whose episode has ended, or that is not asked to play, stays put: what it says
    is ignored until its next reset.

    Args:
        env: The environments.
        act: Observations ``[n, ...]`` of the episodes that are not over to actions ``[n]``.
        seed: Seed of the environments' reset.
        levels: Where the episodes start, ``[E, d]``; None: target levels.
        tosses: Which environments act at random, and how; None: none does.
        success: What counts as success, from terminated and truncated; None: the environment
            says it.
        watch: Called when all have been reset, and after every step: with the mask ``[N]`` of the
            episodes that it led on.
        episodes: How many environments E play, the first ones; None: all N.
        cut_off_after: Env steps after which episodes are cut off; None: never. Episodes without a
            time limit may then run for ever.
    """
    size = env.num_envs if episodes is None else episodes
    asked = torch.arange(env.num_envs, device=env.device) < size
    obs, _ = env.reset(seed=seed, options=_options(asked, levels))
    running = asked
    returns, lengths = running.float() * 0, running.float() * 0
    solved, known = ~running & running, ~running & running
    actions = running.long() * 0
    if watch is not None:
        watch(running)
    step = 0
    while running.any() and step != cut_off_after:
        # The last few episodes often take most of the time.
        actions[running] = act(obs[running])
        if tosses is not None:
            at_random, action = tosses(step)
            actions[:size] = torch.where(at_random, action, actions[:size])
        obs, reward, terminated, truncated, info = env.step(actions)
        if watch is not None:
            watch(running)
        step += 1
        returns += torch.where(running, reward, 0)
        lengths += running
        ended = (terminated | truncated) & running
        if success is not None:
            solved |= success(terminated, truncated) & ended
            known |= ended
        elif getattr(env, "has_success", True):
            sure = info.get("success_known", ended) & ended
            solved |= info["success"] & sure
            known |= sure
        running = running & ~ended
    if success is not None or getattr(env, "has_success", True):
        known |= running  # cut off: not solved
    return Episodes(*(each[:size] for each in (returns, lengths, solved, known, running)))


def _options(asked: Tensor, levels: Tensor | None) -> dict[str, Tensor]:
    """How to reset the environments that are asked to play, ``[N]``, to levels ``[E, d]``."""
    some = {} if asked.all() else {"reset_mask": asked}
    if levels is None:
        return some
    rows = levels.new_full((len(asked), levels.shape[1]), torch.nan)
    rows[: len(levels)] = levels
    return {**some, "levels": rows}
