"""Maxima of strided slices as the pooling that they are.

`models.pooling` takes the maximum of four slices, whose gradient is fast; a runtime
that is told so slices four times. Told that it is a window, it has a kernel for it.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core


class _Slices(NamedTuple):
    """A maximum of slices of one value.

    Attributes:
      source: the value.
      starts: where each slice begins.
      strides: of all of them.
    """

    source: core.Var
    starts: frozenset[tuple[int, ...]]
    strides: tuple[int, ...]


def pooled(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns `f` with each maximum of slices that fill a window as one pooling.

    The result is the same to the last bit. Slices inside of loops and calls are left.

    Args:
      f: pure, of one array.
    """

    def run(x):
        closed, shape = jax.make_jaxpr(f, return_shape=True)(x)
        jaxpr = closed.jaxpr
        env: dict[core.Var, Any] = {}
        env.update(zip(jaxpr.constvars, closed.consts, strict=True))
        env.update(zip(jaxpr.invars, [x], strict=True))
        known: dict[core.Var, _Slices] = {}

        def read(atom):
            return atom.val if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            found = _slices(eqn, known)
            if found is not None:
                known[eqn.outvars[0]] = found
            if found is not None and _fills(found, eqn.outvars[0].aval.shape):
                outs = _pool(env[found.source], found.strides)
            else:
                params = eqn.primitive.get_bind_params(eqn.params)
                outs = eqn.primitive.bind(*map(read, eqn.invars), **params)
            outs = outs if eqn.primitive.multiple_results else [outs]
            env.update(zip(eqn.outvars, outs, strict=True))
        return jax.tree.unflatten(jax.tree.structure(shape), map(read, jaxpr.outvars))

    return run


def _slices(eqn: core.JaxprEqn, known: dict[core.Var, _Slices]) -> _Slices | None:
    """Returns what an equation is the maximum of, if slices of one value."""
    if eqn.primitive.name == "slice" and eqn.params["strides"] is not None:
        (source,) = eqn.invars
        starts = frozenset([tuple(eqn.params["start_indices"])])
        return _Slices(source, starts, tuple(eqn.params["strides"]))
    if eqn.primitive.name != "max":
        return None
    a, b = (None if isinstance(v, core.Literal) else known.get(v) for v in eqn.invars)
    if a is None or b is None or (a.source, a.strides) != (b.source, b.strides):
        return None
    return a._replace(starts=a.starts | b.starts)


def _fills(found: _Slices, shape: tuple[int, ...]) -> bool:
    """Returns whether slices fill all windows, side by side from the start."""
    lengths = found.source.aval.shape
    whole = tuple(n // s for n, s in zip(lengths, found.strides, strict=True))
    window = itertools.product(*map(range, found.strides))
    return len(found.starts) > 1 and whole == shape and found.starts == set(window)


def _pool(x: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    least = -np.inf if floating else jnp.iinfo(x.dtype).min
    # A number of NumPy's: of a traced one nobody knows that it is the least.
    return lax.reduce_window(
        x, np.asarray(least, x.dtype), lax.max, strides, strides, "VALID"
    )
