"""The symmetries of a square: a maze that is turned or mirrored is as hard as before."""

import torch
from torch import Tensor

from lit_crl.envs.mazes.layouts import MOVES


def turned_and_mirrored(maps: Tensor) -> Tensor:
    """The eight symmetries of square maps, ``[n, C, s, s] -> [8, n, C, s, s]``.

    The first four are the maps after 0 to 3 quarter turns to the left, the others the same of their
    mirror images.

    >>> turned_and_mirrored(torch.tensor([[[[1, 2], [3, 4]]]]))[1, 0, 0]
    tensor([[2, 4],
            [1, 3]])
    """
    return torch.stack(
        [torch.rot90(each, turns, (-2, -1)) for each in (maps, maps.flip(-1)) for turns in range(4)]
    )


def headings_before() -> Tensor:
    """For each of the eight symmetries the heading ``[8, 4]`` that turns into each heading.

    Headings are indices of ``MOVES``. A mirror exchanges right and left:

    >>> headings_before()[4]
    tensor([2, 1, 0, 3])
    """
    before = torch.zeros(8, len(MOVES), dtype=torch.long)
    for symmetry in range(8):
        for heading, (down, right) in enumerate(MOVES):
            right = -right if symmetry >= 4 else right
            for _ in range(symmetry % 4):
                down, right = -right, down
            before[symmetry, MOVES.index((down, right))] = heading
    return before
