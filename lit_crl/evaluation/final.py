"""The final test: a validation, and metrics that would make every validation slow."""

from typing import ClassVar, Literal

from lit_crl.core import distributed
from lit_crl.core.global_streams import global_streams_kept
from lit_crl.core.levels import UnitBox
from lit_crl.core.seeding import random_stream
from lit_crl.evaluation.allowance import Allowance
from lit_crl.evaluation.level_metrics import LevelManifold
from lit_crl.evaluation.protocol import (
    EPISODES_PER_LEVEL,
    FRONTIER_EPSILON,
    Evaluation,
    Learner,
    Part,
    Player,
)
from lit_crl.evaluation.statistics import cvar

#: Share of the held-out levels that counts as the tail.
TAIL = 0.1
#: How many generated and how many reference levels are compared. None of them is played.
MANIFOLD_LEVELS = 512


class FinalEvaluation(Evaluation):
    """Adds success at the worst held-out levels, and how generated lie among reference levels.

    Its target episodes and its held-out levels differ from those of a validation.
    """

    KIND: ClassVar[Literal["validation", "test"]] = "test"

    def target_alone(self, player: Player, has_gan: bool) -> dict[str, float]:
        """Return and success of another policy in the target episodes of the whole test.

        It gets the env steps that they get in the whole test, of which ``has_gan`` is a part.
        """
        allowance = Allowance(self.env_steps, len(self._parts(has_gan)))
        with global_streams_kept():
            results = self._target_metrics(player, allowance)
        return results | {"evaluation_env_steps": float(allowance.spent)}

    def _parts(self, has_gan: bool) -> list[Part]:
        parts = super()._parts(has_gan)
        if self._heldout_metrics in parts:
            parts.insert(parts.index(self._heldout_metrics) + 1, self._tail_metrics)
        return parts

    def _tail_metrics(self, learner: Learner, allowance: Allowance) -> dict[str, float]:
        """Success at the worst tenth of held-out levels; nothing if there are fewer than ten.

        Each is played several times with a little exploration: half of its episodes decide which
        levels are the worst, and the other half measure how bad they are.
        """
        levels = self.heldout.levels.repeat_interleave(EPISODES_PER_LEVEL, dim=0)
        plan = self._plan("held-out tail", learner, levels, FRONTIER_EPSILON)
        episodes = self._play(self.envs.training, plan, allowance, size=EPISODES_PER_LEVEL)
        success = episodes.success.double().view(-1, 2, EPISODES_PER_LEVEL // 2).mean(dim=2).cpu()
        if len(success) * TAIL < 1 or not episodes.known.all():
            return {}
        ranking, scores = success.numpy().T
        return {"heldout_cvar10": cvar(ranking, scores, TAIL)}

    def _level_metrics(self, learner: Learner, allowance: Allowance) -> dict[str, float]:
        """Adds precision, recall, density, coverage and diversity of valid and invalid levels."""
        env = self.envs.example
        rng = random_stream(self._stream_seed("level manifold"), "levels", device=env.device)
        box = UnitBox.of(env.level_space).to(env.device)
        noise = learner.draw_noise(MANIFOLD_LEVELS, rng)
        fake = distributed.from_first(learner.generate_levels(noise))
        real = env.reference_levels(MANIFOLD_LEVELS, rng)
        metric = LevelManifold(sync_on_compute=False)
        metric.update(box.to_unit(fake), box.to_unit(real))
        spread = {f"levels_{name}": float(value) for name, value in metric.compute().items()}
        return super()._level_metrics(learner, allowance) | spread
