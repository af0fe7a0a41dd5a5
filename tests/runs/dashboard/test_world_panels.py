"""The workspace's panels of a world show what runs with a world log."""

from pathlib import Path

from conftest import make_trainer
from dreamers import prepared

from lit_crl.envs import MountainCar
from lit_crl.runs.callbacks import RecordMetrics
from lit_crl.runs.callbacks.metrics import MetricsCsv
from lit_crl.runs.dashboard import workspace


def logged(folder: Path, loss: str) -> set[str]:
    """What a short run logs, and the parts of its time."""
    learner, data, _ = prepared(
        world={"loss": loss},
        dreams={"held_back": 0.7},
        env=MountainCar,
        env_steps=1_200,
        validate_every=600,
    )
    folder.mkdir()
    log = MetricsCsv(folder)
    trainer = make_trainer(callbacks=[RecordMetrics()], logger=log, log_every_n_steps=4)
    trainer.fit(learner, datamodule=data)
    parts = {f"system/seconds_{part}" for part in learner.clock.seconds}
    return parts.union(*log.rows)


def test_every_panel_of_a_world_shows_what_runs_log(tmp_path: Path) -> None:
    """None is missing, and hardly any number of a world is without a panel."""
    keys = logged(tmp_path / "a", "gan_reconstruction") | logged(tmp_path / "b", "likelihood")
    shown = {key for keys in workspace.SECTIONS["World"].values() for key in keys}
    assert not shown - keys
    numbers = {key for key in keys if key.startswith(("world/", "explorer/"))}
    assert numbers - shown == {"world/penalty", "world/end_predicted", "world/end_real"}
