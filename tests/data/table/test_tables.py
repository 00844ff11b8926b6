"""Tables: every step against scikit-learn's own pipeline, fitted on training alone."""

import json

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from sklearn import compose, feature_selection, linear_model, pipeline, preprocessing
from sklearn.impute import SimpleImputer

from lib import errors
from lib.data import dataset, inputs, parts
from lib.data.sources.rows import Opened
from lib.data.table import inputs as table_inputs
from lib.data.table import tables
from lib.data.table.columns import Column
from lib.data.table.inputs import Feature, TableInputs

SETTINGS = {
    "columns": (),
    "categorical": ("floor",),
    "impute": "median",
    "standardise": True,
    "select": "",
    "keep": 0.0,
    "threshold": 0.0,
    "inverse_strength": 1.0,
    "seed": 0,
}
NUMBERS, CATEGORIES = ("age", "height"), ("job", "floor", "member")
PARTS = {"train": 80, "dev": 30, "test": 30}


def drawn(seed, count):
    """Returns rows of numbers, texts, codes and flags; some values are missing."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        age, height = rng.normal(40, 12), rng.normal(1.7, 0.1)
        job = rng.choice(["nurse", "cook", "judge"] + ["pilot"] * (seed > 0))
        label = "yes" if age + 20 * (job == "cook") + rng.normal(0, 5) > 45 else "no"
        row = {"age": age, "height": height, "job": str(job)}
        row |= {"floor": int(rng.integers(1, 4)), "member": bool(rng.integers(2))}
        for name in ("age", "height", "job"):
            if rng.random() < 0.1:
                row[name] = None
        rows.append({**row, "label": label})
    return rows


ROWS = {part: drawn(i, count) for i, (part, count) in enumerate(PARTS.items())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("tables")
    for part, rows in ROWS.items():
        write(at / f"{part}.jsonl", rows)
    return at


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def table(load, folder):
    """A function: settings of `data.table` -> the data set of three files."""

    def make(name=folder, fitted=None, **changes):
        given = {"kind": "table", "validation": "dev", "fitted": fitted}
        return load(str(name), table={**SETTINGS, **changes}, **given)

    return make


def made(found, part):
    """Returns the inputs of a part as a jitted step makes them."""
    run = jax.jit(lambda stored: found.inputs(stored))
    return np.asarray(run(part.source.fields["input"]))


def raw(rows):
    columns = [
        [np.nan if r[n] is None else r[n] for r in rows]
        if n in NUMBERS
        else ["none" if r[n] is None else str(r[n]) for r in rows]
        for n in NUMBERS + CATEGORIES
    ]
    return np.array(columns, object).T


def reference(standardise=True, impute="median", select=None):
    """Returns scikit-learn's pipeline of the same steps, fitted to the train rows."""
    jobs = ["cook", "judge", "nurse"]  # what is missing is no category
    floors, flags = ["1", "2", "3"], ["False", "True"]
    hot = preprocessing.OneHotEncoder(
        categories=[jobs, floors, flags], handle_unknown="ignore", sparse_output=False
    )
    # What neither the encoder's categories nor its fit know is all zeros.
    hot.fit(np.array([["cook", "1", "True"]], object))
    numbers = pipeline.make_pipeline(
        preprocessing.FunctionTransformer(lambda x: x.astype(np.float32).astype(float)),
        SimpleImputer(strategy=impute, fill_value=0.0),
    )
    steps = [
        compose.ColumnTransformer(
            [
                ("numbers", numbers, [0, 1]),
                ("hot", preprocessing.FunctionTransformer(hot.transform), [2, 3, 4]),
            ]
        )
    ]
    if standardise:
        steps.append(preprocessing.StandardScaler())
    if select is not None:
        early = isinstance(select, feature_selection.SelectKBest)
        steps.insert(1 if early else len(steps), select)
    labels = [row["label"] == "yes" for row in ROWS["train"]]
    return pipeline.make_pipeline(*steps).fit(raw(ROWS["train"]), labels)


