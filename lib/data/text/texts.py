"""Texts of a source to a data set of ids."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lib import errors
from lib.data import buckets, examples, parts, splits
from lib.data.sources import labels
from lib.data.sources.rows import Opened, has_field, split_of
from lib.data.text import stop_words, tokens, training, vocabulary

TOO_LONG = ("cut", "error")
# What `Tokens.counted` counts, and the padding, in words.
TOLD = {
    "texts": "texts",
    "tokens": "tokens",
    "padded": "places of padding",
    "cut": "texts that were cut",
    "empty": "texts that are empty",
    "unknown": "unknown tokens",
    "stopped": "stop words taken out",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `config.data.text` says.

    Attributes:
      fields: of a row, one or two, that hold text.
      tokenizer: "wordpiece", "bpe" or "unigram".
      vocabulary: a file or folder, see `vocabulary.read`; "" trains one on the training
        part.
      size: tokens of one that is trained, at most.
      lowercase: whether capitals become small letters.
      stop_words: see `stop_words.find`; "" for none.
      max_length: tokens of the longest text, with what frames it.
      buckets: shorter lengths that batches are padded to; () for one length.
      too_long: "cut", or "error" to refuse a text of more tokens.
      pad: the token that pads; "" for a given vocabulary's own.
    """

    fields: tuple[str, ...]
    tokenizer: str
    vocabulary: str
    size: int
    lowercase: bool
    stop_words: str
    max_length: int
    buckets: tuple[int, ...]
    too_long: str
    pad: str

    def __post_init__(self):
        """Raises a `UserError` for a setting out of its range."""
        if len(self.fields) not in (1, 2):
            raise errors.UserError(
                f"data.text.fields is one or two fields, got {tuple(self.fields)}"
            )
        errors.lookup(training.TRAINERS, self.tokenizer, "tokenizer")
        errors.lookup(dict.fromkeys(TOO_LONG), self.too_long, "data.text.too_long")
        if self.pad and not self.vocabulary:
            raise errors.UserError(
                "data.text.pad is of a given vocabulary; one that is trained has its "
                "own; set data.text.vocabulary or pad=''"
            )
        around = (0, *self.buckets, self.max_length)
        if any(a >= b for a, b in zip(around, around[1:], strict=False)):
            raise errors.UserError(
                "data.text.buckets is ascending lengths below max_length "
                f"{self.max_length}, got {tuple(self.buckets)}"
            )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of batches, ascending."""
        return (*self.buckets, self.max_length)


class _Raw(NamedTuple):
    """A whole split: texts [N] object, strings or pairs of them, and label values."""

    texts: np.ndarray
    labels: list[Any]


def load(
    opened: Opened,
    names: parts.Names,
    *,
    label: str,
    resident_bytes: int,
    text: Mapping[str, Any],
    fitted: tokens.Tokens | None = None,
) -> tuple[Any, ...]:
    """Returns the fields of a `dataset.Dataset` after its name.

    Args:
      opened: the source.
      names: which of its splits is what.
      label: the field that holds the class.
      resident_bytes: that the ids of all texts may take: they are held in memory.
      text: see `Settings`.
      fitted: the inputs of an artifact, which encode the texts; None to make them.

    Raises:
      UserError: a setting out of range; an unknown split or field; a value that is no
        text; a class unseen in training; a vocabulary that is none; texts that are too
        long, where that is an error, or too many.
    """
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in text.items()}
    settings = Settings(**kept)
    raw = {n: _read(opened, n, settings.fields, label) for n in names[:3] if n}
    classes = labels.of(opened, label, raw[names.train].labels)

    def whole(split: str) -> examples.Arrays:
        coded = classes.code(split, raw[split].labels)
        return examples.Arrays({"input": raw[split].texts, "label": coded})

    divided = parts.divide(opened.name, names, whole)
    made = fitted or _fitted(settings, divided[0].fields["input"])
    total = sum(map(len, divided)) * made.max_length * np.dtype(made.width).itemsize
    if total > resident_bytes:
        raise errors.UserError(
            f"the ids of data set {opened.name!r} take {total:,} bytes, more than "
            f"data.resident_bytes={resident_bytes:,}; raise it, or lower "
            "data.text.max_length"
        )
    kinds = (splits.Train, splits.Validation, splits.Test)
    found, counts = [], {"tokens of the vocabulary": made.vocabulary}
    for kind, source in zip(kinds, divided, strict=True):
        ids, counted = made.counted(source.fields["input"].tolist())
        if counted["cut"] and settings.too_long == "error":
            raise _too_long(opened.name, kind.part, counted["cut"], made.max_length)
        held = buckets.of(ids, made.pad, settings.lengths)
        counted["padded"] = held.places() - counted["tokens"]
        counts |= {
            f"{TOLD[name]} in {kind.part}": n for name, n in counted.items() if n
        }
        found.append(
            kind(
                opened.name,
                examples.Arrays({**source.fields, "input": ids}),
                len(classes.names),
                (made.max_length,),
                held if settings.buckets else None,
            )
        )
    shape = (made.max_length,)
    return (*found, len(classes.names), shape, made, classes.names, counts)


def _read(opened: Opened, split: str, fields: tuple[str, ...], label: str) -> _Raw:
    rows = split_of(opened, split)
    for field in (*fields, label):
        has_field(opened, field)
    texts, values = np.empty(len(rows), object), []
    for start in range(0, len(rows), examples.CHUNK):
        stop = min(start + examples.CHUNK, len(rows))
        for i, row in enumerate(rows.__getitems__(range(start, stop)), start):
            where = f"example {i} of split {split!r} of data set {opened.name!r}"
            found = tuple(_text(row[field], field, where) for field in fields)
            texts[i] = found if len(found) == 2 else found[0]
            values.append(row[label])
    return _Raw(texts, values)


def _text(value: Any, field: str, where: str) -> str:
    """Returns a field's text; a missing one is empty."""
    if value is None or value != value:  # None or NaN
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as e:
            raise errors.UserError(f"{where}: {field!r} is no UTF-8: {e}") from e
    if not isinstance(value, str):
        raise errors.UserError(f"{where}: {field!r} is no text, got {value!r}")
    return value


def _fitted(settings: Settings, texts: np.ndarray) -> tokens.Tokens:
    """Returns the inputs with a given vocabulary, or one of the training texts."""
    if settings.vocabulary:
        path = settings.vocabulary
        tokenizer = vocabulary.read(
            path, kind=settings.tokenizer, lowercase=settings.lowercase
        )
        pad = vocabulary.pad_of(tokenizer, settings.pad, path)
    stopped = stop_words.find(settings.stop_words)
    if not settings.vocabulary:
        words = frozenset(stopped)
        pairs = (t if isinstance(t, tuple) else (t,) for t in texts)
        single = (stop_words.remove(t, words)[0] for pair in pairs for t in pair)
        tokenizer = training.train(
            settings.tokenizer, single, size=settings.size, lowercase=settings.lowercase
        )
        pad = training.SPECIAL.index("[PAD]")
    return tokens.of(
        tokenizer, max_length=settings.max_length, pad=pad, stopped=stopped
    )


def _too_long(name: str, part: str, count: int, length: int) -> errors.UserError:
    return errors.UserError(
        f"{count} texts of the {part} part of data set {name!r} have more than "
        f"{length} tokens; raise data.text.max_length, or set data.text.too_long='cut'"
    )
