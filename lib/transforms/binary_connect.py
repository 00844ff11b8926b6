"""BinaryConnect: one bit a weight in each step, latent weights within fixed bounds.

`code`: the latent weights in [-H, H], `state`: nothing, `decode`: H times their signs,
straight through (Courbariaux et al. 2015, arXiv 1511.00363).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, numerics, representations
from lib.transforms import base
from lib.transforms.levels import over_zeros

INFERENCE = ("binary", "real")


def binary_connect(
    *,
    stochastic: bool,
    inference: str = "binary",
    height: float = 0.0,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Trains weights -H and H: the signs of latent weights that stay in [-H, H].

    Weights that come to `encode` beyond that are shrunk, all of a leaf by one factor.
    Those that are exactly 0 stay 0: they were removed. A batch norm behind each layer
    makes up for the scale.

    Args:
      stochastic: each step draws the signs, +H with probability
        `clip((w / H + 1) / 2, 0, 1)` (eq. 2 and 3), whose mean is w. Else every step
        sees the signs (eq. 1).
      inference: what `decode` gives and is stored: "binary" weights, the signs; or the
        "real" latent ones, with which the paper tests what was trained stochastically
        (its section 2.6). Then nothing is compressed: the signs have only regularised.
      height: H, positive; or 0 for each leaf's own, `sqrt(1.5 / (in + out))`. A step
        of the optimiser on these is the paper's on weights of H = 1 with the learning
        rate scaled by Glorot's coefficients (its section 2.5).
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: an unknown inference, a negative or infinite height; at `encode`, a
        pattern that matches nothing, or a float16 leaf.
    """
    errors.lookup(dict.fromkeys(INFERENCE), inference, "inference of binary_connect")
    real = inference == "real"
    if not 0 <= height < math.inf:
        raise errors.UserError(
            "binary_connect: height is positive, or 0 for each leaf's own, got "
            f"{height}"
        )

    def bound(w) -> np.ndarray:
        """Returns H, a scalar of w's dtype."""
        inputs, places = math.prod(w.shape[:-1]), math.prod(w.shape[:-2])
        own = math.sqrt(1.5 / (inputs + places * w.shape[-1]))
        return np.asarray(height or own, w.dtype)

    def encode(weights):
        for path, w in weights.items():
            if w.dtype == jnp.float16:
                raise errors.UserError(
                    f"binary_connect: {path} is float16; expected float32 or bfloat16"
                )
        return {p: shrunk(w) for p, w in weights.items()}, dict.fromkeys(weights, ())

    def shrunk(w):
        most = jnp.max(jnp.abs(w)).astype(jnp.float32)
        factor = jnp.where(most > bound(w), bound(w).astype(np.float32) / most, 1)
        return within((w * factor).astype(w.dtype))

    def within(w):
        return jnp.clip(w, -bound(w), bound(w))

    def signed(w, positive):
        value = jnp.where(positive, bound(w), -bound(w))
        value = jnp.where(w == 0, jnp.zeros((), w.dtype), value)
        return numerics.straight_through(w, value)

    def decode(codes, states):
        del states
        return codes if real else signs(codes)

    def signs(codes):
        return {p: signed(w, w > 0) for p, w in codes.items()}

    def sample(codes, states, key):
        del states
        if not stochastic:
            return signs(codes)
        drawn = {}
        paths = sorted(codes)  # jit sorts the keys of dicts; the keys go by place
        for path, one in zip(paths, base.keys(key, len(paths)), strict=True):
            w = codes[path]
            chance = jnp.clip((w / bound(w) + 1) / 2, 0, 1)
            drawn[path] = signed(w, jax.random.uniform(one, w.shape) < chance)
        return drawn

    def renew(codes, before, after):
        del before, after
        return {p: within(w) for p, w in codes.items()}, {}

    def freeze(leaves, states):
        del states
        if real:
            return leaves
        frozen = {}
        for path, below in leaves.items():
            w = representations.materialize(below)
            scale = bound(w).reshape((1,) * w.ndim)
            rep = representations.Levels((w > 0).astype(np.uint8), scale, "binary")
            frozen[path] = over_zeros(rep, w, below)
        return frozen

    drawn = "stochastic" if stochastic else "deterministic"
    how = f"binary_connect({drawn}, {inference}, height {height or 'glorot'})"
    return base.on_leaves(
        how,
        pattern,
        encode,
        decode,
        freeze,
        sample=sample if stochastic or real else None,
        renew=renew,
    )
