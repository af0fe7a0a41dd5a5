"""Networks whose parameters are views of one tensor."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call


class FlatNetworks:
    """A network's parameters as one vector ``[P]``, or those of S alike as rows ``[S, P]``.

    The parameters become views of it. So a graph takes, and Adam changes, one tensor instead of
    dozens. The weights of widening layers are kept transposed: their gradient is then a product
    that BLAS does four times as fast.
    """

    def __init__(self, name: str, networks: Sequence[nn.Module]) -> None:
        """Flatten equal ``networks``; ``name`` tells them from others of an objective."""
        self.network = networks[0]
        self.parameters = [list(network.parameters()) for network in networks]
        self.keys = [key for key, _ in self.network.named_parameters()]
        self.names = [f"networks.{name}.{key}" for key in self.keys]
        self.shapes = [p.shape for p in self.parameters[0]]
        self.is_transposed = [len(shape) == 2 and shape[1] < shape[0] for shape in self.shapes]
        rows = torch.stack([self.join([p.detach() for p in own]) for own in self.parameters])
        self.vector = rows if len(rows) > 1 else rows[0]
        for own, row in zip(self.parameters, rows, strict=True):
            for parameter, view in zip(own, self.split(row), strict=True):
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

    @property
    def are_many(self) -> bool:
        """Whether these are rows."""
        return self.vector.ndim > 1

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """What the network makes of ``inputs [B, ...]``, or all rows of ``[S, B, ...]``."""

        def one(vector: Tensor, own: Tensor) -> Tensor:
            parameters = dict(zip(self.keys, self.split(vector), strict=True))
            return cast(Tensor, functional_call(self.network, parameters, (own,)))

        forward = torch.vmap(one) if self.are_many else one
        return forward(self.vector, inputs)
