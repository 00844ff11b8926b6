"""TFDS as a source: any of its data sets that is prepared.

`find` takes the name of any TFDS data set (`mnist`, `cifar100`, `imagenette/160px`)
and opens its splits as TFDS data sources: random access, no TensorFlow at run time.
Nothing is ever downloaded: a set that is not prepared ends in one line that says how
to. Sets of our own are TFDS builders too, and need no network: they are prepared at
first use.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lib import errors
from lib.data import examples
from lib.data.sources.rows import Opened


def _digits(data_dir: str | None) -> Any:
    """Returns the builder of `digits`, without its cost where it is unused."""
    from lib.data.sources import digits

    return digits.Digits(data_dir=data_dir, file_format="array_record")


# Data sets of our own: name -> data_dir -> a TFDS builder that needs no network.
SOURCES: dict[str, Callable[[str | None], Any]] = {"digits": _digits}


class Split:
    """The rows of one split, opened when they are first asked for."""

    def __init__(self, builder: Any, name: str, split: str):
        """Keeps what opens it; reads nothing."""
        self._builder, self._name, self._split = builder, name, split
        self._opened = None

    def __len__(self) -> int:
        """Returns the number of rows."""
        return int(self._builder.info.splits[self._split].num_examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one row; a `UserError` tells of a damaged file."""
        with examples.intact(self._name):
            return self._rows()[index]

    def __getitems__(self, indices: Any) -> Any:
        """Returns several rows; as for one."""
        with examples.intact(self._name):
            return self._rows().__getitems__(indices)

    def _rows(self) -> Any:
        if self._opened is None:
            # The last line of tfds.data_source; what comes before it, finding the
            # builder, `find` has done, without its download.
            with _quiet():
                opened = self._builder.as_data_source(split=self._split)
                if len(opened):
                    opened[0]  # the first image makes TFDS recommend a decoder
            self._opened = opened
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        """Returns what another process needs: it opens the files itself."""
        return {**self.__dict__, "_opened": None}


def find(name: str, data_dir: str | None) -> Opened:
    """Returns a data set of TFDS's that is ready to be read.

    Raises:
      UserError: as `builder` does.
    """
    import tensorflow_datasets as tfds

    found = builder(name, data_dir)
    fields = found.info.features

    def of_kind(*kinds: type) -> tuple[str, ...]:
        return tuple(k for k, v in fields.items() if isinstance(v, kinds))

    return Opened(
        name,
        {split: Split(found, name, split) for split in found.info.splits},
        tuple(fields),
        {k: tuple(fields[k].names) for k in of_kind(tfds.features.ClassLabel)},
        tuple(
            k
            for k in of_kind(tfds.features.Image, tfds.features.Tensor)
            if fields[k].np_dtype == np.uint8 and len(fields[k].shape or ()) == 3
        ),
    )


def builder(name: str, data_dir: str | None) -> Any:
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
        found = tfds.builder(name, data_dir=data_dir)
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
    if not found.is_prepared():
        raise errors.UserError(
            f"data set {name!r} is not prepared in data_dir {found.data_dir_root}; "
            f"prepare it once (this downloads, and needs TensorFlow): {command}"
        )
    if found.info.file_format not in found.info.file_format.with_random_access():
        raise errors.UserError(
            f"data set {name!r} lies in {found.data_path} as "
            f"{found.info.file_format.value}, which has no random access; "
            f"remove it and run: {command}"
        )
    return found


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
