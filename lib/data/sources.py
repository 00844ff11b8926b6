"""Where examples come from: TFDS is the front door.

`find` takes the name of any TFDS data set (`mnist`, `cifar100`, `imagenette/160px`),
and `split_of` opens one of its splits as a TFDS data source: random access, no
TensorFlow at run time. Nothing is ever downloaded: a set that is not prepared ends in
one line that says how to. Sets of our own are TFDS builders too, and need no network:
they are prepared at first use.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lib import errors
from lib.data import examples


def _digits(data_dir: str | None) -> Any:
    """Returns the builder of `lib.data.digits`, without the cost when it is unused."""
    from lib.data import digits

    return digits.Digits(data_dir=data_dir, file_format="array_record")


# Data sets of our own: name -> data_dir -> a TFDS builder that needs no network.
SOURCES: dict[str, Callable[[str | None], Any]] = {"digits": _digits}


def find(name: str, data_dir: str | None) -> Any:
    """Returns the TFDS builder of a data set that is ready to be read.

    Args:
      name: of ours (`SOURCES`), or `set[/config][:version]` as TFDS writes it.
      data_dir: where prepared sets lie; None for TFDS's own default,
        `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Raises:
      UserError: there is no such set, or it is not prepared for random access, or its
        files cannot be written or read.
    """
    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
    with _quiet():
        try:
            if name in SOURCES:
                return _prepare(SOURCES[name](data_dir), name)
            return _prepared(name, data_dir)
        except OSError as e:
            raise errors.UserError(
                f"data set {name!r} in data_dir {data_dir or 'of TFDS'}: {e}"
            ) from e


def _prepare(builder: Any, name: str) -> Any:
    """Writes the files of a set of our own, unless they are there already."""
    if builder.is_prepared():
        return builder
    try:
        builder.download_and_prepare()
    except OSError as e:
        # Two runs may prepare at once: each in a folder of its own, renamed when whole.
        if not builder.data_path.exists():
            raise errors.UserError(
                f"data set {name!r} cannot be written to {builder.data_path}: "
                f"{e.strerror or e}; give another data_dir"
            ) from e
        return SOURCES[name](str(builder.data_dir_root))
    return builder


def _prepared(name: str, data_dir: str | None) -> Any:
    """Returns the builder of one of TFDS's own sets, if it is prepared."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as e:
        known = [*SOURCES, *tfds.list_builders(with_community_datasets=False)]
        near = " or ".join(map(repr, errors.nearest(name, known)))
        meant = f"did you mean {near}? " if near else ""
        raise errors.UserError(
            f"unknown data set {name!r}; {meant}"
            f"valid: {', '.join(SOURCES)}, and the {len(known) - len(SOURCES)} of TFDS"
        ) from e
    except (AssertionError, ImportError, RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise errors.UserError(f"data set {name!r} cannot be opened: {reason}") from e
    command = f"tfds build {name} --file_format=array_record"
    if data_dir is not None:
        command += f" --data_dir={data_dir}"
    if not builder.is_prepared():
        raise errors.UserError(
            f"data set {name!r} is not prepared in data_dir {builder.data_dir_root}; "
            f"prepare it once (this downloads, and needs TensorFlow): {command}"
        )
    if builder.info.file_format not in builder.info.file_format.with_random_access():
        raise errors.UserError(
            f"data set {name!r} lies in {builder.data_path} as "
            f"{builder.info.file_format.value}, which has no random access; "
            f"remove it and run: {command}"
        )
    return builder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's progress bars, banners and hints off the terminal."""
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def split_of(
    builder: Any, name: str, split: str, *, image: str, label: str
) -> examples.Records:
    """Returns one whole split of a set that `find` found; reads one example.

    Args:
      builder: as `find` returned it.
      name: of the set, as the user wrote it.
      split: TFDS's name of the split ("train", "test").
      image: the field that holds the image, uint8 [H, W, C].
      label: the field that holds the class.

    Raises:
      UserError: the split or a field does not exist, is empty or is of another kind.
    """
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        raise errors.UserError(
            f"data set {name!r} has no split {split!r}; "
            f"{errors.hint(split, builder.info.splits)}"
        )
    if not builder.info.splits[split].num_examples:
        raise errors.UserError(f"the {split} split of data set {name!r} is empty")
    fields = builder.info.features
    for field in (image, label):
        if field not in fields:
            raise errors.UserError(
                f"data set {name!r} has no field {field!r}; "
                f"{errors.hint(field, fields)}"
            )
    if not isinstance(fields[label], tfds.features.ClassLabel):
        raise errors.UserError(
            f"field {label!r} of data set {name!r} is no class label; class labels: "
            f"{_fields_of(fields, tfds.features.ClassLabel)}"
        )
    if fields[image].np_dtype != np.uint8 or len(fields[image].shape or ()) != 3:
        raise errors.UserError(
            f"field {image!r} of data set {name!r} is no image (uint8 [H, W, C]); "
            f"images: {_fields_of(fields, tfds.features.Image)}"
        )
    with _quiet(), examples.intact(name):
        # The last line of tfds.data_source; what comes before it, finding the builder,
        # `find` has done, without its download.
        rows = builder.as_data_source(split=split)
        shape = rows[0][image].shape  # TFDS may not know it; all must be like the first
    table = examples.Table(
        name, split, rows, image, label, shape, fields[label].num_classes
    )
    return examples.Records(table, np.arange(len(rows)))


def _fields_of(fields: Any, kind: type) -> str:
    return ", ".join(k for k, v in fields.items() if isinstance(v, kind)) or "none"
