"""Random levels that are screened: for being legal, or, tried out, for being solved sometimes."""

from typing import Any, cast

import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError, positive, positive_unit_interval
from lit_crl.curriculum.sources import SourceContext
from lit_crl.gan.equations import learnability

#: How much the policy explores while levels are screened.
EPSILON = 0.05
#: Fewest levels that a screening can choose among.
FEWEST = 4
#: Reference levels that are drawn at once, and in all, to find legal ones among them.
BLOCK, MOST = 2**16, 2**26


def valid_reference(n: int, curriculum: SourceContext, teacher: Any) -> Tensor:
    """The arm ``valid_reference``: reference levels without those that are not valid, ``[n, d]``.

    Domain randomization by rejection: drawing costs time, but no env steps.

    Raises:
        ConfigError: If hardly any reference level is valid.
    """
    env, rng, block, drawn = curriculum.env, curriculum.rng, n, 0
    found = env.reference_levels(0, rng)
    while len(found) < n:
        if drawn >= MOST:
            raise ConfigError(
                f"data.curriculum.arm is 'valid_reference', but of {drawn:,} reference levels only "
                f"{len(found)} are valid: use archive or gan"
            )
        levels = env.reference_levels(block, rng)
        found, drawn = torch.cat([found, levels[env.valid(levels)]]), drawn + block
        block = min(2 * block, BLOCK)
    return found[:n]


class LearnabilityScreen:
    """The arm ``sfl``: the most learnable of many reference levels, Rutherford et al. 2024, §4.

    A few times in a run reference levels are played ``episodes`` times each, in environments of
    their own, and those with the largest p (1 − p) are drawn from until the next time. How many are
    tried follows from what the screenings may cost, which is a share of the run's env steps.
    """

    def __init__(
        self,
        screenings: int = 3,
        share: float = 0.15,
        candidates: int = 128,
        keep: int = 32,
        episodes: int = 4,
        charged: bool = True,
    ) -> None:
        """Screen for the first time when the policy has learned for a while.

        Args:
            screenings: How often in a run: once in the middle of each of so many equal parts.
            share: Largest share of the run's env steps that all screenings take together.
            candidates: Reference levels that are tried at a time, at most.
            keep: How many of them are drawn from: at most, and at most a quarter.
            episodes: Episodes on each.
            charged: Count the screening's env steps as the run's. False is an oracle, for
                analysis only: it knows the difficulty of levels for nothing.

        Raises:
            ConfigError: If a number makes no sense.
        """
        prefix = "data__arm__"
        positive(
            **{f"{prefix}screenings": screenings, f"{prefix}candidates": candidates,
               f"{prefix}keep": keep, f"{prefix}episodes": episodes}
        )  # fmt: skip
        positive_unit_interval(**{f"{prefix}share": share})
        self.screenings, self.share = screenings, share
        self.candidates, self.keep, self.episodes = candidates, keep, episodes
        self.charged = charged
        self.levels: Tensor | None = None
        self.done = 0

    def __call__(self, n: int, curriculum: SourceContext, teacher: Any) -> Tensor:
        """``n`` of the levels that were solved sometimes, ``[n, d]``; none before a screening."""
        part = curriculum.budget / self.screenings
        # A policy that has learned nothing yet solves nothing: every level would look alike.
        is_due = curriculum.spent() >= (self.done + 0.5) * part and teacher.updates > 0
        if is_due and self.done < self.screenings:
            self.levels = self._screen(curriculum, teacher)
            self.done += 1
        if self.levels is None:
            return curriculum.blank(0)
        pick = torch.randint(
            len(self.levels), (n,), generator=curriculum.rng, device=self.levels.device
        )
        return self.levels[pick]

    def check(self, curriculum: SourceContext) -> None:
        """The budget pays for screenings that have something to choose from.

        Raises:
            ConfigError: If it does not.
        """
        if (count := self.affordable(curriculum)) < FEWEST:
            raise ConfigError(
                f"data.curriculum.arm is 'sfl', but {self.share:.0%} of data.collect.env_steps "
                f"{curriculum.budget:,} in {self.screenings} screenings of {self.episodes} "
                f"episodes a level, each of up to {curriculum.env.max_episode_steps} steps, pay "
                f"for {count} levels at a time: give more env_steps, a shorter max_episode_steps, "
                "or fewer screenings or a larger share in init_args of "
                "lit_crl.curriculum.LearnabilityScreen"
            )

    def affordable(self, curriculum: SourceContext) -> int:
        """How many more levels can be tried now, even if no episode ends before its limit."""
        if not self.charged:
            return self.candidates
        allowed = self.share * curriculum.budget * (self.done + 1) / self.screenings
        longest = self.episodes * cast(int, curriculum.env.max_episode_steps)
        return min(self.candidates, int((allowed - curriculum.charged_steps) / longest))

    def _screen(self, curriculum: SourceContext, teacher: Any) -> Tensor:
        """The best of as many levels as there are candidates, or as the share pays for.

        What short episodes leave over goes into more levels, until one more might cost too much.
        """
        levels = curriculum.blank(0)
        p = levels[:, 0]
        while (count := min(self.affordable(curriculum), self.candidates - len(levels))) > 0:
            more = curriculum.env.reference_levels(count, curriculum.rng)
            levels, p = (
                torch.cat([levels, more]),
                torch.cat([p, self._try(more, curriculum, teacher)]),
            )
        return levels[learnability(p).topk(min(self.keep, max(1, len(levels) // 4))).indices]

    def _try(self, levels: Tensor, curriculum: SourceContext, teacher: Any) -> Tensor:
        """How often the policy solves each of ``levels [m, d]``, ``[m]``."""
        from lit_crl.dqn.equations import epsilon_greedy
        from lit_crl.envs.episodes import run_episodes

        env = curriculum.make_env(len(levels) * self.episodes, levels.device)
        try:
            episodes = run_episodes(
                env,
                lambda obs: epsilon_greedy(teacher.action_values(obs), EPSILON, curriculum.rng),
                seed=int(
                    torch.randint(2**31, (1,), generator=curriculum.rng, device=levels.device)
                ),
                levels=levels.repeat_interleave(self.episodes, dim=0),
            )
        finally:
            env.close()
        if self.charged:
            curriculum.charged_steps += int(episodes.lengths.sum())
        return episodes.success.float().view(-1, self.episodes).mean(dim=1)

    def state_dict(self) -> dict[str, Any]:
        """The levels that are drawn from, and how many screenings there were."""
        return {"levels": self.levels, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.levels, self.done = state["levels"], state["done"]
