import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, program, representations
from lib.deploy import stablehlo
from tests.deploy import exported
from tests.deploy.integers import EIGHT, frozen_of

# The five lines of the module's docstring, behind a door that is shut for others.
ALONE = """
import sys

class Shut:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("flax", "lib"):
            raise ImportError(name)

sys.meta_path.insert(0, Shut())
import numpy
path, given, found = sys.argv[1:]
x = numpy.load(given)

from jax import export
with open(path, "rb") as file:
    program = export.deserialize(bytearray(file.read()))
y = program.call(x)

numpy.save(found, y)
"""


def alone(path, x, tmp_path):
    """Returns what a process computes that has neither this library nor Flax."""
    given, found, script = (tmp_path / n for n in ("x.npy", "y.npy", "alone.py"))
    np.save(given, x)
    script.write_text(textwrap.dedent(ALONE))
    subprocess.run(
        [sys.executable, script, path, given, found],
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
        cwd=tmp_path,
    )
    return np.load(found)


def both_ways(f, frozen, x, rules=((".", EIGHT),)):
    params = program.integer_params(frozen)
    ranges = {}
    if rules:
        dense = representations.thaw(frozen)
        ranges = program.calibrate(f, dense, [(x,)], program.minmax())
    run = program.run_integer(f, ranges, rules)
    return ranges, jax.jit(lambda x: run(params, x))


@pytest.mark.slow
def test_a_file_runs_alone_to_the_last_bit(tmp_path):
    f, params = exported.model("cnn")
    frozen = frozen_of(params)
    x = exported.data(6, *exported.SHAPE)
    ranges, expected = both_ways(f, frozen, x)
    path = tmp_path / "model.stablehlo"
    size = stablehlo.export_integer(
        f,
        frozen,
        exported.spec(1, *exported.SHAPE),
        ranges=ranges,
        rules=((".", EIGHT),),
        path=path,
    )
    assert size == path.stat().st_size
    loaded = stablehlo.load(path)
    assert loaded.exported.platforms == ("cpu", "cuda", "tpu")
    for n in (1, 6):
        np.testing.assert_array_equal(loaded(x[:n]), expected(x[:n]))
    np.testing.assert_array_equal(alone(path, x, tmp_path), expected(x))
    sites = len(program.sites(f)(params, x))
    assert stablehlo.contractions(path) == (0, sites)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "per_weight"), [(8, 1), (4, 0.5)])
def test_codes_stay_integers_in_the_file(bits, per_weight, tmp_path):
    w = exported.data(256, 512) / 16

    def f(params, x):
        return jnp.tanh(x @ params["kernel"]) @ params["kernel"].T

    frozen = frozen_of({"kernel": w}, bits=bits)
    x = exported.data(3, 256)
    _, expected = both_ways(f, frozen, x, ())
    path = tmp_path / "model.stablehlo"
    example = exported.spec(1, 256)
    size = stablehlo.export_integer(
        f, frozen, example, ranges={}, rules=(), path=path, platforms=("cpu",)
    )
    assert per_weight * w.size < size < per_weight * w.size + 16_000
    np.testing.assert_array_equal(stablehlo.load(path)(x), expected(x))
    assert stablehlo.contractions(path) == (2, 0)


def test_mistakes_are_told_in_one_line(tmp_path):
    path, example = tmp_path / "model.stablehlo", exported.spec(3, 4)

    def says(message, call, *args, **kwargs):
        with pytest.raises(errors.UserError, match=message) as caught:
            call(*args, **kwargs)
        assert "\n" not in str(caught.value)

    fixed = jnp.ones((3, 4))
    for f in (lambda x: x + fixed, lambda x: x if x.shape[0] < 9 else -x):
        says("batch of a certain length", stablehlo.export, f, example, path=path)
    says(
        "did you mean 'cuda'",
        stablehlo.export,
        jnp.sin,
        example,
        path=path,
        platforms=("cuda12",),
    )
    says("platforms is empty", stablehlo.export, jnp.sin, example, path=path,
         platforms=())  # fmt: skip
    assert not path.exists()
    says("cannot read", stablehlo.load, path)
    stablehlo.export(jnp.sin, example, path=path, platforms=("cpu",))
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content[: len(content) // 2], b"x" + content):
        path.write_bytes(damaged)
        says("is damaged, or no StableHLO", stablehlo.load, path)
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    says("is damaged", stablehlo.load, path)
    stablehlo.export(jnp.sin, example, path=path, platforms=("tpu",))
    says("exported for tpu; here is cpu", stablehlo.load, path)
