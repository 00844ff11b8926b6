"""Some layers of a larger model become a smaller one's."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors, models, tree
from lib.models import foreign, layers

LARGE = models.build("transformer", classes=3, layers=4, width=8, heads=2)
SHAPE = (8, 8, 1)


def drawn(module, shape=SHAPE):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: models.init(module, jax.random.key(0), shape)[0])
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)


PARAMS = drawn(LARGE)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_each_block_is_the_one_that_was_asked_for(taken):
    found = layers.take(PARAMS, taken)
    want = {k: v for k, v in PARAMS.items() if not k.startswith("block_")}
    want |= {f"block_{i}": PARAMS[f"block_{n}"] for i, n in enumerate(taken)}
    assert tree.flatten(found).keys() == tree.flatten(want).keys()
    for path, leaf in tree.flatten(want).items():
        assert tree.get(found, path) is leaf
        assert layers.source(path, taken) in tree.flatten(PARAMS)


def test_names_that_are_no_blocks_stay():
    for path in ("block_0_1/conv/kernel", "blocks/kernel", "a_block_1/kernel"):
        assert layers.number(path) is None
        assert layers.source(path, (5,)) == path
    assert layers.source("params/block_1/a", (4, 2)) == "params/block_2/a"
    assert layers.take({"h_3": 1, "w": 2}, [3], r"h_(\d+)") == {"h_0": 1, "w": 2}


def small(**fields):
    return LARGE.clone(layers=2, **fields)


def test_a_smaller_model_begins_with_layers_of_a_larger_one():
    own = drawn(small())
    found = layers.start(own, PARAMS, (1, 3))
    models.check(small(), found, {}, SHAPE)
    assert found["block_0"] is not own["block_0"]
    np.testing.assert_array_equal(
        found["block_1"]["dense_0"]["kernel"], PARAMS["block_3"]["dense_0"]["kernel"]
    )
    np.testing.assert_array_equal(found["positions"], PARAMS["positions"])
    kept = layers.start(own, PARAMS, (1, 3), "^logits/")
    assert kept["logits"]["kernel"] is own["logits"]["kernel"]


@pytest.mark.parametrize(
    ("fields", "taken", "fresh", "message"),
    [
        ({}, (1,), "", r"each of the model's 2 blocks, got \(1,\)"),
        ({}, (1, 4), "", "expected blocks of 0, 1, 2, 3, got 4"),
        ({}, (1, 2), "^head/", "'.head/' matches nothing"),
        ({"classes": 4}, (0, 1), "", "'logits/bias'.*got shape .4,. in the smaller"),
    ],
)
def test_what_does_not_fit_is_told(fields, taken, fresh, message):
    with pytest.raises(errors.UserError, match=message):
        layers.start(drawn(small(**fields)), PARAMS, taken, fresh)


def test_what_shapes_do_not_tell_is_compared():
    layers.check_alike(small(dropout=0.3), LARGE)
    with pytest.raises(errors.UserError, match="Transformer.heads=2, as .*got 4"):
        layers.check_alike(small(heads=4), LARGE)
    with pytest.raises(errors.UserError, match="the Transformer whose .*got MLP"):
        layers.check_alike(models.build("mlp", classes=3), LARGE)


def test_layers_of_a_file(tmp_path):
    """Flax files of any model are read by its own names, all or some of its blocks."""
    path = tmp_path / "own.npz"
    flat = tree.flatten(PARAMS)
    np.savez(path, **flat)
    whole, _ = foreign.load(path, LARGE, SHAPE)
    for name, leaf in tree.flatten(whole).items():
        np.testing.assert_array_equal(leaf, flat[name])

    found, _ = foreign.load(path, small(), SHAPE, layers=(3, 0))
    want = layers.take(PARAMS, (3, 0))
    for name, leaf in tree.flatten(found).items():
        np.testing.assert_array_equal(leaf, tree.get(want, name))
    match = foreign.fit(path, small(), SHAPE, layers=(3, 0))
    assert {name.split("/")[0] for name in match.unused} == {"block_1", "block_2"}

    with pytest.raises(errors.UserError, match="block_2.* would be left over"):
        foreign.load(path, small(), SHAPE)
    with pytest.raises(errors.UserError, match="it lacks params/block_1/"):
        foreign.load(path, small(), SHAPE, layers=(3, 4))
    for taken in ((3,), (3, 0, 1)):
        with pytest.raises(errors.UserError, match="each of the model's 2 blocks, got"):
            foreign.load(path, small(), SHAPE, layers=taken)
    flat_one = models.build("mlp", classes=3)  # it has no blocks to choose
    with pytest.raises(errors.UserError, match="each of the model's 0 blocks, got"):
        foreign.fit(path, flat_one, SHAPE, layers=(0,))


@pytest.mark.slow
def test_what_is_fresh_and_unused_is_named(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **tree.flatten(PARAMS), extra=np.ones(3))
    other = LARGE.clone(classes=5)
    key = jax.random.key(1)
    settings = dict(fresh="^logits/", unused="^extra$")
    found, _ = foreign.load(path, other, SHAPE, key=key, **settings)
    own, _ = models.init(other, key, SHAPE)
    np.testing.assert_array_equal(found["logits"]["kernel"], own["logits"]["kernel"])
    np.testing.assert_array_equal(found["norm"]["scale"], PARAMS["norm"]["scale"])
    told = foreign.fit(path, other, SHAPE, **settings).told()
    assert "fresh: params/logits/" in told and "unused: extra" in told

    for changed, message in (
        ({"unused": ""}, "and extra of it would be left over"),
        ({"fresh": ""}, "expected 'logits/bias' to give .*got"),
        ({"fresh": "^head"}, "fresh '.head' matches nothing"),
        ({"unused": "^cls"}, "unused '.cls' matches nothing"),
    ):
        with pytest.raises(errors.UserError, match=message):
            foreign.load(path, other, SHAPE, key=key, **{**settings, **changed})
