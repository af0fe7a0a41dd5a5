"""Does it learn? Short runs with wide margins here; the README's claims as slow tests."""

import json
from pathlib import Path

import pytest
import torch

from lit_crl.runs.cli.main import main


def final(experiment: str, *args: str) -> dict[str, float]:
    """The summary of a run through the command line, on the CPU."""
    cli = main(["fit", "--experiment", experiment, "--trainer.accelerator=cpu", *args])
    summary: dict[str, float] = json.loads((cli.run_folder / "summary.json").read_text())
    return summary


def test_the_dqn_balances_the_pole_after_12_000_env_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = final(
        "cartpole_levels",
        "--data.curriculum.arm=target",
        "--data.collect.env_steps=12000",
        "--data.gan.updates=0",
    )
    assert summary["target_return_mean"] > 150  # a random policy: 22


def test_the_gan_concentrates_on_the_frontier_of_a_fixed_policy() -> None:
    """Levels are solved iff x > 0, with a soft edge: generated ones must gather near x = 0."""
    from lit_crl.gan import equations as gan
    from lit_crl.gan.networks import VectorDiscriminator, VectorGenerator

    torch.manual_seed(0)
    critic, maker = VectorDiscriminator(2, (64, 64)), VectorGenerator(2, 8, (64, 64))
    learn_critic = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.99))
    learn_maker = torch.optim.Adam(maker.parameters(), lr=1e-3, betas=(0.0, 0.99))
    for _ in range(600):
        real = 2 * torch.rand(128, 2) - 1
        success = (torch.rand(128) < torch.sigmoid(8 * real[:, 0])).float()
        z = torch.randn(128, 8)
        losses = gan.discriminator_losses(
            critic, "relativistic", real, torch.ones(128), maker(z).detach(), 0.5, 0.5
        )
        loss = sum(losses.values()) + gan.success_loss(critic.success_logit(real), success)
        learn_critic.zero_grad()
        loss.backward()
        learn_critic.step()
        challenge, adversarial = gan.generator_losses(critic, "relativistic", real, maker(z))
        learn_maker.zero_grad()
        (challenge + 0.5 * adversarial).backward()
        learn_maker.step()
    with torch.no_grad():
        levels = maker(torch.randn(1_000, 8))
    assert levels[:, 0].abs().mean() < 0.25  # uniform levels: 0.5
    assert levels[:, 1].std() > 0.2  # and they spread along the frontier


CLAIMS = {
    "mountain_car": ("target_return_mean", -115.0),
    "mountain_car_levels": ("target_return_mean", -120.0),
    "cartpole_levels": ("target_return_mean", 475.0),
    "acrobot_levels": ("target_return_mean", -90.0),
    "point_mass": ("heldout_success_rate", 0.9),
    "spiral_levels": ("target_success_rate", 0.8),
    "thin_manifold": ("target_success_rate", 0.8),
    "weak_engine": ("target_success_rate", 0.8),
    "weak_engine_levels": ("target_success_rate", 0.6),
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", CLAIMS)
def test_the_readme_claim_holds(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    measure, least = CLAIMS[experiment]
    assert final(experiment)[measure] >= least


@pytest.mark.slow
def test_the_mountain_car_is_solved_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = final(
        "mountain_car_levels",
        "--config",
        "conf/experiment/mountain_car_levels.yaml",
        "--config",
        "conf/trainer/bf16.yaml",
    )
    assert result["target_return_mean"] >= -120
