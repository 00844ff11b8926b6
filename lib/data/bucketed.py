"""A feed whose batches are of one bucket each: short texts carry little padding."""

from collections.abc import Iterator

import jax
import numpy as np

from lib.data import splits, streams

Rows = dict[str, np.ndarray]


class Bucketed:
    """Batches of examples of one length, cut to it, from memory or a mapped file.

    The stream is that of `pipeline.OnDevice`: the epochs one after another, epoch e the
    permutation of `default_rng([seed, e])`. Its examples queue up in their buckets,
    and a bucket that holds a batch gives it away at once. So each example enters once
    an epoch and leaves in that order: none is dropped, none comes more often than it
    has entered, and at the end of an epoch fewer than `batch_size` examples of each
    bucket wait for the next one. With one bucket, the batches are `OnDevice`'s.

    Where the feed stands is a number of steps; going to one replays the epochs' orders,
    without their examples.
    """

    resident: dict[str, jax.Array] = {}

    def __init__(self, train: splits.Train, *, batch_size: int, seed: int):
        """Begins the stream.

        Args:
          train: with buckets, and any source that gathers quickly.
          batch_size: examples a step.
          seed: a non-negative integer, the order of the examples.
        """
        if train.buckets is None:
            raise TypeError("a bucketed feed reads a split that has buckets")
        self._source, self._buckets = train.source, train.buckets
        held = {f"bucket_{n}": len(i) for n, i in train.buckets.members()}
        self._stream = streams.of(train, batch_size, seed) | held
        self._begin()

    def _begin(self) -> None:
        self._step, self._batches = 0, self._all()

    def _all(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (length, indices [batch_size]) of one step after another, forever."""
        size, batch = self._stream["examples"], self._stream["batch_size"]
        waiting = [np.empty(0, np.int64) for _ in self._buckets.lengths]
        epoch = 0
        while True:
            rng = np.random.default_rng([self._stream["seed"], epoch])
            order = rng.permutation(size)
            index = self._buckets.index[order]
            full = []  # (place in the epoch that fills it, length, indices)
            for number, length in enumerate(self._buckets.lengths):
                places = np.flatnonzero(index == number)
                before = len(waiting[number])
                queue = np.concatenate([waiting[number], order[places]])
                whole = len(queue) // batch * batch
                waiting[number] = queue[whole:]
                for start in range(0, whole, batch):
                    filled = places[start + batch - 1 - before]
                    full.append((filled, length, queue[start : start + batch]))
            for _, length, indices in sorted(full, key=lambda f: f[0]):
                yield length, indices
            epoch += 1

    def next(self, steps: int) -> Rows:
        """Returns a raw batch with a leading axis of one step.

        Raises:
          ValueError: `steps` is not 1: the next step may be of another length.
        """
        if steps != 1:
            raise ValueError(f"a bucketed feed gives one step at a time, not {steps}")
        length, indices = next(self._batches)
        self._step += 1
        rows = self._source.gather(indices)
        rows["input"] = rows["input"][:, :length]
        rows["weight"] = np.ones(len(indices), np.float32)
        return {name: values[None] for name, values in rows.items()}

    def state(self) -> streams.State:
        """Returns the stream's settings and `{'step': steps taken}`."""
        return {**self._stream, "step": self._step}

    def restore(self, state: streams.State) -> None:
        """Goes to `state['step']`; raises a `UserError` for another stream's state."""
        streams.same(self._stream, state)
        if state["step"] < self._step:
            self._begin()
        while self._step < state["step"]:
            next(self._batches)
            self._step += 1

    @staticmethod
    def take(resident: dict[str, jax.Array], rows: Rows) -> dict[str, jax.Array]:
        """Returns the rows: they are the raw batch already."""
        del resident
        return rows
