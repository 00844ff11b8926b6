"""Sparse variational dropout: weights whose noise drowns them are removed.

`code`: `{"w", "log_sigma2"}`, mean and log variance of each weight, `state`: the
strength of the KL divergence, `decode`: the means where the noise leaves something of
them, else 0 (Molchanov et al. 2017, arXiv 1701.05369).
"""

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, representations, schedules
from lib.transforms import base

# What is nearer to 0 than this counts as this, so that the logarithm is finite.
_LEAST = 1e-4

# Of the approximation of the KL divergence, the paper's eq. 14.
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695


def log_alpha(w: jax.Array, log_sigma2: jax.Array) -> jax.Array:
    """Returns `log(sigma^2 / w^2)`, the log of the dropout rate alpha (eq. 11).

    The authors' code has log(w^2 + 1e-8) for our log(max(|w|, 1e-4)^2). A sum after a
    product would be rounded once or twice, as it happens to be compiled, and freezing
    must compare as training did; a product with 2 is exact.

    Args:
      w: float array, the means.
      log_sigma2: float32, of the same shape.
    """
    size = jnp.maximum(jnp.abs(w.astype(jnp.float32)), _LEAST)
    return log_sigma2 - 2 * jnp.log(size)


def divergence(log_alpha: jax.Array) -> jax.Array:
    """Returns the KL divergence from the log-uniform prior, at least 0 (eq. 14).

    `k1 - k1 sigmoid(k2 + k3 log_alpha) + log(1 + 1 / alpha) / 2`, within 0.01 of the
    true one up to its constant, which makes it 0 for an infinite alpha. Written such
    that nothing overflows.

    Args:
      log_alpha: float array.
    """
    kept = _K1 * jax.nn.sigmoid(-(_K2 + _K3 * log_alpha))
    return kept + jax.nn.softplus(-log_alpha) / 2


def variational(
    *,
    strength: schedules.Strength,
    threshold: float,
    log_sigma2: float,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Learns a variance for each weight; removes those with `log_alpha > threshold`.

    The noise is added to the weights, one draw for the whole batch. The paper draws
    the layers' outputs instead (local reparameterisation), which has less variance
    but needs another model; ours stays as it is.

    Weight decay would move the variances, too: train without it.

    Args:
      strength: of the KL divergence, at least 0; a number, a schedule (the paper warms
        it up from 0), or a traced value. The loss is a mean over examples, so the
        paper's objective has `strength = 1 / number of training examples`.
      threshold: of log alpha; the paper's is 3, a dropout rate of 0.95.
      log_sigma2: the log of every variance to begin with; -10 is common. A weight
        with `w^2 < exp(log_sigma2 - threshold)` is removed from the start.
      pattern: regular expression over paths of the leaves.

    Raises:
      UserError: a strength below 0; at `encode`, a pattern that matches nothing.
    """
    traced = callable(strength) or isinstance(strength, jax.core.Tracer)
    if not traced and not strength >= 0:
        raise errors.UserError(f"variational: strength is at least 0, got {strength}")

    def now(step) -> jax.Array:
        return jnp.asarray(schedules.at(strength, step), jnp.float32)

    def kept(code) -> jax.Array:
        return log_alpha(code["w"], code["log_sigma2"]) <= threshold

    def encode(weights):
        codes = {
            p: {"w": w, "log_sigma2": jnp.full(w.shape, log_sigma2, jnp.float32)}
            for p, w in weights.items()
        }
        return codes, {path: now(0) for path in weights}

    def decode(codes, states):
        del states
        return {
            p: jnp.where(kept(c), c["w"], jnp.zeros((), c["w"].dtype))
            for p, c in codes.items()
        }

    def sample(codes, states, key):
        del states
        # In a fixed order: jit sorts the keys of dicts.
        drawn = dict(zip(sorted(codes), base.keys(key, len(codes)), strict=True))

        def noisy(code, key):
            w = code["w"]
            noise = jax.random.normal(key, w.shape)
            sigma = jnp.exp(code["log_sigma2"] / 2)
            return (w.astype(jnp.float32) + sigma * noise).astype(w.dtype)

        return {p: noisy(c, drawn[p]) for p, c in codes.items()}

    def penalty(codes, states):
        def one(path):
            found = log_alpha(codes[path]["w"], codes[path]["log_sigma2"])
            return states[path] * jnp.sum(divergence(found))

        return sum(one(path) for path in sorted(codes))

    def update(codes, states, signals):
        del codes
        return {path: now(signals.step) for path in states}

    jitted = jax.jit(kept)

    def freeze(leaves, states):
        del states
        frozen = {}
        for path, parts in leaves.items():
            code = {
                name: jnp.asarray(representations.materialize(part))
                for name, part in parts.items()
            }
            mask = np.asarray(jitted(code))
            frozen[path] = representations.sparse(mask, parts["w"])
        return frozen

    kind = "schedule" if callable(strength) else strength
    return base.on_leaves(
        f"variational(strength={kind}, threshold={threshold})",
        pattern,
        encode,
        decode,
        freeze,
        update if callable(strength) else None,
        sample=sample,
        penalty=penalty,
    )
