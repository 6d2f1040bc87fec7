"""Reads from the graph of a traced function which convolutions it runs, and how often.

So the list is what really runs, not what someone remembers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

# The only way to get the graph of a loop's or a branch's body, whose shapes are needed.
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from benchmarks.convolutions import Convolution, total_flop
from cbsn.errors import ConfigError

_OPS = {
    "Conv2D": "forward",
    "_FusedConv2D": "forward",
    "Conv2DBackpropInput": "input gradient",
    "Conv2DBackpropFilter": "filter gradient",
}
_OTHER_PRODUCTS = ("Conv", "MatMul", "Einsum")
"""Parts of the names of operations that are rejected, as they would be missing from the sum."""
_MOST_ROUNDS = 1000
"""If a loop runs more often, its end counts as not found."""


def find_convolutions(function: Any) -> Counter[Convolution]:
    """Returns the convolutions that a traced function runs, and how often each runs.

    Args:
        function: a concrete TensorFlow function. Whatever its outputs and side effects do not
            need is omitted, as TensorFlow itself prunes it (for instance, the gradient with respect
            to the first layer's input). A called function counts in full, an `if` by its branch
            with more operations, a loop as often as it runs.

    Raises:
        ConfigError: if a shape or the number of a loop's rounds is unknown, or if the function
            multiplies by other means than 2-D convolutions.
    """
    graph = function.graph
    library = {f.signature.name: f for f in graph.as_graph_def(add_shapes=True).library.function}

    def body(name: str) -> tf.Graph:
        with graph.as_default():  # the functions that it calls in turn are looked up there
            return function_def_to_graph(library[name])

    def collect(inner: tf.Graph) -> Counter[Convolution]:
        found: Counter[Convolution] = Counter()
        for op in _needed([*(tensor.op for tensor in inner.outputs), *inner.control_outputs]):
            if op.type in _OPS:
                found[_convolution(op)] += 1
            elif any(part in op.type for part in _OTHER_PRODUCTS):
                raise ConfigError(
                    "The roofline is made of 2-D convolutions only; have find_convolutions count "
                    f"this operation, too. Received: {op.type} {op.name}"
                )
            bodies = [body(name) for name in _functions(op) if name in library]
            inside = [collect(each) for each in bodies]
            if not any(inside):
                continue
            if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
                found.update(inside[0])
            elif op.type in ("If", "StatelessIf"):
                found.update(max(inside, key=total_flop))
            elif op.type in ("While", "StatelessWhile"):
                rounds = _rounds(op, *bodies)
                found.update({each: n * rounds for each, n in inside[1].items()})
            else:
                raise ConfigError(f"How often {op.type} {op.name} runs its convolutions is unknown")
        return found

    return collect(graph)


def _needed(pending: Iterable[tf.Operation]) -> Iterator[tf.Operation]:
    """Yields the given operations and all operations they depend on."""
    pending, seen = [*pending], set()
    while pending:
        op = pending.pop()
        if op.name not in seen:
            seen.add(op.name)
            yield op
            pending += [*(tensor.op for tensor in op.inputs), *op.control_inputs]


def _functions(op: tf.Operation) -> Iterator[str]:
    """Yields the names of the functions that an operation calls, a loop's condition first."""
    for attribute in sorted(op.op_def.attr, key=lambda attribute: attribute.name != "cond"):
        if attribute.type == "func":
            yield op.get_attr(attribute.name).name
        elif attribute.type == "list(func)":
            yield from (function.name for function in op.get_attr(attribute.name))


def _convolution(op: tf.Operation) -> Convolution:
    kind = _OPS[op.type]
    image, kernel, output = {
        "forward": lambda: (op.inputs[0], op.inputs[1], op.outputs[0]),
        "input gradient": lambda: (op.outputs[0], op.inputs[1], op.inputs[2]),
        "filter gradient": lambda: (op.inputs[0], op.outputs[0], op.inputs[2]),
    }[kind]()
    names = ("strides", "padding", "explicit_paddings", "dilations")
    attributes = {name: _plain(op.get_attr(name)) for name in names}
    return Convolution(
        kind,
        *(_shape(tensor) for tensor in (image, kernel, output)),
        kernel.dtype.name,
        tuple(attributes.items()),
    )


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else tuple(value)


def _shape(tensor: tf.Tensor) -> tuple[int, ...]:
    if not tensor.shape.is_fully_defined():
        raise ConfigError(
            "The shapes of all convolutions must be known when the function is traced. "
            f"Received: {tensor.shape} of {tensor.op.type} {tensor.op.name}"
        )
    return tuple(tensor.shape.as_list())


def _rounds(op: tf.Operation, condition: tf.Graph, body: tf.Graph) -> int:
    """Returns how often a loop runs, by following its condition's inputs from round to round."""
    check, following = _value(condition.outputs[0]), [_value(tensor) for tensor in body.outputs]
    places = _inputs(condition, [check])
    while not places >= (more := _inputs(body, [following[i] for i in places])):
        places |= more  # and what these are computed from, in turn
    values = {i: tf.get_static_value(op.inputs[i]) for i in places}
    if all(value is not None for value in values.values()):
        with (
            tf.compat.v1.Session(graph=condition) as checking,
            tf.compat.v1.Session(graph=body) as advancing,
        ):
            for rounds in range(_MOST_ROUNDS):
                if not checking.run(check, _feed(condition, values)):
                    return rounds
                values = advancing.run({i: following[i] for i in places}, _feed(body, values))
    raise ConfigError(f"How often the loop {op.name} runs cannot be read from the graph")


def _value(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the source of a copied tensor; a copy at a body's end waits for the whole body."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _inputs(graph: tf.Graph, tensors: list[tf.Tensor]) -> set[int]:
    """Returns the positions of the function's inputs that the tensors are computed from."""
    places = {tensor.op.name: i for i, tensor in enumerate(graph.inputs)}
    needed = _needed([tensor.op for tensor in tensors])
    return {places[op.name] for op in needed if op.name in places}


def _feed(graph: tf.Graph, values: dict[int, Any]) -> dict[str, Any]:
    return {graph.inputs[i].name: value for i, value in values.items()}
