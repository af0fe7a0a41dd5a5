"""Compiled updates against the eager ones, on the same batches.

Most tests trace the whole graph and run it operation by operation, which takes seconds and shows
that nothing breaks the graph; one lets the compiler write its code.
"""

import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes import uninterrupted
from test_learner import ENV, adam, both, dqn_only, make, sgd, transitions
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs import GymnasiumEnv
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.training.batches import Batch
from lit_crl.training.flat.clipping import clip_to_norm

Train = Callable[..., Any]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Graphs of other tests' networks would count as recompilations."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def weights_and_state(learner: Any, trainer: Any) -> dict[str, Tensor]:
    state = dict(learner.state_dict())
    for number, optimizer in enumerate(trainer.optimizers):
        for index, entry in optimizer.state_dict()["state"].items():
            state |= {f"optimizer {number}.{index}.{name}": t for name, t in entry.items()}
    return state


#: With its usual tiny ε, Adam turns the rounding of a gradient that is 0 into whole steps.
SMOOTH = dict.fromkeys(
    ("q_optimizer", "generator_optimizer", "discriminator_optimizer"),
    functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.99), eps=1e-3, fused=True),
)


def assert_same_training(train_on: Train, batches: list[Batch], **changes: Any) -> None:
    settings = SMOOTH | changes
    eager, compiled = make(**settings), make(compile=True, **settings)
    expected = weights_and_state(eager, train_on(eager, batches, ENV))
    state = weights_and_state(compiled, train_on(compiled, batches, ENV))
    assert state.keys() >= expected.keys()  # a graph makes the state of all Adams
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)
    assert (compiled.updates, compiled.gan_updates) == (eager.updates, eager.gan_updates)
    assert compiled.trainer.global_step == compiled.updates + 2 * compiled.gan_updates > 0
    means = compiled.losses.pop_means()
    assert means == pytest.approx(eager.losses.pop_means(), rel=1e-3, abs=1e-5)
    assert {"dqn/gradient_norm", "dqn/q_mean"} < means.keys()


@pytest.mark.parametrize(
    "settings",
    [
        {"dueling": True, "double_dqn": False, "td_loss": "mse", "target_period": 3},
        {"layer_norm": False, "target_rate": 1.0, "target_period": 2, "max_grad_norm": 0.1},
        {"gan_loss": "hinge", "r1": 0.0, "r2": 0.0, "lambda_gan": 0.5},
        {"gan_loss": "least_squares"},
        {"gan_loss": "non_saturating", "final_lr": 1.0},
        {"q_optimizer": functools.partial(torch.optim.AdamW, lr=1e-3, eps=1e-3, amsgrad=True)},
    ],
    ids=", ".join,
)
@pytest.mark.slow
def test_tracing_the_updates_changes_nothing(
    train_on: Train, traced: None, settings: dict[str, Any]
) -> None:
    batches = [both(updates=2, gan_updates=1, seed=seed) for seed in range(3)]
    assert_same_training(train_on, batches, **settings)


def test_tracing_both_phases_changes_nothing(train_on: Train, traced_as_built: None) -> None:
    """A falling learning rate reaches the graph, too."""
    batches = [
        both(updates=2, gan_updates=1, seed=seed)._replace(progress=seed / 3) for seed in range(3)
    ]
    assert_same_training(train_on, batches, final_lr=0.01)


def test_compiling_the_dqn_phase_changes_nothing(train_on: Train) -> None:
    assert_same_training(train_on, [dqn_only(updates=1, seed=seed) for seed in range(4)])


@pytest.mark.slow
def test_compiling_both_phases_changes_nothing(train_on: Train) -> None:
    assert_same_training(train_on, [both(updates=2, gan_updates=1, seed=seed) for seed in range(4)])


def test_tracing_convolutions_changes_nothing(train_on: Train, traced: None) -> None:
    pytest.importorskip("minatar")
    env = GymnasiumEnv(1, id="minatar:MinAtar/Breakout-v1")
    maps = torch.rand(3, 2, 8, *env.single_observation_space.shape) < 0.2
    batches = []
    for seed, obs in enumerate(maps):
        drawn = transitions(2, seed=seed)._replace(obs=obs, next_obs=obs.roll(1, 1))
        batches.append(Batch(drawn, None, 0.0))
    learners = [make(env=env, compile=compiles, **SMOOTH) for compiles in (False, True)]
    eager, compiled = (weights_and_state(one, train_on(one, batches, env)) for one in learners)
    for name, tensor in eager.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=2e-4, atol=2e-5, msg=name)


