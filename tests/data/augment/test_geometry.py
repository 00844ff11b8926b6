import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from lib import errors
from lib.data import augment
from lib.data.augment import geometry

KEY = jax.random.key(0)
DATA = {"kind": "image", "classes": 10}
IMAGES = np.random.default_rng(0).uniform(1, 16, (32, 7, 6, 3)).astype(np.float32)
SETTINGS = {
    "shift": {"pixels": 2, "fill": "zero"},
    "flip": {"probability": 0.5},
    "rotate": {"degrees": 30.0, "fill": "zero"},
    "scale": {"fraction": 0.2, "fill": "edge"},
    "crop": {"area": 0.3, "aspect": 1.3},
    "colour": {
        **{"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2},
        "white": 255.0,
    },
    "cutout": {"pixels": 3, "fill": "mean"},
    "erase": {
        **{"probability": 0.5, "smallest": 0.02, "largest": 0.4, "aspect": 3.3},
        **{"fill": "noise", "white": 16.0},
    },
    "randaugment": {
        **{"count": 1, "magnitude": 9.0, "fill": "zero", "white": 16.0},
        "operations": ("shear_x", "equalize", "posterize"),
    },
    "mixup": {"alpha": 0.8, "probability": 1.0},
    "cutmix": {"alpha": 1.0, "probability": 0.5},
}
NOTHING = {
    "shift": {"pixels": 0, "fill": "zero"},
    "flip": {"probability": 0.0},
    "rotate": {"degrees": 0.0, "fill": "zero"},
    "scale": {"fraction": 0.0, "fill": "edge"},
    "crop": {"area": 1.0, "aspect": 1.0},
    "colour": {
        **{"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
        "white": 255.0,
    },
    "cutout": {"pixels": 0, "fill": "zero"},
    "erase": {**SETTINGS["erase"], "probability": 0.0},
    "randaugment": {**SETTINGS["randaugment"], "magnitude": 0.0},
}
turn = jax.jit(augment.turn, static_argnames="mode")
magnify = jax.jit(augment.magnify, static_argnames="mode")
SCIPY = {"constant": "grid-constant", "nearest": "nearest"}


def run(augmentation, images=IMAGES, key=KEY, first=0):
    return np.asarray(jax.jit(augment.on_batch(augmentation))(key, images, first))


def naive_shift(image, dy, dx, fill):
    """Moves down by dy and right by dx, one pixel at a time."""
    height, width, _ = image.shape
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            y0, x0 = y - dy, x - dx
            if fill == "edge":
                y0, x0 = np.clip(y0, 0, height - 1), np.clip(x0, 0, width - 1)
            if 0 <= y0 < height and 0 <= x0 < width:
                out[y, x] = image[y0, x0]
    return out


def naive_warp(image, matrix, mode):
    """scipy's bilinear sampling about the centre, channel by channel."""
    centre = (np.array(image.shape[:2]) - 1) / 2
    warp = functools.partial(
        ndimage.affine_transform,
        matrix=matrix,
        offset=centre - matrix @ centre,
        order=1,
        mode=SCIPY[mode],
    )
    return np.stack([warp(image[..., c]) for c in range(image.shape[-1])], -1)


@pytest.mark.slow
@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_no_strength_is_the_identity_bit_for_bit(name):
    np.testing.assert_array_equal(
        run(augment.build([name], NOTHING, **DATA).images), IMAGES
    )


def test_chain_of_none_is_the_identity():
    np.testing.assert_array_equal(run(augment.chain()), IMAGES)


@pytest.mark.parametrize("fill", augment.FILLS)
def test_shift_is_one_of_the_naive_moves_and_all_occur(fill):
    images = np.tile(IMAGES[:1], (400, 1, 1, 1))
    got = run(augment.shift(pixels=1, fill=fill), images)
    moves = {
        (dy, dx): naive_shift(IMAGES[0], dy, dx, fill)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    }
    rolled = np.roll(IMAGES[0], 1, axis=0)
    rolled[0] = IMAGES[0, 0] if fill == "edge" else 0
    np.testing.assert_array_equal(moves[1, 0], rolled)
    counts = {m: (got == want).all((1, 2, 3)).sum() for m, want in moves.items()}
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 400 / 9 / 2


def test_flip_mirrors_as_often_as_asked():
    images = np.tile(IMAGES[:1], (1000, 1, 1, 1))
    got = run(augment.flip(probability=0.3), images)
    mirrored = (got == IMAGES[0, :, ::-1]).all((1, 2, 3))
    kept = (got == IMAGES[0]).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert abs(mirrored.mean() - 0.3) < 0.05
    np.testing.assert_array_equal(
        run(augment.flip(probability=1.0)), IMAGES[:, :, ::-1]
    )


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_equal_rot90(quarters):
    image = IMAGES[0, :6]  # a square
    got = turn(image, quarters * np.pi / 2, mode="constant")
    np.testing.assert_allclose(got, np.rot90(image, quarters), atol=1e-4)


@pytest.mark.parametrize("mode", SCIPY)
@pytest.mark.parametrize("degrees", [-33.0, 7.0, 180.0])
def test_turn_equals_scipy(degrees, mode):
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    want = naive_warp(IMAGES[0], np.array([[c, s], [-s, c]]), mode)
    got = turn(IMAGES[0], angle, mode=mode)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("mode", SCIPY)
@pytest.mark.parametrize("factor", [0.7, 1.3, 2.0])
def test_magnify_equals_scipy(factor, mode):
    want = naive_warp(IMAGES[0], np.eye(2) / factor, mode)
    got = magnify(IMAGES[0], factor, mode=mode)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_turned_picture_is_where_it_should_be():
    image = np.zeros((9, 9, 1), np.float32)
    image[4, 7] = 1  # three to the right of the centre
    got = np.asarray(turn(image, np.pi / 2, mode="constant"))
    assert np.argmax(got) == np.ravel_multi_index((1, 4), (9, 9))  # three above it


def test_angles_and_factors_are_uniform_over_their_range():
    """Read off a picture with one bright pixel, far from the centre."""
    image = np.zeros((101, 101, 1), np.float32)
    image[50, 89:92] = image[49, 89:92] = image[51, 89:92] = 1
    images = np.tile(image, (500, 1, 1, 1))
    y, x = np.mgrid[:101, :101] - 50.0

    def centre(batch):
        mass = batch[..., 0] / batch.sum((1, 2, 3))[:, None, None]
        return (mass * y).sum((1, 2)), (mass * x).sum((1, 2))

    cy, cx = centre(run(augment.rotate(degrees=20.0, fill="zero"), images))
    angles = -np.rad2deg(np.arctan2(cy, cx))
    assert -20.1 < angles.min() < -19 and 19 < angles.max() < 20.1
    assert abs(angles.std() - 20 / np.sqrt(3)) < 0.8
    _, cx = centre(run(augment.scale(fraction=0.1, fill="zero"), images))
    factors = cx / 40
    assert 0.898 < factors.min() < 0.905 and 1.095 < factors.max() < 1.102


@pytest.mark.slow
def test_depends_on_key_and_position_alone():
    distort = jax.jit(
        augment.on_batch(augment.build(tuple(SETTINGS), SETTINGS, **DATA).images)
    )
    whole = distort(KEY, IMAGES, 0)
    assert whole.dtype == np.float32 and whole.shape == IMAGES.shape
    np.testing.assert_array_equal(distort(KEY, IMAGES, 0), whole)
    # The second half, as on another device.
    half = np.roll(IMAGES, 16, axis=0)
    got = distort(KEY, half, 16)[:16]
    np.testing.assert_allclose(got, whole[16:], atol=1e-5)
    assert (distort(jax.random.key(1), IMAGES, 0) != whole).any()
    same = np.asarray(distort(KEY, np.tile(IMAGES[:1], (32, 1, 1, 1)), 0))
    assert len({x.tobytes() for x in same}) == 32  # each gets something of its own


@pytest.mark.slow
def test_chain_is_one_after_another():
    first, second = (
        augment.build([n], SETTINGS, **DATA).images for n in ("shift", "rotate")
    )

    @jax.jit
    def by_hand(key, image):
        image = first(jax.random.fold_in(key, 0), image)
        return image, second(jax.random.fold_in(key, 1), image)

    once, want = by_hand(KEY, IMAGES[0])
    got = jax.jit(augment.chain(first, second))(KEY, IMAGES[0])
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert (got != once).any()


def test_strengths_may_be_traced():
    def distort(strength):
        augmentation = augment.chain(
            augment.rotate(degrees=90 * strength, fill="zero"),
            augment.scale(fraction=0.5 * strength, fill="zero"),
            augment.flip(probability=strength),
        )
        return augment.on_batch(augmentation)(KEY, IMAGES, 0)

    swept = jax.jit(jax.vmap(distort))(jnp.array([0.0, 0.3]))
    np.testing.assert_array_equal(swept[0], IMAGES)
    single = jax.jit(lambda: distort(0.3))()
    np.testing.assert_allclose(swept[1], single, atol=1e-3)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("shift", {"pixels": -1, "fill": "zero"}, "shift.pixels"),
        ("shift", {"pixels": 1.5, "fill": "zero"}, "shift.pixels"),
        ("shift", {"pixels": 1, "fill": "zeros"}, "did you mean 'zero'"),
        ("flip", {"probability": 1.5}, "flip.probability"),
        ("rotate", {"degrees": -3, "fill": "zero"}, "rotate.degrees"),
        ("scale", {"fraction": 1.5, "fill": "zero"}, "scale.fraction"),
        ("crop", {"area": 0, "aspect": 1.0}, r"crop.area must lie in \(0, 1\]"),
        ("crop", {"area": 0.5, "aspect": 0.9}, "crop.aspect"),
        ("rotation", {}, "unknown augmentation 'rotation'; did you mean 'rotate'"),
    ],
)
def test_bad_settings(name, settings, message):
    with pytest.raises(errors.UserError, match=message):
        augment.build([name], {name: settings}, **DATA)


