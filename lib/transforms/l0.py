"""L0 regularisation: weights times random gates, which learn how often to be open.

`code`: `{"w", "log_alpha"}`, the weights and the gates' location, `state`: the
penalty's strength, `decode`: the weights times the gates without their noise
(Louizos et al. 2018, arXiv 1712.01312).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, representations, schedules
from lib.transforms import base, grouping

# The temperature of the concrete distribution, and the interval it is stretched to
# before it is clipped to [0, 1]; the paper's section 4.
_BETA, _GAMMA, _ZETA = 2 / 3, -0.1, 1.1


def _clip(s: jax.Array) -> jax.Array:
    """Returns the hard concrete gate of `s` in (0, 1): eqs. 10 and 11 of the paper."""
    # `s * 12 / 10 - 1 / 10`, but a sum after a product is rounded once or twice as it
    # happens to be compiled, and freezing must give what training saw.
    width = _ZETA - _GAMMA
    return jnp.clip((s + _GAMMA / width) * width, 0, 1)


def noisy_gate(log_alpha: jax.Array, key: jax.Array) -> jax.Array:
    """Returns gates in [0, 1] drawn from the hard concrete distribution (eq. 10)."""
    noise = jax.random.logistic(key, log_alpha.shape, log_alpha.dtype)
    return _clip(jax.nn.sigmoid((noise + log_alpha) / _BETA))


def gate(log_alpha: jax.Array) -> jax.Array:
    """Returns the gates of test time (eq. 13): 0 at and below logit(1/12) = -2.4."""
    return _clip(jax.nn.sigmoid(log_alpha))


def chance(log_alpha: jax.Array) -> jax.Array:
    """Returns the probability that a noisy gate is not 0 (eq. 12)."""
    return jax.nn.sigmoid(log_alpha - _BETA * math.log(-_GAMMA / _ZETA))


def _gated(w: jax.Array, gates: jax.Array) -> jax.Array:
    product = (w.astype(jnp.float32) * gates).astype(w.dtype)
    # A select as well: -w * 0 would leave a negative zero.
    return jnp.where(gates > 0, product, jnp.zeros((), w.dtype))


def l0(
    *,
    strength: schedules.Strength,
    groups: str,
    drop_rate: float,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Adds `strength * E[number of weights that are not 0]` to the loss.

    Each step draws the gates anew, one draw for the whole batch, and the penalty is
    the expectation in closed form (arXiv 1712.01312, eq. 9). The loss is a mean over
    examples, so `strength` is the paper's lambda divided by the number of training
    examples. Weight decay would move the gates, too: train without it.

    `log_alpha` is float32 of the leaf's rank, 1 along the axes that share a gate.

    Args:
      strength: of the penalty, at least 0; a number, a schedule, or a traced value.
      groups: what shares a gate: "element", nothing; "out" or "in", an output (the
        last axis) or input channel (the axis before it). The paper gates inputs.
      drop_rate: of the gates to begin with, in (0, 1): `log_alpha` is
        log(1 - drop_rate) - log(drop_rate). Up to 1/12 the gates of test time are 1,
        so that `decode` gives the weights that `encode` was given; at 0.5 half of
        them.
      pattern: regular expression over paths of the leaves to gate.

    Raises:
      UserError: a strength below 0, a drop rate outside (0, 1), unknown groups; at
        `encode`, a pattern that matches nothing, or a leaf without input channels.
    """
    errors.lookup(grouping.GROUPS, groups, "kind of group")
    traced = callable(strength) or isinstance(strength, jax.core.Tracer)
    if not traced and not strength >= 0:
        raise errors.UserError(f"l0: strength is at least 0, got {strength}")
    if not 0 < drop_rate < 1:
        raise errors.UserError(f"l0: drop_rate is above 0 and below 1, got {drop_rate}")
    initial = math.log1p(-drop_rate) - math.log(drop_rate)

    def now(step) -> jax.Array:
        return jnp.asarray(schedules.at(strength, step), jnp.float32)

    def encode(weights):
        codes = {}
        for path, w in weights.items():
            shared = grouping.shared_axes(groups, path, w.shape)
            shape = [1 if i in shared else n for i, n in enumerate(w.shape)]
            codes[path] = {"w": w, "log_alpha": jnp.full(shape, initial, jnp.float32)}
        return codes, {path: now(0) for path in weights}

    def decode(codes, states):
        del states
        return {p: _gated(c["w"], gate(c["log_alpha"])) for p, c in codes.items()}

    def sample(codes, states, key):
        del states
        # In a fixed order: jit sorts the keys of dicts.
        drawn = dict(zip(sorted(codes), base.keys(key, len(codes)), strict=True))
        return {
            p: _gated(c["w"], noisy_gate(c["log_alpha"], drawn[p]))
            for p, c in codes.items()
        }

    def penalty(codes, states):
        def one(path):
            w, log_alpha = codes[path]["w"], codes[path]["log_alpha"]
            size = w.size // log_alpha.size
            return states[path] * size * jnp.sum(chance(log_alpha))

        return sum(one(path) for path in sorted(codes))

    def update(codes, states, signals):
        del codes
        return {path: now(signals.step) for path in states}

    jitted_gate, jitted_product = jax.jit(gate), jax.jit(_gated)

    def freeze(leaves, states):
        del states
        frozen = {}
        for path, parts in leaves.items():
            w, log_alpha = (
                jnp.asarray(representations.materialize(parts[name]))
                for name in ("w", "log_alpha")
            )
            gates = jitted_gate(log_alpha)
            values = np.asarray(jitted_product(w, gates))
            mask = np.broadcast_to(np.asarray(gates) > 0, values.shape)
            frozen[path] = representations.sparse(mask, representations.Dense(values))
        return frozen

    kind = "schedule" if callable(strength) else strength
    return base.on_leaves(
        f"l0(strength={kind}, {groups})",
        pattern,
        encode,
        decode,
        freeze,
        update if callable(strength) else None,
        sample=sample,
        penalty=penalty,
    )
