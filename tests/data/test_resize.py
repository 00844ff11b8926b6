import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lib import errors
from lib.data import resize

RNG = np.random.default_rng(0)


def picture(height, width, channels=3):
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("by", resize.FILTERS)
@pytest.mark.parametrize("shape", [(9, 20), (40, 11), (13, 13)])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_way_equals_pillows_own(shape, by, channels):
    image = picture(*shape, channels)
    pillows = Image.fromarray(image if channels == 3 else image[..., 0])
    method = resize.FILTERS[by]
    for size in ((16, 16), (5, 30)):
        other = size[1], size[0]
        stretched = np.asarray(pillows.resize(other, method))
        got = resize.fit(image, *size, "stretch", by)
        np.testing.assert_array_equal(got.squeeze(), stretched)
        inside = np.asarray(ImageOps.contain(pillows, other, method))
        top, left = (np.array(size) - inside.shape[:2]) // 2
        want = np.zeros_like(stretched)
        want[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        got = resize.fit(image, *size, "pad", by)
        np.testing.assert_array_equal(got.squeeze(), want)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from(sorted(resize.WAYS)),
)
def test_any_size_becomes_the_size_and_a_flat_picture_stays_flat(h, w, h2, w2, how):
    got = resize.fit(np.full((h, w, 3), 77, np.uint8), h2, w2, how)
    assert got.shape == (h2, w2, 3) and got.dtype == np.uint8
    if how == "pad":
        inside = (got == 77).all(-1)
        assert inside.any(1).all() or inside.any(0).all()  # touches two sides
        assert set(np.unique(got)) <= {0, 77}
        rows, columns = inside.any(1), inside.any(0)
        for line in (rows, columns):
            where = np.flatnonzero(line)
            assert abs(where[0] - (len(line) - 1 - where[-1])) <= 1  # in the middle
        np.testing.assert_array_equal(inside, rows[:, None] & columns)
    else:
        assert (got == 77).all()


def test_what_has_the_size_is_kept():
    image = picture(7, 5)
    for how in resize.WAYS:
        assert resize.fit(image, 7, 5, how) is image


def test_crop_keeps_the_middle():
    image = picture(4, 10)
    np.testing.assert_array_equal(resize.fit(image, 4, 4, "crop"), image[:, 3:7])
    image = picture(10, 4)
    np.testing.assert_array_equal(resize.fit(image, 4, 4, "crop"), image[3:7])
    # Twice as large first, then the middle.
    twice = np.asarray(
        Image.fromarray(image).resize((8, 20), resize.FILTERS["bicubic"])
    )
    got = resize.fit(image, 8, 8, "crop", "bicubic")
    np.testing.assert_array_equal(got, twice[6:14])


def test_pad_puts_zeros_around():
    image = picture(4, 10) // 2 + 1
    got = resize.fit(image, 10, 10, "pad")
    np.testing.assert_array_equal(got[3:7], image)
    assert not got[:3].any() and not got[7:].any()


def test_halving_averages_and_so_sees_every_pixel():
    """Antialiased: an impulse never falls between the samples."""
    for y, x in np.ndindex(4, 4):
        image = np.zeros((8, 8, 1), np.uint8)
        image[2 + y, 2 + x] = 255
        assert resize.fit(image, 4, 4, "stretch").sum() > 30


def test_colours_and_greys():
    grey = picture(3, 4, 1)
    colour = resize.recolour(grey, 3)
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, -1))
    np.testing.assert_array_equal(resize.recolour(colour, 1), grey)
    image = picture(5, 6)
    luma = image @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(resize.recolour(image, 1)[..., 0], luma, atol=0.51)
    with pytest.raises(errors.UserError, match="of 4 channels cannot become one of 3"):
        resize.recolour(picture(2, 2, 4), 3)


@pytest.mark.parametrize(
    "shape, how, by, message",
    [
        ((), "strech", "bilinear", "did you mean 'stretch'"),
        ((), "crop", "cubic", "did you mean 'bicubic'"),
        ((32, 32), "crop", "bilinear", "data.image_shape is"),
        ((32, 32, 2), "crop", "bilinear", "data.image_shape is"),
        ((0, 32, 3), "crop", "bilinear", "data.image_shape is"),
    ],
)
def test_bad_settings(shape, how, by, message):
    with pytest.raises(errors.UserError, match=message):
        resize.check(shape, how, by)


@pytest.mark.parametrize("resident_bytes", [0, 1 << 30])
def test_digits_can_feed_a_model_of_larger_colour_images(load, digits, resident_bytes):
    options = {"image_shape": (12, 16, 3), "resize_by": "pad", "resample": "bicubic"}
    large = load("digits", resident_bytes=resident_bytes, **options)
    assert large.shape == (12, 16, 3) and len(large.inputs.mean) == 3
    one = {k: v[0] for k, v in large.test.source.gather(np.arange(1)).items()}
    small = digits.test.source[0]["input"]
    want = resize.to_shape(small, (12, 16, 3), "pad", "bicubic")
    np.testing.assert_array_equal(one["input"], want)
    np.testing.assert_array_equal(want[:, :2], 0)  # it is wider than it was
