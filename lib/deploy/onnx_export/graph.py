"""A graph under construction: nodes, initialisers, and the order of stored axes."""

from typing import Any, NamedTuple

import jax
import numpy as np

from lib import errors
from lib.deploy.onnx_export import packages
from lib.deploy.onnx_export.values import Const, Shape, Tensor, Value

# Opset 21 adds nothing that is used here, and ONNX Runtime had errors with its Q/DQ.
OPSET = 20
IR_VERSION = 9  # that of opset 20
# Operators that are not ONNX's own, and whose they are.
DOMAINS = {"MatMulNBits": "com.microsoft"}
BATCH = "batch"


class Node(NamedTuple):
    """An operation; equal ones are one node."""

    op: str
    inputs: tuple[str, ...]
    attributes: tuple[tuple[str, Any], ...]


class Graph:
    """Nodes in the order in which they run, each with one output.

    Attributes:
      nodes: {name of the output: node}.
      arrays: {name: NumPy array}, the initialisers.
      scope: name stack of the equation that is exported; nodes are named by it.
    """

    def __init__(self, batch_source: str) -> None:
        """Takes the name of an input whose first axis is the batch."""
        self.nodes: dict[str, Node] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.scope = ""
        self._batch_source = batch_source
        self._outputs: dict[Node, str] = {}
        self._consts: dict[Any, str] = {}
        self._made = 0  # nodes so far
        self._further: dict[str, tuple[str, ...]] = {}  # of nodes of several outputs

    def fail(self, what: str, instead: str) -> errors.UserError:
        """Returns the error that something in the current scope cannot be exported."""
        where = self.scope or "the top level of the function"
        return errors.UserError(f"ONNX export: {what} at {where}; {instead}")

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node, unless an equal one is there; returns its output's name."""
        items = tuple(
            (k, tuple(v) if isinstance(v, list) else v)
            for k, v in sorted(attributes.items())
        )
        node = Node(op, inputs, items)
        if node not in self._outputs:
            # Never one that a node had before: nodes are taken out again.
            name = f"{self.scope}/{op}_{self._made}".lstrip("/")
            self._made += 1
            self._outputs[node] = name
            self.nodes[name] = node
        return self._outputs[node]

    def has(self, op: str, *inputs: str) -> bool:
        """Returns whether a node without attributes is there already."""
        return Node(op, inputs, ()) in self._outputs

    def nodes_of(self, op: str, *inputs: str, further: tuple[str, ...]) -> list[str]:
        """Adds a node of several outputs; returns their names.

        Args:
          op: the operator.
          *inputs: names.
          further: what is appended to the first name for each further output.
        """
        first = self.node(op, *inputs)
        self._further[first] = tuple(first + end for end in further)
        return [first, *self._further[first]]

    def array(self, array: Any, dtype: Any = None) -> str:
        """Returns the name of an initialiser; equal arrays are stored once."""
        array = np.asarray(array, dtype)
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._consts:
            name = f"{self.scope}/const_{len(self.arrays)}".lstrip("/")
            self._consts[key] = name
            self.arrays[name] = array
        return self._consts[key]

    def force(self, value: Value) -> Const | Tensor:
        """Returns the value, with a pending one brought into the graph."""
        return value if isinstance(value, Const | Tensor) else value.force(self)

    def stored(self, value: Value, order: tuple[int, ...]) -> str:
        """Returns the name of the value with its axes stored in this order."""
        value = self.force(value)
        if isinstance(value, Const):
            return self.array(value.array.transpose(order))
        if value.order == order:
            return value.name
        steps = [value.order.index(axis) for axis in order]
        return self.node("Transpose", value.name, perm=steps)

    def plain(self, value: Value) -> str:
        """Returns the name of the value stored as the program has it, expanded."""
        name = self.stored(value, tuple(range(len(value.shape))))
        if isinstance(value, Const) and value.array.shape != value.shape:
            name = self.expand(name, value.shape)
        return name

    def expand(self, name: str, shape: Shape) -> str:
        """Returns the name of a value, stored plainly, repeated to `shape`."""
        return self.node("Expand", name, self.lengths(shape))

    def lengths(self, shape: Shape) -> str:
        """Returns the name of a shape as a 1-D tensor; it may hold the batch."""
        if all(isinstance(n, int) for n in shape):
            return self.array(shape, np.int64)
        parts = []
        for n in shape:
            if isinstance(n, int):
                parts.append(self.array([n], np.int64))
            elif str(n) == BATCH:
                parts.append(self.node("Shape", self._batch_source, start=0, end=1))
            else:
                raise self.fail(
                    f"an array is repeated {n} times", "repeat it a fixed number"
                )
        return self.node("Concat", *parts, axis=0)

    def reshape(self, name: str, shape: Shape) -> str:
        """Returns the name of a value, stored plainly, seen in another shape."""
        target = [n if isinstance(n, int) else -1 for n in shape]
        if target.count(-1) > 1:
            raise self.fail(
                f"a reshape to {shape} has two lengths that depend on the batch",
                "keep the batch on one axis",
            )
        return self.node("Reshape", name, self.array(target, np.int64))

    def kind(self, dtype: Any) -> int:
        """Returns ONNX's number for a dtype."""
        helper = packages.require("onnx").helper
        try:
            return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        except KeyError as e:
            raise self.fail(f"dtype {dtype} has no ONNX type", "convert it") from e

    def model(self, inputs: list[Tensor], outputs: list[tuple[str, Value]]) -> Any:
        """Returns the `ModelProto`, without what no output needs.

        Args:
          inputs: of the graph.
          outputs: each name with its value.
        """
        onnx = packages.require("onnx")
        helper = onnx.helper
        named = []
        for name, value in outputs:
            self.nodes[name] = Node("Identity", (self.plain(value),), ())
            named.append(self._info(helper, name, value))
        kept = self._needed([name for name, _ in outputs])
        nodes = [
            helper.make_node(
                n.op,
                list(n.inputs),
                [out, *self._further.get(out, ())],
                name=out,
                domain=DOMAINS.get(n.op, ""),
                **dict(n.attributes),
            )
            for out, n in self.nodes.items()
            if out in kept
        ]
        graph = helper.make_graph(
            nodes,
            "pare",
            [self._info(helper, x.name, x) for x in inputs],
            named,
            [
                onnx.numpy_helper.from_array(array, name)
                for name, array in self.arrays.items()
                if name in kept
            ],
        )
        return helper.make_model(
            graph,
            producer_name="pare",
            opset_imports=[
                helper.make_opsetid(domain, OPSET if not domain else 1)
                for domain in sorted({"", *(node.domain for node in nodes)})
            ],
            ir_version=IR_VERSION,
        )

    def prune(self, outputs: list[str]) -> None:
        """Drops the nodes that these values do not need."""
        kept = self._needed(outputs)
        self.nodes = {name: node for name, node in self.nodes.items() if name in kept}

    def _info(self, helper: Any, name: str, value: Value) -> Any:
        kind = self.kind(value.dtype)
        shape = [n if isinstance(n, int) else str(n) for n in value.shape]
        return helper.make_tensor_value_info(name, kind, shape)

    def _needed(self, outputs: list[str]) -> set[str]:
        """Returns the names that the outputs depend on."""
        needed, open_ = set(), list(outputs)
        first = {name: out for out, more in self._further.items() for name in more}
        while open_:
            name = open_.pop()
            name = first.get(name, name)
            if name not in needed:
                needed.add(name)
                open_ += self.nodes[name].inputs if name in self.nodes else ()
        return needed


def symbol() -> Any:
    """Returns the symbolic length of the batch."""
    return jax.export.symbolic_shape(BATCH)[0]
