"""Tied leaves: stored and trained once, the same everywhere, gradients added up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, models, representations, tree
from lib import transforms as T
from lib.deploy import artifact
from tests.train import jobs

BLOCKS = r"block_(\d+)/"


def leaf(value, shape=(2, 2)):
    return jnp.full(shape, value, jnp.float32)


def layers(*numbers, prefix="layer_"):
    """A kernel and a bias a layer, filled with the layer's number."""
    flat = {"embed/kernel": leaf(100.0)}
    for i in numbers:
        flat[f"{prefix}{i}/kernel"] = leaf(float(i))
        flat[f"{prefix}{i}/bias"] = leaf(float(i), (2,))
    return tree.unflatten(flat)


def same_bytes(a, b):
    a, b = tree.flatten(a), tree.flatten(b)
    assert set(a) == set(b)
    for path, x in a.items():
        assert np.asarray(x).tobytes() == np.asarray(b[path]).tobytes(), path


def values(p):
    """Returns {path: the value that fills it}; [] for what is not stored."""

    def value(x):
        found = np.unique(x)
        assert found.size == 1
        return float(found[0])

    return {path: value(x) for path, x in tree.flatten(p).items()}


LAYERS = r"layer_(\d+)/"


@pytest.mark.parametrize(
    ("settings", "numbers", "stored", "decoded"),
    [
        (dict(), (0, 1, 2, 3), [0], [0, 0, 0, 0]),
        (dict(start="mean"), (0, 1, 2, 3), [1.5], [1.5] * 4),
        (dict(every=2), (0, 1, 2, 3), [0, 2], [0, 0, 2, 2]),
        (dict(every=2), (1, 2, 3, 4, 5), [1, 3, 5], [1, 1, 3, 3, 5]),
        (dict(every=2, start="mean"), (1, 2, 3), [1.5, 3], [1.5, 1.5, 3]),
        (dict(every=3), (0, 2, 4, 6), [0, 6], [0, 0, 0, 6]),
        # By number, not by name: 10 comes after 9, and is in its group.
        (dict(every=2), (8, 9, 10, 11), [8, 10], [8, 8, 10, 10]),
        (dict(every=2), (10, 9, 11, 8), [8, 10], [10, 8, 10, 8]),
    ],
)
def test_groups_of_layers(settings, numbers, stored, decoded):
    t = T.tie(layers=LAYERS, **settings)
    p = layers(*numbers)
    code, state = t.encode(p)
    assert jax.tree.leaves(state) == []
    kept = values(code)
    assert sorted(
        v for k, v in kept.items() if k.endswith("r/bias") or "bias" in k
    ) == (stored)
    assert kept["embed/kernel"] == 100
    for name in ("kernel", "bias"):
        found = values(jax.jit(t.decode)(code, state))
        assert [found[f"layer_{i}/{name}"] for i in numbers] == decoded
    for path in tree.flatten(p):  # every path is there, {} where nothing is stored
        assert isinstance(tree.get(code, path), dict) == (path not in kept)
    # In whatever order jit hands back the keys of dicts.
    same_bytes(t.decode(*jax.jit(t.encode)(p)), t.decode(code, state))


def test_only_what_the_pattern_takes_and_each_scope_by_itself():
    p = {"a": layers(0, 1), "b": layers(3, 4)}
    code, state = T.tie(layers=LAYERS, pattern="kernel").encode(p)
    found = values(T.tie(layers=LAYERS, pattern="kernel").decode(code, state))
    assert {k: v for k, v in found.items() if "layer" in k} == {
        "a/layer_0/kernel": 0,
        "a/layer_1/kernel": 0,
        "a/layer_0/bias": 0,
        "a/layer_1/bias": 1,
        "b/layer_3/kernel": 3,
        "b/layer_4/kernel": 3,
        "b/layer_3/bias": 3,
        "b/layer_4/bias": 4,
    }
    taken = {r.path: r.taken_by for r in T.plan(T.tie(layers=LAYERS), p)}
    assert taken["a/embed/kernel"] == ""
    assert taken["b/layer_4/bias"].startswith("tie(")


def test_named_paths():
    p = {"in": {"embedding": leaf(1.0)}, "out": {"embedding": leaf(2.0)}}
    t = T.tie(paths=("out/embedding", "in/embedding"))
    code, state = t.encode(p)
    assert values(code) == {"out/embedding": 2}
    assert values(t.decode(code, state)) == {"in/embedding": 2, "out/embedding": 2}
    assert t.freeze(code, state)["in"]["embedding"].path == "out/embedding"


