"""Equations of constants alone, computed as the program is exported.

NumPy does what is common: JAX would compile each operation for each shape.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.values import Codes, Const

_FLOATS: dict[str, Callable[..., np.ndarray]] = {
    "div": np.divide,
    "exp": np.exp,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sqrt": np.sqrt,
}
_ELEMENTS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "neg": np.negative,
    "square": np.square,
    "sub": np.subtract,
}
# What keeps the whole numbers that a weight is made of.
_SAME = ("copy", "copy_p", "stop_gradient")


def fold(
    graph: Graph, eqn: core.JaxprEqn, values: list[Const], out: Any
) -> Const | list[Const]:
    """Returns the results of an equation whose operands are known.

    Raises:
      UserError: it makes an array whose size depends on the batch out of others.
    """
    name, params = eqn.primitive.name, eqn.params
    arrays = [v.array for v in values]
    if name in _SAME:
        return values[0]
    if any(jax.dtypes.issubdtype(v.dtype, jax.dtypes.extended) for v in (*values, out)):
        return _bound(eqn, arrays)
    shape, dtype = tuple(out.shape), np.dtype(out.dtype)
    table = _ELEMENTS
    if dtype.kind == "f" and all(a.dtype.kind == "f" for a in arrays):
        table = {**_FLOATS, **_ELEMENTS}
    if name in table and dtype.kind in "fi":
        found = np.asarray(table[name](*arrays), dtype)
        return Const(_ranked(found, shape), shape)
    if name == "broadcast_in_dim":
        return Const(_broadcast(arrays[0], params, shape), shape)
    if name == "convert_element_type":
        return Const(arrays[0].astype(dtype), shape)
    if any(not isinstance(n, int) for v in (*values, out) for n in v.shape):
        raise graph.fail(
            f"{name} makes a constant of shape {shape}", "give it a fixed length"
        )
    arrays = [np.broadcast_to(v.array, v.shape) for v in values]
    if name == "iota":
        along = [-1 if i == params["dimension"] else 1 for i in range(len(shape))]
        count = np.arange(shape[params["dimension"]]).astype(dtype)
        return Const(np.broadcast_to(count.reshape(along), shape), shape)
    if name == "reshape" and params["dimensions"] is None:
        return Const(arrays[0].reshape(shape), shape)
    if name == "transpose":
        return _transposed(values[0], params["permutation"], shape)
    if name == "concatenate":
        return Const(np.concatenate(arrays, params["dimension"]), shape)
    return _bound(eqn, [jnp.asarray(array) for array in arrays])


def _bound(eqn: core.JaxprEqn, arrays: list[Any]) -> Const | list[Const]:
    """Returns what JAX computes; keys of random numbers stay arrays of its own."""
    params = eqn.primitive.get_bind_params(eqn.params)
    found = eqn.primitive.bind(*arrays, **params)
    found = found if eqn.primitive.multiple_results else [found]
    found = [
        x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) else np.asarray(x)
        for x in found
    ]
    found = [Const(x, np.shape(x)) for x in found]
    return found if eqn.primitive.multiple_results else found[0]


def _transposed(value: Const, axes: tuple[int, ...], shape: tuple[Any, ...]) -> Const:
    """Returns a constant with its axes in another order, and what it is made of."""
    codes, blocks = value.codes, value.blocks
    return value._replace(
        array=value.array.transpose(axes),
        shape=shape,
        codes=codes and Codes(*(x.transpose(axes) for x in codes)),
        blocks=blocks and blocks.turned(lambda x: x.transpose(axes)),
    )


def _ranked(array: np.ndarray, shape: tuple[Any, ...]) -> np.ndarray:
    """Returns an array of the rank of `shape`; it may still have to be repeated."""
    return array.reshape((1,) * (len(shape) - array.ndim) + array.shape)


def _broadcast(
    array: np.ndarray, params: dict[str, Any], shape: tuple[Any, ...]
) -> np.ndarray:
    """Returns the array with axes of length 1 for those it is to be repeated along."""
    lengths = [1] * len(shape)
    for axis, n in zip(params["broadcast_dimensions"], array.shape, strict=True):
        lengths[axis] = n
    return array.reshape(lengths)
