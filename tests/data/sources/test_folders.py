import numpy as np
import pytest
from PIL import Image

from lib import errors
from lib.data.sources import folders

RNG = np.random.default_rng(0)


def write(path, size=(6, 5), mode="RGB", **options):
    """Writes an image; returns its pixels as they are in the file."""
    shape = (*size, 3) if mode in ("RGB", "CMYK") else size
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels).convert(mode)
    picture.save(path, **options)
    return np.asarray(picture.convert("RGB"))


def test_splits_of_classes(tmp_path):
    wanted = {}
    for split, classes in (("train", "cat dog ant"), ("test", "dog cat")):
        for name in classes.split():
            for i in range(2):
                path = tmp_path / split / name / f"{i}.png"
                wanted[split, name, i] = write(path, size=(4 + i, 7))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "cat" / ".hidden.png").write_text("no image")
    opened = folders.open(tmp_path)
    assert {k: len(v) for k, v in opened.items()} == {"test": 4, "train": 6}
    for split, rows in opened.items():
        assert rows.classes == ("ant", "cat", "dog") and not rows.skipped
        many = rows.__getitems__(range(len(rows)))
        for row, path in zip(many, rows.paths, strict=True):
            name = path.parent.name
            assert row["label"] == rows.classes.index(name)
            want = wanted[split, name, int(path.stem)]
            np.testing.assert_array_equal(row["image"], want)
    np.testing.assert_array_equal(opened["train"][5]["image"].shape, (5, 7, 3))


def test_classes_alone_are_the_train_split(tmp_path):
    write(tmp_path / "b" / "deep" / "x.PNG")
    write(tmp_path / "b" / "y.bmp")
    write(tmp_path / "a" / "x.jpg")
    opened = folders.open(str(tmp_path))
    assert list(opened) == ["train"] and opened["train"].classes == ("a", "b")
    assert opened["train"].labels == (0, 1, 1)
    assert list(folders.open(tmp_path, train="all")) == ["all"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
def test_every_kind_of_pixels_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    want = write(path, mode=mode)
    np.testing.assert_array_equal(folders.read(path), want)


def test_pictures_are_turned_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held on its side
    pixels = write(tmp_path / "x.png", size=(4, 7), exif=turned)
    np.testing.assert_array_equal(
        folders.read(tmp_path / "x.png"), np.rot90(pixels, -1)
    )


@pytest.fixture
def damaged(tmp_path):
    for i in range(4):
        write(tmp_path / "cat" / f"{i}.png", size=(30, 30))
        write(tmp_path / "dog" / f"{i}.jpg", size=(30, 30))
    for path in (tmp_path / "cat" / "2.png", tmp_path / "dog" / "1.jpg"):
        path.write_bytes(path.read_bytes()[:300])
    (tmp_path / "dog" / "3.jpg").write_text("<html>404</html>")
    return tmp_path


def test_a_damaged_image_is_named(damaged):
    for name in ("1.jpg", "3.jpg"):  # whose beginnings tell are told at once
        with pytest.raises(errors.UserError, match=f"{name}' cannot be read"):
            folders.open(damaged)
        write(damaged / "dog" / name, size=(30, 30))
    rows = folders.open(damaged)["train"]
    assert len(rows) == 8 and rows[0]["image"].shape == (30, 30, 3)
    with pytest.raises(errors.UserError, match="2.png' cannot be read") as e:
        rows[2]
    assert "\n" not in str(e.value) and "data.corrupt='skip'" in str(e.value)


def test_or_skipped_and_counted(damaged):
    rows = folders.open(damaged, corrupt="skip")["train"]
    assert [p.name for p in rows.skipped] == ["2.png", "1.jpg", "3.jpg"]
    assert len(rows) == 5 and rows.labels == (0, 0, 0, 1, 1)
    assert len(rows.__getitems__(range(5))) == 5


def test_a_class_is_not_skipped_whole(damaged):
    (damaged / "dog" / "0.jpg").unlink()
    (damaged / "dog" / "2.jpg").unlink()
    with pytest.raises(errors.UserError, match="dog' has no image that can be read"):
        folders.open(damaged, corrupt="skip")


def test_deep_pixels_are_refused(tmp_path):
    Image.fromarray(np.full((3, 3), 1000, np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(errors.UserError, match="x.png' has pixels of kind 'I;16'"):
        folders.read(tmp_path / "x.png")


def unseen(root):
    write(root / "train" / "cat" / "1.png")
    write(root / "test" / "cta" / "1.png")


def no_image(root):
    write(root / "train" / "cat" / "1.png")
    (root / "train" / "dog").mkdir()


@pytest.mark.parametrize(
    "make, options, message",
    [
        (lambda root: None, {}, "holds no images by class; expected CLASS/"),
        (lambda root: write(root / "1.png"), {}, "holds no images by class"),
        (unseen, {}, "test/cta' is unseen in the split 'train'; did you mean 'cat'"),
        (no_image, {}, "train/dog' has no image; expected files of .bmp"),
        (unseen, {"train": "trian"}, "has no split 'trian'; did you mean 'train'"),
        (unseen, {"corrupt": "skp"}, "unknown data.corrupt 'skp'; did you mean 'skip'"),
    ],
)
def test_bad_folders(tmp_path, make, options, message):
    make(tmp_path)
    with pytest.raises(errors.UserError, match=message) as e:
        folders.open(tmp_path, **options)
    assert "\n" not in str(e.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(errors.UserError, match="nowhere' does not exist"):
        folders.open(tmp_path / "nowhere")


def test_a_folder_is_a_data_set(damaged, load):
    found = load(
        *(str(damaged),),
        **{"test": "", "image_shape": (8, 8, 3), "corrupt": "skip"},
        **{"validation_fraction": 0.2, "test_fraction": 0.4},
    )
    assert found.names == ("cat", "dog") and found.shape == (8, 8, 3)
    assert [len(part) for part in found[1:4]] == [2, 1, 2]
    assert dict(found.counts) == {"images in train that cannot be read, left out": 3}
    for name in ("1.jpg", "3.jpg"):
        (damaged / "dog" / name).unlink()
    with pytest.raises(errors.UserError, match="2.png' cannot be read"):
        load(str(damaged), test="", image_shape=(8, 8, 3))
    with pytest.raises(errors.UserError, match="has no split 'test'"):
        load(str(damaged), image_shape=(8, 8, 3))


def test_a_folder_of_nothing(tmp_path, load):
    (tmp_path / "cat").mkdir()
    with pytest.raises(errors.UserError, match="nor of images by class"):
        load(str(tmp_path))
