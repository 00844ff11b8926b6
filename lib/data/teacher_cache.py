"""A teacher's logits on disk: the largest of each training example, and the rest's sum.

The file is an ArrayRecord: first a label (JSON: whose logits of what), then a record
an example, in the order of the split. A split that was `attach`ed yields them with
each example as fields of `FIELDS`; `dense` makes logits of these again.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, files
from lib.data import examples, splits

VALUES, INDICES, REST = FIELDS = ("teacher_values", "teacher_indices", "teacher_rest")
PROBES = 256  # examples that a split is told from another by
CHUNK = 4096  # records read at a time


def top(logits: jax.Array, k: int) -> dict[str, jax.Array]:
    """Returns what is kept of logits `[B, classes]`.

    Args:
      logits: of the teacher.
      k: how many are kept, at least 1; from `classes` on, all.

    Returns:
      `teacher_values` float32 `[B, k]`, the largest logits; `teacher_indices` int32
      `[B, k]`, their classes; `teacher_rest` float32 `[B]`, the log of the sum of the
      exponentials of the others, -inf without others.
    """
    values, indices = jax.lax.top_k(logits, min(k, logits.shape[-1]))
    rows = jnp.arange(len(logits))[:, None]
    others = logits.at[rows, indices].set(-jnp.inf)
    rest = jnp.full(len(logits), -jnp.inf)
    if k < logits.shape[-1]:
        rest = jax.nn.logsumexp(others, axis=-1)
    return dict(zip(FIELDS, (values, indices.astype(jnp.int32), rest), strict=True))


def dense(batch: dict[str, jax.Array], classes: int) -> jax.Array:
    """Returns logits `[B, classes]` of a batch with the fields that `top` gave.

    The kept ones are as they were; the others share the rest evenly, so that at
    temperature 1 every kept probability is exact. With k = classes all are.
    """
    values, indices = batch[VALUES], batch[INDICES]
    others = classes - values.shape[-1]
    if others:
        each = batch[REST] - jnp.log(float(others))
    else:
        each = jnp.zeros(len(values))
    spread = jnp.broadcast_to(each[:, None], (len(values), classes))
    return spread.at[jnp.arange(len(values))[:, None], indices].set(values)


def shapes(batch: int, k: int, classes: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of the fields of a batch."""
    logits = jax.ShapeDtypeStruct((batch, classes), jnp.float32)
    return jax.eval_shape(lambda x: top(x, k), logits)


def fingerprint(split: splits.Split) -> str:
    """Returns a hash of how many examples a split has, and of some of them."""
    some = np.unique(np.linspace(0, len(split) - 1, PROBES).astype(np.int64))
    found = split.source.gather(some)
    digest = hashlib.sha256(str(len(split)).encode())
    for name in ("input", "label"):
        digest.update(np.ascontiguousarray(found[name]).tobytes())
    return digest.hexdigest()


def write(
    path: pathlib.Path, label: dict[str, Any], rows: Iterable[dict[str, np.ndarray]]
) -> int:
    """Writes a cache, at once or not at all; returns how many examples it has.

    Args:
      path: of the file; missing folders are made.
      label: whose logits of what, fit for JSON; `read` wants the same.
      rows: batches, `{field: [n, ...]}` of `FIELDS`, in the order of the split.

    Raises:
      UserError: it cannot be written.
    """
    from array_record.python import array_record_module

    count = 0
    with files.whole(path) as temporary:
        writer = array_record_module.ArrayRecordWriter(
            str(temporary),
            "group_size:1",  # each record can be read alone
        )
        writer.write(json.dumps(label, sort_keys=True).encode())
        for batch in rows:
            for one in zip(*(batch[name] for name in FIELDS), strict=True):
                writer.write(b"".join(np.asarray(x).tobytes() for x in one))
                count += 1
        writer.close()
    return count


class Cache:
    """The logits of a file, by example; a random-access source of its fields."""

    def __init__(
        self,
        path: pathlib.Path,
        label: dict[str, Any],
        *,
        unknown: Collection[str] = (),
    ):
        """Opens a file of `write`.

        Args:
          path: of the file.
          label: as it was written, at least `examples` and `k`.
          unknown: keys of labels that are not compared: of what is not there yet.

        Raises:
          UserError: it is damaged, or its label differs.
        """
        import grain

        self._path, self._k = path, label["k"]
        try:
            self._records = grain.sources.ArrayRecordDataSource(str(path))
            found = json.loads(self._records[0])
        except (RuntimeError, IndexError, ValueError) as e:
            raise self._damaged(e) from e
        keys = sorted({*label, *found} - {*unknown})
        # Numbers first: they say more than hashes.
        for key in sorted(keys, key=lambda k: not isinstance(label.get(k), int)):
            if found.get(key, "nothing") != label.get(key, "nothing"):
                raise errors.UserError(
                    f"{path} caches other logits: its {key} is "
                    f"{found.get(key, 'nothing')}, expected "
                    f"{label.get(key, 'nothing')}; remove it or give another path"
                )
        if len(self) != label["examples"]:
            raise self._damaged(f"it has {len(self)} of {label['examples']} examples")

    def _damaged(self, why: Any) -> errors.UserError:
        reason = (str(why).splitlines() or ["it cannot be read"])[0]
        return errors.UserError(
            f"{self._path} is damaged ({reason}); remove it, so that it is made again"
        )

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._records) - 1

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the fields of the examples at `indices`, stacked."""
        whole = np.empty((len(indices), 2 * self._k + 1), "<f4")
        for start in range(0, len(indices), CHUNK):
            chunk = indices[start : start + CHUNK]
            try:
                read = self._records.__getitems__([int(i) + 1 for i in chunk])
                for i, record in enumerate(read, start):
                    whole[i] = np.frombuffer(record, "<f4")
            except (RuntimeError, ValueError) as e:  # it is of another size
                raise self._damaged(e) from e
        values, indices, rest = np.split(whole, [self._k, 2 * self._k], axis=1)
        classes = np.ascontiguousarray(indices).view("<i4")
        return {VALUES: values, INDICES: classes, REST: rest[:, 0]}

    def attach(self, split: splits.Train) -> splits.Train:
        """Returns the split with the cache's fields in each example.

        What is in memory stays there, with all logits; what is on disk reads them as
        it reads examples.
        """
        source = split.source
        if isinstance(source, examples.Arrays):
            every = self.gather(np.arange(len(source)))
            joined = examples.Arrays({**source.fields, **every})
        else:
            joined = Joined(source, self)
        return dataclasses.replace(split, source=joined)


class Joined:
    """A source on disk whose examples have the fields of a cache, too."""

    def __init__(self, source: splits.Source, cache: Cache):
        """Joins two sources of as many examples."""
        self._source, self._cache = source, cache

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one example of both."""
        own = self._cache.gather(np.array([index]))
        return {**self._source[index], **{name: x[0] for name, x in own.items()}}

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the examples at `indices` of both, stacked."""
        return {**self._source.gather(indices), **self._cache.gather(indices)}
