"""Measurements of a world beside the real steps that it knows and those that were held back.

Nothing that trains is touched: they have a random stream of their own, and dreams of their own.
Sizes are fixed, so that what they cost does not grow with the run.
"""

from typing import NamedTuple

import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.evaluation import world_metrics as metrics
from lit_crl.evaluation.protocol import Learner, Played, greedy
from lit_crl.training.dreaming import Dreaming
from lit_crl.world import equations
from lit_crl.world.batch import RealSteps
from lit_crl.world.open_loop import follow_actions
from lit_crl.world.real_steps import split, steps_at
from lit_crl.world.transition_gan import TransitionGan, floored
from lit_crl.world.windows import draw_windows

#: Imagined steps after which the open-loop error is measured; after 1 it is so before any bounds.
HORIZONS = (5, 20, 50)
#: Most windows at each horizon, most held-back steps, and most dreams that are compared.
MOST_WINDOWS, MOST_ROWS, MOST_DREAMS = 64, 2048, 32
#: Steps on which the spread over z is measured, and draws on each.
NOISE_ROWS, NOISE_DRAWS = 512, 8
#: Episodes that may last longer than this are not dreamed: it would take too long.
MOST_STEPS = 1000
#: The data's noise counts as at least this, in units of Δobs, when the spread over z is compared.
LEAST_NOISE = 0.01

Found = dict[str, Tensor]


class HeldBack(NamedTuple):
    """Real steps that no member has learnt from."""

    #: Where they are in the replay, bool ``[rows]``.
    rows: Tensor
    #: Some of them, drawn uniformly.
    steps: RealSteps
    #: Those of ``steps`` that did not end the task.
    going_on: RealSteps


def held_back(dreaming: Dreaming, rng: torch.Generator) -> HeldBack | None:
    """The steps that are held back now; None if there are none, or all of them end the task."""
    rows = split(dreaming.replay, 1, 1.0, dreaming.settings.held_back).held_back
    row = rows.nonzero().squeeze(1)
    row = row[torch.randperm(len(row), generator=rng, device=row.device)[:MOST_ROWS]]
    steps = steps_at(dreaming.replay, row)
    going_on = RealSteps(*(field[steps.learns_next] for field in steps))
    return HeldBack(rows, steps, going_on) if len(going_on.action) else None


def errors(dreaming: Dreaming, held: HeldBack, rng: torch.Generator) -> Found:
    """Errors of observations after 1 step and more; what follows an end has no error."""
    world, replay, steps = dreaming.world, dreaming.replay, held.going_on
    known = replay.obs[replay.startable].double()
    spread = floored(known.std(0, correction=0), known)
    drawn = world.draw_next(steps.obs, steps.action, rng)
    found = {"error_1": metrics.error_by_step(drawn[:, None], steps.next_obs[:, None], spread)[0]}
    for horizon in HORIZONS:
        rows = held.rows & (replay.discount != 0)
        real = draw_windows(replay, rows, horizon, MOST_WINDOWS, rng)
        if len(real.action):
            imagined = follow_actions(world, real.obs[:, 0].float(), real.action, rng).obs[:, 1:]
            by_step = metrics.error_by_step(imagined, real.obs[:, 1:], spread)
            found[f"error_{horizon}"] = by_step[-1]
            bounds = world.obs_low, world.obs_high
            found["beyond_bounds"] = metrics.beyond_bounds(imagined, *bounds)
    return found


def ends_and_rewards(world: TransitionGan, steps: RealSteps) -> Found:
    """How the heads judge real steps; rewards before any bounds."""
    reward, end = world.predict(steps.obs, steps.action, steps.next_obs)
    return {
        "reward_error": metrics.relative_error(reward, steps.reward),
        "end_calibration_error": metrics.calibration_error(end, steps.terminated),
        "end_predicted": end.mean(),
        "end_real": steps.terminated.float().mean(),
    }


def noise(world: TransitionGan, steps: RealSteps, rng: torch.Generator) -> Found:
    """Whether z is used, and how far members are apart near the data."""
    steps = RealSteps(*(field[:NOISE_ROWS] for field in steps))
    condition = world.condition(steps.obs, steps.action)
    counts = moving(world)
    repeated = condition.repeat(NOISE_DRAWS, 1)
    target = world.target(steps.obs, steps.next_obs)
    made: Tensor = world.generators(repeated, world.draw_noise(len(repeated), rng=rng))
    draws = made.view(len(made), NOISE_DRAWS, *target.shape)[..., counts]
    scaled = condition[:, : -world.num_actions]
    data_noise = torch.minimum(
        metrics.unexplained_spread(draws.mean((0, 1)), target[:, counts]),
        metrics.neighbour_spread(scaled, steps.action, target[:, counts]),
    )
    spread = metrics.spread_over_noise(draws.transpose(0, 1))
    return {
        "data_noise": data_noise,
        "z_used": spread / data_noise.clamp_min(LEAST_NOISE),
        "disagreement": disagreement(world, steps.obs, steps.action),
    }


