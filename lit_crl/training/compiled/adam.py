"""Adam for compiled updates: one step for all parameters of a network."""

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.adam import adam

from lit_crl.core.checks import ConfigError
from lit_crl.training.compiled.parameters import FlatNetwork

#: Pieces of a vector that a fused step changes at the same time.
PIECES = 32


class FlatAdam:
    """Adam or AdamW on a flat vector; the optimizer's own state becomes views of its vectors."""

    def __init__(self, optimizer: Optimizer, flat: FlatNetwork) -> None:
        """Take over the state of the ``optimizer`` of the network that ``flat`` holds.

        Raises:
            ConfigError: If it is not Adam or AdamW, or has the network's parameters in several
                groups.
        """
        mine = set(flat.parameters)
        groups = [group for group in optimizer.param_groups if mine & set(group["params"])]
        if type(optimizer) not in (Adam, AdamW) or len(groups) > 1:
            raise ConfigError(
                "model.compile knows torch.optim.Adam and AdamW with one group of parameters for "
                f"a network, but was given {type(optimizer).__name__} with {len(groups)}: choose "
                "one of them, or set model.compile to false"
            )
        (self.group,) = groups
        self.lr = torch.zeros((), device=flat.vector.device)
        kinds = ["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * self.group["amsgrad"]]
        self.moments = [torch.zeros_like(flat.vector) for _ in kinds]
        self.steps = torch.zeros(len(flat.shapes), device=self.lr.device)
        self._optimizer = optimizer
        self._views: list[tuple[Tensor, str, Tensor]] = []
        for kind, moment in zip([*kinds, "step"], [*self.moments, self.steps], strict=True):
            split = torch.unbind if kind == "step" else flat.split
            for view, parameter in zip(split(moment), flat.parameters, strict=True):
                self._views.append((parameter, kind, view))
        self.rejoin()

    def rejoin(self) -> None:
        """Take over what replaced the optimizer's own state since the last time."""
        for parameter, kind, view in self._views:
            state = self._optimizer.state[parameter]
            if state.get(kind) is not view:
                state[kind] = view.copy_(state[kind]) if kind in state else view

    def state(self) -> list[Tensor]:
        """The tensors that a step changes besides the parameters."""
        return [self.steps, *self.moments]

    def step(self, vector: Tensor, gradient: Tensor) -> None:
        """Change ``vector`` by one step down its ``gradient``, both ``[P]``."""
        beta1, beta2 = self.group["betas"]
        # A compiler fuses single operations with their neighbours. Without one a fused kernel is
        # best, which gives each piece of a vector a processor of its own, in steps of 16 bytes.
        is_compiled = torch.compiler.is_compiling()
        size = len(vector) if is_compiled else -(-len(vector) // (4 * PIECES)) * 4
        pieces, gradients = list(torch.split(vector, size)), list(torch.split(gradient, size))
        mean, square, *largest = (list(torch.split(moment, size)) for moment in self.moments)
        # One counter for all parameters of the network, which start and step together.
        counters = self.steps[:1].repeat(len(pieces)).unbind()
        adam(
            pieces,
            gradients,
            mean,
            square,
            largest[0] if largest else [],
            list(counters),
            foreach=False,
            capturable=True,
            fused=not is_compiled,
            amsgrad=self.group["amsgrad"],
            beta1=beta1,
            beta2=beta2,
            lr=self.lr,
            weight_decay=self.group["weight_decay"],
            eps=self.group["eps"],
            maximize=self.group["maximize"],
            decoupled_weight_decay=self.group["decoupled_weight_decay"],
        )
        self.steps.add_(1)
