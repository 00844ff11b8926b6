"""Models found by name, their fields, and what they make of an image's shape."""

import re

import jax
import numpy as np
import pytest

from lib import errors, models, tree

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mpl", {}, "unknown model 'mpl'; did you mean 'mlp'?"),
        ("mlp", {"width": 3}, "unknown field 'width' of model 'mlp'; did you mean"),
        ("cnn", {"axis_name": "b"}, "unknown field 'axis_name' of model 'cnn'"),
        ("mlp", {"parent": None}, "unknown field 'parent' of model 'mlp'"),
        ("mlp", {"classes": 0}, "MLP.classes: expected a whole number of at least 1"),
        ("mlp", {"classes": True}, "MLP.classes: expected a whole number"),
        ("mlp", {"widths": (3, -1)}, "MLP.widths: expected a tuple of 0 or more"),
        ("mlp", {"widths": (3, 2.0)}, "MLP.widths: expected a tuple of 0 or more"),
        ("mlp", {"widths": 300}, "MLP.widths: expected a tuple"),
        ("mlp", {"widths": "300"}, "MLP.widths: expected a tuple"),
        ("mlp", {"dropout": 1.0}, "MLP.dropout: expected a number in [0, 1), got 1.0"),
        ("mlp", {"dropout": -0.1}, "MLP.dropout: expected a number in [0, 1)"),
        ("mlp", {"dropout": float("nan")}, "MLP.dropout: expected a number in [0, 1)"),
        ("mlp", {"dropout": "0.1"}, "MLP.dropout: expected a number in [0, 1)"),
        ("lenet5", {"widths": (20, 50)}, "LeNet5.widths: expected a tuple of 3 whole"),
        ("cnn", {"widths": ()}, "CNN.widths: expected a tuple of 1 or more"),
        ("cnn", {"depth": 0}, "CNN.depth: expected a whole number of at least 1"),
        ("cnn", {"momentum": 1}, "CNN.momentum: expected a number in [0, 1)"),
        ("transformer", {"heads": 0}, "Transformer.heads: expected a whole number"),
        ("transformer", {"width": 10}, "Transformer.width: expected a multiple of the"),
        ("imagenet_resnet", {"depth": 20}, "ImageNetResNet.depth: expected one of 10"),
        (
            "imagenet_resnet",
            {"stem": "tiny"},
            ".stem: expected one of 'large', 'small'",
        ),
        ("imagenet_resnet", {"widths": (4, 4, 4)}, "expected a tuple of 4 whole"),
        ("imagenet_resnet", {"groups": 3}, "expected multiples of the 3 groups"),
        ("imagenet_resnet", {"depth": 18, "groups": 2}, "groups: expected 1 at depth"),
        ("wide_resnet", {"depth": 20}, "WideResNet.depth: expected 6 n + 4"),
        ("wide_resnet", {"factor": 0.5}, "WideResNet.factor: expected a whole number"),
        ("mobilenet_v1", {"width": 0}, "MobileNetV1.width: expected a number above 0"),
        ("mobilenet_v2", {"depth": float("inf")}, "MobileNetV2.depth: expected a"),
        ("efficientnet_lite", {"drop_path": 1}, ".drop_path: expected a number in [0"),
        (
            "vit",
            {"pool": "max"},
            "ViT.pool: expected one of 'token', 'mean', got 'max'",
        ),
        ("vit", {"heads": 5}, "ViT.width: expected a multiple of the 5 heads, got 192"),
    ],
)
def test_a_mistaken_field_is_named(name, settings, message):
    with pytest.raises(errors.UserError, match=re.escape(message)) as caught:
        models.build(name, **{"classes": 10, **settings})
    assert "\n" not in str(caught.value)


def test_fields_are_those_of_a_config():
    assert {name: set(models.fields(name)) for name in models.MODELS} == {
        "encoder": {
            *("classes", "layers", "width", "heads", "intermediate", "vocabulary"),
            *("max_length", "types", "embedding", "share", "pad", "separator"),
            *("gelu", "epsilon", "pooling", "pooler", "dropout"),
        },
        "decoder": {
            *("classes", "task", "layers", "width", "heads", "intermediate"),
            *("vocabulary", "max_length", "pad", "gelu", "epsilon", "dropout"),
        },
        "mlp": {"classes", "widths", "dropout", "norm", "momentum"},
        "lenet5": {"classes", "widths", "dropout"},
        "cnn": {"classes", "widths", "depth", "dropout", "momentum"},
        "resnet": {"classes", "depth", "widths", "dropout", "momentum"},
        "imagenet_resnet": {
            *("classes", "depth", "widths", "expansion", "groups", "stem"),
            *("stem_width", "dropout", "momentum"),
        },
        "wide_resnet": {"classes", "depth", "factor", "dropout", "momentum"},
        "mobilenet_v1": {"classes", "width", "stem", "dropout", "momentum"},
        "mobilenet_v2": {"classes", "width", "depth", "stem", "dropout", "momentum"},
        "efficientnet_lite": {
            *("classes", "width", "depth", "stem", "dropout", "drop_path", "momentum"),
        },
        "vit": {
            *("classes", "layers", "width", "heads", "expansion", "patch", "pool"),
            *("dropout", "drop_path"),
        },
        "transformer": {
            "classes",
            "layers",
            "width",
            "heads",
            "expansion",
            "patch",
            "dropout",
        },
    }


