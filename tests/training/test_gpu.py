"""Whole runs on a CUDA device: ``pytest -m gpu``."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.runs.cli import main as cli

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def test_compiled_updates_solve_the_mountain_car_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = [
        "--config",
        "conf/experiment/mountain_car_levels.yaml",
        "--config",
        "conf/trainer/gpu.yaml",
    ]
    run = cli.main(["fit", *config, "--model.compile", "true"])
    assert float(run.trainer.callback_metrics["target_return_mean"]) >= -120
    assert run.model.gan_updates > 1_000


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_the_mountain_car_is_solved_on_the_gpu(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = [
        "--config",
        "conf/experiment/mountain_car_levels.yaml",
        "--config",
        "conf/trainer/gpu.yaml",
    ]
    run = cli.main(["fit", *config, "--trainer.precision", precision])
    assert float(run.trainer.callback_metrics["target_return_mean"]) >= -120
    data = run.datamodule
    for tensor in (data.replay.obs, data.archive.tried.levels, data.rollout.obs, data.env.state):
        assert tensor.is_cuda  # the networks are back on the CPU: Lightning takes them there


def test_a_run_goes_on_where_its_data_live_on_the_gpu(make_run: Any, tmp_path: Path) -> None:
    """Files are read to the CPU; queue, archive, losses and the arm's own buffer go back."""

    class Stops(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = trainer.should_stop or trainer.datamodule.batches_done == 20

    for arm in ("gan", "plr"):
        folder, settings = tmp_path / arm, {"arm": arm, "trainer": {"accelerator": "gpu"}}
        make_run(callbacks=[RunCheckpoint(folder), Stops()], **settings).fit()
        run = make_run(callbacks=[RunCheckpoint(folder)], **settings).fit(folder / "last.ckpt")
        data = run.data
        assert data.env_steps == data.schedule.budget
        for tensor in (data.replay.obs, data.curriculum._levels, data.archive.tried.levels):
            assert tensor.is_cuda
