"""Checkpoints: Orbax, in the background, newest and best kept, damage noticed."""

import pathlib
import zlib
from collections.abc import Callable
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


def _crc(leaves: list[np.ndarray]) -> int:
    crc = 0
    for leaf in leaves:
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return crc


def _names(tree: Any) -> list[str]:
    return [
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


class Checkpoints:
    """The checkpoints of one stage: `save`, `restore`, `wait`, `close`.

    Each holds the arrays of one pytree, where the data stand, and a checksum, because
    Orbax restores altered bytes without a word.
    """

    def __init__(self, directory: str | pathlib.Path, say: Callable[[str], None]):
        """Opens or makes `directory`; `say` is told of damage."""
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._say = say
        managers = ocp.checkpoint_managers
        keep = managers.AnyPreservationPolicy(
            [
                managers.LatestN(n=NEWEST),
                managers.BestN(
                    n=1,
                    get_metric_fn=lambda metrics: metrics["validation_accuracy"],
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self.directory = pathlib.Path(directory).absolute()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise errors.UserError(f"can't write {self.directory}: {e.strerror}") from e
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep, enable_async_checkpointing=True
            ),
        )

    def latest(self) -> int:
        """Returns the newest step there is, 0 if none; it may turn out damaged."""
        return self._manager.latest_step() or 0

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
        """
        if step in self._manager.all_steps():
            return
        # A copy: the CPU backend hands out views of buffers that are donated next.
        leaves = [np.array(leaf) for leaf in jax.tree.leaves(jax.device_get(state))]
        about = {"crc": _crc(leaves), "names": _names(state), "feed": feed}
        arrays = {f"{i:05d}": leaf for i, leaf in enumerate(leaves)}
        metrics = None
        if validation_accuracy is not None:
            metrics = {"validation_accuracy": float(validation_accuracy)}
        args = self._ocp.args
        self._manager.save(
            step,
            args=args.Composite(
                arrays=args.StandardSave(arrays), about=args.JsonSave(about)
            ),
            metrics=metrics,
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
            restored = self._read(step, like)
            if restored is not None:
                return restored
            self._manager.delete(step)
        return None

    def best(self, like: Any) -> Restored | None:
        """Returns the sound checkpoint of the highest validation accuracy, or None."""
        ranked = []
        for step in self._manager.all_steps():
            metrics = self._manager.metrics(step)
            if metrics:
                ranked.append((metrics["validation_accuracy"], step))
        for _, step in sorted(ranked, reverse=True):
            restored = self._read(step, like)
            if restored is not None:
                return restored
        return None

    def _read(self, step: int, like: Any) -> Restored | None:
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in jax.tree.leaves(like)]
        blank = {f"{i:05d}": np.empty(s.shape, s.dtype) for i, s in enumerate(shapes)}
        args = self._ocp.args
        try:
            about = self._manager.restore(
                step, args=args.Composite(about=args.JsonRestore())
            ).about
            names, crc, feed = about["names"], about["crc"], about["feed"]
        except Exception as e:  # whatever Orbax, TensorStore and JSON may raise
            self._damaged(step, e)
            return None
        if names != _names(like):
            raise errors.UserError(
                f"checkpoint {self.directory}/{step} is of another model or recipe"
            )
        try:
            arrays = self._manager.restore(
                step, args=args.Composite(arrays=args.StandardRestore(blank))
            ).arrays
        except Exception as e:
            self._damaged(step, e)
            return None
        leaves = [np.asarray(arrays[f"{i:05d}"]) for i in range(len(shapes))]
        if _crc(leaves) != crc:
            self._damaged(step, ValueError("its checksum does not fit"))
            return None
        state = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return Restored(step, state, feed)

    def _damaged(self, step: int, error: Exception) -> None:
        why = str(error).split("\n")[0][:120]
        self._say(
            f"checkpoint {self.directory}/{step} is damaged ({why}); "
            "falling back to the one before it"
        )

    def wait(self) -> None:
        """Blocks until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        self._manager.close()