def agree(found, wanted):
    for part, name in ((found.train, "train"), (found.test, "test")):
        np.testing.assert_allclose(
            made(found, part), wanted.transform(raw(ROWS[name])), atol=2e-5
        )


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("impute", ["median", "mean", "most_frequent", "constant"])
def test_inputs_are_those_of_scikit_learn(table, impute, standardise):
    found = table(impute=impute, standardise=standardise)
    assert (found.shape, found.names, found.classes) == ((10,), ("no", "yes"), 2)
    agree(found, reference(standardise, impute))
    assert all(f["kept"] and f["score"] is None for f in found.features)


def regression(**settings):
    return linear_model.LogisticRegression(max_iter=5000, random_state=0, **settings)


SELECTIONS = {
    "mutual_information": feature_selection.SelectKBest(
        lambda x, y: feature_selection.mutual_info_classif(
            x, y, discrete_features=np.arange(10) >= 2, random_state=0
        ),
        k=4,
    ),
    "l1": feature_selection.SelectFromModel(
        regression(l1_ratio=1.0, solver="saga"), max_features=4, threshold=-np.inf
    ),
    "rfe": feature_selection.RFE(
        regression(l1_ratio=0.0, solver="lbfgs"), n_features_to_select=4
    ),
}


@pytest.mark.parametrize("select", SELECTIONS)
def test_selections_are_those_of_scikit_learn(table, select):
    found = table(select=select, keep=4.0)
    agree(found, reference(select=SELECTIONS[select]))
    kept = [f["name"] for f in found.features if f["kept"]]
    assert kept == list(found.inputs.names) and "job=cook" in kept
    least = min(f["score"] for f in found.features if f["kept"])
    assert all(f["score"] <= least for f in found.features if not f["kept"])
    assert table(select=select, keep=0.4).inputs == found.inputs  # 4 of 10


def test_variance_is_that_of_features_before_they_are_standardised(table):
    found = table(select="variance", threshold=0.2, standardise=False)
    wanted = reference(False, select=feature_selection.VarianceThreshold(0.2))
    agree(found, wanted)
    names = table(select="variance", threshold=0.2).inputs.names
    assert names == found.inputs.names


def test_a_lasso_leaves_what_is_not_zero(table):
    found = table(select="l1", inverse_strength=0.1)
    lasso = regression(l1_ratio=1.0, solver="saga", C=0.1)
    agree(found, reference(select=feature_selection.SelectFromModel(lasso)))
    assert 0 < found.shape[0] < 10


def test_what_is_missing_or_unseen_is_counted(table):
    counts = {}
    for part, rows in zip(("train", "validation", "test"), ROWS.values(), strict=True):
        for name in ("age", "height", "job"):
            count = sum(row[name] is None for row in rows)
            counts[f"{name}: missing values in {part}"] = count
        unseen = sum(row["job"] == "pilot" for row in rows)
        if unseen:
            told = f"job: values in {part} of categories unseen in training"
            counts[told] = unseen
    assert table().counts == {k: v for k, v in counts.items() if v}
    assert len(counts) == 11


def test_an_artifact_keeps_its_categories(table, tmp_path):
    fitted = table().inputs
    for part in PARTS:  # a new job, the first of the alphabet
        first = {**ROWS[part][0], "job": "actor"}
        write(tmp_path / f"{part}.jsonl", [first, *ROWS[part][1:]])
    again = table(tmp_path, fitted=fitted)
    assert again.inputs is fitted and again.features == ()
    np.testing.assert_array_equal(
        made(again, again.test)[1:], made(table(), table().test)[1:]
    )


def test_nothing_is_fitted_to_validation_or_test(table, tmp_path):
    write(tmp_path / "train.jsonl", ROWS["train"])
    for part in ("dev", "test"):
        other = [{**row, "age": 1e6, "job": "king"} for row in ROWS[part]]
        write(tmp_path / f"{part}.jsonl", other)
    for select in ("", "l1"):
        ours, others = table(select=select), table(tmp_path, select=select)
        assert ours.inputs == others.inputs and ours.features == others.features


