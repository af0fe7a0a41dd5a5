"""Whole runs on a CUDA device: ``pytest -m gpu``."""

from pathlib import Path

import pytest
import torch

from lit_crl import cli

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def test_compiled_updates_solve_the_mountain_car_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = ["--config", "conf/experiment/mountain_car.yaml", "--config", "conf/trainer/gpu.yaml"]
    run = cli.main(["fit", *config, "--model.compile", "true"])
    assert float(run.trainer.callback_metrics["target_return_mean"]) >= -120
    assert run.model.gan_updates > 1_000


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_the_mountain_car_is_solved_on_the_gpu(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = ["--config", "conf/experiment/mountain_car.yaml", "--config", "conf/trainer/gpu.yaml"]
    run = cli.main(["fit", *config, "--trainer.precision", precision])
    assert float(run.trainer.callback_metrics["target_return_mean"]) >= -120
    data = run.datamodule
    for tensor in (data.replay.obs, data.archive.tried.levels, data.rollout.obs, data.env.state):
        assert tensor.is_cuda  # the networks are back on the CPU: Lightning takes them there
