import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lib import errors
from lib.data import augment
from lib.data.augment import geometry
from lib.data.augment.randaugment import COLOURS, OPERATIONS, WARPS

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
IMAGE = ndimage.gaussian_filter(RNG.uniform(0, 255, (12, 12, 3)), (1, 1, 0))
IMAGE = IMAGE.astype(np.float32)


def make(**changes):
    settings = {"count": 1, "magnitude": 7.0, "operations": (), "fill": "zero"}
    return augment.randaugment(**{**settings, "white": 255.0, **changes})


def run(augmentation, count, image=IMAGE):
    batch = np.tile(image, (count, 1, 1, 1))
    distort = jax.jit(augment.on_batch(augmentation))
    return np.asarray(distort(jax.random.key(0), batch, 0))


def pillows(name, level):
    """Returns Pillow's own transform; its pixels have their centres at halves."""
    size, level = len(IMAGE), float(level)
    half = size / 2
    if name == "rotate":
        picture = [Image.fromarray(IMAGE[..., c]) for c in range(3)]
        turned = [p.rotate(30 * level, Image.Resampling.BILINEAR) for p in picture]
        return np.stack([np.asarray(p) for p in turned], -1)
    shift = 150 / 331 * size * level
    matrix = {
        "shear_x": (1, 0.3 * level, -0.3 * level * half, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * level, 1, -0.3 * level * half),
        "translate_x": (1, 0, -shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, -shift),
    }[name]
    out = [
        Image.fromarray(IMAGE[..., c]).transform(
            (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        for c in range(3)
    ]
    return np.stack([np.asarray(p) for p in out], -1)


@pytest.mark.parametrize("name", WARPS)
def test_warps_equal_pillows(name):
    """Inside: at the border, Pillow cuts where we fade."""
    got = run(make(operations=(name,)), 8)
    seen = set()
    for image in got:
        errors_of = {}
        for sign in (-1, 1):
            want = pillows(name, 0.7 * sign)
            inside = ndimage.binary_erosion((want > 0).all(-1), iterations=2)
            assert inside.sum() > 10
            errors_of[sign] = np.abs(image - want)[inside].max()
        sign = min(errors_of, key=errors_of.get)
        assert errors_of[sign] < 0.5
        seen.add(sign)
    assert seen == {-1, 1}


@pytest.mark.slow
def test_each_operation_of_the_list_is_drawn_as_often():
    warp = jax.jit(geometry.warp, static_argnames="mode")

    def alone(name):
        for level in (0.7, -0.7):
            if name in COLOURS:
                yield np.asarray(COLOURS[name](IMAGE, level, 255.0))
            else:
                matrix, move = WARPS[name](level, IMAGE.shape)
                yield np.asarray(warp(IMAGE, matrix, "constant", move))

    wanted = {name: list(alone(name)) for name in OPERATIONS}
    got = run(make(), 560)
    counts = dict.fromkeys(OPERATIONS, 0)
    for image in got:
        close = [
            name
            for name, images in wanted.items()
            if any(np.abs(image - x).max() < 0.05 for x in images)
        ]
        assert close
        counts[close[0]] += 1
    # Of a picture this small, `equalize` is the identity.
    counts["identity"] += counts.pop("equalize")
    assert counts.pop("identity") > 50
    assert min(counts.values()) > 20 and max(counts.values()) < 65


def test_two_operations_are_one_after_the_other():
    twice = run(make(operations=("solarize",), count=2, magnitude=10.0), 2)
    back = np.tile(IMAGE, (2, 1, 1, 1))
    np.testing.assert_allclose(twice, back, atol=1e-4)
    once = run(make(operations=("solarize",), magnitude=10.0), 2)
    np.testing.assert_array_equal(once, np.tile(255 - IMAGE, (2, 1, 1, 1)))


def test_of_none_is_the_identity():
    np.testing.assert_array_equal(run(make(count=0), 1)[0], IMAGE)


@pytest.mark.slow
def test_magnitude_may_be_traced():
    def distort(magnitude):
        one = make(magnitude=magnitude, count=2)
        return augment.on_batch(one)(jax.random.key(0), IMAGE[None], 0)

    got = jax.jit(jax.vmap(distort))(np.float32([0.0, 5.0]))
    np.testing.assert_array_equal(got[0, 0], IMAGE)
    want = jax.jit(lambda: distort(5.0))()
    np.testing.assert_allclose(got[1], want, atol=1e-3)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"count": 1.5}, "randaugment.count must be a whole number"),
        ({"magnitude": 11}, "randaugment.magnitude"),
        ({"operations": ("rotat",)}, "unknown operation .*did you mean 'rotate'"),
        ({"white": 0}, r"randaugment.white must lie in \(0, 255\]"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(errors.UserError, match=message):
        make(**changes)
