"""Shows what of a packed artifact takes how many bytes, weight by weight."""

import math
import os
from typing import Any

from lib import errors
from lib.deploy import artifact, reader

HEADS = ("path", "stored as", "shape", "bits/weight", "sparsity %", "bytes")
_LEFT = 3  # columns of text; those behind hold numbers


def run(config: Any, workdir: str | None = None) -> list[reader.Row]:
    """Prints the listing of `config.path`; returns its rows. Writes nothing."""
    del workdir
    if not config.path:
        raise errors.UserError("inspect: config.path is empty; name an artifact")
    rows = artifact.listing(config.path)
    for line in lines(rows, os.path.getsize(config.path)):
        print(line)
    return rows


def lines(rows: list[reader.Row], file_bytes: int) -> list[str]:
    """Returns the table: a line for each weight, their total, the header, the file.

    Args:
      rows: as `artifact.listing` returns them.
      file_bytes: length of the file. What is not of a weight is of the header.
    """
    weights = sum(row.nbytes for row in rows)
    size = sum(math.prod(row.shape) for row in rows)
    table = [HEADS]
    for row in rows:
        shape = "x".join(map(str, row.shape)) or "()"
        numbers = _numbers(row.nbytes, math.prod(row.shape), row.sparsity)
        table.append((row.path, row.representation, shape, *numbers))
    table.append(("(weights)", "", f"{size:,}", *_numbers(weights, size, None)))
    table.append(("(header)", "", "", *_numbers(file_bytes - weights, 0, None)))
    table.append(("(file)", "", "", *_numbers(file_bytes, size, None)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{text:<{width}}" if i < _LEFT else f"{text:>{width}}"
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]


def _numbers(nbytes: int, size: int, sparsity: float | None) -> tuple[str, str, str]:
    bits = f"{8 * nbytes / size:.2f}" if size else "-"
    share = "-" if sparsity is None else f"{100 * sparsity:.1f}"
    return bits, share, f"{nbytes:,}"
