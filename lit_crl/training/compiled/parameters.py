"""A network whose parameters are views of one tensor."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call


class FlatNetwork:
    """A network's parameters as one vector ``[P]``.

    The parameters become views of it. So a graph takes, and Adam changes, one tensor instead of
    dozens. The weights of widening layers are kept transposed: their gradient is then a product
    that BLAS does four times as fast.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        """Flatten ``network``; ``name`` tells it from others of an objective."""
        self.network = network
        self.parameters = list(network.parameters())
        self.keys = [key for key, _ in network.named_parameters()]
        self.names = [f"networks.{name}.{key}" for key in self.keys]
        self.shapes = [p.shape for p in self.parameters]
        self.is_transposed = [len(shape) == 2 and shape[1] < shape[0] for shape in self.shapes]
        self.vector = self.join([p.detach() for p in self.parameters])
        for parameter, view in zip(self.parameters, self.split(self.vector), strict=True):
            parameter.data = view

    def join(self, tensors: list[Tensor]) -> Tensor:
        """A vector of tensors in the parameters' shapes."""
        laid_out = zip(tensors, self.is_transposed, strict=True)
        return torch.cat([(t.t() if turned else t).reshape(-1) for t, turned in laid_out])

    def split(self, vector: Tensor) -> list[Tensor]:
        """Views of a vector ``[P]`` in the parameters' shapes."""
        parts = torch.split(vector, [shape.numel() for shape in self.shapes])
        return [
            part.view(shape[::-1]).t() if turned else part.view(shape)
            for part, shape, turned in zip(parts, self.shapes, self.is_transposed, strict=True)
        ]

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The parameters in a vector ``[P]`` by their names."""
        return dict(zip(self.names, self.split(vector), strict=True))

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """What the network makes of ``inputs [B, ...]``."""
        parameters = dict(zip(self.keys, self.split(self.vector), strict=True))
        return cast(Tensor, functional_call(self.network, parameters, (inputs,)))
