"""A folder of images by class as a source of data, read when asked for.

Either `root/train/cat/1.jpg`, `root/test/cat/2.jpg`, ..., where each folder of `root`
is a split; or `root/cat/1.jpg`, where all is one split, "train". The classes are the
names of the folders, in alphabetical order; folders inside of a class belong to it.
"""

import concurrent.futures
import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lib import errors
from lib.data.sources.rows import Opened

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

# Pillow's names of pixels of 8 bits or fewer a channel.
MODES = ("1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr")

CORRUPT = ("error", "skip")  # what is done with a file that cannot be read


class Rows:
    """One split: images with random access, read and decoded on demand."""

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        labels: Sequence[int],
        classes: tuple[str, ...],
        skipped: tuple[pathlib.Path, ...] = (),
    ):
        """Keeps what is given; reads nothing.

        Args:
          paths: of the images.
          labels: of each, an index into `classes`.
          classes: the names of all classes.
          skipped: files that were left out, because they cannot be read.
        """
        self.paths, self.labels = tuple(paths), tuple(labels)
        self.classes, self.skipped = classes, skipped

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns `{"image": uint8 [H, W, 3], "label": int}`.

        Raises:
          UserError: the file cannot be read; it is named.
        """
        return {"image": read(self.paths[index]), "label": self.labels[index]}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns several rows; as for one."""
        return [self[index] for index in indices]


def find(name: str, *, train: str, corrupt: str) -> Opened:
    """Returns the folder as a source of fields "image" and "label"; see `open`."""
    splits = open(name, train=train, corrupt=corrupt)
    return Opened(
        name,
        splits,
        ("image", "label"),
        {"label": splits[train].classes},
        ("image",),
        {
            f"images in {split} that cannot be read, left out": len(rows.skipped)
            for split, rows in splits.items()
            if rows.skipped
        },
    )


def open(
    root: str | os.PathLike[str], *, train: str = "train", corrupt: str = "error"
) -> dict[str, Rows]:
    """Returns {split: its rows}.

    Args:
      root: the folder.
      train: the split whose folders are the classes.
      corrupt: "error" looks at the beginning of every file now, and raises for one that
        is no image; one that is damaged further on raises when it is asked for. "skip"
        reads every file now, once, and leaves such files out (`Rows.skipped`).

    Raises:
      UserError: the folder is missing, or holds no folders of images; a class without
        an image; a class of another split that the training split has not; a file that
        is no image, where that is an error.
    """
    if corrupt not in CORRUPT:
        raise errors.UserError(
            f"unknown data.corrupt {corrupt!r}; {errors.hint(corrupt, CORRUPT)}"
        )
    root = pathlib.Path(root).expanduser()
    if not root.is_dir():
        raise errors.UserError(f"folder of images {str(root)!r} does not exist")
    inner = _folders(root)
    if any(_images(folder) for folder in inner.values()):
        by_class = {train: root}
    else:
        by_class = {n: f for n, f in inner.items() if _folders(f)}
    if not by_class:
        raise errors.UserError(
            f"folder {str(root)!r} holds no images by class; expected CLASS/*.jpg or "
            f"{train}/CLASS/*.jpg in it, of {', '.join(EXTENSIONS)}"
        )
    if train not in by_class:
        raise errors.UserError(
            f"folder {str(root)!r} has no split {train!r}; "
            f"{errors.hint(train, by_class)}"
        )
    classes = tuple(_folders(by_class[train]))
    return {
        split: _rows(folder, classes, train, corrupt)
        for split, folder in by_class.items()
    }


def inside(root: pathlib.Path) -> bool:
    """Returns whether a folder has folders of images, or folders of such."""
    inner = _folders(root).values()
    return any(_images(f) or any(map(_images, _folders(f).values())) for f in inner)


def read(path: pathlib.Path) -> np.ndarray:
    """Returns the image of a file as uint8 `[H, W, 3]`, turned upright.

    Grey ones are repeated in three channels; what is transparent is dropped.

    Raises:
      UserError: it cannot be read, or has more than 8 bits a channel.
    """
    with _opened(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Image.Image]:
    """Opens an image, of which Pillow reads the beginning; raises as `read`."""
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            if mode in MODES:
                yield picture
                return
    except Exception as e:  # a decoder may raise anything for a damaged file
        reason = " ".join(str(e).split()) or type(e).__name__
        raise errors.UserError(
            f"image {str(path)!r} cannot be read: {reason}; remove it, or set "
            "data.corrupt='skip'"
        ) from e
    raise errors.UserError(
        f"image {str(path)!r} has pixels of kind {mode!r}; expected 8 bits a channel, "
        f"one of {', '.join(MODES)}"
    )


def _look(path: pathlib.Path) -> None:
    with _opened(path):
        pass


def _rows(
    folder: pathlib.Path, classes: tuple[str, ...], train: str, corrupt: str
) -> Rows:
    paths, labels = [], []
    for name, inner in _folders(folder).items():
        if name not in classes:
            raise errors.UserError(
                f"class {str(inner)!r} is unseen in the split {train!r}; "
                f"{errors.hint(name, classes)}"
            )
        found = sorted(p for p in inner.rglob("*") if _is_image(p))
        if not found:
            raise errors.UserError(
                f"class {str(inner)!r} has no image; expected files of "
                f"{', '.join(EXTENSIONS)}"
            )
        paths += found
        labels += [classes.index(name)] * len(found)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        if corrupt == "error":
            list(pool.map(_look, paths))  # the first that is none is raised
            return Rows(paths, labels, classes)
        whole = list(pool.map(_readable, paths))
    kept = [i for i, fine in enumerate(whole) if fine]
    skipped = tuple(p for p, fine in zip(paths, whole, strict=True) if not fine)
    for lost in sorted(set(labels) - {labels[i] for i in kept}):
        raise errors.UserError(
            f"class {str(folder / classes[lost])!r} has no image that can be read"
        )
    return Rows([paths[i] for i in kept], [labels[i] for i in kept], classes, skipped)


def _readable(path: pathlib.Path) -> bool:
    try:
        read(path)
    except errors.UserError:
        return False
    return True


def _folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns {name: folder} of what is inside, in alphabetical order; none hidden."""
    found = sorted(p for p in folder.iterdir() if p.is_dir())
    return {p.name: p for p in found if not p.name.startswith(".")}


def _images(folder: pathlib.Path) -> bool:
    return any(_is_image(path) for path in folder.iterdir())


def _is_image(path: pathlib.Path) -> bool:
    known = path.suffix.lower() in EXTENSIONS
    return known and not path.name.startswith(".") and path.is_file()
