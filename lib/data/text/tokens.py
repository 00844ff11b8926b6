"""From texts to ids of tokens, in training as in serving."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors
from lib.data.text import stop_words

SEPARATORS = ("[SEP]", "</s>")
CHUNK = 4096  # texts that are cut into tokens at a time

Text = str | tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What makes inputs of texts: ids int32 [B, L], padded behind the text.

    An `inputs.Inputs`. Stored examples are ids already, in 16 bits where these suffice;
    `encode` makes them, of strings, for training and serving alike.

    A text is text: "[SEP]" in it is a bracket, three letters and a bracket.

    Attributes:
      serialised: the tokenizer, as the JSON of the package `tokenizers`.
      vocabulary: number of ids.
      max_length: tokens of the longest text, what frames it included (L).
      pad: the id of padding.
      separator: the id behind each of two texts; -1 if there is none.
      stop_words: taken out first; in lower case.
    """

    serialised: str
    vocabulary: int
    max_length: int
    pad: int
    separator: int = -1
    stop_words: tuple[str, ...] = ()

    KIND: ClassVar[str] = "text"
    DTYPE: ClassVar[Any] = jnp.int32

    def __call__(self, stored: jax.Array) -> jax.Array:
        """Returns ids int32 [B, L] of stored ids [B, L]."""
        return stored.astype(jnp.int32)

    def stored(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        """Returns one stored text (L,)."""
        return jax.ShapeDtypeStruct(shape, self.width)

    @property
    def width(self) -> Any:
        """The dtype of stored ids."""
        return jnp.uint16 if self.vocabulary <= 2**16 else jnp.int32

    def plain(self) -> dict[str, Any]:
        """Returns it as JSON has it: all that serving needs."""
        kept = dataclasses.asdict(self)
        return {
            "tokenizer": _short(json.loads(kept.pop("serialised"))),
            **kept,
            "stop_words": list(self.stop_words),
        }

    def encode(self, texts: Sequence[Text]) -> np.ndarray:
        """Returns ids int32 [N, L] of texts, or of pairs of texts; none is lost.

        A text that is too long loses its end; of a pair the longer one does first.
        """
        return self.counted(texts)[0].astype(np.int32)

    def counted(self, texts: Sequence[Text]) -> tuple[np.ndarray, dict[str, int]]:
        """Returns stored ids [N, L], and what happened to the texts.

        Returns:
          The ids, and how many `texts` there are, how many `tokens` without padding,
          how many texts were `cut`, how many are `empty` (a pair: one of it), how many
          tokens are `unknown`, and how many stop words were taken out (`stopped`).
        """
        ids = np.full((len(texts), self.max_length), self.pad, self.width)
        counts = dict.fromkeys(("tokens", "cut", "empty", "unknown", "stopped"), 0)
        places = np.arange(self.max_length)
        for start in range(0, len(texts), CHUNK):
            chunk = [self._cleaned(t, counts) for t in texts[start : start + CHUNK]]
            found = self._tokenizer.encode_batch_fast(chunk)
            lengths = np.array([len(e) for e in found])
            flat = itertools.chain.from_iterable(e.ids for e in found)
            used = np.fromiter(flat, ids.dtype)
            block = ids[start : start + CHUNK]
            block[places < lengths[:, None]] = used
            counts["tokens"] += len(used)
            counts["unknown"] += int((used == self.unknown).sum())
            counts["cut"] += sum(bool(e.overflowing) for e in found)
        return ids, {"texts": len(texts), **counts}

    def _cleaned(self, text: Text, counts: dict[str, int]) -> Text:
        """Returns a text without its stop words; counts these, and if it is empty."""
        parts = []
        for part in (text,) if isinstance(text, str) else text:
            left, removed = stop_words.remove(part, self._stopped)
            counts["stopped"] += removed
            parts.append(left)
        counts["empty"] += not all(part.strip() for part in parts)
        return parts[0] if len(parts) == 1 else (parts[0], parts[1])

    @property
    def ids(self) -> dict[str, int]:
        """The id of each token."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @functools.cached_property
    def unknown(self) -> int:
        """The id of what the vocabulary has not; -1 if it has everything."""
        model = json.loads(self.serialised)["model"]
        if model["type"] == "Unigram":
            return model["unk_id"]
        token = model.get("unk_token")
        return self._tokenizer.token_to_id(token) if token else -1

    @functools.cached_property
    def _stopped(self) -> frozenset[str]:
        return frozenset(self.stop_words)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.serialised)
        tokenizer.enable_truncation(self.max_length)
        tokenizer.encode_special_tokens = True
        return tokenizer

    def fits(self, model: str, fields: Mapping[str, Any]) -> None:
        """Raises a `UserError` unless a model of tokens has the fields for these ids.

        Args:
          model: for messages.
          fields: those of the model's that have these names: `vocabulary`, `pad`, and
            `separator` with `types`.
        """
        if self.vocabulary > fields.get("vocabulary", self.vocabulary):
            raise errors.UserError(
                f"{model}.vocabulary is {fields['vocabulary']}, and ids of the data's "
                f"vocabulary reach {self.vocabulary - 1}; expected at least "
                f"{self.vocabulary}"
            )
        told = {"pad": self.pad}
        if fields.get("types", 0) > 1 and self.separator >= 0:
            told["separator"] = self.separator
        for field, value in told.items():
            if fields.get(field, value) != value:
                raise errors.UserError(
                    f"{model}.{field} is {fields[field]}, and {value} in the data's "
                    f"vocabulary; set {model}.{field}={value}"
                )


def of(
    tokenizer: Any, *, max_length: int, pad: int, stopped: tuple[str, ...] = ()
) -> Tokens:
    """Returns the inputs that a tokenizer makes.

    Args:
      tokenizer: a `tokenizers.Tokenizer`; it is left without padding and cutting.
      max_length: as of `Tokens`.
      pad: as of `Tokens`.
      stopped: as `Tokens.stop_words`.

    Raises:
      UserError: nothing of a text fits between what frames it.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    frame = tokenizer.num_special_tokens_to_add(True)
    if max_length <= frame:
        raise errors.UserError(
            f"data.text.max_length is {max_length}, and {frame} tokens frame a text; "
            f"expected at least {frame + 1}"
        )
    ends = [tokenizer.token_to_id(token) for token in SEPARATORS]
    separator = next((i for i in ends if i is not None), -1)
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    return Tokens(
        serialised=_written(json.loads(tokenizer.to_str())),
        vocabulary=max(ids) + 1,
        max_length=max_length,
        pad=pad,
        separator=separator,
        stop_words=stopped,
    )


def from_plain(values: dict[str, Any]) -> Tokens:
    """Returns what `Tokens.plain` was called on."""
    values = dict(values)
    whole = values.pop("tokenizer")
    vocabulary = whole["model"]["vocab"]
    if whole["model"]["type"] != "Unigram" and isinstance(vocabulary, list):
        vocabulary = {token: i for i, token in enumerate(vocabulary)}
    model = {**whole["model"], "vocab": vocabulary}
    stopped = tuple(values.pop("stop_words"))
    return Tokens(_written({**whole, "model": model}), **values, stop_words=stopped)


def _short(whole: dict[str, Any]) -> dict[str, Any]:
    """Returns a tokenizer's JSON with a vocabulary of token -> id as a list of tokens.

    Ids take 40 % of a deflated vocabulary. One with gaps stays as it is.
    """
    vocabulary = whole["model"]["vocab"]
    if isinstance(vocabulary, list) or sorted(vocabulary.values()) != [
        *range(len(vocabulary))
    ]:
        return whole
    tokens = sorted(vocabulary, key=vocabulary.get)
    return {**whole, "model": {**whole["model"], "vocab": tokens}}


def _written(whole: dict[str, Any]) -> str:
    """Returns the JSON of a tokenizer, equal for equal ones."""
    return json.dumps(whole, sort_keys=True)
