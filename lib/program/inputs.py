"""What meets each weight: statistics of the inputs, laid out as the kernel's rows.

Wanda, SparseGPT and activation-weighted factors ask what a kernel is multiplied with.
Each parameter is followed from the arguments of the traced program to the contractions
that it enters unchanged, and so is the place of each of its elements, through any
reshape or transposition on the way. The other operand is the input.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, tree
from lib.program.interpreter import execute
from lib.program.meets import Meeting, meetings
from lib.program.rows import rows
from lib.program.sites import Missed, read

Stat = Callable[[jax.Array], Any]  # [rows, contraction] -> a pytree of arrays


def square_norm(x: jax.Array) -> jax.Array:
    """Returns the sum over the rows of `x**2`: float32 `[contraction]`."""
    return jnp.sum(jnp.square(x.astype(jnp.float32)), axis=0)


def gram(x: jax.Array) -> jax.Array:
    """Returns `x^T x`, float32 `[contraction, contraction]`: the rows' second moments.

    Half the Hessian of the squared error of the contraction's output, for each output.
    """
    x = x.astype(jnp.float32)
    return jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST)


def inputs(
    f: Callable[..., Any], stat: Stat, *, pattern: str = "."
) -> Callable[..., dict[str, Any]]:
    """Returns a function of f's arguments that returns `{path: stat(input)}`.

    Of every weight that enters contractions as it is: through casts between floats,
    reshapes, transpositions and calls, but through no arithmetic. `unfed` lists the
    others with the reasons.

    `stat` is given the input of one contraction as `x` `[rows, contraction]`, where
    `x @ kernel.reshape(contraction, -1)` is what the layer computes: the columns are
    in the order of the kernel's leading axes, flattened. Those are all axes but the
    last of a dense kernel `[in, out]` or a convolution's `[h, w, in, out]`, where the
    rows are patches, zeros of the padding included, and of `[heads, head, out]`, that
    of attention's output; but `in` alone of a projection `[in, heads, head]`.

    The statistics add up: of a weight that meets several inputs, at several places or
    in each turn of a scan, the result is the sum over them. Where a scan gives each
    turn a slice of the weight (`nn.scan` with a variable axis 0), there is one
    statistic a slice: a leading axis of the scan's length, as the weight's. Of a
    convolution in groups (depthwise: one a channel) there is one a group, with `x`
    `[rows, h * w * in / groups]`: an axis of their number, after those of scans.

    Args:
      f: pure, `f(params, *args, **kwargs)`.
      stat: additive over rows, such as `square_norm` and `gram`.
      pattern: regular expression over paths of the weights to look at.

    Raises:
      UserError: when the result is called: the pattern matches no weight.
    """

    def found(*args, **kwargs):
        program = read(f, args, kwargs)
        paths = tree.match([pattern], _paths(args[0]))
        met, _ = meetings(program, args[0])
        met = {site: m for site, m in met.items() if m.path in paths}

        def step(site, lhs, rhs, bind, feed):
            del feed
            record = None
            if site.name in met:
                x = rows(site, lhs, rhs, met[site.name])
                record = stat(x) if x.ndim == 2 else jax.vmap(stat)(x)
            return bind(lhs, rhs), record

        _, records = execute(program, step, {})
        return _by_path(records, met, paths)

    return functools.wraps(f)(found)


def _paths(params: Any) -> list[str]:
    return list(tree.flatten(params))


def _by_path(
    records: dict[str, Any], met: dict[str, Meeting], paths: Iterable[str]
) -> dict[str, Any]:
    """Returns the sum of each weight's records, in the order of `paths`."""
    sums: dict[str, Any] = {}
    for site, record in records.items():
        whole = tuple(i for i, sliced in enumerate(met[site].sliced) if not sliced)
        record = jax.tree.map(lambda x, whole=whole: jnp.sum(x, axis=whole), record)
        path = met[site].path
        if path in sums:
            record = jax.tree.map(jnp.add, sums[path], record)
        sums[path] = record
    return {path: sums[path] for path in paths if path in sums}


def unfed(f: Callable[..., Any], *, pattern: str = ".") -> Callable[..., list[Missed]]:
    """Returns a function of f's arguments that lists the weights `inputs` leaves out.

    Each under its path, with the contraction that could not be read, if one was found,
    and the reason. Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.
    """

    def listing(*args, **kwargs):
        program = read(f, args, kwargs)
        met, refused = meetings(program, args[0])
        seen = {m.path for m in met.values()}
        closed = "".join(f"; not entered: {m.name} ({m.why})" for m in program.missed)
        why = f"enters no contraction as it is{closed}"
        return [
            refused.get(path, Missed(path, "", why))
            for path in tree.match([pattern], _paths(args[0]))
            if path not in seen
        ]

    return listing


def accumulate(
    f: Callable[..., Any],
    stat: Stat,
    params: Any,
    batches: Iterable[tuple[Any, ...]],
    *,
    pattern: str = ".",
    **kwargs: Any,
) -> dict[str, Any]:
    """Returns `{path: the sum over the batches of inputs(f, stat)}`.

    Compiled once for each shape of batch. All examples count, so leave out padding.

    Args:
      f: pure, called as `f(params, *batch, **kwargs)`.
      stat: as for `inputs`.
      params: its first argument.
      batches: tuples of the positional arguments that follow; read once.
      pattern: as for `inputs`.
      **kwargs: passed on to `f`; what is no array is static.

    Raises:
      UserError: there are no batches, an input holds NaN or infinity, or the pattern
        matches no weight.
    """
    one = jax.jit(inputs(functools.partial(f, **kwargs), stat, pattern=pattern))
    total = None
    for batch in batches:
        new = one(params, *batch)
        total = new if total is None else jax.tree.map(jnp.add, total, new)
    if total is None:
        raise errors.UserError("statistics of inputs: got no batches, expected one")
    for path, found in total.items():
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(found)):
            raise errors.UserError(f"the input of {path} holds NaN or infinity")
    return {path: total[path] for path in _paths(params) if path in total}
