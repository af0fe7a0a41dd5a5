"""What a checkpoint holds of the replay: pure functions of its tensors by name."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from lit_crl.dqn.replay.sampling import ROWS_PER_BLOCK


def without_empty_rows(
    tensors: Mapping[str, Tensor], of_rows: Collection[str], rows: int
) -> dict[str, Tensor]:
    """The tensors, of whose rows only the first ones were ever written.

    Args:
        tensors: All that changes in use.
        of_rows: The names of those that have an entry for each row.
        rows: How many rows were written.
    """
    written = dict.fromkeys([*of_rows, "startable"], rows)
    written |= dict.fromkeys(["priority", "priority_sum"], -(-rows // ROWS_PER_BLOCK))
    return {
        name: mine[: written[name]] if name in written else mine for name, mine in tensors.items()
    }


def check_sizes(state: Mapping[str, Tensor], n_steps: int, length: int, num_envs: int) -> None:
    """A saved replay folds as many steps, and has as many rows, as this one.

    Args:
        state: The saved replay.
        n_steps: Steps that a transition of this one folds.
        length: Rows of each of its columns.
        num_envs: Its columns.

    Raises:
        ValueError: If it does not.
    """
    if int(state["n_steps"]) != n_steps:
        raise ValueError(
            f"the saved replay folds {int(state['n_steps'])} steps, this run {n_steps}: "
            "resume with the data.replay.n_steps it was saved with"
        )
    theirs = int(state["length"]), len(state["cursor"])
    if theirs != (length, num_envs):
        raise ValueError(
            f"the saved replay has {theirs[0]} rows for each of {theirs[1]} environments, this "
            f"run's {length} for each of {num_envs}: resume with the "
            "data.replay.capacity and data.collect.num_envs it was saved with"
        )


def put_back(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Write what ``without_empty_rows`` gave into the tensors of a replay; other rows become 0.

    Raises:
        ValueError: If a tensor has another shape or type; then nothing is written.
    """
    pairs = {}
    for name, mine in tensors.items():
        both = (mine, state.get(name, torch.empty(0)))
        pairs[name] = [tensor if tensor.ndim else tensor.view(1) for tensor in both]
    for name, (mine, theirs) in pairs.items():
        alike = mine.shape[1:] == theirs.shape[1:] and mine.dtype == theirs.dtype
        if not alike or len(theirs) > len(mine):
            raise ValueError(
                f"the saved replay's {name} has shape {tuple(theirs.shape)}, this run's "
                f"{tuple(mine.shape)}: resume with the data.env, data.replay.frame_stack and "
                "data.replay.priority_exponent it was saved with"
            )
    for mine, theirs in pairs.values():
        mine[: len(theirs)].copy_(theirs)
        mine[len(theirs) :].zero_()
