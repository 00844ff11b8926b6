"""Where examples come from, by name.

What a name means is seen from its form alone, whatever lies in the working folder:

    ../shared/sst2/train.tsv   a file: ends with a suffix of `data_files.READERS`
    ./cats, /data/sst2, ~/a    a folder: begins with /, ./, ../ or ~
    sklearn/iris               a set that comes with scikit-learn
    phrases                    texts made by rules, for a try-out
    mnist, glue/sst2           anything else: a set of TFDS's
"""

import pathlib

from lib import errors
from lib.data.sources import data_files, folders, phrases, rows


def find(
    name: str, data_dir: str | None, *, train: str = "train", corrupt: str = "error"
) -> rows.Opened:
    """Returns the source that a config names.

    Args:
      name: of a file, a folder, a set of scikit-learn's, ours (`tfds_sets.SOURCES`,
        `phrases`), or any of TFDS's.
      data_dir: where prepared TFDS sets lie; None for TFDS's default.
      train: of a folder of images, the split whose folders are the classes.
      corrupt: what becomes of images in it that cannot be read; see `folders.CORRUPT`.

    Raises:
      UserError: there is no such set, or it is not prepared, or cannot be read.
    """
    path = pathlib.Path(name)
    if path.suffix in data_files.READERS:
        return data_files.find(name)
    if name.startswith(("/", "./", "../", "~")):
        return _folder(name, train, corrupt)
    if name.startswith("sklearn/"):
        from lib.data.sources import sklearn_sets

        return sklearn_sets.find(name)
    if name == "phrases":
        return phrases.find()
    from lib.data.sources import tfds_sets  # a second, for those who need TFDS

    try:
        return tfds_sets.find(name, data_dir)
    except errors.UserError as e:
        if path.is_dir():
            raise errors.UserError(f"{e}; for the folder write './{name}'") from e
        raise


def _folder(name: str, train: str, corrupt: str) -> rows.Opened:
    """Returns the source of a folder: of data files, or of images by class."""
    path = pathlib.Path(name).expanduser()
    if not path.exists():
        near = []
        if path.parent.is_dir():
            near = errors.nearest(path.name, [p.name for p in path.parent.iterdir()], 1)
        meant = f"; did you mean {str(path.parent / near[0])!r}?" if near else ""
        raise errors.UserError(f"data set {name!r}: there is no such folder{meant}")
    if path.is_dir() and data_files.inside(path):
        return data_files.find(name)
    if path.is_dir() and folders.inside(path):
        return folders.find(name, train=train, corrupt=corrupt)
    raise errors.UserError(
        f"data set {name!r} is no folder of data files "
        f"({', '.join(data_files.READERS)}), nor of images by class (CLASS/*.jpg or "
        f"{train}/CLASS/*.jpg, of {', '.join(folders.EXTENSIONS)})"
    )
