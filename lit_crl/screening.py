"""Random levels that are screened: for being legal, or, tried out, for being solved sometimes."""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from lit_crl.checks import ConfigError
from lit_crl.gan import learnability

if TYPE_CHECKING:
    from lit_crl.curriculum import Curriculum

#: How much the policy explores while levels are screened.
EPSILON = 0.05
#: Reference levels that are drawn at once, and in all, to find legal ones among them.
BLOCK, MOST = 2**16, 2**26


def valid_reference(n: int, curriculum: "Curriculum", teacher: Any) -> Tensor:
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
                f"data.arm is 'valid_reference', but of {drawn:,} reference levels only "
                f"{len(found)} are valid: use archive or gan"
            )
        levels = env.reference_levels(block, rng)
        found, drawn = torch.cat([found, levels[env.valid(levels)]]), drawn + block
        block = min(2 * block, BLOCK)
    return found[:n]


class LearnabilityScreen:
    """The arm ``sfl``: the most learnable of many reference levels, Rutherford et al. 2024, §4.

    Now and then ``candidates`` reference levels are played ``episodes`` times each, in environments
    of their own, and the ``keep`` with the largest p (1 − p) are drawn from until the next time.
    """

    def __init__(
        self,
        candidates: int = 128,
        keep: int = 32,
        episodes: int = 2,
        cycles: int = 50,
        charged: bool = True,
    ) -> None:
        """Screen when the first levels are asked for.

        Args:
            candidates: Reference levels that are tried.
            keep: How many of them are drawn from.
            episodes: Episodes on each.
            cycles: Cycles from one screening to the next.
            charged: Count the screening's env steps as the run's. False is an oracle, for
                analysis only: it knows the difficulty of levels for nothing.
        """
        self.candidates, self.keep, self.episodes = candidates, keep, episodes
        self.cycles, self.charged = cycles, charged
        self.levels: Tensor | None = None
        self.next_cycle = 0

    def __call__(self, n: int, curriculum: "Curriculum", teacher: Any) -> Tensor:
        """``n`` of the levels that were solved sometimes, ``[n, d]``.

        The last ones are kept where the budget is too small for another screening; if there are
        none yet, reference levels are drawn.
        """
        dear = self.candidates * self.episodes * cast(int, curriculum.env.max_episode_steps)
        affordable = not self.charged or curriculum.can_afford(dear)
        if curriculum.cycles >= self.next_cycle and affordable:
            self.levels = self._screen(curriculum, teacher)
            self.next_cycle = curriculum.cycles + self.cycles
        if self.levels is None:
            return curriculum.env.reference_levels(n, curriculum.rng)
        pick = torch.randint(
            len(self.levels), (n,), generator=curriculum.rng, device=self.levels.device
        )
        return self.levels[pick]

    def _screen(self, curriculum: "Curriculum", teacher: Any) -> Tensor:
        from lit_crl.dqn import epsilon_greedy
        from lit_crl.evaluation.episodes import run_episodes

        levels = curriculum.env.reference_levels(self.candidates, curriculum.rng)
        episodes = run_episodes(
            curriculum.make_env(self.candidates * self.episodes, levels.device),
            lambda obs: epsilon_greedy(teacher.action_values(obs), EPSILON, curriculum.rng),
            seed=int(torch.randint(2**31, (1,), generator=curriculum.rng, device=levels.device)),
            levels=levels.repeat_interleave(self.episodes, dim=0),
        )
        if self.charged:
            curriculum.charged_steps += int(episodes.lengths.sum())
        p = episodes.success.float().view(-1, self.episodes).mean(dim=1)
        return levels[learnability(p).topk(self.keep).indices]

    def state_dict(self) -> dict[str, Any]:
        """The levels that are drawn from, and until when."""
        return {"levels": self.levels, "next_cycle": self.next_cycle}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.levels, self.next_cycle = state["levels"], state["next_cycle"]
