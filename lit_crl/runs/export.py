"""A policy as one file that runs without lit_crl: ONNX, or PyTorch's ``.pt2``."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.networks import ActionValues, RecurrentQNetwork
from lit_crl.training.blueprint import Blueprint


class Greedy(nn.Module):
    """The exported network: greedy actions and action values of a batch of observations."""

    def __init__(self, q_network: nn.Module, first_action: int) -> None:
        """Act by ``q_network``, whose first action has the number ``first_action``."""
        super().__init__()
        self.q_network, self.first_action = q_network, first_action

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, *shape]`` to actions ``[N]``, int64, and their values ``[N, A]``, float32."""
        values = self.q_network(obs)
        return values.argmax(dim=1) + self.first_action, values


class GreedyRemembering(Greedy):
    """The same with a memory: a caller gives 0 at a reset, and what came back at other steps."""

    q_network: RecurrentQNetwork

    def forward(self, obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """``[N, *shape]`` and ``[N, H]`` to actions, their values, and the next memory."""
        values, memory = self.q_network.step(obs, memory)
        return values.argmax(dim=1) + self.first_action, values, memory


def export(q_network: ActionValues, blueprint: Blueprint, path: Path) -> None:
    """Write the policy of ``q_network`` for batches of any size; see ``Policy.export``.

    Raises:
        ConfigError: If the file's name has another ending, or a package or folder is missing.
    """
    size = q_network.memory_size
    kind = GreedyRemembering if size else Greedy
    greedy = kind(copy.deepcopy(q_network).cpu(), blueprint.first_action)
    # Two observations: torch.export would take a batch of one for a constant size.
    obs = torch.tensor(blueprint.obs_space.low[None]).nan_to_num().repeat_interleave(2, dim=0)
    inputs = {"obs": obs} | ({"memory": torch.zeros(2, size)} if size else {})
    outputs = ["action", "action_value", *(["next_memory"] if size else [])]
    if path.suffix not in (".onnx", ".pt2"):
        raise ConfigError(f"cannot export to {path.name}: give a name that ends in .onnx or .pt2")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if path.suffix == ".onnx" and missing:
        raise ConfigError(f"ONNX needs {' and '.join(missing)}: pip install 'lit_crl[export]'")
    checks.writable(path)
    with _quiet():
        batch = torch.export.Dim("batch")
        shapes = {name: {0: batch} for name in inputs}
        program = torch.export.export(greedy, tuple(inputs.values()), dynamic_shapes=shapes)
        if path.suffix == ".pt2":
            torch.export.save(program, path)
            return
        torch.onnx.export(
            program,
            f=path,
            input_names=list(inputs),
            output_names=outputs,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence two messages that users cannot act on."""
    # torch reports for each operator of torchvision that it is not installed.
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.13 itself calls functions that it deprecates.
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec")
            yield
    finally:
        log.setLevel(level)
