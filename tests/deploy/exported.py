"""Small models with random weights, exported and run, for the tests of ONNX files."""

import collections

import jax
import numpy as np
import onnx

from lib import models
from lib.deploy import onnx_export

SHAPE = (16, 16, 1)
MODELS = {
    "mlp": {"widths": (24, 16)},
    "lenet5": {"widths": (6, 8, 20)},
    "cnn": {"widths": (8, 12, 16)},
    "resnet": {"depth": 8, "widths": (4, 6, 8)},
    "transformer": {"layers": 1, "width": 16, "heads": 2, "expansion": 2},
    "imagenet_resnet": {"depth": 14, "widths": (4, 6, 6, 8), "stem_width": 4},
    "wide_resnet": {"depth": 10, "factor": 1},
    "mobilenet_v1": {"width": 0.1, "stem": "small"},
    "mobilenet_v2": {"width": 0.1, "depth": 0.1, "stem": "small"},
    "efficientnet_lite": {"width": 0.1, "depth": 0.1, "stem": "small"},
    "vit": {"layers": 1, "width": 16, "heads": 2, "expansion": 2, "patch": 4},
}


def spec(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def data(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model(name, shape=SHAPE, **fields):
    """Returns (f, params): logits of params and images, in which no leaf is trivial."""
    module = models.build(name, classes=10, **{**MODELS[name], **fields})
    shapes = jax.eval_shape(lambda: models.init(module, jax.random.key(0), shape))
    params, variables = drawn(shapes)
    apply = models.make_apply(module)

    def f(params, images):
        return apply(params, variables, images, train=False, key=None)[0][0]

    return f, params


def drawn(shapes):
    """Returns random arrays of these shapes; variances are positive."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        fan = np.prod(leaf.shape[:-1], dtype=int) if leaf.ndim > 1 else 4
        x = rng.normal(size=leaf.shape, scale=fan**-0.5).astype(np.float32)
        return np.exp(x) if path[-1].key == "var" else x

    return jax.tree.map_with_path(draw, shapes)


def function(module, x):
    """Returns (f, params) of a Flax module, with random numbers for its variables."""
    made = drawn(jax.eval_shape(module.init, jax.random.key(0), x))
    params = made.pop("params")

    def f(params, x):
        return module.apply({"params": params, **made}, x)

    return f, params


def run(path, x):
    """Returns the outputs of the file for an input."""
    return onnx_export.session(path).run(None, {"input": x})


def nodes(path):
    """Returns the nodes of the file."""
    return onnx.load(path).graph.node


def attributes(node):
    """Returns (name, value) of each attribute of a node."""
    return [(a.name, onnx.helper.get_attribute_value(a)) for a in node.attribute]


def arrays(path):
    """Returns {name: array} of the file."""
    made = onnx.load(path).graph.initializer
    return {array.name: onnx.numpy_helper.to_array(array) for array in made}


def written(path):
    """Returns how often each operator stands in the file."""
    return collections.Counter(node.op_type for node in nodes(path))


# Sums in another order: what both runtimes lose of a float32.
CLOSE = {"rtol": 1e-5, "atol": 5e-6}


def check(f, params, x, path):
    """Exports `f` and compares it with JAX at other batches than the example's."""
    onnx_export.export(f, params, spec(1, *x.shape[1:], dtype=x.dtype), path=path)
    expected = jax.tree.leaves(jax.jit(f)(params, x))
    for n in (1, len(x)):
        found = run(path, x[:n])
        for one, other in zip(found, map(np.asarray, expected), strict=True):
            assert one.dtype == other.dtype
            lengths = zip(one.shape, other.shape, strict=True)
            for axis in [i for i, (a, b) in enumerate(lengths) if a != b]:
                other = other.take(range(n), axis)
            np.testing.assert_allclose(one, other, **CLOSE)