def test_a_list_counts_as_a_tuple():
    module = models.build("mlp", classes=10, widths=[20, 10])
    assert module == models.build("mlp", classes=10, widths=(20, 10))
    assert hash(module) == hash(models.MLP(classes=10, widths=(20, 10)))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mlp", (8, 8), "MLP: expected rows of numbers [batch, features] or images"),
        ("mlp", (8, 0, 1), "shape of an input: expected numbers of at least 1"),
        ("mlp", (8, 8, 1.0), "shape of an input: expected numbers of at least 1"),
        ("cnn", (8,), "CNN: expected images of shape [batch, height, width, channels]"),
        ("lenet5", (28, 15, 1), "LeNet5: images of 28x15 are too small; expected at"),
        ("cnn", (3, 8, 1), "CNN: images of 3x8 are too small; expected at least 4x4"),
        ("transformer", (2, 2, 1), "Transformer: images of 2x2 are too small"),
        ("transformer", (8, 6, 1), "Transformer: images of 8x6 do not divide into"),
        ("vit", (32, 24, 1), "ViT: images of 32x24 do not divide into"),
    ],
)
def test_an_unfit_image_shape_is_named(name, shape, message):
    module = models.build(name, classes=10)
    with pytest.raises(errors.UserError, match=re.escape(message)):
        models.init(module, KEY, shape)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", (1, 1, 1)),
        ("lenet5", (16, 16, 3)),
        ("cnn", (4, 4, 1)),
        ("transformer", (4, 4, 1)),
    ],
)
def test_the_smallest_image_has_finite_logits(name, shape, random_weights, run):
    module = models.build(name, classes=10)
    images = np.ones((2, *shape), np.float32)
    (logits, features), _ = run(module, random_weights(module, shape), images)
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()
    assert all(f.shape[0] == 2 and f.size > 0 for f in features.values())


def test_images_without_a_batch_axis_are_refused(random_weights):
    module = models.build("mlp", classes=10)
    params, variables = random_weights(module, (8, 8, 1))
    with pytest.raises(errors.UserError, match="3 axes"):
        models.make_apply(module)(
            params, variables, np.ones((8, 8, 1), np.float32), train=False, key=None
        )


def test_init_is_pure_and_depends_on_the_key():
    module = models.build("cnn", classes=4, widths=(3,))
    params, variables = models.init(module, KEY, (4, 4, 1))
    again, _ = models.init(module, KEY, (4, 4, 1))
    other, _ = models.init(module, jax.random.key(1), (4, 4, 1))
    kernel = params["conv_0_0"]["kernel"]
    np.testing.assert_array_equal(kernel, again["conv_0_0"]["kernel"])
    assert (kernel != other["conv_0_0"]["kernel"]).all()
    shapes = jax.eval_shape(lambda key: models.init(module, key, (4, 4, 1)), KEY)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
        lambda x: (x.shape, x.dtype), (params, variables)
    )


def test_check_names_what_does_not_fit(random_weights):
    module = models.build("lenet5", classes=10, widths=(2, 3, 4))
    params, variables = random_weights(module, (16, 16, 1))
    models.check(module, params, variables, (16, 16, 1))

    def fails(message, params=params, variables=variables, shape=(16, 16, 1)):
        with pytest.raises(errors.UserError, match=re.escape(message)):
            models.check(module, params, variables, shape)

    fails(
        "LeNet5 on inputs of 16x16x3: expected 'conv1/kernel' "
        "of shape (5, 5, 3, 2), got (5, 5, 1, 2)",
        shape=(16, 16, 3),
    )
    fails("expected 'ip1/kernel' of shape (12, 4), got (3, 4)", shape=(20, 20, 1))
    lacking = {k: v for k, v in params.items() if k != "ip2"}
    fails("weights lack 'ip2/", params=lacking)
    fails("has no 'extra'; ", params={**params, "extra": np.ones(2)})
    fails("has no 'batch_stats/mean'", variables={"batch_stats": {"mean": np.ones(2)}})


def test_bind_axis_touches_only_models_with_statistics():
    plain = models.build("lenet5", classes=3)
    assert models.bind_axis(plain, "batch") is plain
    module = models.build("cnn", classes=3)
    bound = models.bind_axis(module, "batch")
    assert (bound.axis_name, module.axis_name) == ("batch", None)
    assert models.bind_axis(bound, None) == module


@pytest.mark.slow
def test_kernels_are_named_kernel():
    """The default rule of every technique is a path that ends in `kernel`."""
    for name in models.MODELS.keys() - {"encoder", "decoder"}:  # see test_text
        module = models.build(name, classes=3)
        shapes = jax.eval_shape(lambda m=module: models.init(m, KEY, (16, 16, 1)))
        for path, leaf in tree.flatten(shapes[0]).items():
            heavy = len(leaf.shape) > 1 and not path.endswith(
                ("bias", "positions", "token")
            )
            assert path.endswith("/kernel") == heavy, path
