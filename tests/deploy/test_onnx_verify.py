"""The check behind an export: it finds what is wrong with a file."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from lib import errors, program, representations
from lib.deploy import onnx_export
from tests.deploy import exported
from tests.deploy.test_onnx_int8 import ALL, EIGHT, frozen_of


def two(params, x):
    with jax.named_scope("first"):
        x = nn.relu(x @ params["a"]["kernel"])
    with jax.named_scope("second"):
        return x @ params["b"]["kernel"]


def made():
    params = {
        "a": {"kernel": exported.data(8, 16)},
        "b": {"kernel": exported.data(16, 4, seed=2)},
    }
    x, frozen = exported.data(200, 8), frozen_of(params)
    thawed = representations.thaw(frozen)
    ranges = program.calibrate(two, thawed, [(x,)], program.minmax())
    return frozen, x, ranges


def test_it_tells_what_each_site_became_and_finds_what_is_wrong(tmp_path):
    frozen, x, ranges = made()
    path, example = tmp_path / "x.onnx", exported.spec(1, 8)
    rules = (("first", None), (".", EIGHT))
    how = {"ranges": ranges, "rules": rules}
    onnx_export.export_int8(two, frozen, example, path=path, **how)
    found = onnx_export.verify(path, two, frozen, x, **how)
    assert [(r.site, r.planned, r.integer) for r in found.rows] == [
        ("first", False, False),
        ("second", True, True),
    ]
    assert sum(r.macs for r in found.rows) == 200 * (8 * 16 + 16 * 4)
    # The file is another one than those rules ask for: one is still in float.
    with pytest.raises(errors.RunError, match=r"rounded: first \(\w*Gemm\); exempt"):
        onnx_export.verify(path, two, frozen, x, ranges=ranges, rules=ALL)
    # Or its numbers are another program's.
    other = jax.tree.map(lambda w: w[::-1], representations.thaw(frozen))
    with pytest.raises(errors.RunError, match="differs from the program by") as told:
        onnx_export.verify(path, two, other, x, **how)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_file_of_floats_has_nothing_planned(tmp_path):
    frozen, x, _ = made()
    params, path = representations.thaw(frozen), tmp_path / "x.onnx"
    onnx_export.export(two, params, exported.spec(1, 8), path=path)
    found = onnx_export.verify(path, two, params, x, mean=1e-6, agreement=1.0)
    assert not any(r.planned or r.integer for r in found.rows)
    assert all(len(r.operators) == 1 for r in found.rows)
    with pytest.raises(errors.RunError, match=r"gives float32\[200, 4\] where"):
        onnx_export.verify(path, lambda p, x: two(p, x).sum(1), params, x)


LOOPS = {
    "scan": lambda x: jax.lax.scan(lambda c, _: (c * 2, None), x, None, length=3)[0],
    "while": lambda x: jax.lax.while_loop(
        lambda c: c[1] < 3, lambda c: (c[0] * 2, c[1] + 1), (x, 0)
    )[0],
    "cond": lambda x: jax.lax.cond(x.sum() > 0, lambda x: x, lambda x: -x, x),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_are_told_with_their_place_and_a_way_out(name, tmp_path):
    def f(_, x):
        with jax.named_scope("block_3"):
            return LOOPS[name](x)

    told = rf"a {name} is control flow.* at block_3.*; write the loop .* jax.export"
    with pytest.raises(errors.UserError, match=told):
        onnx_export.export(f, {}, exported.spec(1, 4), path=tmp_path / "x.onnx")


@pytest.mark.slow
def test_a_recurrent_network_is_told_in_integers_too(tmp_path):
    x = np.ones((8, 5, 4), np.float32)
    f, params = exported.function(nn.RNN(nn.LSTMCell(3)), x)
    frozen = frozen_of(params)
    thawed = representations.thaw(frozen)
    ranges = program.calibrate(f, thawed, [(x,)], program.minmax())
    example, path = exported.spec(1, 5, 4), tmp_path / "x.onnx"
    with pytest.raises(errors.UserError, match="for each of 5 turns of a scan"):
        onnx_export.export_int8(f, frozen, example, ranges=ranges, rules=ALL, path=path)
    with pytest.raises(errors.UserError, match="a scan is control flow"):
        onnx_export.export(f, params, example, path=path)
