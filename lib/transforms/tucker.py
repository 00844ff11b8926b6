"""Tucker-2: a convolution as 1x1, a small convolution in between, and 1x1.

`code`: `{"first", "core", "last"}` at the leaf's path, `state`: none, `decode`: their
product over the channels.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, representations
from lib.transforms import base, ranks
from lib.transforms.factorize import multiply

_SWEEPS = 5  # of HOOI; most of what it gains comes with the first


def compose(first: jax.Array, core: jax.Array, last: jax.Array) -> jax.Array:
    """Returns the kernel `[h, w, in, out]`, to the bit as `materialize` does."""
    first, core = lax.optimization_barrier((first, core))
    return multiply(jnp.einsum("ip,hwpq->hwiq", first, core), last)


def check_convolution(path: str, w, technique: str) -> None:
    """Raises a `UserError` unless the leaf is `[h, w, in, out]`."""
    if len(w.shape) != 4:
        raise errors.UserError(
            f"{technique}: {path} has shape {tuple(w.shape)}; expected a convolution "
            "[height, width, in, out], so aim by pattern (factorize takes matrices)"
        )


def spectrum(w: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Returns one side's energies, largest first, and its directions as columns.

    Args:
      w: a kernel, float32.
      axis: the side, of length n.

    Returns:
      squared singular values `[n]` and left singular vectors `[n, n]` of `w` seen as
      `[n, the rest]`.
    """
    side = jnp.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
    energies, directions = jnp.linalg.eigh(side @ side.T)
    return jnp.maximum(energies[::-1], 0), directions[:, ::-1]


@functools.partial(jax.jit, static_argnames=("rank_in", "rank_out"))
def tucker2(w: jax.Array, *, rank_in: int, rank_out: int, sweeps: int = _SWEEPS):
    """Returns first `[in, rank_in]`, core and last `[rank_out, out]` of a kernel.

    HOSVD: the leading directions of both sides (De Lathauwer et al. 2000a); each sweep
    of HOOI then fits either side to the other (De Lathauwer et al. 2000b), and the
    error never grows. `w` is float32; `sweeps` may be traced.
    """
    first = spectrum(w, 2)[1][:, :rank_in]
    last = spectrum(w, 3)[1][:, :rank_out].T

    def sweep(_, factors):
        _, last = factors
        first = spectrum(jnp.einsum("hwio,qo->hwiq", w, last), 2)[1][:, :rank_in]
        last = spectrum(jnp.einsum("hwio,ip->hwpo", w, first), 3)[1][:, :rank_out].T
        return first, last

    first, last = lax.fori_loop(0, sweeps, sweep, (first, last))
    core = jnp.einsum("hwio,ip,qo->hwpq", w, first, last)
    return first, core, last


def _count(shape: tuple[int, ...], rank_in: int, rank_out: int) -> int:
    """Returns how many weights the three factors hold."""
    height, width, inputs, outputs = shape
    core = height * width * rank_in * rank_out
    return inputs * rank_in + core + rank_out * outputs


def tucker(
    *,
    rank_in: int = 0,
    rank_out: int = 0,
    energy: float = 0.0,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Replaces convolutions by three: 1x1 in, a small core, 1x1 out.

    `w[h, w, i, o] = sum_pq first[i, p] core[h, w, p, q] last[q, o]` (Kim et al. 2016,
    arXiv 1511.06530, eq. 6). The factors come from HOSVD and a few sweeps of HOOI;
    `first` and `last` start orthonormal. Where Kim et al. estimate the ranks by VBMF,
    give them, or an energy; 0 is not given.

    With an energy `encode` reads the values and cannot be jitted, and a leaf that
    would gain weights stays whole.

    Args:
      rank_in: p, from 1 to the input channels of each leaf; with `rank_out`.
      rank_out: q, from 1 to the output channels of each leaf.
      energy: instead: share in (0, 1] of the squared singular values of each leaf to
        keep on either side. The error is at most `2 * (1 - energy)` of the square.
      pattern: regular expression over paths of the leaves to factorize.

    Raises:
      UserError: neither both ranks nor an energy alone, or one out of range; at
        `encode`, a pattern that matches nothing, a leaf without four axes, ranks
        beyond its channels or with which the factors hold more than the leaf.
    """
    ranks.whole(rank_in, "tucker: rank_in")
    ranks.whole(rank_out, "tucker: rank_out")
    ranks.share(energy, "tucker: energy")
    if (rank_in > 0) != (rank_out > 0) or (rank_in > 0) == (energy > 0):
        raise errors.UserError(
            "tucker: give rank_in and rank_out, or an energy, got "
            f"rank_in={rank_in}, rank_out={rank_out} and energy={energy}"
        )

    def check(weights) -> None:
        for path, w in weights.items():
            check_convolution(path, w, "tucker")
            if energy:
                continue
            inputs, outputs = w.shape[2:]
            if rank_in > inputs or rank_out > outputs:
                raise errors.UserError(
                    f"tucker: ranks {rank_in} and {rank_out} of {path} with shape "
                    f"{tuple(w.shape)}: at most its channels, {inputs} and {outputs}"
                )
            held = _count(w.shape, rank_in, rank_out)
            if held > math.prod(w.shape):
                raise errors.UserError(
                    f"tucker: at ranks {rank_in} and {rank_out} the factors of {path} "
                    f"with shape {tuple(w.shape)} hold {held} weights, more than its "
                    f"{math.prod(w.shape)}; lower them or aim by pattern"
                )

    def choose(w) -> tuple[int, int] | None:
        """Returns the ranks of a leaf, or None if it stays whole."""
        if not energy:
            return rank_in, rank_out
        if not math.prod(w.shape):
            return None
        wide = w.astype(jnp.float32)
        found = tuple(
            ranks.by_energy(np.asarray(spectrum(wide, axis)[0]), energy)
            for axis in (2, 3)
        )
        return found if _count(w.shape, *found) <= math.prod(w.shape) else None

    def encode(weights):
        check(weights)
        codes = dict(weights)
        for path, w in weights.items():
            chosen = choose(w)
            if chosen:
                wide = w.astype(jnp.float32)
                parts = tucker2(wide, rank_in=chosen[0], rank_out=chosen[1])
                names = ("first", "core", "last")
                codes[path] = {
                    name: x.astype(w.dtype)
                    for name, x in zip(names, parts, strict=True)
                }
        return codes, dict.fromkeys(weights, ())

    def decode(codes, states):
        del states
        return {
            p: compose(**code) if isinstance(code, Mapping) else code
            for p, code in codes.items()
        }

    def freeze(leaves, states):
        del states
        return {
            p: representations.Tucker(**below) if isinstance(below, Mapping) else below
            for p, below in leaves.items()
        }

    def outline(weights):
        check(weights)
        codes = {}
        for path, w in weights.items():
            inputs, outputs = w.shape[2:]
            shapes = {
                "first": (inputs, inputs),
                "core": w.shape,
                "last": (outputs, outputs),
            }
            codes[path] = {
                name: jax.ShapeDtypeStruct(shape, w.dtype)
                for name, shape in shapes.items()
            }
        return codes

    settings = f"rank_in={rank_in}, rank_out={rank_out}"
    return base.on_leaves(
        f"tucker({f'energy={energy}' if energy else settings})",
        pattern,
        encode,
        decode,
        freeze,
        outline=outline if energy else None,
    )
