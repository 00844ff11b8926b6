"""Against Pillow, whose pixels are whole numbers, and against colorsys."""

import colorsys

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from lib import errors
from lib.data import augment
from lib.data.augment import colours
from lib.data.augment.randaugment import autocontrast, equalize, posterize, sharpen
from lib.data.augment.randaugment import solarize as invert_above

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
PICTURE = (RNG.integers(0, 256, (9, 8, 3)) * [1.0, 0.6, 0.3] + 20).clip(0, 255)
PICTURE = PICTURE.astype(np.uint8)
FACTORS = [0.0, 0.4, 1.7]

# Ours, Pillow's.
ENHANCED = {
    "brightness": (colours.brighten, ImageEnhance.Brightness),
    "contrast": (colours.sharpen_contrast, ImageEnhance.Contrast),
    "saturation": (colours.saturate, ImageEnhance.Color),
    "sharpness": (sharpen, ImageEnhance.Sharpness),
}


def floats(image):
    return np.asarray(image, np.float32)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("ours, pillows", ENHANCED.values(), ids=ENHANCED)
def test_enhancements_equal_pillows(ours, pillows, factor):
    want = floats(pillows(Image.fromarray(PICTURE)).enhance(factor))
    # Pillow rounds what it blends with, and then once more.
    atol = 0.51 + 0.51 * abs(factor - 1) + 0.5
    np.testing.assert_allclose(ours(floats(PICTURE), factor, 255), want, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("white", [16.0, 255.0])
def test_the_scale_of_the_pixels_is_white(white):
    picture, small = floats(PICTURE), floats(PICTURE) * (white / 255)
    for ours, _ in ENHANCED.values():
        got, want = ours(small, 1.7, white), ours(picture, 1.7, 255)
        np.testing.assert_allclose(got, want * (white / 255), atol=1e-3)
    got = colours.turn_hue(small, 0.3, white)
    want = colours.turn_hue(picture, 0.3, 255)
    np.testing.assert_allclose(got, want * (white / 255), atol=1e-3)
    got, want = posterize(small, 3, white), posterize(picture, 3, 255)
    np.testing.assert_allclose(got, want * (white / 255), atol=1e-3)
    got, want = equalize(small, white), equalize(picture, 255)
    np.testing.assert_allclose(got, want * (white / 255), atol=1e-3)


@pytest.mark.parametrize("turns", [-0.4, 0.1, 1 / 3])
def test_hue_equals_colorsys(turns):
    want = np.empty(PICTURE.shape)
    for y, x in np.ndindex(*PICTURE.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(PICTURE[y, x] / 255))
        want[y, x] = colorsys.hsv_to_rgb((h + turns) % 1, s, v)
    got = colours.turn_hue(floats(PICTURE), turns, 255)
    np.testing.assert_allclose(got, 255 * want, atol=0.01)


def test_a_third_of_a_turn_takes_red_to_green():
    red = np.float32([[[200, 0, 0]]])
    got = colours.turn_hue(red, 1 / 3, 255)
    np.testing.assert_allclose(got[0, 0], [0, 200, 0], atol=1e-3)


def test_operations_of_whole_pixels_equal_pillows():
    picture, x = Image.fromarray(PICTURE), floats(PICTURE)
    for bits in (1, 4, 8):
        want = floats(ImageOps.posterize(picture, bits))
        np.testing.assert_array_equal(posterize(x, bits, 255), want)
    for threshold in (0, 100, 255):
        want = floats(ImageOps.solarize(picture, threshold))
        np.testing.assert_array_equal(invert_above(x, threshold, 255), want)
    want = floats(ImageOps.autocontrast(picture))
    np.testing.assert_allclose(autocontrast(x, 255), want, atol=1)  # Pillow truncates
    flat = np.full((4, 4, 3), 7, np.float32)
    np.testing.assert_array_equal(autocontrast(flat, 255), flat)


@pytest.mark.slow
def test_equalize_equals_pillows():
    for picture in (
        np.clip(RNG.normal(90, 25, (40, 41, 3)), 0, 255).astype(np.uint8),
        RNG.integers(0, 3, (30, 30, 3), dtype=np.uint8) * 100,
        PICTURE,  # too small: kept
        np.full((30, 30, 3), 9, np.uint8),  # one level: kept
    ):
        want = floats(ImageOps.equalize(Image.fromarray(picture)))
        np.testing.assert_allclose(equalize(floats(picture), 255), want, atol=1e-4)


def test_grey_images_have_brightness_and_contrast_only():
    grey = floats(PICTURE[..., :1])
    want = floats(ImageEnhance.Contrast(Image.fromarray(PICTURE[..., 0])).enhance(0.5))
    got = colours.sharpen_contrast(grey, 0.5, 255)
    np.testing.assert_allclose(got[..., 0], want, atol=1)
    settings = {"brightness": 0.0, "contrast": 0.0, "saturation": 1.0, "hue": 0.5}
    change = augment.colour(**settings, white=255.0)
    np.testing.assert_array_equal(change(jax.random.key(0), grey), grey)
    two = np.concatenate([grey, grey], -1)
    with pytest.raises(errors.UserError, match="1 or 3 channels, got 2"):
        change(jax.random.key(0), two)


@pytest.mark.slow
def test_factors_are_uniform_over_their_range():
    """Read off a picture of one grey: its brightness is the factor."""
    settings = {"brightness": 0.5, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    change = augment.on_batch(augment.colour(**settings, white=255.0))
    images = np.full((500, 1, 1, 3), 100, np.float32)
    factors = np.asarray(change(jax.random.key(0), images, 0))[:, 0, 0, 0] / 100
    assert 0.5 <= factors.min() < 0.51 and 1.49 < factors.max() <= 1.5
    assert abs(factors.mean() - 1) < 0.03 and abs(factors.std() - 0.5 / 3**0.5) < 0.02
