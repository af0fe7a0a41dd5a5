"""The final test: what a validation has, and what would make every validation slow."""

from typing import ClassVar

import torch
from torch import Tensor

from lit_crl.evaluation.generator_metrics import LevelManifold
from lit_crl.evaluation.protocol import Evaluation, Judge, success_rates
from lit_crl.evaluation.statistics import Scores, cvar
from lit_crl.levels import UnitBox
from lit_crl.seeding import random_stream, stream_seed

#: The share of held-out levels that is the tail.
TAIL = 0.1
#: Generated levels, and reference levels, whose positions are compared. None of them is played.
MANIFOLD_LEVELS = 512


class FinalEvaluation(Evaluation):
    """Adds the tail of the held-out levels, and how generated lie among reference levels."""

    GENERATED_PER_REFERENCE: ClassVar[int] = 1

    def _heldout_metrics(self, judge: Judge) -> dict[str, float]:
        """Success of the worst tenth of all held-out levels, too.

        They are ranked on the pass that gives the rates and averaged on a second one. A greedy
        policy in a deterministic environment plays both alike: then this is 0 where a tenth fails.
        """
        first = self._heldout_success(judge, self.seed)
        if not first:
            return {}
        again = stream_seed(self.seed, "second held-out pass") % 2**31
        second = self._heldout_success(judge, again)
        ranking, scores = (_pooled(success) for success in (first, second))
        return success_rates(first) | {"heldout_cvar10": cvar(ranking, scores, TAIL)}

    def _generated_metrics(self, judge: Judge) -> dict[str, float]:
        """Precision, recall, density, coverage and diversity, too, of valid and invalid levels."""
        rng = random_stream(self.seed, "level manifold", device=self.device)
        box = UnitBox.of(self._own.level_space).to(self.device)
        fake = judge.generate_levels(judge.draw_noise(MANIFOLD_LEVELS, rng))
        real = self._own.reference_levels(MANIFOLD_LEVELS, rng)
        metric = LevelManifold(sync_on_compute=False)
        metric.update(box.to_unit(fake), box.to_unit(real))
        spread = {f"levels_{name}": float(value) for name, value in metric.compute().items()}
        return super()._generated_metrics(judge) | spread


def _pooled(success: dict[str, Tensor]) -> Scores:
    return torch.cat(list(success.values())).double().cpu().numpy()
