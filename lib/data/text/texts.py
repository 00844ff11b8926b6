"""Texts of a source to a data set of ids."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lib import errors
from lib.data import buckets, examples, mapped, parts, splits
from lib.data.sources import labels
from lib.data.sources.rows import Opened
from lib.data.text import reading, stop_words, tokens, training, vocabulary

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
      resident_bytes: if the ids of all texts take no more, they are held in memory; of
        a larger set they are written to a temporary file (`mapped`) and streamed. The
        batches are the same.
      text: see `Settings`.
      fitted: the inputs of an artifact, which encode the texts; None to make them.

    Raises:
      UserError: a setting out of range; an unknown split or field; a value that is no
        text; a class unseen in training; a vocabulary that is none; texts that are too
        long, where that is an error.
    """
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in text.items()}
    settings = Settings(**kept)
    raw = {
        n: reading.labels_of(opened, n, settings.fields, label) for n in names[:3] if n
    }
    classes = labels.of(opened, label, raw[names.train])

    def whole(split: str) -> examples.Arrays:
        coded = classes.code(split, raw[split])
        return examples.Arrays({"row": np.arange(len(coded)), "label": coded})

    divided = parts.divide(opened.name, names, whole)
    drawn_from = names.train, names.validation or names.train, names.test or names.train
    texts = [
        reading.Texts(opened, split, settings.fields, source.fields["row"])
        for split, source in zip(drawn_from, divided, strict=True)
    ]
    made = fitted or _fitted(settings, texts[0])
    total = sum(map(len, texts)) * made.max_length * np.dtype(made.width).itemsize
    streamed = total > resident_bytes
    kinds = (splits.Train, splits.Validation, splits.Test)
    found, counts = [], {"tokens of the vocabulary": made.vocabulary}
    if streamed:
        counts["bytes of ids that are streamed"] = total
    for kind, some, source in zip(kinds, texts, divided, strict=True):
        ids, held, counted = _encoded(made, some, settings.lengths, streamed)
        if counted["cut"] and settings.too_long == "error":
            raise _too_long(opened.name, kind.part, counted["cut"], made.max_length)
        counted["padded"] = held.places() - counted["tokens"]
        counts |= {
            f"{TOLD[name]} in {kind.part}": n for name, n in counted.items() if n
        }
        coded = source.fields["label"]
        stored = examples.Arrays({"input": ids, "label": coded})
        found.append(
            kind(
                opened.name,
                mapped.Mapped(ids, coded) if streamed else stored,
                len(classes.names),
                (made.max_length,),
                held if settings.buckets or streamed else None,
            )
        )
    shape = (made.max_length,)
    return (*found, len(classes.names), shape, made, classes.names, counts)


def _encoded(
    made: tokens.Tokens, texts: reading.Texts, lengths: tuple[int, ...], streamed: bool
) -> tuple[np.ndarray, buckets.Buckets, dict[str, int]]:
    """Returns ids [N, L] of texts, their buckets, and what `Tokens.counted` counts.

    Args:
      made: the inputs.
      texts: N of them.
      lengths: of the buckets.
      streamed: whether the ids lie in a file.
    """
    counts: Counter[str] = Counter()
    index = []

    def blocks() -> Iterator[np.ndarray]:
        for chunk in texts.chunks():
            ids, counted = made.counted(chunk)
            counts.update(counted)
            index.append(buckets.of(ids, made.pad, lengths).index)
            yield ids

    shape = len(texts), made.max_length
    if streamed:
        ids = mapped.written(blocks(), shape, made.width)
    else:
        ids = np.empty(shape, made.width)
        start = 0
        for block in blocks():
            ids[start : start + len(block)] = block
            start += len(block)
    return ids, buckets.Buckets(lengths, np.concatenate(index)), counts


def _fitted(settings: Settings, texts: reading.Texts) -> tokens.Tokens:
    """Returns the inputs with a given vocabulary, or one of the training texts."""
    if settings.vocabulary:
        path = settings.vocabulary
        tokenizer = vocabulary.read(
            path, kind=settings.tokenizer, lowercase=settings.lowercase
        )
        pad = vocabulary.pad_of(tokenizer, settings.pad, path)
    stopped = stop_words.find(settings.stop_words)
    if not settings.vocabulary:
        single = _Single(texts, frozenset(stopped))
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


@dataclasses.dataclass(frozen=True, eq=False)
class _Single:
    """Texts without stop words, of pairs one by one; to be gone through again."""

    texts: reading.Texts
    words: frozenset[str]

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            for one in text if isinstance(text, tuple) else (text,):
                yield stop_words.remove(one, self.words)[0]
