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


def export(q_network: nn.Module, blueprint: Blueprint, path: Path) -> None:
    """Write the policy of ``q_network`` for batches of any size; see ``Policy.export``.

    Raises:
        ConfigError: If the file's name has another ending, or a package or folder is missing.
    """
    greedy = Greedy(copy.deepcopy(q_network).cpu(), blueprint.first_action)
    # Two observations: torch.export would take a batch of one for a constant size.
    obs = torch.tensor(blueprint.obs_space.low[None]).nan_to_num().repeat_interleave(2, dim=0)
    if path.suffix not in (".onnx", ".pt2"):
        raise ConfigError(f"cannot export to {path.name}: give a name that ends in .onnx or .pt2")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if path.suffix == ".onnx" and missing:
        raise ConfigError(f"ONNX needs {' and '.join(missing)}: pip install 'lit_crl[export]'")
    checks.writable(path)
    with _quiet():
        program = torch.export.export(
            greedy, (obs,), dynamic_shapes={"obs": {0: torch.export.Dim("batch")}}
        )
        if path.suffix == ".pt2":
            torch.export.save(program, path)
            return
        torch.onnx.export(
            program,
            f=path,
            input_names=["obs"],
            output_names=["action", "action_value"],
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
