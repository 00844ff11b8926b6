"""The text models in every room: they work there as models of images do."""

import functools

import jax
import numpy as np
import pytest

from lib import models as ours
from lib import program, representations, tree
from lib import transforms as T
from tests.shrink import cuts, models

SMALL = dict(layers=2, width=16, heads=2, intermediate=24, vocabulary=16, max_length=8)
MODULES = {
    "encoder": ours.build("encoder", classes=3, separator=1, **SMALL),
    "decoder": ours.build("decoder", classes=3, pad=0, **SMALL),
    "next": ours.build("decoder", classes=16, task="next", pad=0, **SMALL),
}
DENSE = ("query", "key", "value", "scores", "mixed", "out")
BLOCKS = [
    f"block_{i}/{layer}"
    for i in range(2)
    for layer in (*(f"attention/{name}" for name in DENSE), "dense_0", "dense_1")
]


@pytest.fixture(scope="module", autouse=True)
def _compile_fast():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def case(name):
    return models.case(MODULES[name], models.tokens)


@pytest.mark.parametrize("name", MODULES)
def test_sites_are_named(name):
    one = case(name)
    found = [s.name for s in program.sites(one.f)(one.weights, one.x)]
    last = {
        "encoder": ["pooler", "logits"],
        "decoder": ["logits"],
        "next": ["tokens.attend"],
    }
    head = type(MODULES[name]).__name__
    assert found == [f"{head}/{site}" for site in [*BLOCKS, *last[name]]]


@pytest.mark.slow
def test_weights():
    """Pruned, then in 8 bits: as many zeros as promised, and frozen is what ran."""
    params = case("encoder").weights["params"]
    t = T.chain(T.prune(sparsity=0.5), T.quantize(bits=8))
    code, state = jax.jit(t.encode)(params)
    decoded = jax.device_get(jax.jit(t.decode)(code, state))
    frozen = representations.thaw(t.freeze(jax.device_get(code), state))
    for path, w in tree.flatten(decoded).items():
        assert w.tobytes() == tree.flatten(frozen)[path].tobytes(), path
        if path.endswith("kernel"):
            assert (w == 0).mean() >= 0.45, path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "next"])
def test_activations_in_float_and_in_integers(name):
    one = models.case(MODULES[name].clone(layers=1), models.tokens)
    wanted = jax.jit(one.f)(one.weights, one.x)
    batches = [(one.x,)]
    rules = ((".", {"bits": 8, "symmetric": False}),)
    ranges = program.calibrate(one.f, one.weights, batches, program.minmax())
    assert all(
        np.isfinite(bound).all()
        for sides in ranges.values()
        for bounds in sides.values()
        for bound in bounds
    )
    t = T.quantize(bits=8)
    code, state = jax.jit(t.encode)(one.weights["params"])
    rounded = {**one.weights, "params": t.decode(code, state)}
    f = jax.jit(program.fake_quantize(one.f, ranges, rules))
    floats = np.asarray(f(rounded, one.x))
    assert 0 < np.linalg.norm(floats - wanted) / np.linalg.norm(wanted) < 0.1
    frozen = t.freeze(jax.device_get(code), jax.device_get(state))
    whole = {**one.weights, "params": program.integer_params(frozen)}
    rows = program.integers(one.f, ranges, rules)(whole, one.x)
    assert all(row.integer or "tokens" in row.site for row in rows)
    found = jax.jit(program.run_integer(one.f, ranges, rules))(whole, one.x)
    scale = np.abs(floats).max()
    np.testing.assert_allclose(found / scale, floats / scale, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "next"])
def test_heads_and_widths_go(name):
    one = cuts.halved(case(name))
    kernel = one.weights["params"]["block_0"]["attention"]["query"]["kernel"]
    assert kernel.shape == (8, 1, 4)
    assert one.weights["params"]["block_1"]["dense_0"]["kernel"].shape == (8, 12)
    large = jax.jit(case(name).f)(one.masked, one.case.x)
    cuts.close(jax.jit(one.f)(one.weights, one.case.x), large)


def test_sharing_is_tying():
    """ALBERT's shared block computes what `tie` of all blocks does."""
    params = case("encoder").weights["params"]
    t = T.tie(layers=r"block_(\d+)/", pattern=".", every=0, paths=(), start="first")
    code, state = jax.jit(t.encode)(params)
    shared = MODULES["encoder"].clone(share=True)
    own = {k: v for k, v in params.items() if k != "block_1"}
    x = case("encoder").x

    @jax.jit
    def both(code, own):
        tied = {"params": t.decode(code, state)}
        return (
            MODULES["encoder"].apply(tied, x, train=False)[0],
            shared.apply({"params": own}, x, train=False)[0],
        )

    np.testing.assert_array_equal(*both(code, own))
    held = sum(w.size for w in jax.tree.leaves(code))
    assert held == sum(w.size for w in jax.tree.leaves(own))