# With a world beside the two phases, test_compiled_world.py shows it in every test run.
@pytest.mark.slow
def test_compiled_and_eager_runs_can_take_turns(train_on: Train, traced: None) -> None:
    """The optimizer's own state is what the graph changes."""
    batches = [both(updates=1, gan_updates=1, seed=seed) for seed in range(4)]
    whole, halves = make(**SMOOTH), make(compile=True, **SMOOTH)
    expected = weights_and_state(whole, train_on(whole, batches, ENV))
    first = train_on(halves, batches[:2], ENV)
    rest = make(**SMOOTH)
    rest.load_state_dict(halves.state_dict())
    rest.updates, rest.gan_updates = halves.updates, halves.gan_updates
    rest.streams = halves.streams
    checkpoint = {"optimizer_states": copy.deepcopy([o.state_dict() for o in first.optimizers])}
    halves.on_save_checkpoint(checkpoint)
    saved = checkpoint["optimizer_states"]

    class Restored(type(rest)):  # type: ignore[misc]
        def configure_optimizers(self) -> Any:
            optimizers = super().configure_optimizers()
            for optimizer, state in zip(optimizers, saved, strict=True):
                optimizer.load_state_dict(state)
            return optimizers

    rest.__class__ = Restored
    state = weights_and_state(rest, train_on(rest, batches[2:], ENV))
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)


@pytest.mark.slow
def test_weights_and_td_errors_pass_through_the_graph(
    make_run: Callable[..., Any], traced: None
) -> None:
    eager, compiled = (
        make_run(
            learner={"compile": compile, **SMOOTH}, validate=False, priority_exponent=0.6,
            env_steps=500,
        ).fit()
        for compile in (False, True)
    )  # fmt: skip
    for name, tensor in eager.learner.state_dict().items():
        torch.testing.assert_close(
            compiled.learner.state_dict()[name], tensor, rtol=0.02, atol=1e-3
        )
    torch.testing.assert_close(
        compiled.data.replay.priorities.values, eager.data.replay.priorities.values,
        rtol=0.02, atol=1e-3,
    )  # fmt: skip


# test_noisy_networks.py resumes a compiled run in every test run.
@pytest.mark.slow
@pytest.mark.parametrize("arm", ["target", "gan"])
def test_a_resumed_compiled_run_equals_the_uninterrupted_one(
    make_run: Callable[..., Any],
    difference: Callable[[Any, Any], str | None],
    tmp_path: Path,
    traced: None,
    arm: str,
) -> None:
    settings = {"learner": {"compile": True}, "updates_per_batch": 1, "gan_updates": 1, "arm": arm}
    whole, checkpoint = uninterrupted(make_run, tmp_path, 25, **settings)
    resumed = make_run(callbacks=[RunCheckpoint(checkpoint.parent)], **settings).fit(checkpoint)
    assert difference(whole.everything(), resumed.everything()) is None


@pytest.mark.slow
def test_bfloat16_passes_through_the_graph(make_run: Callable[..., Any], traced: None) -> None:
    runs = [
        make_run(
            learner={"compile": compile, **SMOOTH}, validate=False, env_steps=400,
            trainer={"precision": "bf16-mixed"},
        ).fit()
        for compile in (False, True)
    ]  # fmt: skip
    eager, compiled = (run.learner.losses.pop_means() for run in runs)
    assert compiled == pytest.approx(eager, rel=0.1, abs=0.01)


def test_a_loss_that_is_not_finite_is_named_with_its_update(train_on: Train, traced: None) -> None:
    stack = transitions(2)
    stack.reward[1] = torch.nan
    with pytest.raises(RunError, match="dqn/loss became nan at its update 2"):
        train_on(make(compile=True), [Batch(stack, None, 0.0)], ENV)


def test_only_adam_can_be_compiled(train_on: Train) -> None:
    with pytest.raises(ConfigError, match=r"model\.compile knows .*Adam.*SGD"):
        train_on(make(compile=True, q_optimizer=sgd(0.1)), [dqn_only()], ENV)
    with pytest.raises(ConfigError, match="SGD"):
        train_on(make(compile=True, generator_optimizer=sgd(0.1)), [dqn_only()], ENV)
    train_on(make(compile=False, q_optimizer=sgd(0.1)), [dqn_only()], ENV)


def test_what_cannot_be_compiled_is_told_in_a_sentence(
    train_on: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    refused = pytest.raises(ConfigError, match=r"model\.compile is on, but .*compiler")
    with torch.compiler.config.patch(force_disable_caches=True), refused:
        train_on(make(compile=True, q_optimizer=adam(1e-3)), [dqn_only()], ENV)


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 100.0, float("inf")])
def test_clipping_agrees_with_torch(max_norm: float) -> None:
    rng = torch.Generator().manual_seed(0)
    gradient = torch.randn(17, generator=rng)
    param = torch.nn.Parameter(torch.zeros(17))
    param.grad = gradient.clone()
    expected = clip_grad_norm_([param], max_norm)
    norm, clipped = clip_to_norm(gradient, max_norm)
    torch.testing.assert_close(norm, expected)
    torch.testing.assert_close(clipped, param.grad)


def test_an_environment_with_a_step_of_its_own_takes_it(
    make_run: Callable[..., Any], short_car: Any, traced: None
) -> None:
    class Counting(short_car):  # type: ignore[misc]
        steps = 0

        def step(self, actions: Tensor) -> Any:
            Counting.steps += 1
            return super().step(actions)

    settings = {"learner": {"compile": True}, "validate": False, "env_steps": 240}
    make_run(env=Counting, arm="target", **settings).fit()
    assert Counting.steps == 240 / 8
    plain = make_run(arm="target", **settings).fit()
    assert plain.data.rollout.play != plain.data.rollout._play
