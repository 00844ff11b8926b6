"""Primitives that map element by element -> ONNX nodes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

from lib.deploy.onnx_export.aligned import emit
from lib.deploy.onnx_export.contraction import Contraction
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.means import PlaceSum
from lib.deploy.onnx_export.values import Const, Tensor, Value
from lib.deploy.onnx_export.windows import Windows

Params = dict[str, Any]

# primitive -> the ONNX operator that takes the same operands.
DIRECT = {
    "abs": "Abs",
    "add": "Add",
    "add_any": "Add",
    "and": "And",
    "ceil": "Ceil",
    "cos": "Cos",
    "div": "Div",  # of integers it rounds towards 0, as JAX does
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
    "xor": "Xor",
}
_LOGICAL = ("and", "or", "not", "xor")


def direct(primitive: str) -> Callable[..., Value]:
    """Returns the rule of a primitive in `DIRECT`."""

    def rule(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
        del params
        op = DIRECT[primitive]
        if primitive in _LOGICAL and out.dtype != bool:
            op = "Bitwise" + op
        return emit(graph, out, values, lambda *names: graph.node(op, *names))

    return rule


def affine(primitive: str) -> Callable[..., Value]:
    """Returns the rule of add, sub, mul or div: constants go into a contraction.

    A sum over places that is divided by their number is a mean.
    """
    otherwise = direct(primitive)

    def rule(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
        for i, (x, c) in enumerate((values, values[::-1])):
            whole = isinstance(x, Contraction) and x.shape == tuple(out.shape)
            if whole and isinstance(c, Const):
                folded = x.folded(primitive, c, swapped=bool(i))
                if folded is not None:
                    return folded
        if primitive == "div" and isinstance(values[0], PlaceSum):
            mean = values[0].divided(graph, values[1])
            if mean is not None:
                return mean
        return otherwise(graph, params, values, out)

    return rule


def maximum(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """Joins the windows of a pooling; against zero it is a relu."""
    a, b = values
    if isinstance(a, Windows) and isinstance(b, Windows):
        joined = a.joined(b)
        if joined is not None:
            return joined
    for x, c in ((a, b), (b, a)):
        zero = isinstance(c, Const) and c.dtype.kind == "f" and not c.array.any()
        if zero and x.shape == out.shape:
            return emit(graph, out, [x], lambda name: graph.node("Relu", name))
    return direct("max")(graph, params, values, out)


def minimum(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """The lesser; of a relu and a positive number it is one operator, that of relu6."""
    for x, c in (values, values[::-1]):
        node = graph.nodes.get(x.name) if isinstance(x, Tensor) else None
        number = isinstance(c, Const) and c.array.size == 1 and c.dtype == np.float32
        if number and c.array.item() > 0 and node is not None and node.op == "Relu":
            zero, most = (graph.array(n, np.float32) for n in (0, c.array.item()))
            return x._replace(name=graph.node("Clip", *node.inputs, zero, most))
    return direct("min")(graph, params, values, out)


def square(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """The product with itself."""
    return emit(graph, out, values, lambda x: graph.node("Mul", x, x))


def one_minus_square(
    graph: Graph, params: Params, values: list[Value], out: Any
) -> Value:
    """(1 + x) (1 - x), which keeps the digits of x near 1; JAX 0.11 has it."""
    one = graph.array(1, out.dtype)

    def build(x: str) -> str:
        return graph.node("Mul", graph.node("Add", one, x), graph.node("Sub", one, x))

    return emit(graph, out, values, build)


def log2(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """The logarithm by that of 2; JAX 0.11 has it."""
    two = graph.array(math.log(2), out.dtype)

    def build(x: str) -> str:
        return graph.node("Div", graph.node("Log", x), two)

    return emit(graph, out, values, build)


def rsqrt(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """One over the root."""

    def build(x: str) -> str:
        return graph.node("Reciprocal", graph.node("Sqrt", x))

    return emit(graph, out, values, build)


def erfc(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """1 - erf; where it is tiny, digits are lost."""
    one = graph.array(1, out.dtype)

    def build(x: str) -> str:
        return graph.node("Sub", one, graph.node("Erf", x))

    return emit(graph, out, values, build)


def expm1(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """exp(x) - 1 = tanh(x / 2) (exp(x) + 1), which is exact for small x too."""
    one, half = graph.array(1, out.dtype), graph.array(0.5, out.dtype)

    def build(x: str) -> str:
        tanh = graph.node("Tanh", graph.node("Mul", x, half))
        return graph.node("Mul", tanh, graph.node("Add", graph.node("Exp", x), one))

    return emit(graph, out, values, build)


def log1p(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """The logarithm of 1 + x; of tiny x digits are lost."""
    one = graph.array(1, out.dtype)

    def build(x: str) -> str:
        return graph.node("Log", graph.node("Add", x, one))

    return emit(graph, out, values, build)


def remainder(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """Of a division rounded towards 0."""
    return emit(graph, out, values, lambda x, y: graph.node("Mod", x, y, fmod=1))


def not_equal(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """The opposite of equal."""

    def build(x: str, y: str) -> str:
        return graph.node("Not", graph.node("Equal", x, y))

    return emit(graph, out, values, build)


def integer_pow(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """A whole power: the small ones as products, which are faster than Pow."""
    y = params["y"]

    def build(x: str) -> str:
        if y == 2:
            return graph.node("Mul", x, x)
        if y == 3:
            return graph.node("Mul", graph.node("Mul", x, x), x)
        return graph.node("Pow", x, graph.array(y, out.dtype))

    return emit(graph, out, values, build)


def select(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """`where` of two cases; the last is that of True."""
    if len(values) != 3 or values[0].dtype != bool:
        raise graph.fail(
            "select_n has other than two cases", "write it as nested jnp.where"
        )
    which, no, yes = values
    return emit(graph, out, [which, yes, no], lambda *n: graph.node("Where", *n))


def clamp(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """The middle operand, no less than the first and no more than the last."""

    def build(low: str, x: str, high: str) -> str:
        return graph.node("Min", graph.node("Max", x, low), high)

    return emit(graph, out, values, build)


def rounded(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """The nearest whole number, of halves the even one."""
    if params["rounding_method"] != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise graph.fail("round takes halves away from zero", "use jnp.round")
    return emit(graph, out, values, lambda x: graph.node("Round", x))


def convert(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """Another dtype."""
    dtype = np.dtype(out.dtype)
    if values[0].dtype == dtype:
        return values[0]
    to = graph.kind(dtype)
    return emit(graph, out, values, lambda x: graph.node("Cast", x, to=to))


def precision(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """The value itself, where its dtype has no more digits than are kept."""
    kept, info = (params["exponent_bits"], params["mantissa_bits"]), np.finfo(out.dtype)
    if kept != (info.nexp, info.nmant):
        raise graph.fail("reduce_precision drops digits", "convert to another dtype")
    return values[0]


def same(graph: Graph, params: Params, values: list[Value], out: Any) -> Value:
    """The value itself."""
    return values[0]


def barrier(graph: Graph, params: Params, values: list[Value], out: Any) -> list[Value]:
    """The values themselves: ONNX Runtime does not reorder floats."""
    return values


RULES: dict[str, Callable[..., Any]] = {
    **{name: direct(name) for name in DIRECT},
    **{name: affine(name) for name in ("add", "sub", "mul", "div")},
    "clamp": clamp,
    "convert_element_type": convert,
    "copy": same,
    "copy_p": same,
    "erfc": erfc,
    "expm1": expm1,
    "integer_pow": integer_pow,
    "log1p": log1p,
    "log2": log2,
    "max": maximum,
    "min": minimum,
    "ne": not_equal,
    "one_minus_square": one_minus_square,
    "optimization_barrier": barrier,
    "reduce_precision": precision,
    "rem": remainder,
    "round": rounded,
    "rsqrt": rsqrt,
    "select_n": select,
    "square": square,
    "stop_gradient": same,
}
