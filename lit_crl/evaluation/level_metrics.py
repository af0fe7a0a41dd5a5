"""The quality of generated levels as torchmetrics metrics, each usable alone.

They gather over batches and, as every torchmetrics metric, over processes. Validity and success
rates need no class here: ``torchmetrics.MeanMetric`` computes them; p̂'s ranking is
``torchmetrics.classification.BinaryAUROC``. They judge levels from any source:

>>> from torchmetrics import MeanMetric
>>> from lit_crl.envs import Maze
>>> env, rng = Maze(1, size=5), torch.Generator().manual_seed(0)
>>> levels = env.reference_levels(200, rng)
>>> valid, length, alike = MeanMetric(), PathLengthQuantiles(), LevelManifold()
>>> valid.update(env.valid(levels).float())
>>> length.update(env.optimal_steps(levels))
>>> alike.update(levels, env.reference_levels(200, rng))
>>> valid.compute(), length.compute()["p50"], 0.9 < alike.compute()["diversity"] < 1.1
(tensor(1.), tensor(3.), tensor(True))
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_crl.curriculum.proposals import on_frontier, spacing, unique_rate
from lit_crl.evaluation import manifold


def measure(kind: Callable[..., Metric], *given: Tensor) -> float:
    """The value of a metric for one batch, in this process alone: nothing is synchronised."""
    metric = kind(sync_on_compute=False).to(given[0].device)
    metric.update(*given)
    return float(metric.compute())


class _Mean(Metric):
    """The mean of one number for each level or episode, over all updates."""

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        """Start without numbers; ``kwargs`` are those of ``torchmetrics.Metric``."""
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def _add(self, numbers: Tensor) -> None:
        self.total += numbers.sum()
        self.count += numbers.numel()

    def compute(self) -> Tensor:
        """The mean so far."""
        return self.total / self.count


class FrontierHitRate(_Mean):
    """Share of levels that the policy solves sometimes, 0.1 < p < 0.9 (Florensa et al. 2018).

    >>> metric = FrontierHitRate()
    >>> metric.update(torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]]))
    >>> metric.compute()
    tensor(0.5000)
    """

    def update(self, success: Tensor) -> None:
        """Add the outcomes of levels, each played several times: ``[n, episodes]``, 0 or 1."""
        self._add(on_frontier(success.float().mean(dim=1)))


class BrierScore(_Mean):
    """Mean squared error of a predicted success probability: (p̂ − success)², Brier 1950.

    >>> metric = BrierScore()
    >>> metric.update(torch.tensor([0.9, 0.2]), torch.tensor([1.0, 0.0]))
    >>> metric.compute()
    tensor(0.0250)
    """

    def update(self, p: Tensor, success: Tensor) -> None:
        """Add predictions and outcomes of equal shape."""
        self._add((p - success.float()).square())


class Learnability(_Mean):
    """Mean of 4 p (1 − p), for p the success probability of each level: 1 if all are at ½.

    With k episodes for each level, 4 p̄ (1 − p̄) k / (k − 1) is an unbiased estimate, where p̄ is the
    share of solved episodes: the variance of a coin, with Bessel's correction. So two suffice.

    >>> metric = Learnability()
    >>> metric.update(torch.tensor([[1.0, 0], [1, 1], [0, 0], [0, 1]]))
    >>> metric.compute()
    tensor(1.)
    """

    def update(self, success: Tensor) -> None:
        """Add the outcomes of levels, each played at least twice: ``[n, episodes]``, 0 or 1."""
        self._add(4 * success.float().var(dim=1))


class PathLengthQuantiles(Metric):
    """Fewest steps from start to goal: 10 %, 50 % and 90 % of the levels need no more.

    >>> metric = PathLengthQuantiles()
    >>> metric.update(torch.arange(11.0))
    >>> metric.compute()["p50"]
    tensor(5.)
    """

    QUANTILES: ClassVar[dict[str, float]] = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
    steps: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        """Start without levels; ``kwargs`` are those of ``torchmetrics.Metric``."""
        super().__init__(**kwargs)
        self.add_state("steps", [], dist_reduce_fx="cat")

    def update(self, steps: Tensor) -> None:
        """Add the fewest steps ``[n]`` that solve each level, finite."""
        self.steps.append(steps.float())

    def compute(self) -> dict[str, Tensor]:
        """The quantiles ``p10``, ``p50`` and ``p90`` so far."""
        steps = dim_zero_cat(self.steps)
        return {name: steps.quantile(q) for name, q in self.QUANTILES.items()}


class StartGoalPairs(Metric):
    """How many pairs of start and goal maps have, counted by exp(entropy) (Hill 1973, order 1).

    n pairs that are equally frequent count n. A generator may make new walls in each map, and yet
    always place start and goal in the same few cells.

    >>> metric = StartGoalPairs()
    >>> metric.update(torch.eye(3).view(1, 3, 1, 3).expand(4, -1, -1, -1))  # four equal maps
    >>> metric.compute()
    tensor(1.)
    """

    pairs: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        """Start without levels; ``kwargs`` are those of ``torchmetrics.Metric``."""
        super().__init__(**kwargs)
        self.add_state("pairs", [], dist_reduce_fx="cat")

    def update(self, maps: Tensor) -> None:
        """Add maps ``[n, C, H, W]``: walls, starts (one map for each way to face), and the goal."""
        start = maps[:, 1:-1].amax(dim=1).flatten(1).argmax(dim=1)
        goal = maps[:, -1].flatten(1).argmax(dim=1)
        self.pairs.append(start * maps[0, 0].numel() + goal)

    def compute(self) -> Tensor:
        """The effective number of pairs so far."""
        _, counts = torch.unique(dim_zero_cat(self.pairs), return_counts=True)
        share = counts / counts.sum()
        return torch.exp(-(share * share.log()).sum())


class _AgainstReference(Metric):
    """Compares generated with reference levels; collects both."""

    fakes: list[Tensor]
    reals: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        """Start without levels; ``kwargs`` are those of ``torchmetrics.Metric``."""
        super().__init__(**kwargs)
        self.add_state("fakes", [], dist_reduce_fx="cat")
        self.add_state("reals", [], dist_reduce_fx="cat")

    def update(self, fake: Tensor, real: Tensor) -> None:
        """Add generated ``[n, d]`` and reference levels ``[m, d]`` in the cube [−1, 1]ᵈ."""
        self.fakes.append(fake)
        self.reals.append(real)


class UniqueRate(_AgainstReference):
    """Share of distinct levels, see ``unique_rate``; give as many reference as generated levels.

    >>> metric = UniqueRate()
    >>> metric.update(torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([[-1.0], [0.0], [1.0]]))
    >>> metric.compute()
    tensor(0.6667)
    """

    def compute(self) -> Tensor:
        """The share so far."""
        fakes, reals = dim_zero_cat(self.fakes), dim_zero_cat(self.reals)
        return torch.tensor(unique_rate(fakes, spacing(reals)), device=fakes.device)


class LevelManifold(_AgainstReference):
    """Precision, recall, density, coverage and diversity of generated against reference levels."""

    def __init__(self, k: int = 5, **kwargs: Any) -> None:
        """The k-th nearest neighbour of a level sets the radius of its ball."""
        super().__init__(**kwargs)
        self.k = k

    def compute(self) -> dict[str, Tensor]:
        """All five by name, see ``lit_crl.evaluation.manifold``."""
        fake, real = dim_zero_cat(self.fakes), dim_zero_cat(self.reals)
        names = ("precision", "recall", "density", "coverage")
        results = {name: getattr(manifold, name)(fake, real, self.k) for name in names}
        return results | {"diversity": manifold.diversity(fake, real)}
