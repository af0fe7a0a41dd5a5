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


def makes_wait(func: Any, args: Any) -> bool:
    """Whether an operation makes a program wait for a GPU: of its own, or by a mask of rows."""
    if func.overloadpacket in WAITING:
        return True
    if func.overloadpacket not in (aten.index, aten.index_put_, aten.index_put):
        return False
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


class Waits(TorchDispatchMode):
    """Counts what makes a program wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += makes_wait(func, args)
        return func(*args, **(kwargs or {}))


class NoWaiting(TorchDispatchMode):
    """Refuses what makes a program wait for a GPU, and random numbers of unknown streams.

    It keeps a trace of all that a graph would hold for ever: the operations, their numbers, the
    shapes of their tensors, and where those lie that were there before.

    Args:
        generators: Those that may be drawn from; None: all but torch's own.
    """

    def __init__(self, generators: Sequence[Generator] | None = ()) -> None:
        super().__init__()
        self.generators = generators
        self.trace: list[tuple[str, ...]] = []
        #: Addresses of tensors that were there before, and were changed.
        self.changed: set[int] = set()
        self._made: dict[int, Tensor] = {}  # by address, which nobody else gets as long as it is

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._refuse(func, args, kwargs)
        leaves = tree.tree_leaves((args, kwargs))
        self.trace.append((str(func), *map(self._constant, leaves)))
        self.changed |= {place(one) for one in written(func, args, kwargs)} - self._made.keys()
        taken = {place(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        results = func(*args, **kwargs)
        for result in tree.tree_leaves(results):
            if isinstance(result, Tensor) and place(result) not in taken:
                self._made[place(result)] = result
        return results

    def _constant(self, given: Any) -> str:
        """What a graph keeps of an argument."""
        if isinstance(given, Generator):
            return "generator"
        if not isinstance(given, Tensor):
            return repr(given)
        where = "made" if place(given) in self._made else given.data_ptr()
        return f"{where} {tuple(given.shape)} {given.dtype}"

    def _refuse(self, func: Any, args: Any, kwargs: Any) -> None:
        assert not makes_wait(func, args), f"{func} waits for the device"
        if torch.Tag.nondeterministic_seeded in func.tags and "dropout" not in str(func):
            # It comes here in another Python object.
            seed = None if (given := kwargs.get("generator")) is None else given.initial_seed()
            if self.generators is None:
                assert seed is not None, f"{func} draws from torch's own stream"
                return
            known = [generator.initial_seed() for generator in self.generators]
            assert seed in known, f"{func} draws by itself"


def written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation changes."""
    given = zip(func._schema.arguments, args, strict=False)
    pairs = [*given, *((one, kwargs.get(one.name)) for one in func._schema.arguments)]
    found = [arg for one, arg in pairs if one.alias_info is not None and one.alias_info.is_write]
    return [leaf for leaf in tree.tree_leaves(found) if isinstance(leaf, Tensor)]


def place(tensor: Tensor) -> int:
    """The address of a tensor's memory; views have that of what they are views of."""
    return tensor.untyped_storage().data_ptr()


class StandIn:
    """The ``Capture`` of tests: each launch does the work anew, into the results of the first.

    A graph would do what was recorded. So a launch whose work is another one is refused: one with
    another number, or with tensors in other places.
    """

    def __init__(self) -> None:
        self.recorded: list[str] = []
        self.launches = 0
        #: Watches all operations; None where torch compiles, which it does not while that happens.
        self.watch: type[NoWaiting] | None = NoWaiting

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
        with _kept(held, generators):
            results, recorded, changed = self._watched(work, generators)
        known = {place(one if isinstance(one, Tensor) else one.field) for one in held}
        assert changed <= known, f"recording the {name} would have a lasting effect"

        def launch() -> Any:
            self.launches += 1
            new, trace, _ = self._watched(work, generators)
            assert len(trace) == len(recorded)
            for now, then in zip(trace, recorded, strict=True):
                assert now == then, f"the graph of {name} would do {then}, and not {now}"
            for mine, given in zip(tree.tree_leaves(results), tree.tree_leaves(new), strict=True):
                assert mine.shape == given.shape and mine.dtype == given.dtype
                mine.copy_(given)
            return results

        return launch

    def _watched(
        self, work: Callable[[], Any], generators: Sequence[Generator]
    ) -> tuple[Any, list[tuple[str, ...]], set[int]]:
        if self.watch is None:
            return work(), [], set()
        with self.watch(generators) as watch:
            return work(), watch.trace, watch.changed