def naive_part(image, top, left, height, width):
    """Samples pixel centres of the part bilinearly, one at a time; edges repeat."""
    rows, columns, _ = image.shape
    out = np.empty_like(image)
    for y in range(rows):
        for x in range(columns):
            at_y = np.clip(top + (y + 0.5) * height / rows - 0.5, 0, rows - 1)
            at_x = np.clip(left + (x + 0.5) * width / columns - 0.5, 0, columns - 1)
            y0, x0 = min(int(at_y), rows - 2), min(int(at_x), columns - 2)
            fy, fx = at_y - y0, at_x - x0
            square = image[y0 : y0 + 2, x0 : x0 + 2]
            upper, lower = (1 - fx) * square[:, 0] + fx * square[:, 1]
            out[y, x] = (1 - fy) * upper + fy * lower
    return out


@pytest.mark.parametrize(
    "starts, sides",
    [((0.0, 0.0), (1.0, 1.0)), ((0.1, 0.5), (0.6, 0.25)), ((0.5, 0.0), (0.5, 0.9))],
)
def test_a_part_is_sampled_at_its_pixels(starts, sides):
    image = IMAGES[0]
    got = geometry.part(image, jnp.array(starts), jnp.array(sides))
    top, height = starts[0] * 7, sides[0] * 7
    left, width = starts[1] * 6, sides[1] * 6
    want = naive_part(image, top, left, height, width)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_crops_are_drawn_as_documented():
    """Read off a picture whose pixels are their own coordinates."""
    y, x = np.mgrid[:64, :64].astype(np.float32) / 64
    images = np.tile(np.stack([y, x], -1), (500, 1, 1, 1))
    got = run(augment.crop(area=0.2, aspect=1.5), images)
    inner = got[:, 20:44, 20:44]  # far from the edges, which repeat
    height = (inner[:, -1, 0, 0] - inner[:, 0, 0, 0]) / 23 * 64
    width = (inner[:, 0, -1, 1] - inner[:, 0, 0, 1]) / 23 * 64
    assert max(height.max(), width.max()) < 1.001
    whole = (height < 0.999) & (width < 0.999)  # not cut to a side of the image
    share, ratio = (height * width)[whole], (width / height)[whole]
    assert 0.199 < share.min() < 0.22 and share.max() < 1
    assert 0.66 < ratio.min() < 0.69 and 1.45 < ratio.max() < 1.501
    middle = np.stack([inner[..., i].mean((1, 2)) for i in (0, 1)])
    assert middle.min() < 0.35 and middle.max() > 0.62
