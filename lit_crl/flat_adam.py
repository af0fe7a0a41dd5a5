"""Adam as the compiled phases take it: one step for all parameters of all networks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.adam import adam

from lit_crl.checks import ConfigError
from lit_crl.flat_networks import FlatNetworks


class FlatAdam:
    """Adam or AdamW on a flat vector; the optimizers' own state becomes views of its vectors."""

    def __init__(self, optimizers: Sequence[Optimizer], flat: FlatNetworks) -> None:
        """Take over the state of one optimizer for each row of ``flat``.

        Raises:
            ConfigError: If they are others, or have several groups of parameters.
        """
        optimizer = optimizers[0]
        if type(optimizer) not in (Adam, AdamW) or len(optimizer.param_groups) > 1:
            raise ConfigError(
                "model.compile knows torch.optim.Adam and AdamW with one group of parameters, but "
                f"was given {type(optimizer).__name__} with {len(optimizer.param_groups)}: choose "
                "one of them, or set model.compile to false"
            )
        self.group = optimizer.param_groups[0]
        self.rate = torch.zeros((), device=flat.vector.device)
        kinds = ["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * self.group["amsgrad"]]
        self.moments = [torch.zeros_like(flat.vector) for _ in kinds]
        self.steps = torch.zeros(*flat.vector.shape[:-1], len(flat.shapes), device=self.rate.device)
        for kind, moment in zip([*kinds, "step"], [*self.moments, self.steps], strict=True):
            split = torch.unbind if kind == "step" else flat.split
            rows = moment.view(len(optimizers), -1)
            for row, own, parameters in zip(rows, optimizers, flat.parameters, strict=True):
                for view, parameter in zip(split(row), parameters, strict=True):
                    state = own.state[parameter]
                    state[kind] = view.copy_(state[kind]) if kind in state else view

    def state(self) -> list[Tensor]:
        """What a step changes beside the parameters."""
        return [self.steps, *self.moments]

    def step(self, vector: Tensor, gradient: Tensor) -> None:
        """Descend along a ``gradient`` like ``vector``."""
        beta1, beta2 = self.group["betas"]
        # One for all parameters of a network, which start and step together; each row has its own.
        step = (self.steps[0] if vector.ndim == 1 else self.steps[:, :1]).clone()
        adam(
            [vector],
            [gradient],
            self.moments[:1],
            self.moments[1:2],
            self.moments[2:],
            [step],
            foreach=False,
            capturable=True,
            amsgrad=self.group["amsgrad"],
            beta1=beta1,
            beta2=beta2,
            lr=self.rate,
            weight_decay=self.group["weight_decay"],
            eps=self.group["eps"],
            maximize=self.group["maximize"],
            decoupled_weight_decay=self.group["decoupled_weight_decay"],
        )
        self.steps.add_(1)
