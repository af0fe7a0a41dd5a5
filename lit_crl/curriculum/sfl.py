"""Random levels that are screened: for being valid, or for being solved sometimes."""

from typing import Any

import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError, positive, positive_unit_interval
from lit_crl.curriculum.rejection import valid_levels
from lit_crl.curriculum.sources import SourceContext, Teacher
from lit_crl.dqn.equations import epsilon_greedy
from lit_crl.envs.episodes import run_episodes
from lit_crl.envs.factory import level_env
from lit_crl.gan.equations import learnability

#: How much the policy explores while levels are screened.
EPSILON = 0.05
#: Fewest levels that a screening can choose from.
MIN_CANDIDATES = 4
#: How many reference levels are drawn at most in search of valid ones.
MAX_DRAWN = 2**26


def valid_reference(n: int, curriculum: SourceContext, teacher: Teacher) -> Tensor:
    """The arm ``valid_reference``: only the valid ones of the reference levels, ``[n, d]``.

    This is domain randomization by rejection: drawing costs time, but no env steps.

    Raises:
        ConfigError: If hardly any reference level is valid.
    """
    env, rng = curriculum.env, curriculum.rng

    def draw(k: int) -> Tensor:
        return env.reference_levels(k, rng)

    return valid_levels(draw, n, env, MAX_DRAWN, "valid_reference", "use archive or gan")


class LearnabilityScreen:
    """The arm ``sfl``: the most learnable of many reference levels, Rutherford et al. 2024, §4.

    A few times in a run, reference levels are played ``episodes`` times each, in separate
    environments. Until the next screening, levels are drawn from those with the largest p (1 − p).
    The screenings may take a share of the run's env steps, which limits how many levels are tried.
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
        """The first screening waits until the policy has learned for a while.

        Args:
            screenings: Number of screenings in a run, which divide it evenly; the first one comes
                after half a part.
            share: Largest share of the run's env steps that all screenings take together.
            candidates: Most reference levels that one screening tries.
            keep: Most levels that one screening keeps; it never keeps more than a quarter.
            episodes: Episodes on each level.
            charged: Count the screening's env steps as the run's. False is an oracle, for
                analysis only: it learns the difficulty of levels at no cost.

        Raises:
            ConfigError: If a number makes no sense.
        """
        prefix = "data__arm__"
        counts = dict(screenings=screenings, candidates=candidates, keep=keep, episodes=episodes)
        positive(**{prefix + name: number for name, number in counts.items()})
        positive_unit_interval(**{f"{prefix}share": share})
        self.screenings, self.share = screenings, share
        self.candidates, self.keep, self.episodes = candidates, keep, episodes
        self.charged = charged
        self.levels: Tensor | None = None
        self.done = 0

    def __call__(self, n: int, curriculum: SourceContext, teacher: Teacher) -> Tensor:
        """``n`` of the kept levels, ``[n, d]``; none before the first screening."""
        part = curriculum.budget / self.screenings
        # A policy that has learned nothing yet solves nothing: all levels would look alike.
        is_due = curriculum.spent() >= (self.done + 0.5) * part and teacher.updates > 0
        if is_due and self.done < self.screenings:
            self.levels = self._screen(curriculum, teacher)
            self.done += 1
        if self.levels is None:
            return curriculum.no_levels()
        pick = torch.randint(
            len(self.levels), (n,), generator=curriculum.rng, device=self.levels.device
        )
        return self.levels[pick]

    def check(self, curriculum: SourceContext) -> None:
        """Check that the budget pays for enough levels to choose from.

        Raises:
            ConfigError: If it does not.
        """
        if (count := self.affordable(curriculum)) < MIN_CANDIDATES:
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
        limit = curriculum.env.max_episode_steps
        if not self.charged or limit is None:  # without a limit the arm is refused anyway
            return self.candidates
        allowed = self.share * curriculum.budget * (self.done + 1) / self.screenings
        left = allowed - curriculum.charged_steps
        return min(self.candidates, int(left / (self.episodes * limit)))

    def _screen(self, curriculum: SourceContext, teacher: Teacher) -> Tensor:
        """The most learnable of the candidates, or of as many as the share pays for.

        Where episodes end early, the steps left over pay for more levels, until the next one might
        cost too much.
        """
        levels = curriculum.no_levels()
        p = levels[:, 0]
        while (count := min(self.affordable(curriculum), self.candidates - len(levels))) > 0:
            more = curriculum.env.reference_levels(count, curriculum.rng)
            levels = torch.cat([levels, more])
            p = torch.cat([p, self._try(more, curriculum, teacher)])
        return levels[learnability(p).topk(min(self.keep, max(1, len(levels) // 4))).indices]

    def _try(self, levels: Tensor, curriculum: SourceContext, teacher: Teacher) -> Tensor:
        """How often the policy solves each of ``levels [m, d]``, ``[m]``."""
        assert curriculum.make_env is not None
        rng, device = curriculum.rng, levels.device
        env = level_env(curriculum.make_env(len(levels) * self.episodes, device))
        try:
            episodes = run_episodes(
                env,
                lambda obs: epsilon_greedy(teacher.action_values(obs), EPSILON, rng),
                seed=int(torch.randint(2**31, (1,), generator=rng, device=device)),
                levels=levels.repeat_interleave(self.episodes, dim=0),
            )
        finally:
            env.close()
        if self.charged:
            curriculum.charged_steps += int(episodes.lengths.sum())
        return episodes.success.float().view(-1, self.episodes).mean(dim=1)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue."""
        return {"levels": self.levels, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.levels, self.done = state["levels"], state["done"]
