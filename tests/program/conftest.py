"""Programs of many kinds: what every function transform here has to live with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax


class Case(NamedTuple):
    """`f(params, x, *rest, **kwargs)`; `x` can be batched by vmap."""

    f: Callable[..., Any]
    params: Any
    x: jax.Array
    rest: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    reverse: bool = True  # reverse-mode differentiable
    names: tuple[str, ...] = ()

    def call(self, f):
        return lambda params, x: f(params, x, *self.rest, **self.kwargs)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8)(x))
        x = nn.gelu(nn.Dense(8)(x))
        return nn.Dense(3)(x)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        return nn.softmax(nn.Dense(5)(x + y))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.silu(nn.Dense(4, name="fc")(x)), None


class Scanned(nn.Module):
    prevent_cse: bool = True

    @nn.compact
    def __call__(self, x):
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        remat = nn.remat(Block, prevent_cse=self.prevent_cse, policy=policy)
        scan = nn.scan(
            remat, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = scan()(x, None)
        return x @ x.T


class Conv(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = nn.Conv(4, (3, 3), feature_group_count=4, strides=2)(x)
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.LSTMCell(3), reverse=True, keep_order=True)(x)


def conv(params, x, key, *, train):
    rngs = {"dropout": key} if train else None
    return Conv().apply(params, x, train=train, rngs=rngs, mutable=["batch_stats"])


def bare(params, x):
    return x @ params["w"] @ params["w"] + params["b"]


CONSTANT = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)


def loops(params, x, key):
    """A while, a cond, a switch, nested scans one of them reversed, a jit, a key."""
    w = params["w"]

    @jax.jit
    def step(x):
        return jnp.tanh(x @ w)

    def outer(carry, scale):
        def inner(carry, _):
            return jnp.sin(carry @ w) * scale, carry.sum()

        return lax.scan(inner, carry, None, length=2, reverse=True)

    with jax.named_scope("start"):
        x = step(step(x)) @ CONSTANT
    keys = jax.random.split(key, 3)
    x, sums = lax.scan(outer, x, jax.random.uniform(keys[0], (3,)), unroll=2)
    x = lax.cond(x.sum() > 0, lambda x: x @ w, lambda x: x * 2, x)
    branches = [lambda x: x, step, lambda x: (x @ w) @ w]
    x = lax.switch(jnp.argmax(x[0]) % 3, branches, x)
    with jax.named_scope("until"):
        x = lax.while_loop(
            lambda x: (x @ w).max() > 0.1, lambda x: jnp.tanh(x @ w) * 0.5, x
        )
    return {"x": x + jax.random.normal(keys[1], x.shape), "sums": sums, "none": None}


def _x(*shape):
    return jax.random.normal(jax.random.key(7), shape)


def _linen(module, *shape, names):
    x = _x(*shape)
    params = jax.jit(module.init)(jax.random.key(0), x)
    return Case(module.apply, params, x, names=names)


def _mlp():
    return _linen(MLP(), 5, 6, names=("MLP/Dense_0", "MLP/Dense_1", "MLP/Dense_2"))


def _attention():
    inside = "Attention/MultiHeadDotProductAttention_0"
    names = (
        f"{inside}/query",
        f"{inside}/key",
        f"{inside}/value",
        f"{inside}/...qhd,...khd->...hqk",
        f"{inside}/...hqk,...khd->...qhd",
        f"{inside}/out",
        "Attention/Dense_0",
    )
    return _linen(Attention(), 2, 5, 4, names=names)


def _scanned():
    names = ("Scanned/ScanCheckpointBlock_0/fc", "Scanned")
    return _linen(Scanned(), 2, 4, names=names)


def _scanned_cse():
    return _linen(Scanned(prevent_cse=False), 2, 4, names=_scanned().names)


def _conv(key):
    x = _x(2, 6, 6, 3)
    init = jax.jit(Conv().init, static_argnames="train")
    params = init(jax.random.key(0), x, train=False)
    names = ("Conv/Conv_0", "Conv/Conv_1", "Conv/Dense_0")
    return Case(conv, params, x, (key,), {"train": True}, names=names)


def _recurrent():
    cell = "Recurrent/RNN_0/LSTMCell_0.scan_fn/LSTMCell_0"
    gates = ("ii", "hi", "if", "hf", "ig", "hg", "io", "ho")
    names = tuple(f"{cell}/{gate}" for gate in gates)
    return _linen(Recurrent(), 2, 4, 3, names=names)


def _bare():
    params = {"w": _x(4, 4) / 2, "b": jnp.ones((1, 4))}
    return Case(bare, params, _x(3, 4), names=("dot_general", "dot_general#1"))


def _loops():
    names = ("start", "start#1", "start#2", "dot_general", "dot_general#1")
    names += ("dot_general#2", "dot_general#3", "dot_general#4", "until", "until#1")
    params = {"w": _x(4, 4) / 2}
    rest = (jax.random.key(3, impl="rbg"),)
    return Case(loops, params, _x(4, 4), rest, reverse=False, names=names)


CASES = {
    "mlp": _mlp,
    "attention": _attention,
    "scan of remat": _scanned,
    "scan of remat without barriers": _scanned_cse,
    # rbg, because threefry takes XLA seconds to compile on a CPU.
    "conv": lambda: _conv(jax.random.key(1, impl="rbg")),
    "conv in evaluation": lambda: _conv(None)._replace(kwargs={"train": False}),
    "recurrent": _recurrent,
    "bare": _bare,
    "loops": _loops,
}


@pytest.fixture(scope="session", params=list(CASES))
def case(request):
    return CASES[request.param]()


@pytest.fixture(scope="session")
def cases():
    """Returns a function that makes the case of a name."""
    return lambda name: CASES[name]()
