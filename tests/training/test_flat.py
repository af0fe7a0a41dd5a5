"""Updates on flat parameters, against autograd and torch's Adam on the parameters themselves."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_crl.training.flat.engine import FlatEngine


class TwoLayers(nn.Module):
    """Two layers, which may share their weights."""

    def __init__(self, is_tied: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        if is_tied:
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.tanh(self.first(x)))
        return out


@pytest.mark.parametrize("is_tied", [True, False])
def test_an_update_is_a_step_of_adam_also_where_layers_share_weights(is_tied: bool) -> None:
    torch.manual_seed(0)
    ours = TwoLayers(is_tied)
    theirs = copy.deepcopy(ours)
    batches = torch.randn(5, 8, 3)

    def update(engine: Any, x: Tensor, rate: Any) -> dict[str, Tensor]:
        def loss() -> tuple[Tensor, dict[str, Tensor]]:
            value = ours(x).square().mean()
            return value, {"loss": value.detach()}

        report: dict[str, Tensor] = engine.descend(ours, loss, "norm")
        return report

    networks: Any = {ours: SimpleNamespace(optimizer=torch.optim.Adam(ours.parameters(), lr=0.1))}
    engine: FlatEngine[Any] = FlatEngine(update, networks)
    engine.take_rates()
    oracle = torch.optim.Adam(theirs.parameters(), lr=0.1)
    for x in batches:
        report = engine.update(None, x)
        loss = theirs(x).square().mean()
        oracle.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        oracle.step()
        assert report["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert len(list(ours.parameters())) == (3 if is_tied else 4)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
