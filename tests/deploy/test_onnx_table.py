"""Rows of a table go through an ONNX file as through JAX: missing, unseen and all."""

import jax
import numpy as np
import pytest

from lib import models
from lib.data.table.columns import Column
from lib.data.table.inputs import Feature, TableInputs
from tests.deploy import exported

NAN = np.nan
COLUMNS = (
    Column("age", "number"),
    Column("height", "number"),
    Column("job", "text", ("cook", "nurse", "pilot")),
    Column("weight", "number"),
)
ROWS = np.array(
    [[30, 1.7, 0, 70], [NAN, 1.8, 2, NAN], [50, NAN, -1, 60], [20, 1.6, 1, 65]],
    np.float32,
)
CHOICES = {
    "numbers in a row": [(0, None), (1, None)],
    "one number": [(3, None)],
    "some of each": [(0, None), (2, 0), (2, 2), (3, None)],
    "categories": [(2, 1)],
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_network_of_a_table(choice, tmp_path):
    features = tuple(Feature(*f) for f in CHOICES[choice])
    count = len(features)
    prepare = TableInputs(
        COLUMNS, (40.0, 1.75, 0.0, 66.0), features, (1.5,) * count, (2.0,) * count
    )
    module = models.build("mlp", classes=3, widths=(5,))
    shapes = jax.eval_shape(lambda: models.init(module, jax.random.key(0), (count,)))
    params, _ = exported.drawn(shapes)

    def f(params, stored):
        return module.apply({"params": params}, prepare(stored), train=False)[0]

    expected = jax.jit(f)(params, ROWS)
    assert np.isfinite(expected).all()
    exported.check(f, params, ROWS, tmp_path / "table.onnx")
