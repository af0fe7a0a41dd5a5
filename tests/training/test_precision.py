"""Mixed precision: which numbers stay float32, loss scaling, and clipping after unscaling."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import GivenBatches, learner_settings, make_trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from two_processes import ENV, parts

from lit_crl import CreativeLearner
from lit_crl.training.batches import Batch

Make = Callable[..., Any]


class Seen:
    """The dtypes that come out of some of a learner's modules."""

    def __init__(self, learner: CreativeLearner) -> None:
        self.dtypes: dict[str, set[torch.dtype]] = {}
        names = ("q_network.torso", "q_network", "target_network.torso", "target_network",
                 "level_gan.generator", "level_gan.discriminator.critic")  # fmt: skip
        for name in names:
            learner.get_submodule(name).register_forward_hook(self.look(name))

    def look(self, name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            self.dtypes.setdefault(name, set()).add(output.dtype)

        return hook


def make(**settings: Any) -> CreativeLearner:
    torch.manual_seed(0)
    return CreativeLearner(
        **learner_settings(hidden=(16, 16), gan_hidden=(16, 16), **settings)
    ).build(ENV)


def train(learner: CreativeLearner, batches: list[Batch], **trainer: Any) -> Any:
    trained = make_trainer(max_epochs=1, limit_val_batches=0, **trainer)
    trained.fit(learner, datamodule=GivenBatches(ENV, batches))
    return trained


def scaled(initial: float) -> dict[str, Any]:
    """float16 with a loss scale, on the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=initial)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}


def test_values_targets_and_the_gan_are_float32_under_bf16() -> None:
    learner = make()
    seen = Seen(learner)
    train(learner, [parts(2, 64, 2)], precision="bf16-mixed")
    single = {torch.float32}
    # Online values of the next observations are part of the target, hence both.
    assert seen.dtypes.pop("q_network.torso") == {torch.bfloat16, torch.float32}
    assert all(dtypes == single for dtypes in seen.dtypes.values()), seen.dtypes
    assert all(p.dtype == torch.float32 for p in learner.parameters())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_descends_almost_as_float32_does(precision: str, fused: bool) -> None:
    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=1e-3, eps=1e-3, fused=fused)

    settings = {name: adam for name in ("q_optimizer", "generator_optimizer",
                                        "discriminator_optimizer")}  # fmt: skip
    # So low a limit that every gradient is clipped: scaled ones would be 2¹² times too long.
    exact, mixed = (make(max_grad_norm=0.01, **settings) for _ in range(2))
    batches = [parts(4, 64, 4)] * 5
    start = make().state_dict()
    train(exact, batches)
    how = {"precision": "bf16-mixed"} if precision == "bf16" else scaled(2.0**12)
    train(mixed, batches, **how)
    for name in ("q_network.torso.1.0.weight", "level_gan.generator.head.weight"):
        step = exact.state_dict()[name] - start[name]
        other = mixed.state_dict()[name] - start[name]
        assert torch.cosine_similarity(step.flatten(), other.flatten(), dim=0) > 0.98, name
        assert other.norm().item() == pytest.approx(step.norm().item(), rel=0.1), name


def test_a_step_that_overflows_is_skipped_and_the_scale_halved() -> None:
    learner = make()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    trainer = train(learner, [Batch(parts(1, 64, 1).dqn, None, 0.0)], **scaled(2.0**120))
    after = learner.state_dict()
    for name in before:
        if name.startswith("q_network"):
            assert torch.equal(before[name], after[name]), name
    assert learner.updates == 1
    assert trainer.precision_plugin.scaler.get_scale() == 2.0**119
