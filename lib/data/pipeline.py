"""Feeds of training batches, and the batches of an evaluation.

`OnDevice` and `Loader` yield the same endless stream in principle: the epochs one after
another, each a new permutation of all examples, cut into batches of equal size. No
example is dropped: a batch may hold the end of one epoch and the beginning of the next,
and any `len(train)` consecutive examples that start at a multiple of `len(train)` are
each example once. Step t reads examples `t * batch_size` to `(t + 1) * batch_size - 1`
of the stream, so where a feed stands is a number of steps, which goes into the
checkpoint. Texts in buckets come by another rule: see `bucketed.Bucketed`.

How a training step uses a feed, whichever it is:

    rows = feed.next(steps)                      # host: leaves [steps, batch, ...]
    # and for each step, inside jit, with that step's rows:
    batch = prepare(key, feed.take(feed.resident, rows), 0)

`feed.resident` is a pytree on the device, passed to the jitted function as it is, every
time; `feed.take` is a pure function, the same object for every feed of its kind. A
*raw* batch is `{'input': stored examples [B, ...], 'label': int32 [B], 'weight':
float32 [B]}`, with whatever other fields the source has; `prepare` augments it and
makes inputs of what is stored: of uint8 images, float32 ones.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lib.data import augment, bucketed, examples, splits, streams
from lib.data.inputs import Inputs

Batch = dict[str, jax.Array]
Rows = dict[str, np.ndarray]
State = streams.State


class Feed(Protocol):
    """An endless stream of training batches whose position can be saved."""

    resident: dict[str, jax.Array]

    def next(self, steps: int) -> Rows:
        """Returns what `steps` steps need; leading axes [steps, batch_size]."""
        ...

    def state(self) -> State:
        """Returns the position after what `next` returned so far, fit for JSON."""
        ...

    def restore(self, state: State) -> None:
        """Goes on exactly where the feed that gave `state` would have."""
        ...

    @staticmethod
    def take(resident: dict[str, jax.Array], rows: Rows) -> Batch:
        """Returns the raw batch of one step's rows; pure, to be called inside jit."""
        ...


class OnDevice:
    """The training examples live on the device; the host sends nothing but indices.

    Epoch e is the permutation that NumPy's `default_rng([seed, e])` gives.
    """

    def __init__(
        self,
        train: splits.Train,
        *,
        batch_size: int,
        seed: int,
        sharding: jax.sharding.Sharding | None,
    ):
        """Puts the examples on the device.

        Args:
          train: with its source in memory (`examples.Arrays`).
          batch_size: examples a step.
          seed: a non-negative integer, the order of the examples.
          sharding: where `resident` goes (replicated over a mesh); None for JAX's
            default device.
        """
        self.resident = jax.device_put(dict(train.source.fields), sharding)
        self._stream = streams.of(train, batch_size, seed)
        self._step = 0
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, np.int32))

    def next(self, steps: int) -> Rows:
        """Returns `{'index': int32 [steps, batch_size]}`."""
        size, batch = self._stream["examples"], self._stream["batch_size"]
        start, stop = self._step * batch, (self._step + steps) * batch
        parts = []
        while start < stop:
            epoch, offset = divmod(start, size)
            end = min(size, offset + stop - start)
            parts.append(self._permutation(epoch)[offset:end])
            start += end - offset
        self._step += steps
        return {"index": np.concatenate(parts).reshape(steps, batch)}

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self._stream["seed"], epoch])
            order = rng.permutation(self._stream["examples"]).astype(np.int32)
            self._epoch = (epoch, order)
        return self._epoch[1]

    def state(self) -> State:
        """Returns the stream's settings and `{'step': steps taken}`."""
        return {**self._stream, "step": self._step}

    def restore(self, state: State) -> None:
        """Goes to `state['step']`; raises a `UserError` for another stream's state."""
        streams.same(self._stream, state)
        self._step = int(state["step"])

    @staticmethod
    def take(resident: dict[str, jax.Array], rows: Rows) -> Batch:
        """Gathers the rows' examples."""
        index = rows["index"]
        # "clip" spares the default's fill of indices out of range: there are none.
        batch = {k: jnp.take(v, index, 0, mode="clip") for k, v in resident.items()}
        return {**batch, "weight": jnp.ones(index.shape, jnp.float32)}


