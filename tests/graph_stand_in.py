"""What stands for a CUDA graph where there is no GPU."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

from lit_crl.training.graphs.capture import Rows, _kept

aten = torch.ops.aten
#: What needs a number on the host, or makes a tensor whose shape depends on numbers.
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.is_nonzero,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.repeat_interleave,
    aten.lift_fresh,  # a tensor of numbers from the host
}


class NoWaiting(TorchDispatchMode):
    """Refuses what makes a program wait for a GPU, and random numbers of unknown streams."""

    def __init__(self, generators: Sequence[Generator] = ()) -> None:
        super().__init__()
        self.generators = generators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in WAITING:
            raise AssertionError(f"{func} waits for the device")
        if func.overloadpacket in (aten.index, aten.index_put_, aten.index_put):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{func} with a mask waits for the device"
        if torch.Tag.nondeterministic_seeded in func.tags and "dropout" not in str(func):
            # It comes here in another Python object.
            seed = None if (given := kwargs.get("generator")) is None else given.initial_seed()
            known = [generator.initial_seed() for generator in self.generators]
            assert seed in known, f"{func} draws by itself"
        return func(*args, **kwargs)


class StandIn:
    """The ``Capture`` of tests: each launch does the work anew, into the results of the first."""

    def __init__(self) -> None:
        self.recorded: list[str] = []
        self.launches = 0
        #: Forbids waiting; torch compiles nothing while something watches all operations.
        self.watch: Callable[[Sequence[Generator]], Any] = NoWaiting

    def __call__(
        self,
        work: Callable[[], Any],
        held: Sequence[Tensor | Rows],
        generators: Sequence[Generator],
        name: str,
    ) -> Callable[[], Any]:
        self.recorded.append(name)
        with _kept(held, generators):
            work()
        with _kept(held, generators), self.watch(generators):
            results = work()
        tensors = [one for one in held if isinstance(one, Tensor)]
        addresses = [tensor.data_ptr() for tensor in tensors]

        def launch() -> Any:
            self.launches += 1
            assert [tensor.data_ptr() for tensor in tensors] == addresses
            with self.watch(generators):
                new = work()
            for mine, given in zip(tree.tree_leaves(results), tree.tree_leaves(new), strict=True):
                assert mine.shape == given.shape and mine.dtype == given.dtype
                mine.copy_(given)
            return results

        return launch
