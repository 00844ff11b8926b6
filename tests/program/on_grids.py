"""Weights on grids, and both ways to compute with them, for tests of integers."""

import flax.linen as nn
import jax
import numpy as np

from lib import program
from lib import representations as reps

EIGHT = {"bits": 8, "symmetric": False}

ALL = ((".", EIGHT),)
HALF = 2.0**-24


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def quantized(w, *, bits=8, affine=False, group=0, exact=False):
    """A weight on a grid: a scale a channel, or a group; powers of two if `exact`."""
    w = np.asarray(w)
    view = w.reshape((-1, group, w.shape[-1])) if group else w
    over = (1,) if group else tuple(range(w.ndim - 1))
    low, high = view.min(over, keepdims=True), view.max(over, keepdims=True)
    most = 2**bits - 1 if affine else 2 ** (bits - 1) - 1
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = (high - low if affine else np.maximum(-low, high)) / most
    scale = np.where(scale == 0, 1, scale)
    scale = np.exp2(np.ceil(np.log2(scale))) if exact else scale
    scale = scale.astype(np.float32)
    zero = np.rint(-low / scale).astype(np.uint8) if affine else None
    codes = np.rint(view / scale) + (zero if affine else 0)
    codes = np.clip(codes, 0 if affine else -most, most).reshape(w.shape)
    kind = np.uint8 if affine else np.int8
    return reps.Quantized(codes.astype(kind), scale, zero, bits, group)


def frozen_of(params, **how):
    return jax.tree.map(
        lambda w: quantized(w, **how) if w.ndim > 1 else reps.Dense(np.asarray(w)),
        params,
    )


def both(f, frozen, x, rules=ALL, ranges=None, **options):
    """Returns what is computed of dense weights, and of codes; and the rows."""
    if ranges is None:
        ranges = program.calibrate(f, reps.thaw(frozen), [(x,)], program.minmax())
    expected = jax.jit(program.fake_quantize(f, ranges, rules))(reps.thaw(frozen), x)
    run = program.run_integer(f, ranges, rules, **options)
    params = program.integer_params(frozen)
    rows = program.integers(f, ranges, rules)(params, x)
    counted = program.integer_contractions(run, params, x)
    return np.asarray(expected), np.asarray(jax.jit(run)(params, x)), rows, counted


class Conv(nn.Module):
    features: int = 4
    strides: int = 1
    padding: object = "SAME"
    groups: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x):
        return nn.Conv(
            self.features,
            (3, 3),
            strides=self.strides,
            padding=self.padding,
            feature_group_count=self.groups,
            kernel_dilation=self.dilation,
            use_bias=False,
        )(x)


def dot(params, x):
    return x @ params["w"]
