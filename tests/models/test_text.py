"""The text models beside a reference: masks, types, features, fields."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, models, tree
from lib.models import attention
from lib.models.decoder import at_last_token
from lib.models.encoder import mean_of_tokens

SMALL = dict(layers=1, width=8, heads=2, intermediate=6, vocabulary=12, max_length=7)
IDS = np.array([[5, 6, 1, 7, 8, 0], [9, 1, 4, 0, 0, 0]], np.int32)
MASK = IDS != 0


@pytest.fixture(scope="module", autouse=True)
def _compile_fast():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def made(name, **fields):
    """A model and weights that are all of a size."""
    fields = {**SMALL, "classes": 3, **({"separator": 1} if name == "encoder" else {})}
    return lambda **more: _drawn(models.build(name, **{**fields, **more}))


def _drawn(module):
    shapes = jax.eval_shape(
        lambda: models.init(module, jax.random.key(0), (6,), jnp.int32)[0]
    )
    rng = np.random.default_rng(0)
    draw = lambda x: rng.normal(size=x.shape).astype(np.float32)  # noqa: E731
    return module, jax.tree.map(draw, shapes)


ENCODER, DECODER = made("encoder"), made("decoder")
MODELS = {
    "encoder": lambda: ENCODER(),
    "albert": lambda: ENCODER(embedding=4, share=True, pooling="mean", pooler=""),
    "decoder": lambda: DECODER(pad=0),
    "next": lambda: DECODER(pad=0, task="next", classes=12),
}


@functools.cache
def _jitted(module):
    return jax.jit(models.make_apply(module), static_argnames="train")


def run(module, params, ids=IDS):
    apply = _jitted(module)
    return jax.device_get(apply(params, {}, jnp.asarray(ids), train=False, key=None)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_padding_is_looked_at_by_nobody(name):
    """Texts are what they are, however long the batch and at whichever end."""
    module, params = MODELS[name]()
    logits, features = run(module, params)
    longer, _ = run(module, params, np.pad(IDS, ((0, 0), (0, 1))))
    np.testing.assert_allclose(longer, logits, atol=1e-5, rtol=1e-5)
    (alone,), _ = run(module, params, IDS[1:, :3])
    np.testing.assert_allclose(alone, logits[1], atol=1e-5, rtol=1e-5)
    scores = features["scores_0"]
    seen = np.broadcast_to(MASK[:, None, None], scores.shape)
    assert (scores[~seen] == attention.MASKED).all()
    assert np.isfinite(scores).all()


def test_the_decoder_does_not_see_what_comes():
    module, params = MODELS["next"]()
    logits, features = run(module, params)
    changed = IDS.copy()
    changed[0, 4] = 3
    others, other = run(module, params, changed)
    np.testing.assert_array_equal(other["next"][0, :4], features["next"][0, :4])
    np.testing.assert_array_equal(logits[0], features["next"][0, 4])
    assert (others[0] != logits[0]).any() and (others[1] == logits[1]).all()


@pytest.mark.parametrize("name", MODELS)
def test_features_and_their_shapes(name):
    module, params = MODELS[name]()
    logits, features = run(module, params)
    b, length = IDS.shape
    deeper = module.clone(layers=2)
    _, more = jax.eval_shape(
        lambda: deeper.init_with_output(jax.random.key(0), IDS, train=False)[0]
    )
    assert more.keys() - features.keys() == {
        f"{part}_1" for part in ("block", "scores", "query", "key", "value")
    }
    heads, states = (b, 2, length, 4), (b, length, 8)
    wanted = {"embed": states, "mask": (b, length), "pooled": (b, 8)}
    wanted |= {"block_0": states, "scores_0": (b, 2, length, length)}
    wanted |= {f"{part}_0": heads for part in ("query", "key", "value")}
    if name in ("decoder", "next"):
        wanted["hidden"] = states
    if name == "next":
        wanted["next"] = (b, length, 12)
    assert {k: x.shape for k, x in features.items()} == wanted
    assert features["mask"].dtype == bool
    np.testing.assert_array_equal(features["mask"], MASK)
    assert logits.shape == (b, module.classes)
    # The attention is that of its features, computed anew.
    q, k, v = (np.float64(features[f"{part}_0"]) for part in ("query", "key", "value"))
    allowed = np.broadcast_to(MASK[:, None, None], (b, 1, length, length))
    if name in ("decoder", "next"):
        allowed = allowed & np.tril(np.ones((length, length), bool))
    scores = np.where(allowed, q @ k.swapaxes(2, 3) / 2, -1e4)
    np.testing.assert_allclose(features["scores_0"], scores, atol=1e-4, rtol=1e-4)


def test_types_begin_behind_the_first_separator():
    module, params = ENCODER()
    types = np.array([[0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]])
    table = {k: np.float64(params[k]["embedding"]) for k in ("tokens", "positions")}
    x = table["tokens"][IDS] + table["positions"][None, :6]
    x = x + params["types"]["embedding"][types]
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    want = x * params["embed_norm"]["scale"] + params["embed_norm"]["bias"]
    _, features = run(module, params)
    np.testing.assert_allclose(features["embed"], want, atol=1e-4)
    none = module.clone(separator=-1)
    _, others = run(none, params)
    assert (others["embed"] != features["embed"]).any(2).tolist() == types.tolist()


def test_where_nothing_is_a_token():
    x, mask = np.ones((1, 3, 2), np.float32), np.zeros((1, 3), bool)
    assert not mean_of_tokens(x, mask).any()
    assert not at_last_token(x, mask).any()
    for name in ("albert", "next"):
        logits, _ = run(*MODELS[name](), np.zeros_like(IDS))
        assert np.isfinite(logits).all()


def test_what_is_shared_and_what_is_not_there():
    _, params = MODELS["albert"]()
    assert set(params) == {
        *("tokens", "positions", "types", "embed_norm", "embed_project", "block_0"),
        "logits",
    }
    assert params["tokens"]["embedding"].shape == (12, 4)
    _, params = ENCODER(types=0, pooler="relu")
    assert "types" not in params and "pooler" in params
    _, params = MODELS["next"]()
    assert "logits" not in params


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_dropout_draws_in_training_alone(name):
    module, params = {"encoder": ENCODER, "decoder": DECODER}[name](dropout=0.4)

    def program(one):
        apply = models.make_apply(one)
        return str(
            jax.make_jaxpr(lambda p: apply(p, {}, IDS, train=False, key=None))(params)
        )

    assert program(module) == program(module.clone(dropout=0.0))
    apply = models.make_apply(module)

    @jax.jit
    @jax.vmap
    def logits(seed):
        return apply(params, {}, IDS, train=True, key=jax.random.key(seed))[0][0]

    draws = np.asarray(logits(np.array([0, 1, 0])))
    assert (draws[0] != draws[1]).any() and (draws[0] == draws[2]).all()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("encoder", {"width": 9}, "Encoder.width: expected a multiple of the 2 heads"),
        ("encoder", {"types": -1}, "Encoder.types: expected a whole number of at"),
        ("encoder", {"pad": -2}, "Encoder.pad: expected a whole number of at least -1"),
        ("encoder", {"gelu": "relu"}, "Encoder.gelu: expected one of 'exact', 'tanh'"),
        ("encoder", {"pooling": "max"}, "Encoder.pooling: expected one of 'cls', 'm"),
        ("encoder", {"pooler": "gelu"}, "Encoder.pooler: expected one of '', 'tanh'"),
        ("encoder", {"share": 1}, "Encoder.share: expected True or False"),
        ("decoder", {"task": "next"}, "Decoder.classes: expected the vocabulary's 12"),
        ("decoder", {"task": "tag"}, "Decoder.task: expected one of 'classify', 'ne"),
        ("decoder", {"vocabulary": 0}, "Decoder.vocabulary: expected a whole number"),
    ],
)
def test_a_mistaken_field_is_named(name, fields, message):
    with pytest.raises(errors.UserError, match=re.escape(message)):
        models.build(name, **{"classes": 3, **SMALL, **fields})


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_unfit_inputs_are_named(name):
    module = models.build(name, classes=3, **SMALL)
    key = jax.random.key(0)
    with pytest.raises(errors.UserError, match="max_length: expected at least the 8"):
        models.init(module, key, (8,), jnp.int32)
    with pytest.raises(errors.UserError, match="whole numbers .*got float32"):
        models.init(module, key, (6,))
    with pytest.raises(errors.UserError, match=r"got int32 of shape \(1, 6, 2\)"):
        models.init(module, key, (6, 2), jnp.int32)


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_kernels_are_named_kernel(name):
    """The default rule of every technique takes them, and no table or bias."""
    module = models.build(name, classes=3, **SMALL)
    shapes = jax.eval_shape(
        lambda: models.init(module, jax.random.key(0), (6,), jnp.int32)[0]
    )
    for path, leaf in tree.flatten(shapes).items():
        table = path.endswith(("embedding", "bias"))
        assert path.endswith("/kernel") == (len(leaf.shape) > 1 and not table), path
