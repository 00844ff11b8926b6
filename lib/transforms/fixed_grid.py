"""Weights on grids that were chosen once, by what rounds them for good.

`state`: of each leaf `{"bits", "scale", "zero", "mask"}`, which never moves; `decode`:
the latent weights' nearest points, straight through, so that training can go on from
there. What was 0 when it was encoded (mask False) stays 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, numerics, representations
from lib.transforms import base, ranges
from lib.transforms import granularity as granularities

RANGES = ("max", "mse")


class Grids(NamedTuple):
    """Which weights share a grid, and what it covers; the arguments of `quantize`.

    Attributes:
      name: of the technique, for messages.
      bits: 2 to 8; may be traced.
      symmetric: zero point 0; else an affine grid.
      granularity: one of `granularity.GRANULARITIES`.
      group: weights along the contraction that share a grid; 0 for none.
      range: one of `RANGES`.
    """

    name: str
    bits: int | jax.Array
    symmetric: bool
    granularity: str
    group: int
    range: str

    def check(self) -> None:
        """Raises a `UserError` for a field out of its range."""
        numerics.check_bits(self.bits, self.name)
        granularities.check(self.granularity, self.group, self.name)
        if self.range not in RANGES:
            raise errors.UserError(
                f"{self.name}: unknown range {self.range!r}; "
                f"{errors.hint(str(self.range), RANGES)}"
            )

    def how(self, *more: str) -> str:
        """Returns what `plan` says of the technique."""
        kind = "symmetric" if self.symmetric else "affine"
        per = f"group {self.group}" if self.group else self.granularity
        clipped = ["range mse"] if self.range == "mse" else []
        said = [f"bits={self.bits}", kind, f"per {per}", *clipped, *more]
        return f"{self.name}({', '.join(said)})"

    def fits(self, path: str, w: Any) -> None:
        """Raises a `UserError` for a leaf that groups do not divide, or of float16."""
        granularities.check_leaf(path, w, self.group, self.name)

    def seen(self, w: Any) -> Any:
        """Returns the weights such that their grids broadcast against them."""
        return granularities.seen(w, self.granularity, self.group)[0]

    def spread(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """Returns what broadcasts against `seen(w)`, of w's shape."""
        return jnp.broadcast_to(x, self.seen(w).shape).reshape(w.shape)

    def over(self, w: jax.Array, axes: tuple[int, ...]) -> numerics.Grid:
        """Returns the grids of weights that share one along `axes`."""
        if self.range == "max":
            ends = ranges.full(w, axes, symmetric=self.symmetric)
        else:
            ends = ranges.least_error(w, axes, self.bits, symmetric=self.symmetric)
        return numerics.grid(*ends, self.bits, symmetric=self.symmetric)

    def of(self, w: jax.Array) -> numerics.Grid:
        """Returns the grids of a leaf; they broadcast against `seen(w)`."""
        return self.over(*granularities.seen(w, self.granularity, self.group))

    def state(self, w: jax.Array, scale: jax.Array, zero: jax.Array) -> dict[str, Any]:
        """Returns the state of a leaf that was `w` before it was rounded."""
        bits = jnp.asarray(self.bits, jnp.int32)
        return {"bits": bits, "scale": scale, "zero": zero, "mask": w != 0}


def _grid(state: dict[str, Any], symmetric: bool) -> numerics.Grid:
    levels = numerics.levels(state["bits"], symmetric=symmetric)
    return numerics.Grid(state["scale"], state["zero"], *levels)


def transform(
    grids: Grids,
    how: str,
    pattern: str,
    leaf: Callable[[str, jax.Array], tuple[jax.Array, dict[str, Any]]],
) -> base.Transform:
    """Returns the technique that rounds each leaf once, as it is encoded.

    Args:
      grids: of the weights.
      how: what `plan` says.
      pattern: regular expression over paths of the leaves to round.
      leaf: (path, weights) -> (weights on the grid, state).
    """

    def encode(weights):
        for path, w in weights.items():
            grids.fits(path, w)
        found = {path: leaf(path, w) for path, w in weights.items()}
        codes = {path: w for path, (w, _) in found.items()}
        return codes, {path: state for path, (_, state) in found.items()}

    def decode_leaf(w, state):
        view = grids.seen(lax.stop_gradient(w))
        rounded = numerics.fake_quant(view, _grid(state, grids.symmetric))
        # What is clipped shall come back, so its derivative is 1 as well.
        w = numerics.straight_through(w, rounded.reshape(w.shape))
        return jnp.where(state["mask"], w, jnp.zeros((), w.dtype))

    def decode(codes, states):
        return {p: decode_leaf(w, states[p]) for p, w in codes.items()}

    @jax.jit
    def whole(weights, states):
        return {
            p: numerics.encode(grids.seen(w), _grid(states[p], grids.symmetric))
            for p, w in weights.items()
        }

    def freeze(leaves, states):
        for path, rep in leaves.items():
            if isinstance(rep, representations.LowRank):
                raise TypeError(f"{grids.name}: {path} is a product; round its factors")
            # They may have been traced.
            numerics.check_bits(int(states[path]["bits"]), f"{grids.name}: {path}")
        weights = {p: representations.materialize(x) for p, x in leaves.items()}
        frozen = {}
        for path, codes in whole(weights, states).items():
            w, state, below = weights[path], states[path], leaves[path]
            codes = np.asarray(codes).reshape(w.shape)
            zero = None
            if not grids.symmetric:
                zero = np.asarray(state["zero"]).astype(np.uint8)
            quantized = representations.Quantized(
                codes.astype(np.int8 if grids.symmetric else np.uint8),
                np.asarray(jnp.asarray(state["scale"]).astype(w.dtype)),
                zero,
                int(state["bits"]),
                grids.group,
            )
            mask = np.asarray(state["mask"])
            if isinstance(below, representations.Sparse):
                mask = mask & np.asarray(below.mask)
            if not mask.all():
                quantized = representations.sparse(mask, quantized)
            frozen[path] = quantized
        return frozen

    return base.on_leaves(how, pattern, encode, decode, freeze)
