"""The picture of all augmentations: each does something, the same for the same seed."""

import numpy as np
import pytest
from PIL import Image

from configs import contact_sheet as config_file
from experiments import contact_sheet
from lib import errors
from lib.data import augment


def config(**changes):
    found = config_file.get_config("smoke")
    for key, value in changes.items():
        found[key] = value
    return found


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    at = tmp_path_factory.mktemp("sheet")
    return at, contact_sheet.run(config(), str(at))


@pytest.mark.slow
def test_the_sheet_is_a_picture_of_its_rows(smoke):
    at, rows = smoke
    assert list(rows) == ["plain", "shift", "colour", "cutmix"]
    assert {images.shape for images in rows.values()} == {(3, 8, 8, 1)}
    picture = np.asarray(Image.open(at / "contact_sheet.png").convert("L"))
    assert min(picture.shape) > 300 and picture.std() > 20


@pytest.mark.slow
def test_a_row_is_drawn_by_its_seed(smoke, tmp_path):
    _, rows = smoke
    settings = config(), config(seed=1)
    for one in settings:
        one.sheet.augment = ("shift",)
    again, other = (
        contact_sheet.run(one, str(tmp_path / str(one.seed))) for one in settings
    )
    np.testing.assert_array_equal(again["plain"], rows["plain"])
    np.testing.assert_array_equal(again["shift"], rows["shift"])
    assert (other["shift"] != rows["shift"]).any()


@pytest.mark.slow  # compiles each augmentation: 10 s
def test_every_augmentation_changes_the_picture(tmp_path):
    whole = config_file.get_config()
    whole.xla_flags = config().xla_flags
    rows = contact_sheet.run(whole, str(tmp_path))
    names = {*augment.AUGMENTATIONS, *augment.MIXINGS}
    assert set(rows) == {"plain", *names, *(f"· {n}" for n in augment.OPERATIONS)}
    plain = rows.pop("plain")[0]
    # A digit is grey, small, and uses the whole range.
    kept = {f"· {n}" for n in ("identity", "autocontrast", "equalize", "colour")}
    for name, images in rows.items():
        assert np.isfinite(images).all()
        assert -1e-3 <= images.min() and images.max() <= 16.001
        assert (np.abs(images - plain) > 0.5).any() == (name not in kept), name
        if name in names:
            assert len({image.tobytes() for image in images}) > 1


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("example", -1, "sheet.example is from 0 to 1219, got -1"),
        ("seeds", 0, "sheet.seeds is at least 1"),
        ("augment", ("flop",), "unknown augmentation 'flop'; did you mean 'flip'"),
    ],
)
def test_bad_settings(tmp_path, key, value, message):
    bad = config()
    bad.sheet[key] = value
    with pytest.raises(errors.UserError, match=message):
        contact_sheet.run(bad, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
