"""Vocabularies that are trained: the same texts give the same one in every process."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lib import errors
from lib.data.text import unigram

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # ids 0 to 3


def train(kind: str, texts: Iterable[str], *, size: int, lowercase: bool) -> Any:
    """Returns a `tokenizers.Tokenizer` with a vocabulary of these texts.

    Texts lose control characters, and, with `lowercase`, capitals and accents; they
    are cut into words and signs before the vocabulary sees them. A text is framed as
    `[CLS] text [SEP]`, two as `[CLS] first [SEP] second [SEP]`.

    Args:
      kind: a key of `TRAINERS`.
      texts: of the training part only; gone through more than once, and not held, but
        for an iterator.
      size: tokens, the four special ones included; fewer where the texts have no more.
      lowercase: whether capitals become small letters.

    Raises:
      UserError: an unknown kind, or a size that has no room for single characters.
    """
    from tokenizers import normalizers, processors

    make = errors.lookup(TRAINERS, kind, "tokenizer")
    if iter(texts) is texts:
        texts = list(texts)
    tokenizer = make(normalizers.BertNormalizer(lowercase=lowercase), texts, size)
    special = [(token, tokenizer.token_to_id(token)) for token in SPECIAL]
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=special,
    )
    return tokenizer


def _wordpiece(normalizer: Any, texts: Iterable[str], size: int) -> Any:
    """WordPiece: Schuster & Nakajima 2012, as BERT's; parts inside a word have "##"."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    pieces = pre_tokenizers.BertPreTokenizer()
    characters = sorted(set("".join(_words(normalizer, pieces, texts))))
    # Its trainer would number these as it meets them, in another order each time.
    inside = [f"##{c}" for c in characters]
    _room(size, len(SPECIAL) + 2 * len(characters))
    found = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    found.normalizer, found.pre_tokenizer = normalizer, pieces
    found.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=size,
            special_tokens=[*SPECIAL, *inside],
            initial_alphabet=characters,
            show_progress=False,
        ),
    )
    # Anew, as those parts are no special tokens.
    tokenizer = Tokenizer(models.WordPiece(found.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pieces
    return tokenizer


def _bpe(normalizer: Any, texts: Iterable[str], size: int) -> Any:
    """Byte pairs: Sennrich 2016 (1508.07909), on bytes as GPT-2: nothing is unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _room(size, len(SPECIAL) + len(alphabet))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return tokenizer


def _unigram(normalizer: Any, texts: Iterable[str], size: int) -> Any:
    """Pieces with probabilities: see `unigram`; a word begins with "\u2581"."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    # A sign ends a word, so that no word holds a special token.
    signs = pre_tokenizers.Punctuation("merged_with_previous")
    pieces = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), signs])
    counted = Counter(_words(normalizer, pieces, texts))
    found = unigram.train(counted, size - len(SPECIAL))
    vocabulary = [(token, 0.0) for token in SPECIAL] + found
    tokenizer = Tokenizer(models.Unigram(vocabulary, SPECIAL.index("[UNK]")))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pieces
    return tokenizer


# Kind -> (normalizer, texts, size) -> a tokenizer with a vocabulary.
TRAINERS: dict[str, Callable[[Any, Iterable[str], int], Any]] = {
    "wordpiece": _wordpiece,
    "bpe": _bpe,
    "unigram": _unigram,
}


def _words(normalizer: Any, pieces: Any, texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for word, _ in pieces.pre_tokenize_str(normalizer.normalize_str(text)):
            yield word


def _room(size: int, least: int) -> None:
    if size < least:
        raise errors.UserError(
            f"data.text.size is {size}, and single characters take {least} tokens; "
            "raise it"
        )
