"""Each cell against the technique itself, aimed at one layer with a plain number."""

import re

import jax
import numpy as np
import pytest

from configs import common
from configs import damage as damage_config
from configs import sensitivity as config_file
from experiments import damage, finished, packing, recipe, sensitivity
from lib import errors, files, models, tree
from lib import transforms as T
from lib.data import dataset, examples, inputs, normalise, splits
from lib.deploy import artifact
from lib.report import sensitivity as page

SHAPE = (4, 4, 1)
MODEL = {"name": "mlp", "widths": (8,), "dropout": 0.0}
PATHS = ("dense_0/kernel", "logits/kernel")
STRENGTHS = {"sparsity": (0.5, 0.9), "bits": (2, 4), "rank": (0.25, 0.5)}
STRENGTHS["clusters"] = (2, 8)


def weights(seed, shape=SHAPE, classes=3):
    module = models.build(classes=classes, **MODEL)
    params, _ = models.init(module, jax.random.key(seed), shape)
    return jax.tree.map(np.asarray, params)


def about(shape=SHAPE, classes=3, data=None):
    normal = normalise.Normalisation((80.0,), (50.0,))
    return {
        "model": MODEL,
        "classes": classes,
        "shape": list(shape),
        "data": data or {},
        "inputs": inputs.to_label(normal),
        "rules": [],
    }


def packed(seed):
    params = weights(seed)
    return packing.Packed(params, {}, {}, params, about())


def split_of(count=70):
    rng = np.random.default_rng(0)
    fields = {
        "input": rng.integers(0, 256, (count, *SHAPE), np.uint8),
        "label": rng.integers(0, 3, count).astype(np.int32),
    }
    return splits.Validation("toy", examples.Arrays(fields), 3, SHAPE)


def config_of(**changes):
    config = config_file.get_config()
    config.eval_batch_size = 32
    config.strengths.update(STRENGTHS)
    config.update(changes)
    return config


def one_layer(technique, strength, path):
    """The technique with a plain number, of that leaf alone."""
    aimed = f"^{re.escape(path)}$"
    if technique == "sparsity":
        return T.prune(sparsity=strength, pattern=aimed)
    if technique == "bits":
        return T.quantize(bits=strength, pattern=aimed)
    if technique == "clusters":
        return T.share(bits={2: 1, 8: 3}[strength], pattern=aimed)
    smaller = {"dense_0/kernel": 8, "logits/kernel": 3}[path]
    return T.factorize(rank=max(1, round(strength * smaller)), pattern=aimed)


@pytest.mark.slow
def test_each_cell_is_the_technique_on_that_layer_alone():
    one, split = packed(0), split_of()
    config = config_of(together=3)  # does not divide the cells
    layers = sensitivity.layers_of(one, config)
    assert tuple(layers) == PATHS
    found = sensitivity.measured(one, layers, split, config)

    def expected(params):
        """Accuracy and loss by NumPy alone."""
        fields = split.source.fields
        x, labels = fields["input"].reshape(len(split), -1), fields["label"]
        params = jax.tree.map(np.asarray, params)
        first, last = (params[k] for k in ("dense_0", "logits"))
        hidden = (x.astype(float) - 80) / 50 @ first["kernel"] + first["bias"]
        logits = np.maximum(hidden, 0) @ last["kernel"] + last["bias"]
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        loss = -logs[np.arange(len(labels)), labels].mean()
        return (logits.argmax(-1) == labels).mean(), loss

    base = found["base"]["accuracy"], found["base"]["loss"]
    np.testing.assert_allclose(base, expected(one.params), rtol=1e-5)
    for technique, strengths in STRENGTHS.items():
        curve = found["curves"][technique]
        for row, path in enumerate(PATHS):
            for column, strength in enumerate(strengths):
                if technique == "rank" and path == "logits/kernel" and strength > 0.3:
                    continue  # a product of that rank would hold more: refused there
                t = one_layer(technique, strength, path)
                accuracy, loss = expected(t.decode(*t.encode(one.params)))
                cell = tuple(curve[k][row][column] for k in ("accuracy", "loss"))
                np.testing.assert_allclose(cell, (accuracy, loss), rtol=1e-4)


