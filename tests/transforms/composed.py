"""One of each technique on a small tree, and what any chain of them has to keep.

A technique of a chain sees the code of the one before it and returns its own decoded
output to it; its promise is about that output.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, representations, tree
from lib import transforms as T
from lib.deploy import artifact

KEY = jax.random.key(0)
# Of 8 rows and columns, so that most operations compile once for all of them.
SHAPES = {
    "conv/kernel": (1, 2, 4, 8),
    "conv/bias": (8,),
    "block_0/dense/kernel": (8, 8),
    "block_1/dense/kernel": (8, 8),
    "head/kernel": (8, 8),
}
CONV = r"^conv/kernel$"
# Matrices that any technique takes, where convolutions are another's.
DENSE = r"dense/kernel|head/kernel"


def params(seed=0):
    rng = np.random.default_rng(seed)
    return tree.unflatten(
        {p: jnp.float32(rng.normal(size=shape)) for p, shape in SHAPES.items()}
    )


def gram(path):
    x = np.random.default_rng(1).normal(size=(64, int(np.prod(SHAPES[path][:-1]))))
    return (x.T @ x).astype(np.float32)


GRAMS = {path: gram(path) for path in SHAPES if "kernel" in path}

# One instance of each technique, as anyone would use it.
MAKE = {
    "keep": lambda: T.keep(),
    "prune": lambda: T.prune(sparsity=0.5),
    "soft_movement": lambda: T.soft_movement(threshold=0.1, rate=1.0, strength=0.0),
    "quantize": lambda: T.quantize(bits=4, granularity="tensor"),
    "lsq": lambda: T.lsq(bits=4),
    "dorefa": lambda: T.dorefa(bits=3),
    "levels": lambda: T.levels(format="binary", scale="mean", granularity="tensor"),
    "binary_connect": lambda: T.binary_connect(stochastic=True, height=0.5),
    "acdc": lambda: T.acdc(sparsity=0.5, begin=1, period=1, end=4),
    "rigl": lambda: T.rigl(
        sparsity=0.5, distribution="layerwise", every=1, end=9, seed=0
    ),
    "set": lambda: T.set_(
        sparsity=0.5, distribution="layerwise", every=1, end=9, seed=0
    ),
    "ste": lambda: T.ste(sparsity=0.5),
    "sr_ste": lambda: T.sr_ste(n=2, m=4),
    "sparsegpt": lambda: T.sparsegpt(sparsity=0.5, grams=GRAMS),
    "gptq": lambda: T.gptq(bits=4, grams=GRAMS, granularity="tensor"),
    "adaround": lambda: T.adaround(bits=4, grams=GRAMS, granularity="tensor", steps=9),
    "fixed": lambda: T.fixed(pattern="^head/kernel"),
    "tie": lambda: T.tie(layers=r"block_(\d+)/"),
    "share": lambda: T.share(bits=2),
    "product": lambda: T.product(dim=2, bits=2),
    "proximal": lambda: T.proximal(strength=0.1, learning_rate=1.0, groups="element"),
    "l0": lambda: T.l0(strength=1e-3, groups="in", drop_rate=0.5),
    "variational": lambda: T.variational(strength=1e-3, threshold=3.0, log_sigma2=-1.0),
    "soft_share": lambda: T.soft_share(
        strength=1e-3,
        components=3,
        zero=0.5,
        spread=(250.0, 0.1),
        zero_spread=(5000.0, 2.0),
        collapse=2,
    ),
    "factorize": lambda: T.factorize(rank=4, residual=True),
    "tucker": lambda: T.tucker(rank_in=2, rank_out=4, pattern=CONV),
    "cp": lambda: T.cp(rank=4, iterations=5, pattern=CONV),
    "lora": lambda: T.lora(rank=2, alpha=4.0, pattern=DENSE),
}


def distinct(flat, most):
    for path, w in flat.items():
        if path in SHAPES and path.endswith("kernel"):
            assert len(np.unique(np.asarray(w))) <= most, path


def half_zero(flat):
    for path, w in flat.items():
        if path.endswith("kernel"):
            assert np.count_nonzero(np.asarray(w)) <= np.size(w) / 2, path


def two_of_four(flat):
    for path, w in flat.items():
        if path.endswith("kernel") and np.ndim(w) > 1:
            groups = np.asarray(w).reshape(-1, 4, w.shape[-1])
            assert (np.count_nonzero(groups, axis=1) <= 2).all(), path


def tied(flat):
    a, b = (
        [x for p, x in flat.items() if p.startswith(f"block_{i}/")] for i in range(2)
    )
    assert a and len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


# What a technique promises of its own decoded output, {path: leaf}.
PROMISES = {
    "prune": half_zero,
    "rigl": half_zero,
    "set": half_zero,
    "ste": half_zero,
    "sparsegpt": half_zero,
    "sr_ste": two_of_four,
    "tie": tied,
    "share": functools.partial(distinct, most=4),
    "quantize": functools.partial(distinct, most=15),
    "levels": functools.partial(distinct, most=3),
    "binary_connect": functools.partial(distinct, most=3),
    "dorefa": functools.partial(distinct, most=8),
}


# Those that hand every zero below them on, leaf by leaf, where they keep its shape.
ZEROS_STAY = (
    *("keep", "prune", "soft_movement", "quantize", "acdc", "rigl", "set", "ste"),
    *("sr_ste", "sparsegpt", "proximal", "l0", "variational", "tie"),
)


def same_zeros(below, above):
    """What is zero in a technique's code is zero in what it decodes."""
    for path, x in tree.flatten(above).items():
        code = tree.flatten(below).get(path)
        if code is not None and code.shape == x.shape:
            assert not np.asarray(x)[np.asarray(code) == 0].any(), path


