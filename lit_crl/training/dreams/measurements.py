"""Measurements of a world beside the real steps that it knows and those that were held back.

Nothing that trains is touched: they have a random stream of their own, and dreams of their own.
Sizes are fixed, so that what they cost does not grow with the run.
"""

import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.evaluation import world_metrics as metrics
from lit_crl.evaluation.protocol import Learner, Played
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.world.batch import RealSteps
from lit_crl.world.open_loop import follow_actions
from lit_crl.world.real_episodes import draw_windows
from lit_crl.world.real_steps import steps_at
from lit_crl.world.transition_gan import TransitionGan, floored

#: Imagined steps after which the open-loop error is measured; after 1 it is so before any bounds.
HORIZONS = (5, 20, 50)
#: Most windows at each horizon, most held-back steps, and most dreams that are compared.
MOST_WINDOWS, MOST_ROWS, MOST_DREAMS = 64, 2048, 32
#: Bytes are counted so many rows at a time.
ROWS_AT_ONCE = 16_384
#: Steps on which the spread over z is measured, and draws on each.
NOISE_ROWS, NOISE_DRAWS = 512, 8
#: Episodes that may last longer than this are not dreamed: it would take too long.
MOST_STEPS = 1000
#: The data's noise counts as at least this, in units of Δobs, when the spread over z is compared.
LEAST_NOISE = 0.01

Found = dict[str, Tensor]


def some_steps(replay: ReplayBuffer, rows: Tensor, rng: torch.Generator) -> RealSteps:
    """Up to ``MOST_ROWS`` of the steps at ``rows`` (bool ``[rows]``), drawn uniformly."""
    row = rows.nonzero().squeeze(1)
    row = row[torch.randperm(len(row), generator=rng, device=row.device)[:MOST_ROWS]]
    return steps_at(replay, row)


def going_on(steps: RealSteps) -> RealSteps:
    """Those of ``steps [n, ...]`` that did not end the task."""
    return RealSteps(*(field[steps.learns_next] for field in steps))


def spread_of_observations(replay: ReplayBuffer) -> Tensor:
    """Standard deviation of each number of real observations ``[...]``; 0 if it is rounding."""
    known = replay.obs[replay.startable]
    if known.dtype == torch.uint8:
        return spread_of_bytes(known)
    known = known.double()
    return floored(known.std(0, correction=0), known)


def spread_of_bytes(values: Tensor) -> Tensor:
    """Standard deviation of each byte of ``values [n, ...]``, exact, with little memory.

    >>> spread_of_bytes(torch.tensor([[0, 7], [2, 7]], dtype=torch.uint8))
    tensor([1., 0.])
    """
    total = torch.zeros(values.shape[1:], dtype=torch.int64, device=values.device)
    of_squares = torch.zeros_like(total)
    for some in torch.split(values, ROWS_AT_ONCE):
        total += some.sum(0)
        of_squares += some.to(torch.int32).square().sum(0)
    n = len(values)
    return ((n * of_squares - total.square()).double().sqrt() / n).float()


def error_of_one_step(dreaming: Dreaming, rng: torch.Generator) -> Found:
    """The error of the next observation on steps that no member has learnt from, if there are any.

    It is taken before any bounds; what follows an end has no error.
    """
    world, replay = dreaming.world, dreaming.replay
    steps = going_on(some_steps(replay, dreaming.unseen(), rng))
    if not len(steps.action):
        return {}
    drawn, spread = world.draw_next(steps.obs, steps.action, rng), spread_of_observations(replay)
    return {"error_1": metrics.error_by_step(drawn[:, None], steps.next_obs[:, None], spread)[0]}


def errors_of_dreams(dreaming: Dreaming, held_back: Tensor, rng: torch.Generator) -> Found:
    """Errors after several steps, under the actions of the episodes at rows ``held_back``."""
    world, replay = dreaming.world, dreaming.replay
    spread, found = spread_of_observations(replay), {}
    for horizon in HORIZONS:
        rows = held_back & (replay.discount != 0)
        real = draw_windows(replay, rows, horizon, MOST_WINDOWS, rng)
        if len(real.action):
            imagined = follow_actions(world, real.obs[:, 0].float(), real.action, rng).obs[:, 1:]
            by_step = metrics.error_by_step(imagined, real.obs[:, 1:], spread)
            found[f"error_{horizon}"] = by_step[-1]
            bounds = world.obs_low, world.obs_high
            found["beyond_bounds"] = metrics.beyond_bounds(imagined.flatten(2), *bounds)
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
    counts = world.moving
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
        "disagreement": world.apart(steps.obs, steps.action).mean(),
    }


def disagreement_far(dreaming: Dreaming, rng: torch.Generator) -> Found:
    """Disagreement at points drawn uniformly from the box of all real observations, or at bits."""
    known = dreaming.replay.obs[dreaming.replay.startable]
    low, high = known.amin(0).float(), known.amax(0).float()
    uniform = torch.rand(NOISE_ROWS, *known.shape[1:], generator=rng, device=rng.device)
    actions = dreaming.world.num_actions
    action = torch.randint(actions, (NOISE_ROWS,), generator=rng, device=rng.device)
    points = low + uniform * (high - low)
    if dreaming.world.binary:
        points = (points > 0.5).float()
    found = dreaming.world.apart(points, action).mean()
    return {"disagreement_far": found}


def frequencies(dreaming: Dreaming) -> Found:
    """Ends and rare rewards for each 1,000 steps, real ones and those of the newest dreams."""
    replay, real = dreaming.replay, dreaming.replay.startable
    reward = replay.reward[real]
    usual, apart = metrics.usual_reward(reward)
    found = {
        "real_ends": 1000 * (replay.discount[real] == 0).float().mean(),
        "real_rare_rewards": 1000 * metrics.rare_share(reward, usual, apart),
    }
    if (dreams := dreaming.store) is not None:
        found["dreamed_ends"] = 1000 * (dreams.discount == 0).float().mean()
        found["dreamed_rare_rewards"] = 1000 * metrics.rare_share(dreams.reward, usual, apart)
    return found


def coverage(dreaming: Dreaming) -> Found:
    """The share of the state space that was visited, really and in the newest dreams."""
    replay, real = dreaming.replay, dreaming.replay.startable
    obs = replay.obs[real].flatten(1).float()
    mean, std = obs.mean(0), obs.std(0, correction=0)
    points = metrics.plane_of(obs, mean, std)
    low, high = box(dreaming, points)
    found = {"coverage_real": metrics.visited_cells(points, low, high).float().mean()}
    if (dreams := dreaming.store) is not None:
        points = metrics.plane_of(dreams.obs.flatten(1).float(), mean, std)
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

    def act(obs: Tensor) -> Tensor:
        return judge.action_values(obs).argmax(dim=1)

    world = dreaming.env.world
    dreamed = metrics.dreamed_returns(world, act, obs, played.limit, rng).mean()
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
    world, held_back = dreaming.world, dreaming.held_back()
    found = frequencies(dreaming) | coverage(dreaming) | disagreement_far(dreaming, rng)
    found |= error_of_one_step(dreaming, rng)
    steps = some_steps(dreaming.replay, held_back, rng)
    if len((left := going_on(steps)).action):
        found |= errors_of_dreams(dreaming, held_back, rng)
        found |= ends_and_rewards(world, steps)
        found |= noise(world, left, rng)
    if played is not None:
        found |= returns(dreaming, judge, played, rng)
    numbers = torch.stack([number.float() for number in found.values()]).tolist()
    return {f"world/{name}": number for name, number in zip(found, numbers, strict=True)}
