"""Functions of tensors as flat lists of operations, without the Python code that led to them.

Modules, closures and gradients cost small networks more time than the operations that they lead to.
A list that was recorded once does without them. It needs no compiler, and computes the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node, map_arg
from torch.fx.experimental.proxy_tensor import make_fx

_aten = torch.ops.aten
#: Operations that only look at a tensor in another way.
_VIEWS = {
    _aten.alias.default,
    _aten.detach.default,
    _aten.expand.default,
    _aten.permute.default,
    _aten.select.int,
    _aten.slice.Tensor,
    _aten.split.Tensor,
    _aten.split_with_sizes.default,
    _aten.squeeze.dim,
    _aten.t.default,
    _aten.transpose.int,
    _aten.unbind.int,
    _aten.unsqueeze.default,
    _aten.view.default,
}


def traced(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """The operations of ``function`` as a function of tensors in the shapes of ``inputs``.

    Recording runs ``function`` once. Other tensors that it reads, or changes in place, are those
    that its operations read and change, too: they must stay where they are.

    Raises:
        RuntimeError: If the next operation depends on what a tensor holds.
    """
    module = make_fx(function)(*inputs)
    look_once(module)
    drop_round_trips(module.graph)
    module.graph.eliminate_dead_code()
    call_directly(module.graph)
    module.recompile()
    # As plain attributes tensors are found ten times as fast as as buffers of a module.
    vars(module).update(module.named_buffers())
    recorded: Callable[..., Any] = module.forward
    return recorded


def look_once(module: GraphModule) -> None:
    """Look at the module's own tensors now, and not again in each call."""
    known: dict[Node, Any] = {}
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
        elif is_view(node) and all(source in known for source in node.all_input_nodes):
            args, kwargs = map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = seen = node.target(*args, **kwargs)
            if isinstance(seen, Tensor):
                name = f"{node.name}_of_constant"
                module.register_buffer(name, seen, persistent=False)
                with module.graph.inserting_before(node):
                    constant = module.graph.get_attr(name)
                known[constant] = seen
                node.replace_all_uses_with(constant)


def drop_round_trips(graph: Graph) -> None:
    """Use a matrix itself in the place of its transpose's transpose, and of its detached alias."""
    for node in graph.nodes:
        if node.target in (_aten.detach.default, _aten.alias.default):
            node.replace_all_uses_with(node.args[0])
        source = node.args[0] if node.target is _aten.t.default else None
        if isinstance(source, Node) and source.target is _aten.t.default:
            node.replace_all_uses_with(source.args[0])


def call_directly(graph: Graph) -> None:
    """Call operations as users of torch do, which takes a half of the time of ``torch.ops``."""
    for node in graph.nodes:
        if isinstance(node.target, OpOverload):
            node.target = direct(node.target)


def direct(operation: OpOverload) -> Callable[..., Any]:
    """The function of ``torch`` or ``Tensor`` for an operation or, without one, its own in C++.

    >>> direct(torch.ops.aten.mm.default) is torch.mm
    True
    """
    _, name = operation._schema.name.split("::")
    for owner in (torch, Tensor):
        function = getattr(owner, name, None)
        # Functions in Python may mean something else by the same name.
        if isinstance(function, BuiltinFunctionType | MethodDescriptorType):
            return function
    nameless: Any = partial(operation._op)
    nameless.__name__, nameless.__module__ = name, __name__
    unnamed: Callable[..., Any] = nameless
    return unnamed


def is_view(node: Node) -> bool:
    """Whether a node looks at a tensor in another way, or picks one of several such views."""
    is_pick = getattr(node.target, "__name__", "") == "getitem"
    return node.op == "call_function" and (is_pick or node.target in _VIEWS)
