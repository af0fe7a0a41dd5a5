"""The cost of what a world does not know: for dreams from which the evaluated network learns."""

from torch import Tensor

#: Disagreement beyond which nothing is less known.
CLIP = 5.0


def doubt(disagreement: Tensor, clip: float = CLIP) -> Tensor:
    """How little is known, in [0, 1]: min(d, clip) / clip, after Yu et al. 2020 (MOPO), eq. 5.

    Unlike novelty it is above 0 for usual steps: of two dreams that promise the same, the better
    known one is worth more. Disagreement that is no number counts as the largest.

    Args:
        disagreement: d, in units of its mean on real data ``[...]``.
        clip: Above 0.

    >>> import torch
    >>> doubt(torch.tensor([0.0, 1.0, 5.0, torch.nan]))
    tensor([0.0000, 0.2000, 1.0000, 1.0000])
    """
    return disagreement.nan_to_num(nan=clip).clamp(0, clip) / clip