def moving(world: TransitionGan) -> Tensor:
    """Dimensions of observations that ever change, bool ``[d]``."""
    return torch.ones_like(world.delta_scale).bool() if world.binary else world.delta_scale > 0


def disagreement(world: TransitionGan, obs: Tensor, action: Tensor) -> Tensor:
    """Mean disagreement at ``obs [n, d]`` in units of the root mean square of Δobs, ``[]``."""
    centre = world.generators.centre(world.condition(obs, action))
    return equations.disagreement(centre, moving(world)).mean()


def disagreement_far(dreaming: Dreaming, rng: torch.Generator) -> Found:
    """Disagreement at points drawn uniformly from the box of all real observations, or at bits."""
    known = dreaming.replay.obs[dreaming.replay.startable].float()
    low, high = known.amin(0), known.amax(0)
    uniform = torch.rand(NOISE_ROWS, known.shape[1], generator=rng, device=rng.device)
    actions = dreaming.world.num_actions
    action = torch.randint(actions, (NOISE_ROWS,), generator=rng, device=rng.device)
    points = low + uniform * (high - low)
    if dreaming.world.binary:
        points = (points > 0.5).float()
    found = disagreement(dreaming.world, points, action)
    return {"disagreement_far": found}


def frequencies(dreaming: Dreaming) -> Found:
    """Ends for each 1,000 steps, and the share of the state space that was visited."""
    replay, real = dreaming.replay, dreaming.replay.startable
    obs = replay.obs[real].float()
    mean, std = obs.mean(0), obs.std(0, correction=0)
    points = metrics.plane_of(obs, mean, std)
    low, high = box(dreaming, points)
    found = {
        "real_ends": 1000 * (replay.discount[real] == 0).float().mean(),
        "coverage_real": metrics.visited_cells(points, low, high).float().mean(),
    }
    if (dreams := dreaming.store) is not None:
        points = metrics.plane_of(dreams.obs.float(), mean, std)
        found["dreamed_ends"] = 1000 * (dreams.discount == 0).float().mean()
        found["coverage_dreams"] = metrics.visited_cells(points, low, high).float().mean()
    return found


def box(dreaming: Dreaming, points: Tensor) -> tuple[Tensor, Tensor]:
    """The task's own bounds if they are finite and observations are points; else the points'."""
    space = dreaming.env.single_observation_space
    assert isinstance(space, Box)
    if space.shape == points.shape[1:] and space.is_bounded():
        low, high = (torch.as_tensor(x, device=points.device) for x in (space.low, space.high))
        return low.float(), high.float()
    return points.amin(0), points.amax(0)


def returns(dreaming: Dreaming, judge: Learner, played: Played, rng: torch.Generator) -> Found:
    """What the evaluated policy gets in dreams that start where its real episodes did."""
    if played.first_obs is None or played.limit > MOST_STEPS:
        return {}
    obs = played.first_obs[:MOST_DREAMS].float()
    dreamed = metrics.dreamed_returns(
        dreaming.env.world, greedy(judge), obs, played.limit, rng
    ).mean()
    return {"dream_return": dreamed, "dream_return_gap": dreamed - played.mean_return}


@torch.no_grad()
def measure(
    dreaming: Dreaming, judge: Learner, played: Played | None, rng: torch.Generator
) -> dict[str, float]:
    """All numbers of a world, named ``world/…``; those that cannot be measured are absent.

    Args:
        dreaming: The world, the real steps and the newest dreams.
        judge: The policy that is evaluated.
        played: Its real episodes; None: nobody played.
        rng: A stream of nobody else's.
    """
    found = frequencies(dreaming) | disagreement_far(dreaming, rng)
    if (held := held_back(dreaming, rng)) is not None:
        found |= errors(dreaming, held, rng)
        found |= ends_and_rewards(dreaming.world, held.steps)
        found |= noise(dreaming.world, held.going_on, rng)
    if played is not None:
        found |= returns(dreaming, judge, played, rng)
    numbers = torch.stack([number.float() for number in found.values()]).tolist()
    return {f"world/{name}": number for name, number in zip(found, numbers, strict=True)}
