"""Weights as safetensors files: dense, or as what they are frozen to.

A leaf `Dense_0/kernel` of floats is one tensor of that name. Of any other
representation each array is a tensor below it: of a `Quantized`,
`Dense_0/kernel/codes`, `/scale` and `/zero_point`, with
`weight = (codes - zero_point) * scale`. Codes are int8 or uint8; those of 4 bits or
fewer are packed two to a byte, the low half first (`program.nibbles`).

The header's metadata, text as the format wants it, holds three keys. "format" is
`pare 1`. "leaves" is JSON, `{name: what it is}`, for all leaves that are no plain
tensor: "kind" is the representation; "bits", "group" and "axis" (along which its scale
varies) tell the grid; "packed" tells the shape and dtype of codes that were packed;
"below" tells what its parts are (null: a plain tensor); "path" whose weight a tied one
is. "about" is JSON, whatever else was given.

https://huggingface.co/docs/safetensors describes the format itself.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from lib import errors, files, representations, tree
from lib.deploy import extras
from lib.program.integer import nibbles

Path = str | os.PathLike[str]
_FORMAT = "pare 1"
_INSTALL = "requirements-deploy.txt"
_KINDS = {
    kind.__name__: kind
    for kind in representations.Representation.__args__
    if kind is not representations.Dense
}
_WHAT = "a safetensors file"


def save(
    path: Path,
    frozen: representations.Frozen,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Writes a frozen tree; returns the length of the file in bytes.

    Args:
      path: missing folders are made; a file of that name is replaced in one step.
      frozen: nested dict of representations; arrays count as `Dense`.
      metadata: what JSON can hold, for "about".

    Raises:
      UserError: `safetensors` is not installed, metadata is not what JSON holds, or
        the file cannot be written.
    """
    tensors: dict[str, np.ndarray] = {}
    leaves = {}
    for name, leaf in tree.flatten(frozen).items():
        rep = representations.of(leaf)
        about = _take_apart(name, rep, tensors)
        if about is not None:
            leaves[name] = about
    return _write(path, tensors, leaves, metadata)


def save_dense(
    path: Path,
    frozen: representations.Frozen,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Writes the dense weights of a frozen tree, one tensor each; as `save`."""
    return save(path, representations.thaw(frozen), metadata)


def load(path: Path) -> representations.Frozen:
    """Returns the frozen tree of a file of `save`, bit for bit.

    Of a file that something else has written every tensor is a `Dense` leaf, its name
    split at "/".

    Raises:
      UserError: `safetensors` is not installed, or the file is missing, damaged, or
        newer than this program.
    """
    tensors, header = _read(path)
    leaves = _json(path, header, "leaves")
    inside = [f"{name}/" for name in leaves]
    flat = {
        name: representations.Dense(x)
        for name, x in tensors.items()
        if name not in leaves and not any(name.startswith(at) for at in inside)
    }
    for name, about in leaves.items():
        try:
            flat[name] = _put_together(name, about, tensors)
        except (KeyError, TypeError, ValueError) as e:
            raise errors.UserError(
                f"{path} is damaged: {name} is not what its metadata say ({e!r})"
            ) from e
    return tree.unflatten(flat)


def metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata that `save` was given; errors as `load`."""
    return _json(path, _read(path)[1], "about")


def _take_apart(
    name: str, rep: representations.Representation, tensors: dict[str, np.ndarray]
) -> dict[str, Any] | None:
    """Adds the arrays of a leaf; returns what it is, None if it is a plain tensor."""
    if isinstance(rep, representations.Dense):
        tensors[name] = np.array(rep.values, order="C")
        return None
    about: dict[str, Any] = {"kind": type(rep).__name__}
    for field in dataclasses.fields(rep):
        value, at = getattr(rep, field.name), f"{name}/{field.name}"
        if isinstance(value, representations.Representation):
            below = about.setdefault("below", {})
            below[field.name] = _take_apart(at, value, tensors)
        elif hasattr(value, "dtype"):
            tensors[at] = np.array(value, order="C")
        elif value is not None:
            about[field.name] = value
    if isinstance(rep, representations.Quantized):
        about["axis"] = [i for i, n in enumerate(np.shape(rep.scale)) if n > 1]
        if rep.bits <= nibbles.BITS:
            codes = tensors[f"{name}/codes"]
            about["packed"] = {"shape": codes.shape, "dtype": codes.dtype.name}
            tensors[f"{name}/codes"] = nibbles.pack(codes).data
    return about


def _put_together(
    name: str, about: Mapping[str, Any] | None, tensors: Mapping[str, np.ndarray]
) -> representations.Representation:
    """Returns the leaf that `_take_apart` has taken apart."""
    if about is None:
        return representations.Dense(tensors[name])
    kind, below = _KINDS[about["kind"]], about.get("below", {})
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        at = f"{name}/{field.name}"
        if field.name in below:
            fields[field.name] = _put_together(at, below[field.name], tensors)
        elif at in tensors:
            fields[field.name] = tensors[at]
        elif isinstance(about.get(field.name), list):
            fields[field.name] = tuple(about[field.name])
        else:
            fields[field.name] = about.get(field.name)
    if "packed" in about:
        packed = about["packed"]
        signed = packed["dtype"] == "int8"
        shape, data = tuple(packed["shape"]), fields["codes"]
        if data.size != -(-math.prod(shape) // 2):
            raise ValueError(f"{data.size} bytes for codes of shape {shape}")
        unpacked = nibbles.unpack(nibbles.Nibbles(data, shape, signed))
        fields["codes"] = np.asarray(unpacked)
    return kind(**fields)


def _write(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    leaves: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
) -> int:
    numpy = extras.require("safetensors.numpy", _WHAT, _INSTALL)
    try:
        about = json.dumps(dict(metadata or {}), allow_nan=False)
    except (TypeError, ValueError) as e:
        raise errors.UserError(f"metadata is what JSON can hold: {e}") from e
    header = {"format": _FORMAT, "leaves": json.dumps(leaves), "about": about}
    return files.write_bytes(path, numpy.save(dict(tensors), header))


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the tensors and the metadata of a file."""
    safetensors = extras.require("safetensors", _WHAT, _INSTALL)
    try:
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
    except safetensors.SafetensorError as e:
        raise errors.UserError(f"{path} is damaged or no safetensors file: {e}") from e
    found = header.get("format", "")
    if found.startswith("pare") and found != _FORMAT:
        raise errors.UserError(f"{path} is {found!r}, expected {_FORMAT!r}; upgrade")
    return tensors, header


def _json(path: Path, header: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        return json.loads(header.get(key, "{}"))
    except ValueError as e:
        raise errors.UserError(f"{path} is damaged: its {key!r} is no JSON") from e
