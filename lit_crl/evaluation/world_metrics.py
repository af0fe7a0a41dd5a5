"""How good a world is: pure functions, one equation each.

Errors are measured on real steps that the world never learnt from, and in units of their spread, so
that they can be compared between dimensions and tasks.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_crl.world.interface import World

#: Bins of probabilities in which ends are counted.
CALIBRATION_BINS = 10
#: Bins along each axis of the plane whose cells are counted.
PLANE_BINS = 10
#: Share of the differences between neighbours that is taken for jumps.
JUMPS = 0.05
#: Seed of the projection of observations with more than two dimensions onto a plane.
PROJECTION_SEED = 0


def error_by_step(imagined: Tensor, real: Tensor, spread: Tensor) -> Tensor:
    """sqrt(mean(((ŝ − s) / σ)²)) of each step, over n episodes and the dimensions with σ > 0.

    Args:
        imagined: Observations ŝ that followed the real actions, ``[n, T, d]``.
        real: What was observed, ``[n, T, d]``.
        spread: Standard deviation σ of each dimension of real observations, ``[d]``.

    Returns:
        The error after 1 … T steps, ``[T]``. A world that always says the mean has 1, or √2 where
        it draws from all observations.

    >>> error_by_step(torch.ones(1, 1, 2), torch.zeros(1, 1, 2), torch.tensor([0.5, 0.0]))
    tensor([2.])
    """
    counts = spread > 0
    error = (imagined - real)[..., counts] / spread[counts]
    return error.square().mean((0, 2)).sqrt()


def relative_error(predicted: Tensor, real: Tensor) -> Tensor:
    """sqrt(mean((r̂ − r)²)) / σ of values ``[n]``; σ is that of the real ones, 1 where it is 0.

    >>> relative_error(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 4.0]))
    tensor(0.5000)
    """
    spread = real.std(correction=0)
    return (predicted - real).square().mean().sqrt() / torch.where(spread > 0, spread, 1.0)


def beyond_bounds(obs: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Share of the steps ``[..., d]`` that a bound has stopped, in any dimension that can move.

    >>> low, high = torch.tensor([0.0, 5.0]), torch.tensor([1.0, 5.0])
    >>> beyond_bounds(torch.tensor([[0.5, 5.0], [1.0, 5.0]]), low, high)
    tensor(0.5000)
    """
    stopped = ((obs <= low) | (obs >= high)) & (high > low)
    return stopped.any(-1).float().mean()


def calibration_error(p: Tensor, happened: Tensor, bins: int = CALIBRATION_BINS) -> Tensor:
    """Expected calibration error Σ_b (n_b / n) |mean p − share that happened|, Guo et al. 2017.

    Args:
        p: Predicted probabilities ``[n]``.
        happened: Whether it did, bool ``[n]``.
        bins: Equally wide bins b of p.

    >>> calibration_error(torch.tensor([0.25, 0.25, 1.0]), torch.tensor([True, False, True]))
    tensor(0.1667)
    """
    row = (p * bins).long().clamp(0, bins - 1)
    excess = p.new_zeros(bins).index_add_(0, row, p - happened.to(p.dtype))
    return excess.abs().sum() / len(p)


def usual_reward(reward: Tensor) -> tuple[Tensor, Tensor]:
    """The median of real rewards ``[n]``, and half of how far the furthest one is from it.

    >>> usual_reward(torch.tensor([-1.0, -1.0, -1.0, 0.0]))
    (tensor(-1.), tensor(0.5000))
    """
    usual = reward.median()
    return usual, (reward - usual).abs().max() / 2


def rare_share(reward: Tensor, usual: Tensor, apart: Tensor) -> Tensor:
    """Share of the rewards ``[n]`` that are more than ``apart`` from the usual one.

    A world's rewards are never quite the real ones, so that a smaller distance would find rare
    rewards everywhere. If all real rewards are the same, there are none.

    >>> rare_share(torch.tensor([-0.98, -0.3, 0.1, -1.1]), torch.tensor(-1.0), torch.tensor(0.5))
    tensor(0.5000)
    """
    return ((reward - usual).abs() > apart).float().mean()


