"""Linen modules of the user's own: how they are found, called and judged."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lib import errors, models

SOURCE = """
import jax.numpy as jnp
from flax import linen as nn

NUMBER = 3


class Net(nn.Module):
    classes: int
    width: int
    sizes: tuple = (2,)
    returns: str = "logits"

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width)(x.reshape((len(x), -1))))
        self.sow("intermediates", "hidden", x)
        logits = nn.Dense(self.classes)(x)
        return {
            "logits": logits,
            "both": (logits, {"hidden": x}),
            "nested": (logits, {"hidden": {"x": x}}),
            "three": (logits, x, x),
            "dict": {"logits": logits},
            "wide": x,
            "whole": logits.astype(jnp.int32),
            "one": logits[0],
        }[self.returns]


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with `own.py` and the package `deep`, all else as it was."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(SOURCE)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/inside.py").write_text(SOURCE)
    (tmp_path / "lame.py").write_text("import no_such_package")
    (tmp_path / "typo.py").write_text("class Net(:")
    (tmp_path / "sad.py").write_text("\nclass Net(Module): pass")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("own", "deep", "lame", "typo", "sad"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factory": "own"}, "'my_package.my_module:MyModel', a module and a class"),
        ({"factory": "own.py:Net", "name": ""}, "no module 'own.py'"),
        ({"factory": "./own:Net"}, "a module and a class in it, got './own:Net'"),
        ({"factory": "onw:Net"}, "model 'onw:Net': no module 'onw' on PYTHONPATH or"),
        ({"factory": "deep.none:Net"}, "no module 'deep.none' on PYTHONPATH or in the"),
        ({"factory": "lame:Net"}, "cannot import lame: No module named 'no_such_pack"),
        (
            {"factory": "typo:Net"},
            "cannot import typo: SyntaxError: invalid syntax (ty",
        ),
        ({"factory": "sad:Net"}, "import sad: NameError: name 'Module' is not defined"),
        (
            {"factory": "own:Nett"},
            "no 'Nett' in own; did you mean 'Net'? valid: Net, P",
        ),
        ({"factory": "own:NUMBER"}, "a class derived from flax.linen.Module, got int"),
        ({"factory": "own:jnp"}, "a class derived from flax.linen.Module, got module"),
        (
            {"factory": "own:Net", "witdh": 3},
            "unknown field 'witdh' of model 'own:Net'; ",
        ),
        ({"factory": "own:Net"}, "model 'own:Net' needs its field 'width'"),
        ({"factory": "own:Plain"}, "unknown field 'classes' of model 'own:Plain'"),
        ({"factory": "own:Net", "name": "mlp"}, "got name 'mlp' and factory 'own:Net'"),
        ({}, "a model has a name, or a factory"),
    ],
)
def test_a_mistake_is_one_line(settings, message, folder):
    with pytest.raises(errors.UserError, match=re.escape(message)) as caught:
        models.build(classes=2, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factory", ["own:Net", "deep.inside:Net"])
@pytest.mark.parametrize("returns", ["logits", "both"])
def test_any_module_is_a_model(factory, returns, folder):
    fields = {"width": 5, "sizes": [1, 2], "returns": returns}
    module = models.build(factory=factory, classes=3, **fields)
    assert module.sizes == (1, 2)
    params, variables = models.init(module, jax.random.key(0), (4, 3, 1))
    assert variables == {}
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 1)).astype(np.float32)
    apply = models.make_apply(module)
    hidden = np.maximum(x.reshape(2, 12) @ params["Dense_0"]["kernel"], 0)
    want = hidden @ params["Dense_1"]["kernel"]
    for train in (False, True):
        (logits, features), after = apply(
            params, variables, x, train=train, key=jax.random.key(1)
        )
        np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)
        assert set(features) == ({"hidden"} if returns == "both" else set())
        assert dict(after) == {}


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("nested", "with a flat dict of arrays, got (an array [2, 3], dict)"),
        ("three", "got (an array [2, 3], an array [2, 5], an array [2, 5])"),
        ("dict", "expected it to return logits, or (logits, features) with"),
        ("wide", "Net: expected logits of floats [batch, 3], got float32 [2, 5]"),
        ("whole", "expected logits of floats [batch, 3], got int32 [2, 3]"),
        ("one", "expected logits of floats [batch, 3], got float32 [3]"),
    ],
)
def test_what_it_returns_is_judged_before_any_compute(returns, message, folder):
    module = models.build(factory="own:Net", classes=3, width=5, returns=returns)
    key = jax.random.key(0)
    params, variables = jax.eval_shape(lambda: models.init(module, key, (2, 2, 1)))
    images = jax.ShapeDtypeStruct((2, 2, 2, 1), jnp.float32)
    apply = models.make_apply(module)
    with pytest.raises(errors.UserError, match=re.escape(message)):
        jax.eval_shape(
            lambda p, x: apply(p, variables, x, train=False, key=None), params, images
        )


def test_what_else_a_module_needs_is_refused():
    class Needs(nn.Module):
        classes: int = 2

        def __call__(self, x, deterministic, *, train):
            return x

    with pytest.raises(errors.UserError, match="got .self, x, deterministic, train."):
        models.init(Needs(), jax.random.key(0), (2,))


def test_train_is_given_to_what_takes_it():
    class Takes(nn.Module):
        classes: int = 2

        @nn.compact
        def __call__(self, x, train):
            return nn.BatchNorm(use_running_average=not train)(x)

    module = Takes()
    params, variables = models.init(module, jax.random.key(0), (2,))
    x = np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)
    apply = models.make_apply(module)
    (logits, _), after = apply(params, variables, x, train=True, key=None)
    np.testing.assert_allclose(logits, [[-1, -1], [1, 1]], atol=1e-4)
    mean = after["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, [0.02, 0.04], rtol=1e-5)
    (logits, _), _ = apply(params, variables, x, train=False, key=None)
    np.testing.assert_allclose(logits, x, rtol=1e-4)
