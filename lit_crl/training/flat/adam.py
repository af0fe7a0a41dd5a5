"""Adam for flat networks: one step for all parameters of a network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from lit_crl.core.checks import ConfigError
from lit_crl.training.flat.network import FlatNetwork

#: Pieces of a vector that a fused step changes at the same time.
PIECES = 32


def is_adam(optimizer: Optimizer) -> bool:
    """Whether it is Adam or AdamW itself: a subclass may step in another way."""
    return type(optimizer) in (Adam, AdamW)


def is_plain_adam(optimizer: Optimizer) -> bool:
    """Whether its steps are those of Adam or AdamW, and nobody waits to be called at each."""
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    return is_adam(optimizer) and not any(hooks) and "step" not in vars(optimizer)


def adam_step(
    vector: Tensor,
    gradient: Tensor,
    moments: Sequence[Tensor],
    lr: Tensor,
    bias1: Tensor,
    bias2: Tensor,
    is_decoupled: bool,
    *,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
) -> None:
    """θ ← θ − lr · m̂ / (√v̂ + ε), Kingma & Ba 2015, algorithm 1, in place.

    Args:
        vector: θ, ``[P]``.
        gradient: Its gradient ``[P]``.
        moments: m and v ``[P]``; with ``amsgrad`` the largest v so far, too (Reddi et al. 2018).
        lr: Learning rate, 0-dimensional.
        bias1: 1 − β₁ᵗ at step t, 0-dimensional.
        bias2: 1 − β₂ᵗ at step t, 0-dimensional.
        is_decoupled: Whether weights decay as in AdamW (Loshchilov & Hutter 2019), and not by way
            of the gradient.
        beta1: β₁.
        beta2: β₂.
        eps: ε.
        weight_decay: How much they decay.
        amsgrad: Whether to divide by the largest v so far.
        maximize: Whether to go up.
    """
    mean, square, *largest = moments
    if maximize:
        gradient = -gradient
    if weight_decay and is_decoupled:
        vector.mul_(1 - lr * weight_decay)
    elif weight_decay:
        gradient = gradient + weight_decay * vector
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    if amsgrad:
        (square,) = largest
        torch.maximum(square, moments[1], out=square)
    vector.addcdiv_(mean, (square.sqrt() / bias2.sqrt() + eps) * (-bias1 / lr))


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
        if not is_adam(optimizer) or len(groups) > 1:
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

    def take_rate(self) -> None:
        """Use the learning rate that the optimizer has now."""
        self.lr.fill_(self.group["lr"])

    def state(self) -> list[Tensor]:
        """The tensors that a step changes besides the parameters."""
        return [self.steps, *self.moments]

    def step(self, vector: Tensor, gradient: Tensor) -> None:
        """Change ``vector`` by one step down its ``gradient``, both ``[P]``.

        A compiler fuses single operations with their neighbours; without one a fused kernel is
        best.
        """
        step = self._step_of_operations if torch.compiler.is_compiling() else self._fused_step
        step(vector, gradient)

    def _step_of_operations(self, vector: Tensor, gradient: Tensor) -> None:
        self.steps.add_(1)
        numbers = self._numbers()
        beta1, beta2 = numbers["beta1"], numbers["beta2"]
        # All parameters of the network start and step together, so their counters are equal. As a
        # maximum a power is computed once, and not again wherever a compiler needs it.
        bias1, bias2 = (1 - torch.pow(beta, self.steps).amax() for beta in (beta1, beta2))
        adam_step(
            vector, gradient, self.moments, self.lr, bias1, bias2, self._is_decoupled, **numbers
        )

    def _fused_step(self, vector: Tensor, gradient: Tensor) -> None:
        self.steps.add_(1)
        tensors = [vector, gradient, *self.moments]
        # A GPU gives each piece of a vector a processor of its own, in steps of 16 bytes.
        size = -(-len(vector) // (4 * PIECES)) * 4 if vector.is_cuda else len(vector)
        vectors, gradients, means, squares, *largest = (
            list(torch.split(tensor, size)) for tensor in tensors
        )
        fused = torch._fused_adamw_ if self._is_decoupled else torch._fused_adam_
        fused(
            vectors,
            gradients,
            means,
            squares,
            largest[0] if largest else [],
            [self.steps[0]] * len(vectors),
            lr=self.lr,
            **self._numbers(),
        )

    @property
    def _is_decoupled(self) -> bool:
        """Whether weights decay as in AdamW, beside the gradient."""
        return bool(self.group["decoupled_weight_decay"])

    def _numbers(self) -> dict[str, Any]:
        """The settings that both kinds of a step take."""
        beta1, beta2 = self.group["betas"]
        names = ("amsgrad", "weight_decay", "eps", "maximize")
        return {"beta1": beta1, "beta2": beta2, **{name: self.group[name] for name in names}}
