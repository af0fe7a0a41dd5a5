"""The interface of environments that start at levels, and the checks that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOUND_TOLERANCE = 1e-5  # relative to the width of the level box: forgives float rounding only


@runtime_checkable
class LevelEnv(Protocol):
    """All that the rest of the package uses; write your own environment against this.

    An environment with images needs an attribute ``image_layout``, which names their axes (see
    ``lit_crl.envs.images``).

    These are optional:

    - ``level_shape``: (maps, rows, columns), if levels are maps of walls, of starts (one map for
      each way to face) and of the goal;
    - ``render_levels(levels)``: images [n, rows, columns, 3] of levels;
    - ``draw_level_plane(axes)``: draws a picture of the task on the ``level_plane`` axes;
    - ``nearest_levels(levels)``: the levels [n, d] at which episodes start in the place of others,
      where states are levels and not every level is a state;
    - ``visited``: the states that are levels, where only visited ones are; None where not;
    - ``has_levels``: whether there are levels that an evaluation can examine;
    - ``symmetries(levels)``: levels [n, d] under each of g symmetries of the task, [g, n, d]; a
      symmetry lets coordinates change places or signs (in the box scaled to [-1, 1]);
    - ``given_levels``: the levels [K, d] that a user gave as target levels, if one did;
    - ``optimal_steps(levels)``: the fewest steps [n] that solve levels;
    - ``benchmark_return(success, steps)``: the score [n] that a public benchmark reports.

    The environment must not reset by itself (``AutoresetMode.DISABLED``), because the caller
    chooses the next level: ``reset(options={"levels": ..., "reset_mask": ...})``.
    """

    num_envs: int
    device: torch.device
    #: Space of one observation, either ``uint8`` or float32.
    single_observation_space: Box
    #: Space of one action, numbered from 0.
    single_action_space: Discrete[Any]
    #: Name of each level axis, with its unit.
    level_names: tuple[str, ...]
    #: The two level axes to draw.
    level_plane: tuple[int, int]
    #: Gymnasium's id of the same task; None: Gymnasium does not have it.
    gymnasium_id: str | None
    #: Whether visited states can become levels, by ``current_levels()``.
    tracks_visited: bool

    # Read only, so that an environment may declare that it always has one.
    @property
    def level_space(self) -> Box | None:
        """Box of shape (d,) with finite bounds, in env units; None: the env takes no levels."""

    @property
    def max_episode_steps(self) -> int | None:
        """Env steps after which an episode is truncated; None: unknown or never."""

    @property
    def resumable(self) -> bool:
        """Whether ``load_state_dict`` continues running episodes; if not, it starts new ones."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Start episodes at the given levels, in the envs of the mask (without one, in all)."""

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return observations, rewards, terminated, truncated and ``{"success": bool [N]}``.

        Rewards and ends are those of the task, which evaluation measures. ``"replay_reward"`` and
        ``"replay_terminated"`` in the dict, if they are there, are what transitions learn from.
        """

    def current_observations(self) -> Tensor:
        """Observations [N, ...] of the envs' present states, for instance after a resume."""

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] levels from the task's own reset distribution."""

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] levels from a broad distribution; valid ones, if they are easy to sample."""

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the levels at which an episode can start."""

    def heldout(self) -> dict[str, Tensor]:
        """Sets of fixed levels [m, d] by name, which are never trained on."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that is needed to continue."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict()``."""

    def close(self) -> None:
        """Close all environments; they are not used again."""


def uniform_levels(n: int, low: Tensor, high: Tensor, rng: torch.Generator) -> Tensor:
    """Draw levels uniformly between two corners.

    Args:
        n: Number of levels.
        low: Lower corner [d].
        high: Upper corner [d].
        rng: Generator on the CPU or on the device of ``low``.

    Returns:
        Levels [n, d] on the device of ``low``.
    """
    unit = torch.rand(n, low.numel(), generator=rng, device=rng.device).to(low.device)
    return torch.lerp(low, high, unit).clamp(low, high)  # lerp may round past the corner


def in_bounds(levels: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return which levels are finite and inside a box, up to float rounding.

    Args:
        levels: Levels [n, d].
        low: Lower corner [d].
        high: Upper corner [d].

    Returns:
        Mask [n].

    >>> levels = torch.tensor([[0.5], [1.0], [1.1], [torch.nan]])
    >>> in_bounds(levels, torch.tensor([0.0]), torch.tensor([1.0]))
    tensor([ True,  True, False, False])
    """
    slack = BOUND_TOLERANCE * (high - low)
    return ((levels >= low - slack) & (levels <= high + slack)).all(-1)  # NaN compares false


def check_mask(mask: Any, num_envs: int, device: torch.device) -> Tensor:
    """Return ``options["reset_mask"]`` as a bool tensor [num_envs]; None stands for all envs.

    Raises:
        ValueError: If it has another shape or type.
    """
    if mask is None:
        return torch.ones(num_envs, dtype=torch.bool, device=device)
    checked = torch.as_tensor(mask, device=device)
    if checked.shape != (num_envs,) or checked.dtype != torch.bool:
        raise ValueError(
            f"options['reset_mask'] has shape {tuple(checked.shape)} and type {checked.dtype}, "
            f"but a bool tensor of shape ({num_envs},) is needed."
        )
    return checked


def check_levels(
    levels: Any, low: Tensor, high: Tensor, mask: Tensor, *, allow_nan: bool = False
) -> Tensor:
    """Return ``options["levels"]`` as float32 [N, d] on the device of ``low``, clamped.

    Args:
        levels: The levels that the caller gave.
        low: Lower corner of the level box [d].
        high: Upper corner of the level box [d].
        mask: Envs that are reset [N]; other rows are not checked.
        allow_nan: Accept rows of NaN, which stand for the task's own reset.

    Raises:
        ValueError: If the shape is wrong or a level is not finite or out of bounds.
    """
    checked = torch.as_tensor(levels, dtype=torch.float32, device=low.device)
    shape = (len(mask), low.numel())
    if checked.shape != shape:
        raise ValueError(
            f"options['levels'] has shape {tuple(checked.shape)}, but {shape} is needed: one row "
            "per env; rows outside 'reset_mask' are ignored."
        )
    fine = in_bounds(checked, low, high) | ~mask
    if allow_nan:
        fine |= checked.isnan().all(-1)
    if not fine.all():
        row = int((~fine).nonzero()[0])
        raise ValueError(
            f"options['levels'][{row}] is {checked[row].tolist()}, which is not finite or outside "
            f"the level space {low.tolist()} to {high.tolist()}; clip it, or drop it with valid()."
        )
    return checked.clamp(low, high)


def draw_box(axes: Axes, space: Box, names: tuple[str, ...], plane: tuple[int, int]) -> None:
    """Label ``axes`` with two level axes and limit them to the level space.

    Args:
        axes: Matplotlib axes to draw into.
        space: Level space, shape (d,).
        names: Name of each level axis, with unit.
        plane: Indices of the horizontal and the vertical level axis.
    """
    across, up = plane
    axes.set_xlim(float(space.low[across]), float(space.high[across]))
    axes.set_xlabel(names[across])
    if across != up:
        axes.set_ylim(float(space.low[up]), float(space.high[up]))
        axes.set_ylabel(names[up])
