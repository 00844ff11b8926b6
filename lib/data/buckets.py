"""Texts of about one length together, so that little of a batch is padding."""

import dataclasses
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
    """Which example of a split is padded to which length.

    Attributes:
      lengths: tokens that batches are padded to, ascending; the last is that of the
        stored examples.
      index: [N] int; example i fits into `lengths[index[i]]` tokens, and into no
        shorter bucket.
    """

    lengths: tuple[int, ...]
    index: np.ndarray

    def members(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (length, ascending indices of its examples) of buckets with any."""
        for number, length in enumerate(self.lengths):
            inside = np.flatnonzero(self.index == number)
            if len(inside):
                yield length, inside

    def places(self) -> int:
        """Returns how many tokens the examples take with their padding."""
        return int(np.asarray(self.lengths)[self.index].sum())


def of(ids: np.ndarray, pad: int, lengths: tuple[int, ...]) -> Buckets:
    """Returns the buckets of ids [N, L] that are padded with `pad` behind their text.

    Args:
      ids: of tokens.
      pad: the id of padding.
      lengths: ascending, the last one L.
    """
    used = ids[:, ::-1] != pad
    length = np.where(used.any(1), ids.shape[1] - used.argmax(1), 0)
    return Buckets(lengths, np.searchsorted(lengths, length).astype(np.int32))
