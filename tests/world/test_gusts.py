"""What worlds believe about the pass with gusts, where the mean of two outcomes never comes."""

import pytest
import torch
from worlds import train_recorded

from lit_crl.envs import GustyPass
from lit_crl.envs.gusty_pass import PATH, SIDE
from lit_crl.world.batch import RealSteps
from lit_crl.world.settings import WorldLoss, WorldSettings
from lit_crl.world.transition_gan import TransitionGan


def steps_at_random(n: int, rng: torch.Generator) -> RealSteps:
    env = GustyPass(n)
    env.reset(options={"levels": env.reference_levels(n, rng)})
    obs, action = env.current_observations(), torch.randint(2, (n,), generator=rng)
    next_obs, reward, terminated, *_ = env.step(action)
    return RealSteps(obs, action, reward, terminated, next_obs, ~terminated)


@pytest.mark.parametrize(("loss", "least", "most"), [("gan", 0, 0.15), ("likelihood", 0.3, 0.6)])
def test_a_gan_knows_that_no_gust_leads_to_the_path(
    loss: WorldLoss, least: float, most: float
) -> None:
    """A normal distribution around the mean has 38 % of its mass there, and the task nothing."""
    rng = torch.Generator().manual_seed(0)
    sizes = {"noise_dim": 1, "r1": 0.01, "r2": 0.01} if loss == "gan" else {}
    settings = WorldSettings(loss=loss, members=1, hidden=(64, 64), head_hidden=(8,), **sizes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    world, rows = TransitionGan(2, 2, settings), steps_at_random(2000, rng)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    train_recorded(world, settings, rows, 1500 if loss == "gan" else 300, rng)
    env = GustyPass(2000)
    env.reset(seed=1)
    east = torch.ones(2000, dtype=torch.int64)
    after = world.imagine(env.current_observations(), east, rng).next_obs[:, 1]
    assert least <= (after.abs() <= PATH).float().mean() <= most
    assert 0.4 < (after > 0).float().mean() < 0.6
    really, *_ = env.step(east)
    assert ((really[:, 1].abs() - SIDE).abs() < 1e-6).all()
