import jax
import numpy as np
import pytest

from lib import errors
from lib.data import augment

HEIGHT, WIDTH = 9, 7
IMAGE = np.random.default_rng(0).uniform(1, 200, (HEIGHT, WIDTH, 3)).astype(np.float32)


def run(augmentation, count):
    batch = np.tile(IMAGE, (count, 1, 1, 1))
    distort = jax.jit(augment.on_batch(augmentation))
    return np.asarray(distort(jax.random.key(0), batch, 0))


def holes(images):
    """Returns what was erased, bool [B, H, W]: a pixel with all its channels."""
    changed = images != IMAGE
    np.testing.assert_array_equal(changed.all(-1), changed.any(-1))
    return changed.all(-1)


def box(hole):
    """Returns (top, bottom, left, right) of a hole, which has to be a rectangle."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    found = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    assert (
        hole.sum()
        == len(rows) * len(columns)
        == np.prod([found[1] - found[0], found[3] - found[2]])
    )
    return tuple(map(int, found))


@pytest.mark.parametrize("pixels", [1, 4, 5, 40])
def test_cutout_is_one_of_the_squares_and_all_occur(pixels):
    squares = set()
    for y in range(HEIGHT):
        for x in range(WIDTH):
            top, left = y - pixels // 2, x - pixels // 2
            squares.add(
                (max(top, 0), min(top + pixels, HEIGHT))
                + (max(left, 0), min(left + pixels, WIDTH))
            )
    got = run(augment.cutout(pixels=pixels, fill="zero"), 800)
    assert {box(hole) for hole in holes(got)} == squares
    assert set(got[holes(got)].ravel()) == {0}


def test_cutout_may_leave_the_mean():
    got = run(augment.cutout(pixels=3, fill="mean"), 2)
    mean = IMAGE.mean((0, 1))
    for image, hole in zip(got, holes(got), strict=True):
        np.testing.assert_allclose(image[hole], np.tile(mean, (hole.sum(), 1)), 1e-5)


def test_erased_rectangles_are_as_drawn():
    settings = {"smallest": 0.1, "largest": 0.4, "aspect": 2.0}
    erase = augment.erase(probability=0.7, **settings, fill="noise", white=255.0)
    got = run(erase, 1000)
    found = holes(got)
    hit = found.any((1, 2))
    assert abs(hit.mean() - 0.7) < 0.05
    boxes = np.array([box(hole) for hole in found[hit]])
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    share = height * width / HEIGHT / WIDTH
    # Whole pixels: half a row and half a column to either side.
    assert 0.04 < share.min() < 0.15 and 0.35 < share.max() < 0.5
    assert 0.22 < share.mean() < 0.28
    ratio = height / width
    assert 0.3 < ratio.min() < 0.55 and 1.9 < ratio.max() < 3.1
    assert (boxes.min(0) == [0, 1, 0, 1]).sum() >= 2  # they reach every border
    assert boxes[:, 1].max() == HEIGHT and boxes[:, 3].max() == WIDTH
    noise = got[found]
    assert 0 <= noise.min() < 3 and 252 < noise.max() <= 255
    assert abs(noise.mean() - 127.5) < 3 and abs(noise.std() - 255 / 12**0.5) < 3


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("cutout", {"pixels": -1, "fill": "zero"}, "cutout.pixels"),
        ("cutout", {"pixels": 1, "fill": "noise"}, "unknown fill 'noise'; .*mean, z"),
        ("cutout", {"pixels": 1, "fill": "men"}, "did you mean 'mean'"),
        ("erase", {"aspect": 0.3}, "erase.aspect"),
        ("erase", {"largest": 1.3}, "erase.largest"),
        ("erase", {"largest": 0.05}, "erase.largest must lie in .0.1, 1., got 0.05"),
    ],
)
def test_bad_settings(name, settings, message):
    if name == "erase":
        fine = {"probability": 0.5, "smallest": 0.1, "largest": 0.4, "aspect": 2.0}
        settings = {**fine, "fill": "zero", "white": 255.0, **settings}
    with pytest.raises(errors.UserError, match=message):
        augment.build([name], {name: settings}, kind="image", classes=2)