def test_of_drawn_parts_only_training_is_fitted(load):
    settings = {**SETTINGS, "categorical": ()}
    found = load("sklearn/iris", kind="table", test="", table=settings)
    assert [len(p) for p in (found.train, found.validation, found.test)] == [95, 25, 30]
    x = made(found, found.train)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-5)
    assert abs(made(found, found.test).mean(0)).max() > 1e-3
    some = load(
        "sklearn/iris",
        kind="table",
        test="",
        table=settings,
        only=("virginica", "setosa"),
    )
    assert some.names == ("virginica", "setosa") and len(some.test) == 20


class TfdsRows(list):
    """Rows as TFDS gives them: NumPy's scalars, bytes, and arrays."""

    def __getitems__(self, indices):
        return [self[i] for i in indices]


def test_rows_of_scalars_and_bytes_are_columns():
    made = TfdsRows(
        {
            "age": np.float32(i),
            "job": (b"cook", "\u00e9t\u00e9".encode())[i % 2],
            "member": np.bool_(i % 3 == 0),
            "image": np.zeros((2, i % 2 + 1, 1), np.uint8),
            "label": np.int64(i % 2),
        }
        for i in range(40)
    )
    fields, classes = tuple(made[0]), {"label": ("no", "yes")}
    opened = Opened("tiny", {"train": made}, fields, classes)
    names = parts.Names("train", "", "", 0.25, 0.25)
    settings = {**SETTINGS, "categorical": (), "columns": ("age", "job", "member")}
    given = dict(label="label", resident_bytes=0)
    found = dataset.Dataset("", *tables.load(opened, names, **given, table=settings))
    told = [feature["name"] for feature in found.features]
    assert told[:3] == ["age", "job=cook", "job=\u00e9t\u00e9"] and len(told) == 5
    assert found.names == ("no", "yes") and len(found.train) == 20
    with pytest.raises(errors.UserError, match="'image' holds ndarray, expected all"):
        tables.load(opened, names, **given, table={**settings, "columns": ()})


def test_a_literal_table():
    columns = (Column("age", "number"), Column("job", "text", ("cook", "nurse")))
    features = (Feature(0, None), Feature(1, 0), Feature(1, 1))
    prepare = TableInputs(columns, (30.0, 0.0), features, (20.0, 0.5, 0), (10, 0.5, 1))
    rows = [
        {"age": 40, "job": "cook"},
        {"age": None, "job": "nurse"},
        {"age": float("nan"), "job": "king"},
        {"age": 10.0, "job": ""},
    ]
    stored = prepare.encode(rows)
    nan = np.nan
    np.testing.assert_array_equal(stored, [[40, 0], [nan, 1], [nan, -1], [10, -1]])
    np.testing.assert_array_equal(
        prepare(stored), [[2, 1, 0], [1, -1, 1], [1, -1, 0], [-1, -1, 0]]
    )
    by_column = {k: [row[k] for row in rows] for k in ("job", "age")}
    np.testing.assert_array_equal(prepare.encode(by_column), stored)
    assert prepare.names == ("age", "job=cook", "job=nurse")
    some = prepare._replace(features=features[1:2], mean=(0.0,), std=(1.0,))
    np.testing.assert_array_equal(some(stored), [[1], [0], [0], [0]])


@hypothesis.settings(max_examples=20)
@hypothesis.given(
    st.lists(
        st.tuples(
            st.none() | st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
            st.sampled_from([None, "", "a", "b", "c"]),
            st.none() | st.booleans(),
            st.none() | st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
        ),
        min_size=4,
        max_size=4,
    ),
    st.lists(st.integers(0, 6), min_size=5, max_size=5),
)
def test_any_choice_of_features_of_any_values(rows, places):
    columns = (
        Column("x", "number"),
        Column("t", "text", ("a", "b")),
        Column("f", "flag", ("false", "true")),
        Column("y", "number"),
        Column("z", "number"),
    )
    every = [(0, None), (1, 0), (1, 1), (2, 0), (2, 1), (3, None), (4, None)]
    features = tuple(Feature(*every[i]) for i in places)
    fill = (7.0, 0.0, 0.0, -3.0, 1.0)
    count = len(features)
    prepare = TableInputs(columns, fill, features, (0.0,) * count, (1.0,) * count)
    rows = [dict(zip("xtfyz", (*row, 0.5), strict=True)) for row in rows]
    wanted = []
    for row in rows:
        values = {
            **{(i, None): row[n] for i, n in ((0, "x"), (3, "y"), (4, "z"))},
            **{(1, i): float(row["t"] == n) for i, n in enumerate("ab")},
            **{(2, i): float(row["f"] is n) for i, n in enumerate((False, True))},
        }
        wanted.append(
            [fill[f[0]] if values[f] is None else values[f] for f in features]
        )
    np.testing.assert_array_equal(prepare(prepare.encode(rows)), wanted)


