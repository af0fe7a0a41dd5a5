"""Adam on one vector against torch's, for one step after another."""

from typing import Any

import pytest
import torch
from torch import nn

from lit_crl.training.flat.adam import FlatAdam
from lit_crl.training.flat.network import FlatNetwork

KINDS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.Adam, {}),
    (torch.optim.Adam, {"betas": (0.0, 0.99), "eps": 1e-3}),
    (torch.optim.Adam, {"weight_decay": 0.1, "maximize": True}),
    (torch.optim.AdamW, {"weight_decay": 0.1}),
    (torch.optim.AdamW, {"amsgrad": True}),
]


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_steps_are_those_of_torch(
    kind: Any, settings: dict[str, Any], compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiles)
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    gradients = torch.randn(6, 8) * torch.tensor([[1e-3], [1.0], [30.0]]).repeat(2, 1)
    flat = FlatNetwork(ours)
    adam = FlatAdam(kind(ours.parameters(), lr=0.1, **settings), flat)
    adam.take_rate()
    oracle = kind(theirs.parameters(), lr=0.1, **settings)
    for gradient in gradients:
        parts = [gradient[:6].view(2, 3), gradient[6:]]
        theirs.weight.grad, theirs.bias.grad = parts
        oracle.step()
        adam.step(flat.vector, flat.join(parts))
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-4, atol=1e-5)


def test_a_rate_of_0_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    network = nn.Linear(3, 2)
    flat = FlatNetwork(network)
    before = flat.vector.clone()
    adam = FlatAdam(torch.optim.Adam(network.parameters(), lr=0.0), flat)
    adam.take_rate()
    adam.step(flat.vector, torch.randn(8))
    assert torch.equal(flat.vector, before)