@pytest.mark.slow
def test_cells_one_after_another_are_the_same():
    one, split = packed(1), split_of(40)
    found = [
        sensitivity.measured(
            one,
            sensitivity.layers_of(one, config),
            split,
            config,
        )["curves"]["sparsity"]["loss"]
        for config in (config_of(techniques=("sparsity",), together=n) for n in (1, 16))
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_rank_may_be_traced_and_whole_changes_nothing():
    flat = tree.flatten(weights(0))
    own = {path: flat[path] for path in PATHS}
    found = jax.jit(lambda r: sensitivity.ranked(own, r, None))(1.0)
    for path in PATHS:
        np.testing.assert_allclose(found[path], own[path], atol=1e-5)
        low = sensitivity.ranked(own, 0.01, None)[path]  # never below 1
        assert np.linalg.matrix_rank(low) == 1


def saved(at, **stages):
    """A finished run of two stages on the digits, none of them trained."""
    data = dataset.own(common.base().data.to_dict())
    label = about((8, 8, 1), 10, data)
    for name, seed in stages.items():
        path = at / "artifacts" / f"{name}.pare"
        path.parent.mkdir(exist_ok=True)
        params = weights(seed, (8, 8, 1), 10)
        artifact.save(path, packing.tree_of(params, {}, {}), label)
    return str(at)


@pytest.mark.slow
def test_stages_of_a_run_are_compared_and_tried_on_validation_data(tmp_path, capsys):
    run = saved(tmp_path, dense=0, small=1)
    config = damage_config.get_config("smoke")
    config.update({"run": run, "dense": "dense", "compressed": "small"})
    result = damage.run(config, tmp_path / "damage")
    data = recipe.load_data(common.base().data)
    assert result["examples"] == len(data.validation)
    assert sum(c["count"] for c in result["classes"]) == len(data.validation)
    labels = finished.labels(data.validation)
    for name, key in (("dense", "before"), ("small", "after")):
        one = finished.load(run, name, "a test")
        guess = finished.logits(one, data.validation, 64).argmax(-1)
        assert result[key] == pytest.approx((guess == labels).mean())
    assert files.read_json(tmp_path / "damage" / damage.NAME) == result
    told = capsys.readouterr().out
    assert f"{result['lost']} went from right to wrong" in told
    tried = config_of(run=run, stage="dense", techniques=("bits",))
    found = sensitivity.run(tried, tmp_path / "tried")
    assert found["base"]["accuracy"] == result["before"]
    text = (tmp_path / "tried" / "report.html").read_text()
    assert text == page.render(found) and "test split was not touched" in text
    assert sensitivity.run(tried, tmp_path / "tried") == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": ""}, "sensitivity: run is empty"),
        ({"stage": "dens"}, "unknown stage of .* 'dens'; did you mean"),
        ({"techniques": ("bitz",)}, "unknown technique of a sensitivity 'bitz'"),
        ({"techniques": ()}, "techniques is empty; valid: sparsity"),
        ({"strengths": {"bits": (9,)}}, "from 2 to 8, got 9"),
        ({"strengths": {"rank": (0.0,)}}, "strengths.rank are above 0 to 1, got 0.0"),
        ({"strengths": {"clusters": (6,)}}, "powers of two from 2 to 65536, got 6"),
        ({"strengths": {"clusters": (4.0,)}}, "powers of two from 2 to 65536, got 4.0"),
        ({"strengths": {"sparsity": (1.5,)}}, "are from 0 to 1, got 1.5"),
        ({"strengths": {"sparsity": ()}}, "strengths.sparsity is empty"),
        ({"pattern": "bias$"}, "expected matrices or kernels"),
        ({"pattern": "kernl"}, "rule 'kernl' matches nothing"),
        ({"together": 0}, "together is at least 1"),
    ],
)
def test_a_bad_setting_is_one_line_before_any_compute(changes, message, tmp_path):
    run = saved(tmp_path, dense=0)
    config = config_of(**({"run": run, "stage": "dense"} | changes))
    with pytest.raises(errors.UserError, match=message):
        sensitivity.run(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()