def test_it_travels_as_plain_json(table):
    found = table(select="l1", keep=4.0)
    label = json.loads(json.dumps(inputs.to_label(found.inputs)))
    assert inputs.from_label(label) == found.inputs
    assert found.stored.shape == (1, 5) and found.example.shape == (1, 4)


BAD = {
    "select": ({"select": "l2"}, "unknown data.table.select 'l2'; did you mean 'l1'"),
    "impute": ({"impute": "zero"}, "unknown data.table.impute 'zero'"),
    "column": (
        {"columns": ("aeg",), "categorical": ()},
        "no column 'aeg'; did you mean 'age'",
    ),
    "label": ({"columns": ("age", "label")}, "columns names the label 'label'"),
    "category": ({"categorical": ("flor",)}, "names 'flor'.*did you mean 'floor'"),
    "keep": ({"select": "l1", "keep": 11.0}, "keep is 11, and there are 10 features"),
    "part": ({"select": "l1", "keep": 2.5}, "a number of features, or a fraction"),
    "keep what": ({"keep": 3.0}, "keep is 3 without a way to choose"),
    "rfe": ({"select": "rfe"}, "'rfe' needs data.table.keep"),
    "none left": ({"select": "l1", "threshold": 99.0}, "above threshold 99; the high"),
    "threshold": ({"threshold": -1.0}, "threshold is at least 0"),
    "strength": ({"inverse_strength": 0.0}, "inverse_strength is above 0"),
}


@pytest.mark.parametrize("what", BAD)
def test_settings_that_do_not_fit_are_one_line(table, what):
    changes, message = BAD[what]
    with pytest.raises(errors.UserError, match=message) as caught:
        table(**changes)
    assert "\n" not in str(caught.value)