def same_bytes(a, b):
    a, b = tree.flatten(a), tree.flatten(b)
    assert set(a) == set(b)
    for path, x in a.items():
        assert np.asarray(x).tobytes() == np.asarray(b[path]).tobytes(), path


def check(names, tmp_path, *, steps=1, gradients=True):
    """Checks one chain; returns False if it is refused."""
    weights = params()
    parts = [MAKE[name]() for name in names]
    t = T.chain(*parts)
    try:
        T.plan(t, weights)
    except errors.UserError as refused:
        assert len(str(refused)) > 20
        return False
    code, states = t.encode(weights)
    decode = jax.jit(t.decode)
    rng = np.random.default_rng(2)
    for step in range(steps):
        key = jax.random.fold_in(KEY, step)
        upstream = jax.tree.map(
            lambda w: jnp.asarray(rng.normal(size=w.shape), w.dtype), weights
        )
        if gradients:  # as one step of training does it
            sampled, pull = jax.vjp(
                lambda c, s=states, k=key: T.sample(t, c, s, k), code
            )
            assert jax.tree.structure(sampled) == jax.tree.structure(weights)
            (moves,) = pull(upstream)
            for g in jax.tree.leaves(moves):
                assert np.isfinite(g).all()
        else:
            moves = jax.tree.map(
                lambda w: jnp.asarray(rng.normal(size=w.shape), w.dtype), code
            )
        code = jax.tree.map(lambda w, g: w - 0.05 * g, code, moves)
        before = states
        signals = T.Signals(upstream, jnp.int32(step), key)
        states = t.update(code, before, signals)
        assert jax.tree.structure(states) == jax.tree.structure(before)
        code, fresh = T.renew(t, code, before, states)
        flat = tree.flatten(code)
        assert all(flat[path].shape == anew.shape for path, anew in fresh.items())
        if gradients and t.penalty:
            assert np.isfinite(t.penalty(code, states))
    decoded = decode(code, states)
    decode(code, states)
    assert decode._cache_size() <= 1
    frozen = t.freeze(jax.device_get(code), jax.device_get(states))
    same_bytes(representations.thaw(frozen), decoded)
    # Each level's own output.
    out = code
    for name, part, state in zip(names[::-1], parts[::-1], states[::-1], strict=True):
        below, out = out, part.decode(out, state)
        if name in PROMISES:
            PROMISES[name](tree.flatten(out))
        if name in ZEROS_STAY:
            same_zeros(below, out)
    size = artifact.save(tmp_path / "x.pare", frozen)
    assert size == (tmp_path / "x.pare").stat().st_size
    loaded = artifact.load(tmp_path / "x.pare")
    same_bytes(artifact.materialize(loaded), representations.thaw(frozen))
    return True
