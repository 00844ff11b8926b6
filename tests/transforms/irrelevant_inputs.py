"""A regression in which most inputs say nothing, and what else these tests share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lib import representations, tree
from lib import transforms as T

INPUTS, RELEVANT, OUTPUTS, EXAMPLES = 12, 3, 4, 256
KEY = jax.random.key(0)


def weights(seed=0, shapes=((6, 4), (3, 3, 2, 4)), dtype=jnp.float32):
    """Returns a tree of kernels, of which some weights are zero, and a bias."""
    rng = np.random.default_rng(seed)
    kernels = {}
    for i, shape in enumerate(shapes):
        w = rng.normal(size=shape) * (rng.random(shape) < 0.8)
        kernels[f"layer{i}"] = {"kernel": jnp.asarray(w, dtype), "bias": jnp.ones(4)}
    return kernels


def same_bytes(a, b):
    a, b = tree.flatten(a), tree.flatten(b)
    assert set(a) == set(b)
    for path, x in a.items():
        assert np.asarray(x).tobytes() == np.asarray(b[path]).tobytes(), path


def moved(code, seed=0):
    """Returns a code as training may leave it: each number scaled and shifted."""
    rng = np.random.default_rng(seed)

    def one(w):
        noise = rng.uniform(0.5, 2, w.shape) * np.asarray(w, np.float32)
        return jnp.asarray(noise + rng.normal(size=w.shape) * (noise != 0), w.dtype)

    return jax.tree.map(one, code)


def check_frozen(t, code, state):
    """Checks that freezing gives what `decode` gives, compiled or not, to the bit."""
    decoded = jax.jit(t.decode)(code, state)
    same_bytes(t.decode(code, state), decoded)
    same_bytes(representations.thaw(t.freeze(code, state)), decoded)
    return decoded


def fit(t, *, steps, optimizer=None):
    """Trains one kernel `[INPUTS, OUTPUTS]` on the squared error, through `t`.

    Args:
      t: the technique.
      steps: over all examples each.
      optimizer: of optax; None is Adam at 0.02.

    Returns:
      the code, the state and the decoded kernel; the true kernel has rows of ones for
      the first `RELEVANT` inputs and of zeros for the others.
    """
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(EXAMPLES, INPUTS)), jnp.float32)
    noise = 0.1 * rng.normal(size=(EXAMPLES, OUTPUTS))
    y = x[:, :RELEVANT] @ jnp.ones((RELEVANT, OUTPUTS)) + jnp.float32(noise)
    start = 0.3 * rng.normal(size=(INPUTS, OUTPUTS))
    optimizer = optimizer or optax.adam(0.02)
    code, state = t.encode({"kernel": jnp.asarray(start, jnp.float32)})

    def loss(code, state, key):
        w = T.sample(t, code, state, key)["kernel"]
        value = jnp.mean(jnp.square(x @ w - y)) / 2
        return value + (t.penalty(code, state) if t.penalty else 0)

    def step(carry, i):
        code, state, slots = carry
        key = jax.random.fold_in(KEY, i)
        grads = jax.grad(loss)(code, state, key)
        updates, slots = optimizer.update(grads, slots, code)
        code = optax.apply_updates(code, updates)
        after = t.update(code, state, T.Signals(code, i, key))
        code, _ = T.renew(t, code, state, after)
        finite = [jnp.isfinite(g).all() for g in jax.tree.leaves(grads)]
        return (code, after, slots), jnp.stack(finite).all()

    carry = code, state, optimizer.init(code)
    run = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps)))
    (code, state, _), finite = run(carry)
    assert finite.all()
    return code, state, np.asarray(check_frozen(t, code, state)["kernel"])


def check_found(kernel, slack):
    """Checks that the irrelevant inputs are gone, and the relevant ones are not."""
    assert (kernel[RELEVANT:] == 0).all()
    np.testing.assert_allclose(kernel[:RELEVANT], 1, atol=slack)
