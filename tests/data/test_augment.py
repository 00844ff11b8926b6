import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from lib import errors
from lib.data import augment

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(1, 16, (32, 7, 6, 2)).astype(np.float32)
SETTINGS = {
    "shift": {"pixels": 2, "fill": "zero"},
    "flip": {"probability": 0.5},
    "rotate": {"degrees": 30.0, "fill": "zero"},
    "scale": {"fraction": 0.2, "fill": "edge"},
}
NOTHING = {
    "shift": {"pixels": 0, "fill": "zero"},
    "flip": {"probability": 0.0},
    "rotate": {"degrees": 0.0, "fill": "zero"},
    "scale": {"fraction": 0.0, "fill": "edge"},
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


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_no_strength_is_the_identity_bit_for_bit(name):
    np.testing.assert_array_equal(run(augment.build([name], NOTHING)), IMAGES)


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
    distort = jax.jit(augment.on_batch(augment.build(tuple(SETTINGS), SETTINGS)))
    whole = distort(KEY, IMAGES, 0)
    assert whole.dtype == np.float32 and whole.shape == IMAGES.shape
    np.testing.assert_array_equal(distort(KEY, IMAGES, 0), whole)
    # The two halves, as on two devices.
    halves = [distort(KEY, IMAGES[i : i + 16], i) for i in (0, 16)]
    np.testing.assert_allclose(np.concatenate(halves), whole, atol=1e-5)
    assert (distort(jax.random.key(1), IMAGES, 0) != whole).any()
    same = np.asarray(distort(KEY, np.tile(IMAGES[:1], (32, 1, 1, 1)), 0))
    assert len({x.tobytes() for x in same}) == 32  # each gets something of its own


@pytest.mark.slow
def test_chain_is_one_after_another():
    first, second = (augment.build([n], SETTINGS) for n in ("shift", "rotate"))

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
        ("rotation", {}, "unknown augmentation 'rotation'; did you mean 'rotate'"),
    ],
)
def test_bad_settings(name, settings, message):
    with pytest.raises(errors.UserError, match=message):
        augment.build([name], {name: settings})