FAULTS = {
    "text for a number": ("test", {"age": "old"}, "'old', expected a number"),
    "number for a text": ("test", {"job": 3}, "row 0 of split 'test' .* is 3, exp"),
    "infinite": ("dev", {"age": 1e400}, "row 0 of split 'dev' .* finite"),
    "too large": ("train", {"age": 1e39}, "row 0 of split 'train' .* float32"),
    "nested": ("train", {"floor": [1]}, "'floor' holds list, expected all numbers"),
    "dates": (
        "train",
        {"job": "2020-01-02 03:04:05"},
        "'job' holds datetime, expected",
    ),
    "no label": ("train", {"label": ""}, "'label' is missing in some rows"),
    "no label in test": ("test", {"label": None}, "has label None, a class that"),
    "a quantity": ("train", {"label": 0.5}, r"no classes \(such as 0.5\); expected"),
    "a list": ("train", {"label": ["no"]}, "'label' holds no classes .unhashable"),
    "unseen class": ("test", {"label": "maybe"}, "'maybe', a class that the training"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_values_that_do_not_fit_are_one_line(table, tmp_path, what):
    part, change, message = FAULTS[what]
    rows = {name: [dict(row) for row in some] for name, some in ROWS.items()}
    rows[part][0] |= change
    if what not in ("infinite", "too large", "no label", "no label in test"):
        rows[part] = [{**row, **change} for row in rows[part]]  # a type a column
    for name, some in rows.items():
        write(tmp_path / f"{name}.jsonl", some)
    with pytest.raises(errors.UserError, match=message) as caught:
        table(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ("?", r"column 'a' holds texts that are numbers, all but 2, such as '\?'"),
        ("1.0", "numbers, all of them; write them as numbers"),
    ],
)
def test_numbers_with_a_flaw_are_no_categories(load, tmp_path, odd, message):
    rows = [{"a": str(i % 7), "label": i % 2} for i in range(40)]
    for row in rows[5:7]:
        row["a"] = odd
    write(tmp_path / "a.jsonl", rows)
    given = dict(kind="table", test="")
    settings = {**SETTINGS, "categorical": ()}
    with pytest.raises(errors.UserError, match=message) as caught:
        load(str(tmp_path / "a.jsonl"), **given, table=settings)
    assert "\n" not in str(caught.value)
    settings["categorical"] = ("a",)
    found = load(str(tmp_path / "a.jsonl"), **given, table=settings)
    assert {"a=1", f"a={odd}"} <= set(found.inputs.names)


def test_a_column_that_a_split_lacks_is_one_line(table, tmp_path):
    for name, rows in ROWS.items():
        some = [{k: v for k, v in row.items() if k != "job"} for row in rows]
        write(tmp_path / f"{name}.jsonl", some if name == "test" else rows)
    with pytest.raises(errors.UserError, match="'test' of .* has no column 'job'"):
        table(tmp_path)


def test_names_are_no_categories(load, tmp_path):
    lines = [f"{i}x,{i % 2}" for i in range(4000)]
    (tmp_path / "a.csv").write_text("name,label\n" + "\n".join(lines))
    with pytest.raises(errors.UserError, match="'name' has .* distinct values"):
        settings = {**SETTINGS, "categorical": ()}
        load(str(tmp_path / "a.csv"), kind="table", test="", table=settings)


SERVED = {
    "missing": (
        {"aeg": [1.0], "job": ["cook"]},
        "'age' is missing; did you mean 'aeg'",
    ),
    "rows": ([{"age": 1.0}], "'job' is missing; valid: age"),
    "text": (
        [{"age": "1", "job": "cook"}],
        "row 0 of the values is '1', expected a nu",
    ),
    "number": ({"age": [1.0], "job": [2]}, "'job': row 0 of the values is 2, exp"),
    "flag": ({"age": [True], "job": ["cook"]}, "row 0 of the values is True"),
    "infinite": ({"age": [np.inf], "job": [""]}, "'age': row 0 .* is inf"),
    "lengths": ({"age": [1.0, 2.0], "job": ["cook"]}, "lengths: age 2, job 1"),
}


@pytest.mark.parametrize("what", SERVED)
def test_what_a_server_cannot_take_is_one_line(what):
    values, message = SERVED[what]
    columns = (Column("age", "number"), Column("job", "text", ("cook",)))
    prepare = TableInputs(columns, (0.0, 0.0), (Feature(0, None),), (0.0,), (1.0,))
    with pytest.raises(errors.UserError, match=message):
        prepare.encode(values)


def test_numbers_that_name_categories_are_known_in_any_form():
    columns = (Column("floor", "code", ("1", "2")), Column("old", "flag", ("true",)))
    prepare = TableInputs(columns, (0.0, 0.0), (Feature(0, 1),), (0.0,), (1.0,))
    stored = prepare.encode({"floor": [1, 2.0, np.int64(2), 3], "old": [True] * 4})
    np.testing.assert_array_equal(stored, [[0, 0], [1, 0], [1, 0], [-1, 0]])


def test_constant_columns_are_counted_and_become_zeros(load, tmp_path):
    lines = [f"{i},5,,{i % 2}" for i in range(40)]
    (tmp_path / "a.csv").write_text("a,b,c,label\n" + "\n".join(lines))
    settings = {**SETTINGS, "categorical": ()}
    found = load(str(tmp_path / "a.csv"), kind="table", test="", table=settings)
    assert found.counts["columns that never vary in train (b, c)"] == 2
    assert not made(found, found.test)[:, 1:].any() and found.names == ("0", "1")


def test_one_column_is_one_slice():
    features = [(0, None), (1, None), (3, None), (2, 0), (2, 2), (4, 1)]
    runs = table_inputs._runs([Feature(*f) for f in features])
    assert runs == [(0, 2, []), (3, 1, []), (2, 1, [0, 2]), (4, 1, [1])]
