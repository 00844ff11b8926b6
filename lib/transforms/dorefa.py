"""DoReFa weights: squeezed by tanh into [-1, 1], then on evenly spread levels.

`code`: the latent weights, `state`: nothing, `decode`: `2 * quantize_k(tanh(w) /
(2 max|tanh w|) + 1/2) - 1`, straight through quantize_k (Zhou et al. 2016, arXiv
1606.06160, eq. 9), where `quantize_k(x) = round((2**k - 1) x) / (2**k - 1)`.

There is no 0 among the 2**k levels, and each leaf fills [-1, 1] whatever its size was:
a batch norm behind it takes the size back, and where there is none, as behind the last
layer, the network has to learn anew what it knew.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, numerics, representations
from lib.transforms import base


def levels(bits: int) -> np.ndarray:
    """Returns the `2**bits` levels from -1 to 1, float32."""
    most = 2**bits - 1
    return (2 * np.arange(2**bits) / most - 1).astype(np.float32)


def squeezed(w: jax.Array) -> jax.Array:
    """Returns `tanh(w) / max|tanh w|` in [-1, 1], float32; 0 where all weights are."""
    t = jnp.tanh(w.astype(jnp.float32))
    most = jnp.max(jnp.abs(t))
    # A product, as divisions are rewritten by what they are compiled with.
    inverse = 1 / lax.optimization_barrier(jnp.where(most > 0, most, 1))
    return lax.optimization_barrier(t) * lax.optimization_barrier(inverse)


def codes(x: jax.Array, bits: int) -> jax.Array:
    """Returns the number of the level nearest to each x in [-1, 1], whole float32."""
    half = (2**bits - 1) / 2
    # Levels lie at whole numbers and a half of x * half: so a floor finds the nearest,
    # without a sum behind the product, which would be rounded once or twice as it
    # happens to be compiled.
    place = jnp.floor(lax.optimization_barrier(x) * half)
    return jnp.clip(place, -(half + 0.5), half - 0.5) + (half + 0.5)


def dorefa(*, bits: int, pattern: str = base.KERNELS) -> base.Transform:
    """Spreads `tanh` of each leaf's weights over `2**bits` levels from -1 to 1.

    Args:
      bits: 2 to 8; not traced, as it sets the length of the codebook that is stored.
      pattern: regular expression over paths of the leaves to quantize.

    Raises:
      UserError: bits outside 2..8; at `encode`, a pattern that matches nothing.
    """
    if isinstance(bits, jax.core.Tracer):
        raise errors.UserError("dorefa: bits is a whole number, not a traced value")
    numerics.check_bits(bits, "dorefa")
    table = levels(bits)

    def decode_leaf(w):
        x = squeezed(w)
        found = jnp.asarray(table)[codes(lax.stop_gradient(x), bits).astype(jnp.int32)]
        return numerics.straight_through(x, found).astype(w.dtype)

    @jax.jit
    def all_codes(weights):
        return {path: codes(squeezed(w), bits) for path, w in weights.items()}

    def freeze(leaves, states):
        del states
        frozen = {}
        weights = {p: representations.materialize(x) for p, x in leaves.items()}
        for path, found in all_codes(weights).items():
            centroids = np.asarray(jnp.asarray(table).astype(weights[path].dtype))
            indices = np.asarray(found).astype(np.uint8)
            frozen[path] = representations.Codebook(indices, centroids)
        return frozen

    return base.on_leaves(
        f"dorefa(bits={bits})",
        pattern,
        lambda weights: (weights, dict.fromkeys(weights, ())),
        lambda weights, states: {p: decode_leaf(w) for p, w in weights.items()},
        freeze,
    )
