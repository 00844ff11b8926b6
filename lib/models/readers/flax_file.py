"""Arrays from a Flax msgpack file; their names are paths, joined with "/"."""

import pathlib

import flax.serialization
import numpy as np

from lib import errors, tree
from lib.models.readers import base


def read(path: pathlib.Path) -> base.Entries:
    """Returns the arrays of a file of `flax.serialization.to_bytes` by path.

    Raises:
      UserError: it cannot be read, is damaged or holds other things than arrays.
    """
    try:
        whole = flax.serialization.msgpack_restore(path.read_bytes())
        if not isinstance(whole, dict):
            raise ValueError("it holds no tree of arrays")
        flat = tree.flatten(whole)
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
    except Exception as e:  # whatever damaged msgpack makes its reader raise
        raise errors.UserError(f"{path} is no Flax file of arrays: {e}") from e
    for name, value in flat.items():
        if not isinstance(value, (np.ndarray, np.generic)):
            raise errors.UserError(
                f"{path} is no Flax file of arrays: its {name!r} is a "
                f"{type(value).__name__}"
            )
    return base.held({name: np.asarray(value) for name, value in flat.items()})


def torch_name(name: str) -> str:
    """Returns how PyTorch's copy of a Flax model calls one of its arrays.

    `bert/encoder/layer/0/output/dense/kernel` is `bert.encoder.layer.0.output.dense.
    weight` there; such kernels have their axes in Flax's order still.
    """
    *scopes, leaf = name.split("/")
    named = {"kernel": "weight", "embedding": "weight", "scale": "weight"}
    return ".".join([*scopes, named[leaf] if leaf in named else leaf])
