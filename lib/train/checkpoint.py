"""Checkpoints: Orbax, in the background, newest and best kept, damage noticed."""

import contextlib
import json
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lib import errors

NEWEST = 2  # how many of the newest are kept, so that a damaged one has a stand-in


class Restored(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: Any
    feed: dict[str, Any]


def _label_crc(label: dict[str, Any]) -> int:
    """Returns the checksum of a label without its own checksum."""
    rest = {key: value for key, value in label.items() if key != "label_crc"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def _structure(tree: Any) -> list[list[Any]]:
    """Returns [name, dtype, shape] of each leaf, as JSON has them."""
    return [
        [jax.tree_util.keystr(path), str(leaf.dtype), list(leaf.shape)]
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def _pack(state: Any) -> np.ndarray:
    """Returns a copy of all leaves, one after another, as bytes.

    One array, because Orbax refuses those of no element, and because TensorStore, when
    several cannot be read, fills the terminal with what the others raised.
    """
    leaves = jax.tree.leaves(jax.device_get(state))
    return np.frombuffer(b"".join(np.asarray(x).tobytes() for x in leaves), np.uint8)


def _unpack(packed: np.ndarray, like: Any) -> Any:
    """Returns what `_pack` was called on, as a tree like `like`."""
    leaves, start = [], 0
    for x in jax.tree.leaves(like):
        part = packed[start : start + x.size * x.dtype.itemsize]
        leaves.append(np.frombuffer(part.tobytes(), x.dtype).reshape(x.shape))
        start += len(part)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


class _Keep:
    """Which checkpoints Orbax keeps: the newest, and the best that validated.

    Orbax's own `BestN` forgets the accuracies when the process ends.
    """

    def __init__(self, accuracies: dict[int, float]):
        self._accuracies = accuracies  # by step; grows as checkpoints are saved

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-NEWEST:], *ranked(self._accuracies, steps)[:1]}
        return [step in kept for step in steps]


def ranked(accuracies: dict[int, float], steps: Sequence[int]) -> list[int]:
    """Returns the steps that have an accuracy: highest first, of equals the latest."""
    known = [step for step in steps if step in accuracies]
    return sorted(known, key=lambda step: (accuracies[step], step), reverse=True)


class Checkpoints:
    """The checkpoints of one stage: `save`, `restore`, `best`, `wait`, `close`.

    Each holds the arrays of one pytree and a label: their structure, where the data
    stand, the accuracy, and checksums, because Orbax restores altered bytes without a
    word.
    """

    def __init__(self, directory: str | pathlib.Path, say: Callable[[str], None]):
        """Opens or makes `directory`; `say` is told of damage."""
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._say = say
        self._accuracies: dict[int, float] = {}
        self.directory = pathlib.Path(directory).absolute()
        with self._writing():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=_Keep(self._accuracies),
                    enable_async_checkpointing=True,
                    cleanup_tmp_directories=True,  # of a save that was killed
                ),
            )
        for step in self._manager.all_steps():
            with contextlib.suppress(_Damaged):
                self._note(step, self._label(step)["validation_accuracy"])

    def _note(self, step: int, validation_accuracy: float | None) -> None:
        if validation_accuracy is not None:
            self._accuracies[step] = validation_accuracy

    def save(
        self,
        step: int,
        state: Any,
        feed: dict[str, Any],
        validation_accuracy: float | None = None,
    ) -> None:
        """Starts to write; the state may be changed as soon as this returns.

        Args:
          step: steps taken; one that is there already is left as it is.
          state: a pytree of arrays.
          feed: where the data stand, fit for JSON.
          validation_accuracy: ranks the checkpoint; without it, it is never the best.

        Raises:
          UserError: it cannot be written, or, since that is done in the background,
            the one before it could not.
        """
        if step in self._manager.all_steps():
            return
        packed = _pack(state)
        label = {
            "structure": _structure(state),
            "state_crc": zlib.crc32(packed),
            "feed": feed,
            "validation_accuracy": validation_accuracy,
        }
        self._note(step, validation_accuracy)
        args = self._ocp.args
        with self._writing():
            self._manager.save(
                step,
                args=args.Composite(
                    state=args.StandardSave({"bytes": packed}),
                    label=args.JsonSave({**label, "label_crc": _label_crc(label)}),
                ),
            )

    def restore(self, like: Any) -> Restored | None:
        """Returns the newest sound checkpoint, or None if there is none.

        A damaged one is named through `say`, removed, and the one before it is taken.

        Args:
          like: a state of the same structure, for shapes and dtypes.

        Raises:
          UserError: a sound checkpoint is of another structure.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._read(step, like)
            except _Damaged as e:
                self._tell(step, e)
                self._accuracies.pop(step, None)
                with self._writing():
                    self._manager.delete(step)
        return None

    def best(self, like: Any) -> Restored:
        """Returns the sound checkpoint of the highest validation accuracy.

        Raises:
          UserError: there is none.
        """
        for step in ranked(self._accuracies, self._manager.all_steps()):
            try:
                return self._read(step, like)
            except _Damaged as e:
                self._tell(step, e)
        raise errors.UserError(
            f"{self.directory} holds no sound checkpoint that was validated"
        )

    def best_step(self) -> int | None:
        """Returns the step of the highest validation accuracy; None without any."""
        return next(iter(ranked(self._accuracies, list(self._accuracies))), None)

    def _label(self, step: int) -> dict[str, Any]:
        args = self._ocp.args
        label = self._load(step, label=args.JsonRestore()).label
        if not isinstance(label, dict) or label.get("label_crc") != _label_crc(label):
            raise _Damaged("the checksum of its label does not fit")
        return label

    def _read(self, step: int, like: Any) -> Restored:
        label = self._label(step)
        if label["structure"] != _structure(like):
            raise errors.UserError(
                f"checkpoint {self.directory}/{step} is of another model or recipe"
            )
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(like))
        args = self._ocp.args
        blank = {"bytes": np.empty(size, np.uint8)}
        packed = self._load(step, state=args.StandardRestore(blank)).state["bytes"]
        if zlib.crc32(packed) != label["state_crc"]:
            raise _Damaged("the checksum of its state does not fit")
        return Restored(step, _unpack(packed, like), label["feed"])

    def _load(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=self._ocp.args.Composite(**items))
        except Exception as e:  # whatever Orbax, TensorStore and JSON may raise
            raise _Damaged(" ".join(str(e).split())[:120]) from e

    def _tell(self, step: int, error: "_Damaged") -> None:
        self._say(
            f"checkpoint {self.directory}/{step} is damaged ({error}); "
            "falling back to the one before it"
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what Orbax and TensorStore raise for a full or closed disk into one."""
        try:
            yield
        except (OSError, ValueError) as e:
            code = re.search(r"os_error_code='(\d+)'", str(e))  # TensorStore's
            why = os.strerror(int(code[1])) if code else getattr(e, "strerror", None)
            why = why or " ".join(str(e).split())[:200]
            raise errors.UserError(
                f"cannot write checkpoints to {self.directory}: {why}; "
                "expected a folder that is writable and has space"
            ) from e

    def wait(self) -> None:
        """Blocks until everything is on disk; errors as `save`."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the directory; errors as `save`."""
        with self._writing():
            self._manager.close()


class _Damaged(Exception):
    """A checkpoint cannot be read, or not as it was written."""