@torch.no_grad()
def dreamed_returns(
    world: World,
    act: Callable[[Tensor], Tensor],
    obs: Tensor,
    steps: int,
    rng: torch.Generator,
) -> Tensor:
    """Undiscounted returns ``[n]`` of a policy in dreams, as an evaluation counts real ones.

    A dream goes on until the world ends it, or for ``steps`` steps; no gate cuts it.

    Args:
        world: Imagines.
        act: The policy: observations ``[n, ...]`` to actions ``[n]``.
        obs: Where the dreams start, ``[n, ...]``.
        steps: Steps after which a real episode would be cut.
        rng: The world's random stream.
    """
    returns = torch.zeros(len(obs), device=obs.device)
    running = torch.ones(len(obs), dtype=torch.bool, device=obs.device)
    for _ in range(steps):
        step = world.imagine(obs, act(obs), rng)
        returns += torch.where(running, step.reward, 0)
        running, obs = running & ~step.terminated, step.next_obs
        if not running.any():
            break
    return returns


def spread_over_noise(draws: Tensor) -> Tensor:
    """Root mean variance over K ≥ 2 draws under the same conditions; ``[K, ..., d]`` to ``[]``.

    >>> spread_over_noise(torch.tensor([[[1.0]], [[-1.0]], [[1.0]], [[-1.0]]]))
    tensor(1.1547)
    """
    return draws.var(0).mean().sqrt()


def unexplained_spread(mean: Tensor, target: Tensor) -> Tensor:
    """sqrt(mean((y − ŷ)²)) for the world's mean ŷ: at least the data's own noise; ``[n, d]``.

    >>> unexplained_spread(torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]]))
    tensor(1.)
    """
    return (target - mean).square().mean().sqrt()


def neighbour_spread(obs: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """sqrt(½ mean((y_i − y_j)²)), with j the nearest row to i that has the same action.

    As rows become dense it tends to the noise of the data, whatever the function they follow (the
    Gamma test, Stefánsson et al. 1997, with one neighbour); before that it is too large. The
    largest twentieth of the squares is left out, because a function that jumps, as at a wall, is
    no noise. It is then 13 % too small for normal noise, and less for a coin.

    Args:
        obs: Scaled observations ``[n, d]``.
        action: Their actions ``[n]``.
        target: What followed, ``[n, e]``.

    Returns:
        The spread; infinite if no two rows have the same action.

    >>> target = torch.tensor([[1.0], [-1.0], [9.0]])
    >>> neighbour_spread(torch.zeros(3, 1), torch.tensor([0, 0, 1]), target)
    tensor(1.4142)
    """
    apart = torch.cdist(obs, obs).masked_fill(action[:, None] != action, torch.inf)
    distance, nearest = apart.fill_diagonal_(torch.inf).min(1)
    half = 0.5 * (target - target[nearest]).square().mean(1)
    paired = distance.isfinite()
    left = torch.ceil((1 - JUMPS) * paired.sum())
    smallest = torch.where(paired, half, torch.inf).sort().values
    counts = torch.arange(len(half), device=half.device) < left
    spread = torch.where(counts, smallest, 0).sum() / left.clamp_min(1)
    return torch.where(paired.any(), spread.sqrt(), torch.inf)


def plane_of(obs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Points ``[n, 1]`` or ``[n, 2]`` that stand for observations ``[n, d]``.

    One or two dimensions are taken as they are. More are scaled and projected onto two directions
    that were drawn once: they are orthogonal and the same in every run.
    """
    dims = obs.shape[1]
    if dims <= 2:
        return obs
    drawn = torch.randn(dims, 2, generator=torch.Generator().manual_seed(PROJECTION_SEED))
    directions: Tensor = torch.linalg.qr(drawn).Q.to(obs.device)
    scaled = (obs - mean) / torch.where(std > 0, std, 1.0)
    return scaled @ directions


def visited_cells(points: Tensor, low: Tensor, high: Tensor, bins: int = PLANE_BINS) -> Tensor:
    """Which cells of the box have been visited, bool ``[bins^k]``.

    Args:
        points: Points ``[n, k]``; those outside the box do not count.
        low: Lower corner of the box ``[k]``.
        high: Upper corner; it belongs to the last cells.
        bins: Cells along each axis.

    >>> visited_cells(torch.tensor([[0.1], [0.2], [1.0], [7.0]]), torch.zeros(1), torch.ones(1), 4)
    tensor([ True, False, False,  True])
    """
    inside = points[((points >= low) & (points <= high)).all(1)]
    width = torch.where(high > low, high - low, 1.0)
    along = ((inside - low) / width * bins).long().clamp_max(bins - 1)
    place = torch.tensor([bins**k for k in reversed(range(len(low)))], device=points.device)
    visited = torch.zeros(bins ** len(low), dtype=torch.bool, device=points.device)
    visited[(along * place).sum(1)] = True
    return visited
