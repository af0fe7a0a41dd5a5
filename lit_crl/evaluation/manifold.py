"""How generated levels lie among reference levels: pure functions of two sets of points.

Levels are in the unit cube, ``fake [n, d]`` and ``real [m, d]``. A set's *manifold* is the union of
balls around its points. The radius of a ball is the distance of its point to the k-th nearest
neighbour.
"""

import torch
from torch import Tensor


def neighbour_distance(points: Tensor, k: int) -> Tensor:
    """Distance of each point ``[n, d]`` to its k-th nearest other point, ``[n]``.

    >>> neighbour_distance(torch.tensor([[0.0], [1.0], [4.0]]), k=1)
    tensor([1., 1., 3.])

    Raises:
        ValueError: If there are not more than ``k`` points.
    """
    if len(points) <= k:
        raise ValueError(f"{len(points)} levels have no {k}-th neighbour: give more than {k}")
    return torch.kthvalue(torch.cdist(points, points), k + 1, dim=1).values


def inside(points: Tensor, centres: Tensor, k: int) -> Tensor:
    """Whether point i ``[n, d]`` is in the ball around centre j ``[m, d]``: ``[n, m]``."""
    return torch.cdist(points, centres) <= neighbour_distance(centres, k)


def precision(fake: Tensor, real: Tensor, k: int = 5) -> Tensor:
    """Share of fakes inside the reals' manifold, Kynkäänniemi et al. 2019, eq. 2.

    >>> precision(torch.tensor([[0.5], [9.0]]), torch.tensor([[0.0], [1.0], [2.0]]), k=1)
    tensor(0.5000)
    """
    return inside(fake, real, k).any(dim=1).float().mean()


def recall(fake: Tensor, real: Tensor, k: int = 5) -> Tensor:
    """Share of reals inside the fakes' manifold, Kynkäänniemi et al. 2019, eq. 2."""
    return precision(real, fake, k)


def density(fake: Tensor, real: Tensor, k: int = 5) -> Tensor:
    """The mean number of real balls around a fake, divided by k, Naeem et al. 2020, eq. 3.

    It is about 1 if the two sets are alike. A single distant real with a large ball raises it less
    than it raises precision.
    """
    return inside(fake, real, k).float().sum(dim=1).mean() / k


def coverage(fake: Tensor, real: Tensor, k: int = 5) -> Tensor:
    """Share of reals whose ball contains a fake, Naeem et al. 2020, eq. 4."""
    return inside(fake, real, k).any(dim=0).float().mean()


def diversity(fake: Tensor, real: Tensor) -> Tensor:
    """Mean distance between two fakes over that between two reals: 0 where all fakes are equal.

    >>> diversity(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [4.0]]))
    tensor(0.2500)
    """
    return torch.pdist(fake).mean() / torch.pdist(real).mean()