class Loader:
    """Reads ahead with Grain's threads; for sets too large for the device.

    The order is Grain's: `MapDataset.seed(seed).shuffle().repeat()`, which shuffles
    each epoch anew.
    """

    resident: dict[str, jax.Array] = {}

    def __init__(
        self,
        train: splits.Train,
        *,
        batch_size: int,
        seed: int,
        threads: int,
        ahead: int,
    ):
        """Opens the stream; threads start with the first batch.

        Args:
          train: any training split.
          batch_size: examples a step.
          seed: a non-negative integer, the order of the examples.
          threads: that read and decode.
          ahead: batches that are read before they are asked for.
        """
        import grain

        self._stream = streams.of(train, batch_size, seed)
        # Batches of indices, then one read for each: half of what reading an example at
        # a time costs.
        batches = (
            grain.MapDataset.range(len(train))
            .seed(seed)
            .shuffle()
            .repeat()
            .batch(batch_size)
            .map(train.source.gather)
        )
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        self._iterator = iter(batches.to_iter_dataset(options))

    def next(self, steps: int) -> Rows:
        """Returns a raw batch with a leading axis of `steps`."""
        batches = [next(self._iterator) for _ in range(steps)]
        rows = {k: np.stack([b[k] for b in batches]) for k in batches[0]}
        return {**rows, "weight": np.ones(rows["label"].shape, np.float32)}

    def state(self) -> State:
        """Returns the stream's settings and Grain's own state."""
        return {**self._stream, "grain": self._iterator.get_state()}

    def restore(self, state: State) -> None:
        """Goes to the state's position; raises a `UserError` for another stream's."""
        streams.same(self._stream, state)
        self._iterator.set_state(state["grain"])

    @staticmethod
    def take(resident: dict[str, jax.Array], rows: Rows) -> Batch:
        """Returns the rows: they are the raw batch already."""
        del resident
        return rows


def feed(
    train: splits.Train,
    *,
    batch_size: int,
    seed: int,
    threads: int,
    ahead: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Feed:
    """Returns `OnDevice` for a split held in memory, `Loader` for one on disk.

    Of a split with buckets it is `Bucketed`. Texts that are streamed have one at least.
    """
    if train.buckets is not None:
        return bucketed.Bucketed(train, batch_size=batch_size, seed=seed)
    if isinstance(train.source, examples.Arrays):
        return OnDevice(train, batch_size=batch_size, seed=seed, sharding=sharding)
    return Loader(train, batch_size=batch_size, seed=seed, threads=threads, ahead=ahead)


def preparation(
    inputs: Inputs,
    augmentation: augment.Augmentation | None,
    mixing: augment.Mixing | None = None,
) -> Callable[[jax.Array | None, Batch, jax.Array | int], Batch]:
    """Returns `(key, raw batch, first) -> batch`, pure, to be called inside jit.

    Args:
      inputs: makes inputs of stored examples.
      augmentation: of one image of raw pixels, or None, as in every evaluation; before
        `inputs`.
      mixing: of the prepared batch, or None, as in every evaluation; after `inputs`.

    The function's `first` is the position in the whole batch of this part's first
    example (see `augment.on_batch`); without both of these, `key` may be None.
    """

    def prepare(key: jax.Array | None, raw: Batch, first: jax.Array | int = 0) -> Batch:
        stored = raw["input"]
        if augmentation is not None:
            stored = stored.astype(jnp.float32)
            stored = augment.on_batch(augmentation)(key, stored, first)
        batch = {**raw, "input": inputs(stored)}
        if mixing is not None:
            # Of no example: `augment.on_batch` gives those the keys of their positions.
            batch = mixing(jax.random.fold_in(key, 2**32 - 1), batch, first)
        return batch

    return prepare


def eval_batches(
    split: splits.Split, batch_size: int, *, cut: bool = False
) -> Iterator[Rows]:
    """Yields all of `split` as raw batches of exactly `batch_size`.

    The last batch is filled up with copies of the split's last example, of weight 0;
    the weights of all batches sum to `len(split)`. (Copies, because an image of zeros
    may make a model return NaN, which a weight of 0 does not remove.)

    Args:
      split: any.
      batch_size: examples of each batch.
      cut: False: in the split's order, all of one shape. True: if the split has
        buckets, bucket by bucket, cut to its length, each filled up as above.
    """
    streams.positive("batch_size", batch_size)
    groups: Any = [(None, np.arange(len(split)))]
    if cut and split.buckets is not None:
        groups = split.buckets.members()
    for length, members in groups:
        for start in range(0, len(members), batch_size):
            position = np.arange(start, start + batch_size)
            rows = split.source.gather(members[np.minimum(position, len(members) - 1)])
            if length is not None:
                rows["input"] = rows["input"][:, :length]
            yield {**rows, "weight": (position < len(members)).astype(np.float32)}