def test_gradients_add_up():
    t = T.tie(layers=LAYERS)
    rng = np.random.default_rng(0)
    p = jax.tree.map(
        lambda w: jnp.asarray(rng.normal(size=w.shape), jnp.float32), layers(0, 1, 2)
    )
    code, state = t.encode(p)

    def loss(p):
        x = jnp.ones((3, 2)) @ p["embed"]["kernel"]
        for i in range(3):
            x = jnp.tanh(x @ p[f"layer_{i}"]["kernel"] + p[f"layer_{i}"]["bias"][None])
        return jnp.sum(jnp.sin(x))

    found = jax.grad(lambda c: loss(t.decode(c, state)))(code)
    each = jax.grad(loss)(t.decode(code, state))
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(
            found["layer_0"][name],
            sum(each[f"layer_{i}"][name] for i in range(3)),
            rtol=1e-5,
            atol=1e-6,
        )
        assert found["layer_1"][name] == {}
    same_bytes(found["embed"], each["embed"])


def test_equal_layers_are_not_changed():
    p = layers(0, 1)
    p["layer_1"] = p["layer_0"]
    for start in ("first", "mean"):
        t = T.tie(layers=LAYERS, start=start)
        same_bytes(t.decode(*t.encode(p)), p)


@functools.cache
def transformer(layers=3, **fields):
    module = models.build("transformer", classes=10, layers=layers, **fields)
    shapes = jax.eval_shape(
        lambda: models.init(module, jax.random.key(0), (8, 8, 1))[0]
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes
    )


def stored(t, p):
    """How many weights the frozen tree of what `t` makes of `p` holds."""
    frozen = t.freeze(*jax.device_get(t.encode(p)))
    return sum(
        representations.params(representations.of(x))
        for x in tree.flatten(frozen).values()
    )


def by_hand(blocks_of, width, expansion, patch=4, tokens=4, classes=10):
    """ALBERT's count: so many of each part of a block as are not shared."""
    parts = {
        "attention": 4 * (width * width + width),
        "dense": 2 * expansion * width * width + expansion * width + width,
        "norm": 2 * 2 * width,
    }
    around = (
        (patch * patch * width + width)
        + tokens * width
        + 2 * width
        + (width * classes + classes)
    )
    return around + sum(count * parts[part] for part, count in blocks_of.items())


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        (dict(), (1, 1, 1)),
        (dict(pattern="attention"), (1, 5, 5)),
        (dict(pattern=r"/dense_\d"), (5, 1, 5)),
        (dict(pattern=r"/(attention|dense_\d)/"), (1, 1, 5)),
        (dict(every=2), (3, 3, 3)),
    ],
)
@pytest.mark.parametrize("start", ["first", "mean"])
def test_parameters_of_a_shared_transformer(settings, blocks, start):
    p = transformer(layers=5, width=16, heads=2, expansion=3)
    t = T.tie(layers=BLOCKS, start=start, **settings)
    counts = dict(zip(("attention", "dense", "norm"), blocks, strict=True))
    assert stored(t, p) == by_hand(counts, width=16, expansion=3)
    whole = dict.fromkeys(counts, 5)
    assert stored(T.identity(), p) == by_hand(whole, width=16, expansion=3)


def test_a_deeper_network_has_no_more_parameters():
    counts = {
        stored(T.tie(layers=BLOCKS), transformer(layers=n, width=16)) for n in (2, 6)
    }
    assert len(counts) == 1


AFTER = {
    "tie": (),
    "prune_quantize": (
        T.prune(sparsity=0.5, pattern="query/kernel"),
        T.quantize(bits=4, pattern="query/kernel"),
    ),
    "fixed": (T.fixed(pattern="attention"),),
    "twice": (T.tie(paths=("block_0/dense_0/kernel", "spare/kernel")),),
}


