"""Tables through a run: what is served, what is told, and the curve of features."""

import json

import numpy as np
import pytest

from configs import common, tabular
from configs.benchmarks import features as features_config
from experiments import (
    check,
    feature_curve,
    packing,
    recipe,
    stage,
    targets,
    told,
    workdir,
)
from lib import errors, files
from lib.data import pipeline
from lib.report import feature_curve as page
from lib.report import metrics
from tests.report import test_html

SERVED = [
    {"age": 61.5, "height": None, "job": "cook"},
    {"age": None, "height": 1.5, "job": "astronaut"},  # no such category in training
    {"age": 20, "height": 1.9, "job": None},
]


def rows(count):
    rng = np.random.default_rng(0)
    for i in range(count):
        job = ("cook", "nurse")[i % 2]
        age = rng.normal(40 + 20 * (job == "cook"), 5)
        row = {"age": age, "height": rng.normal(1.7, 0.1), "job": job}
        if i % 7 == 0:
            row["height"] = None
        yield {**row, "label": "old" if age > 50 else "young"}


def config(path):
    made = common.base(stages=("only",))
    made.data.name = str(path)
    made.data.kind = "table"
    made.data.test = ""
    made.data.table.select = "mutual_information"
    made.data.table.keep = 3.0
    made.only = common.stage(
        model=common.model("mlp", widths=(4,)),
        transforms=("quantize",),
        steps=2,
        batch_size=8,
    )
    return made


@pytest.mark.slow
def test_an_artifact_serves_raw_rows(tmp_path, capsys):
    lines = "".join(json.dumps(row) + "\n" for row in rows(90))
    (tmp_path / "people.jsonl").write_text(lines)
    made = config(tmp_path / "people.jsonl")
    check.settings(made)
    data = recipe.load_data(made.data)
    told.say(data)
    said = capsys.readouterr().out
    assert "data: height: missing values in test: " in said
    assert "data: 3 of 4 features are kept: age, " in said
    (one,) = check.stages(made, data)
    at = workdir.claim(tmp_path / "run", made)
    with metrics.MetricsWriter(at) as writer:
        stage.train(made, data, one, at, writer, lambda: False)

    loaded = targets.load(workdir.artifact_path(at, "only"))
    about = loaded.packed.about
    assert "image" not in about["data"] and about["data"]["table"]["keep"] == 3.0
    served = packing.inputs(about)
    stored = served.encode(SERVED)
    logits = loaded.logits(rounded=True)(stored)
    # By the run's own preparation, and by hand.
    batch = pipeline.preparation(data.inputs, None)(None, {"input": stored})
    network, weights = stage.network_of(loaded.packed)
    (wanted, _), _ = network(*weights, batch["input"])
    np.testing.assert_allclose(logits, wanted, rtol=1e-6, atol=1e-6)
    train = data.train.source.fields["input"]
    age, height = (train[:, i][~np.isnan(train[:, i])] for i in (0, 1))
    assert served.fill[:2] == (0.0 + np.median(age), 0.0 + np.median(height))
    filled = [{**SERVED[0], "height": float(np.median(height))}, *SERVED[1:]]
    again = loaded.logits(rounded=True)(served.encode(filled))
    np.testing.assert_allclose(again, logits, rtol=1e-6)


def test_an_augmentation_of_images_is_refused():
    made = tabular.get_config()
    made.dense.augment = ("shift",)
    with pytest.raises(errors.UserError, match="'shift' is of images, and data.kind"):
        check.settings(made)


ROWS = [
    {"keep": 2, "validation": [0.9, 0.8, 0.7], "bytes": [10, 11, 12]},
    {"keep": 4, "validation": [0.9, 0.85, 0.9], "bytes": [20, 21, 22]},
    {"keep": 8, "validation": [0.9, 0.9, 0.8], "bytes": [30, 31, 32]},
]


def test_the_fewest_of_the_best_are_chosen():
    assert feature_curve.chosen(ROWS) == 4
    assert feature_curve.chosen(ROWS[::-1]) == 4


def test_the_page_of_the_curve(tmp_path):
    told = {"counts": {}, "features": [{"name": "<a>", "score": 1.0, "kept": True}]}
    result = {"experiment": "feature_curve", "rows": ROWS, "chosen": 4, "data": told}
    result |= {"examples": {"validation": 50, "test": 60}, "config": {"seed": 0}}
    result |= {"test": {"4": [0.5, 0.75, 1.0], "8": [0.25] * 3}, "environment": {}}
    page.write(tmp_path, result)
    text = test_html.check((tmp_path / "report.html").read_text()).text
    assert "4 is chosen" in text and "Medians of 3 seeds" in text
    assert "75.00" in text and "90.00" in text and "<a>" in text
    assert (tmp_path / "features.svg").exists()


@pytest.mark.slow
def test_a_curve_is_trained_once(tmp_path):
    made = features_config.get_config("smoke")
    made.data.name = "sklearn/iris"
    made.data.table.select = "variance"
    made.dense.steps = 2
    made.dense.model.widths = (4,)
    made.curve.keep = (1, 4)
    result = feature_curve.run(made, tmp_path)
    assert [row["keep"] for row in result["rows"]] == [1, 4]
    assert set(result["test"]) == {str(result["chosen"]), "4"}
    kept = [f["kept"] for f in result["data"]["features"]]
    assert sum(kept) == result["chosen"] and len(kept) == 4
    before = files.read_json(tmp_path / "features.json")
    assert feature_curve.run(made, tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curve.keep": (3,)}, "two or more different numbers"),
        ({"curve.keep": (3, 3)}, "two or more different numbers"),
        ({"curve.seeds": ()}, "curve.seeds is empty"),
        ({"data.kind": "image"}, "set data.kind='table'"),
        ({"data.table.select": ""}, "set data.kind='table' and data.table.select"),
    ],
)
def test_a_curve_that_cannot_be_drawn_is_one_line(tmp_path, changes, message):
    made = features_config.get_config()
    made.update_from_flattened_dict(changes)
    with pytest.raises(errors.UserError, match=message):
        feature_curve.run(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()
