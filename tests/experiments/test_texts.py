"""Texts in a run: what does not fit is told before any compute, and what is served."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from experiments import check, recipe
from lib import errors, models, tree
from lib.data import dataset, inputs
from lib.models.layouts import bert

SENTENCES = ("a good film", "a bad film", "so good it hurts", "so bad it is good") * 5


@pytest.fixture
def config(tmp_path):
    lines = [f"{s}\t{'bad' in s}" for s in SENTENCES]
    path = tmp_path / "films.tsv"
    path.write_text("\n".join(["sentence\tlabel", *lines]), encoding="utf-8")
    config = common.base(stages=("one",))
    config.data.kind = "text"
    config.data.update(name=str(path), test="")
    config.data.text.update(size=60, max_length=12)
    fields = dict(layers=1, width=4, heads=1, intermediate=4, pad=0, separator=3)
    config.one = common.stage(
        model=common.model("encoder", vocabulary=60, max_length=12, **fields)
    )
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"one.model.vocabulary": 9}, "one.model.vocabulary is 9, and ids .* reach"),
        ({"one.model.pad": 1}, "set one.model.pad=0"),
        ({"one.model.separator": 102}, "set one.model.separator=3"),
        ({"one.model.max_length": 9}, "expected at least the 12 tokens of a text"),
        (
            {"data.text.buckets": (6,), "steps_per_call": 2},
            "steps_per_call is 0 or 1 with them, got 2",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_compute(config, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(errors.UserError, match=message) as e:
        check.stages(config, recipe.load_data(config.data))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("names", ["bert", "own"])
def test_embeddings_of_another_vocabulary_are_refused(config, tmp_path, names):
    data = recipe.load_data(config.data)
    module = recipe.build_model(config.one.model, 2)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, _ = jax.eval_shape(lambda k: models.init(module, k, (12,), jnp.int32), key)
    arrays = {}
    for path, leaf in tree.flatten(params).items():
        theirs = bert.place(f"params/{path}", module)
        theirs = theirs if isinstance(theirs, str) else theirs.name
        name = theirs if names == "bert" else path
        turned = names == "bert" and path.endswith("kernel")
        arrays[name] = np.zeros(leaf.shape[::-1] if turned else leaf.shape, np.float32)
    config.one.weights = str(tmp_path / "weights.npz")
    np.savez(config.one.weights, **arrays)
    if names == "own":  # as a run on the same texts wrote it
        check.stages(config, data)
        return
    with pytest.raises(errors.UserError, match="one.weights know the tokens of their"):
        check.stages(config, data)
    config.one.fresh = "^tokens/"
    check.stages(config, data)


def test_the_label_of_an_artifact_loads_the_same_texts(config, tmp_path):
    data = recipe.load_data(config.data)
    label = dataset.own(config.data.to_dict())
    assert "text" in label and not {"table", "normalisation"} & set(label)
    kept = inputs.from_label(inputs.to_label(data.inputs))
    label["text"]["vocabulary"] = "moved away since"
    again = recipe.load_data(label, kept)
    for part in ("train", "validation", "test"):
        one, other = (getattr(d, part).source.fields for d in (data, again))
        np.testing.assert_array_equal(one["input"], other["input"])