@pytest.mark.parametrize("after", AFTER)
def test_frozen_is_decoded_to_the_bit_and_packed_once(after, tmp_path):
    p = dict(transformer(layers=3, width=16, heads=2))
    p["spare"] = {"kernel": p["block_1"]["dense_0"]["kernel"] + 1}
    t = T.chain(T.tie(layers=BLOCKS), *AFTER[after])
    code, state = jax.jit(t.encode)(p)
    decode = jax.jit(t.decode)
    decoded = decode(code, state)
    decode(jax.tree.map(lambda w: w + 1, code), state)
    assert decode._cache_size() <= 1
    frozen = t.freeze(*jax.device_get((code, state)))
    kernel = "attention/query/kernel"
    assert tree.get(frozen, f"block_2/{kernel}").path == f"block_0/{kernel}"
    same_bytes(representations.thaw(frozen), decoded)
    path = tmp_path / "tied.pare"
    artifact.save(path, frozen)
    loaded = artifact.load(path)
    same_bytes(representations.thaw(loaded), decoded)
    assert tree.get(loaded, f"block_2/{kernel}").path == f"block_0/{kernel}"


def test_a_technique_after_it_sees_the_shared_weight_once():
    p = transformer(layers=3, width=16)
    prune = T.prune(sparsity=0.5, pattern="query/kernel")
    t = T.chain(T.tie(layers=BLOCKS), prune)
    code, state = t.encode(p)
    assert list(state[1]) == ["block_0/attention/query/kernel"]
    first, last = (
        t.decode(code, state)[b]["attention"] for b in ("block_0", "block_2")
    )
    assert (last["query"]["kernel"] == 0).mean() == 0.5
    same_bytes(first, last)


def test_aimed_by_select():
    t = T.select("block_[01]/", T.tie(layers=BLOCKS))
    p = transformer(layers=3, width=16)
    decoded = t.decode(*t.encode(p))
    same_bytes(decoded["block_1"], p["block_0"])
    same_bytes(decoded["block_2"], p["block_2"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T.tie(), "tie: give either layers or paths"),
        (
            lambda: T.tie(layers=LAYERS, paths=("a", "b")),
            "tie: give either layers or paths",
        ),
        (lambda: T.tie(layers=r"layer_\d+/"), "tie: layers has one group"),
        (lambda: T.tie(layers=r"(layer_\d+/)"), "is the layer's number, but in "),
        (lambda: T.tie(layers="("), "pattern '(' is no regular expression"),
        (lambda: T.tie(layers=LAYERS, every=1), "tie: every is how many consecutive"),
        (lambda: T.tie(layers=LAYERS, start="frist"), "did you mean 'first'?"),
        (lambda: T.tie(paths=("a",)), "tie: paths are two or more"),
        (lambda: T.tie(paths=("a", "a")), "tie: paths are two or more"),
        (
            lambda: T.tie(paths=("layer_0/kernel", "layer_1/kernal")),
            "did you mean 'layer_1/kernel'?",
        ),
        (lambda: T.tie(layers=r"lyer_(\d+)/"), "ties nothing; paths are such as"),
        (lambda: T.tie(layers=LAYERS, pattern="norm"), "ties nothing"),
        (
            lambda: T.tie(paths=("layer_0/kernel", "layer_0/bias")),
            "layer_0/kernel is float32[2, 2] and layer_0/bias is float32[2]; only",
        ),
        (
            lambda: T.chain(T.prune(sparsity=0.5), T.tie(layers=LAYERS)),
            "tie first: chain(tie(...), prune(...))",
        ),
        (
            lambda: T.chain(T.quantize(bits=4), T.tie(layers=LAYERS)),
            "tie first: chain(tie(...), quantize(...))",
        ),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(errors.UserError) as e:
        make().encode(layers(0, 1, 2))
    assert message in str(e.value)
    with pytest.raises(errors.UserError):
        T.plan(make(), jax.eval_shape(lambda: layers(0, 1, 2)))


@pytest.mark.slow
def test_trained_layers_stay_one():
    job = jobs.make(
        jobs.mlp(widths=(8, 8, 8)),
        transform=T.tie(layers=r"dense_(\d+)/", pattern="dense_[12]/"),
        ema=0.9,
    )
    decode = job.recipe.transform.decode
    before = decode(job.state.code, job.state.codec)
    *_, (state, _) = job.steps(4)
    for code in (state.code, state.ema):
        after = decode(code, state.codec)
        same_bytes(after["dense_1"], after["dense_2"])
        assert (after["dense_1"]["kernel"] != before["dense_1"]["kernel"]).any()
    # One pair of moments for both layers.
    moments = [x.shape for x in jax.tree.leaves(state.optimizer)]
    assert moments.count((8, 8)) == 2
