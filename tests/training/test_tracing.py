"""Recorded functions: the same numbers as the functions, on the same tensors in place."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import prepare_run
from dreamers import DREAMS, WORLD
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.func import functional_call, grad

from lit_crl.dqn.equations import Transitions
from lit_crl.envs import Maze
from lit_crl.training.batches import DqnMinibatch, like, tensors_of
from lit_crl.training.flat.phase import TracedPhase
from lit_crl.training.flat.tracing import direct, is_view, traced
from lit_crl.training.graphs.choice import has_hooks


def loss_gradients(network: nn.Module, vector: Tensor, obs: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss at weights that are views of ``vector``."""
    shapes = {name: weight.shape for name, weight in network.named_parameters()}
    parts = torch.split(vector, [shape.numel() for shape in shapes.values()])
    weights = {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}

    def loss(given: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(network, given, (obs,)).square().mean()
        return found

    return grad(loss)(weights)


def test_a_recorded_gradient_is_that_of_the_function_at_the_present_weights() -> None:
    network = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    vector = torch.randn(sum(p.numel() for p in network.parameters()))
    compute = partial(loss_gradients, network, vector)
    recorded = traced(compute, [torch.zeros(5, 3)])
    for _ in range(3):
        vector.normal_()
        obs = torch.randn(5, 3)
        expected = compute(obs)
        for name, found in recorded(obs).items():
            torch.testing.assert_close(found, expected[name], rtol=0, atol=0)


def test_what_a_function_changes_in_place_the_recorded_one_changes_too() -> None:
    total, views = torch.zeros(4), torch.zeros(2, 2)

    def add(x: Tensor) -> Tensor:
        total.view(2, 2).t().t().add_(x)
        views[0].copy_(x[1])
        return total.sum()

    recorded = traced(add, [torch.ones(2, 2)])
    total.zero_()
    assert recorded(torch.full((2, 2), 3.0)) == 12.0
    assert recorded(torch.arange(4.0).view(2, 2)) == 18.0
    assert total.tolist() == [3.0, 4.0, 5.0, 6.0]
    assert views.tolist() == [[2.0, 3.0], [0.0, 0.0]]


def test_tensors_that_stay_are_looked_at_once() -> None:
    vector = torch.arange(6.0)

    def product(x: Tensor) -> Tensor:
        first, second = torch.split(vector, [2, 4])
        return (x @ second.view(2, 2).t()) + first

    recorded = traced(product, [torch.zeros(2)])
    graph = recorded.__self__.graph  # type: ignore[attr-defined]
    called = [node for node in graph.nodes if node.op == "call_function"]
    assert not any(
        all(i.op == "get_attr" for i in n.all_input_nodes) and is_view(n) for n in called
    )
    vector += 1
    x = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(recorded(x), product(x))


aten = torch.ops.aten
TWO = torch.arange(6.0).view(2, 3), torch.linspace(-1, 1, 6).view(2, 3)


@pytest.mark.parametrize(
    ("operation", "given", "named"),
    [
        (aten.mm.default, (TWO[0], TWO[1].t()), {}),
        (aten.add.Tensor, TWO, {"alpha": 2}),
        (aten.mul.Tensor, (TWO[0], 3), {}),
        (aten.where.ScalarOther, (TWO[1] > 0, TWO[0], 0.5), {}),
        # torch.split, torch.norm and others are Python, and take other arguments
        (aten.split.Tensor, (TWO[0], 2, 1), {}),
        (aten.norm.ScalarOpt_dim, (TWO[0], 2, [1]), {}),
        (aten.view.default, (TWO[0], [3, 2]), {}),
        (aten.var_mean.correction, (TWO[0], [1]), {"correction": 0, "keepdim": True}),
        (aten.sum.dim_IntList, (TWO[0], [1], True), {"dtype": torch.float64}),
        (aten.threshold_backward.default, (*TWO, 0), {}),
        (aten._to_copy.default, (TWO[0],), {"dtype": torch.int32}),
        (aten.index.Tensor, (TWO[0], [None, torch.tensor([2, 0])]), {}),
    ],
    ids=lambda value: str(value) if isinstance(value, OpOverload) else "",
)
def test_an_operation_called_directly_is_the_same_operation(
    operation: Any, given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    expected, found = operation(*given, **named), direct(operation)(*given, **named)
    torch.testing.assert_close(found, type(found)(expected), rtol=0, atol=0)


def test_what_depends_on_numbers_cannot_be_recorded() -> None:
    with pytest.raises(RuntimeError, match="data-dependent"):
        traced(lambda x: x * 2 if x.sum() > 0 else x, [torch.ones(2)])


def test_a_minibatch_is_its_tensors() -> None:
    obs, returns = torch.zeros(2, 3), torch.ones(2)
    transitions = (obs, obs[:, 0], obs[:, 1], obs[:, 2], obs)
    minibatch = DqnMinibatch(Transitions(*transitions), returns=returns)
    doubled = like(minibatch, [2 * t for t in tensors_of(minibatch)])
    assert doubled.weight is None
    assert torch.equal(doubled.returns, 2 * returns)
    assert type(doubled.transitions) is type(minibatch.transitions)


@pytest.mark.parametrize(
    "hook",
    [
        lambda network: network[0].register_forward_hook(lambda *_: None),
        lambda network: network[0].register_forward_pre_hook(lambda *_: None),
        lambda network: network[0].register_full_backward_hook(lambda *_: None),
        lambda network: network[0].weight.register_hook(lambda gradient: gradient),
        lambda network: network[0].weight.register_post_accumulate_grad_hook(lambda _: None),
    ],
)
def test_hooks_are_seen(hook: Callable[[nn.Module], None]) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    assert not has_hooks(network)
    hook(network)
    assert has_hooks(network)


SETTINGS: dict[str, dict[str, Any]] = {
    "double, with a level GAN": {"arm": "gan", "gan_updates": 2, "min_outcomes": 2},
    "a level GAN that sees mazes from all sides": {
        "env": partial(Maze, size=5, target="perfect"),
        "given": 6,
        "mix": {"target": 0.5, "gan": 0.5},
        "gan": {
            "every": 4,
            "updates": 2,
            "batch_size": 32,
            "reals": "target",
            "reference_reals": 0.0,
            "symmetries": True,
            "noise": 0.02,
        },
    },
    "dueling, three steps": {"arm": "target", "n_steps": 3, "learner": {"dueling": True}},
    "target network every other update": {
        "arm": "target",
        "learner": {"target_period": 2, "target_rate": 1.0, "double_dqn": False},
    },
    "distributions": {"arm": "target", "learner": {"network": {"atoms": 11, "hidden": [16]}}},
    "noise": {"arm": "target", "learner": {"network": {"noise": 0.5, "hidden": [16]}}},
    "world": {
        "arm": "target",
        "gan_updates": 0,
        "world": DREAMS,
        "learner": {"world": WORLD | {"loss": "gan"}},
    },
}
#: What learns beside the Q-network.
BESIDE = {"double, with a level GAN": {"gan"}, "world": {"world", "explorer"}}


@pytest.mark.parametrize("name", SETTINGS)
def test_recorded_updates_are_the_same_bit_for_bit(
    name: str, difference: Callable[..., str | None], request: pytest.FixtureRequest
) -> None:
    """So a resumed run, whose first updates are not recorded, goes on as if it had not stopped."""
    settings = {"env_steps": 400, "validate": False, "validate_every": 400, **SETTINGS[name]}
    before = prepare_run(**settings).fit()
    request.getfixturevalue("recorded")
    after = prepare_run(**settings).fit()
    assert difference(before.everything(), after.everything()) is None
    for phase in {"dqn"} | BESIDE.get(name, set()):
        one, other = (getattr(run.learner, f"_train_{phase}") for run in (before, after))
        assert isinstance(other, TracedPhase)
        assert other._recorded and not one._recorded, phase
