"""Images as a kind of data."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lib import errors
from lib.data import examples, normalise, parts, resize, splits
from lib.data.sources.rows import Opened, has_field, split_of


def load(
    opened: Opened,
    names: parts.Names,
    *,
    label: str,
    resident_bytes: int,
    kept_bytes: int = 0,
    image: str,
    normalisation: str = "measured",
    image_shape: Sequence[int] = (),
    resize_by: str = "stretch",
    resample: str = "bilinear",
) -> tuple[Any, ...]:
    """Returns the fields of a `dataset.Dataset` after its name.

    Args:
      opened: the source.
      names: which of its splits is what.
      label: the set's field that holds the class; nearly always "label".
      resident_bytes: a set whose pixels take no more than this is read into memory
        (`examples.Arrays`); a larger one stays on disk (`examples.Records`).
      kept_bytes: of one on disk whose pixels take no more than this, what was read is
        kept in memory (`examples.Kept`): it is decoded once, not in every epoch.
      image: the set's field that holds the image; nearly always "image".
      normalisation: "measured" on the training split, or "imagenet", for weights that
        were trained so; see `normalise.NORMALISATIONS`.
      image_shape: (H, W, C) that every image is brought to, as it is read; () for a set
        whose images have one shape already.
      resize_by: what becomes of other proportions; a key of `resize.WAYS`.
      resample: how pixels are made of others; a key of `resize.FILTERS`.

    Raises:
      UserError: an unknown split, field, normalisation or way to resize; an empty
        split; images of differing shapes; labels out of range.
    """
    resize.check(tuple(image_shape), resize_by, resample)
    to_shape = _keep
    if image_shape:
        to_shape = functools.partial(
            resize.to_shape, shape=tuple(image_shape), how=resize_by, by=resample
        )
    name = opened.name
    measure = errors.lookup(
        normalise.NORMALISATIONS, normalisation, "normalisation of the pixels"
    )
    found = {n: _records(opened, n, image, label, to_shape) for n in names[:3] if n}
    shape, classes = found[names.train].table.shape, found[names.train].table.classes
    for split, records in found.items():
        if records.table.shape != shape:
            raise errors.UserError(
                f"data set {name!r} has images of differing shapes: {shape} in its "
                f"{names.train} split, {records.table.shape} in its {split} split"
            )
    pixels = sum(map(len, found.values())) * math.prod(shape)
    resident = pixels <= resident_bytes
    fit, held_out, measured = parts.divide(
        name, names, lambda n: found[n].read() if resident else found[n]
    )
    if not resident and pixels <= kept_bytes:
        fit, held_out, measured = map(examples.Kept, (fit, held_out, measured))
    train = splits.Train(name, fit, classes, shape)
    return (
        train,
        splits.Validation(name, held_out, classes, shape),
        splits.Test(name, measured, classes, shape),
        classes,
        shape,
        measure(train),
        opened.classes[label],
        opened.counts,
    )


def _keep(image: np.ndarray) -> np.ndarray:
    return image


def _records(
    opened: Opened,
    split: str,
    image: str,
    label: str,
    to_shape: Callable[[np.ndarray], np.ndarray],
) -> examples.Records:
    """Returns one whole split; reads one example.

    Raises:
      UserError: the split or a field does not exist, is empty or is of another kind.
    """
    rows = split_of(opened, split)
    for field in (image, label):
        has_field(opened, field)
    if label not in opened.classes:
        raise errors.UserError(
            f"field {label!r} of data set {opened.name!r} is no class label; class "
            f"labels: {', '.join(opened.classes) or 'none'}"
        )
    if opened.images is not None and image not in opened.images:
        raise errors.UserError(
            f"field {image!r} of data set {opened.name!r} is no image (uint8 "
            f"[H, W, C]); images: {', '.join(opened.images) or 'none'}"
        )
    table = examples.Table(
        name=opened.name,
        split=split,
        rows=rows,
        decode=lambda row: to_shape(row[image]),
        label=lambda row: int(row[label]),
        field=label,
        shape=to_shape(rows[0][image]).shape,  # all must be like the first
        dtype=np.uint8,
        classes=len(opened.classes[label]),
    )
    return examples.Records(table, np.arange(len(rows)))
