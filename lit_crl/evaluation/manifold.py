"""How generated levels lie among reference levels: pure functions of two sets of points.

Levels are in the unit cube, ``fake [n, d]`` and ``real [m, d]``. A set's *manifold* is the union of
balls around its points, each as wide as the distance to the point's k-th nearest neighbour.
"""

import torch
from torch import Tensor


def neighbour_distance(points: Tensor, k: int) -> Tensor:
    """Distance of each point ``[n, d]`` to its k-th nearest other point, ``[n]``.

    Raises:
        ValueError: If there are not more than ``k`` points.
    """
    if len(points) <= k:
        raise ValueError(f"{len(points)} levels have no {k}-th neighbour: give more than {k}")
    distance: Tensor = torch.cdist(points, points).kthvalue(k + 1, dim=1).values
    return distance


def inside(points: Tensor, centres: Tensor, k: int) -> Tensor:
    """Which points ``[n, d]`` lie in the ball of which centre ``[m, d]``: ``[n, m]``."""
    return torch.cdist(points, centres) <= neighbour_distance(centres, k)


def precision(fake: Tensor, real: Tensor, k: int = 5) -> Tensor:
    """Share of fakes inside the reals' manifold, Kynkäänniemi et al. 2019, eq. 2."""
    return inside(fake, real, k).any(dim=1).float().mean()


def recall(fake: Tensor, real: Tensor, k: int = 5) -> Tensor:
    """Share of reals inside the fakes' manifold, Kynkäänniemi et al. 2019, eq. 2."""
    return precision(real, fake, k)


def density(fake: Tensor, real: Tensor, k: int = 5) -> Tensor:
    """In how many of k balls of reals a fake lies, about 1 if both are alike, Naeem et al. 2020.

    Unlike precision it is not fooled by one real far off, whose ball is large (eq. 3).
    """
    return inside(fake, real, k).float().sum(dim=1).mean() / k


def coverage(fake: Tensor, real: Tensor, k: int = 5) -> Tensor:
    """Share of reals whose ball holds a fake, Naeem et al. 2020, eq. 4."""
    return inside(fake, real, k).any(dim=0).float().mean()


def diversity(fake: Tensor, real: Tensor) -> Tensor:
    """Mean distance between two fakes over that between two reals: 0 where all are the same."""
    return torch.pdist(fake).mean() / torch.pdist(real).mean()
