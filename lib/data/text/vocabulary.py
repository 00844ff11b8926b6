"""Vocabularies that are given, as a file or a folder of a pretrained model."""

import os
from typing import Any

from lib import errors

# The kinds of `training.TRAINERS` -> the model of `tokenizers` that they are.
MODELS = {"wordpiece": "WordPiece", "bpe": "BPE", "unigram": "Unigram"}
PADS = ("[PAD]", "<pad>")
FILES = ("tokenizer.json", "vocab.txt")  # the first that a folder holds


def read(path: str, *, kind: str, lowercase: bool) -> Any:
    """Returns the `tokenizers.Tokenizer` of a file.

    A `tokenizer.json` is taken as it is, but for its padding and cutting; the settings
    have to say what it is, so that a config says what happens. A `vocab.txt`, a token a
    line, becomes BERT's WordPiece.

    Args:
      path: of one of `FILES`, by any name with its ending, or of a folder with one.
      kind: a key of `MODELS`.
      lowercase: whether it makes small letters of capitals.

    Raises:
      UserError: there is no such file, or it is no vocabulary, or one of another kind.
    """
    expected = errors.lookup(MODELS, kind, "tokenizer")
    found = os.path.expanduser(path)
    if os.path.isdir(found):
        inside = [n for n in FILES if os.path.isfile(os.path.join(found, n))]
        if not inside:
            raise errors.UserError(
                f"vocabulary {path!r} is a folder without {' or '.join(FILES)}"
            )
        found = os.path.join(found, inside[0])
    if not os.path.isfile(found):
        raise errors.UserError(f"vocabulary {path!r} does not exist")
    whole = found.endswith(".json")
    tokenizer = _whole(found) if whole else _wordpiece(found, lowercase)
    model = type(tokenizer.model).__name__
    if model != expected:
        raise errors.UserError(
            f"vocabulary {path!r} is {model}'s, expected {expected}'s "
            f"(data.text.tokenizer is {kind!r})"
        )
    if whole and _lowers(tokenizer) != lowercase:
        does = "makes small letters of" if not lowercase else "keeps"
        raise errors.UserError(
            f"vocabulary {path!r} {does} capitals; "
            f"set data.text.lowercase={not lowercase}"
        )
    return tokenizer


def _lowers(tokenizer: Any) -> bool:
    return (
        tokenizer.normalizer is not None
        and "q" in tokenizer.normalizer.normalize_str("Q")  # whatever it adds
    )


def _whole(path: str) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(path)
    except Exception as e:  # it raises nothing more special
        raise errors.UserError(f"vocabulary {path!r} is no tokenizer: {e}") from e


def _wordpiece(path: str, lowercase: bool) -> Any:
    """Returns BERT's tokenizer (arXiv 1810.04805) with the tokens of a file."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokens = _lines(path)
    ids = {token: i for i, token in enumerate(tokens)}
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    lacks = [token for token in special if token not in ids]
    if lacks:
        raise errors.UserError(
            f"vocabulary {path!r} lacks {', '.join(lacks)}: expected a token a line, "
            "as in BERT's vocab.txt"
        )
    if len(ids) < len(tokens):
        raise errors.UserError(
            f"vocabulary {path!r} has {len(tokens) - len(ids)} tokens twice"
        )
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([t for t in (*special, "[MASK]") if t in ids])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise errors.UserError(f"vocabulary {path!r} cannot be read: {e}") from e
    return [line.rstrip("\r") for line in lines]


def inside(folder: str | os.PathLike) -> dict[str, int] | None:
    """Returns {token: id} of the vocabulary in a folder; None without one of `FILES`.

    Raises:
      UserError: it cannot be read.
    """
    for name in FILES:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            if name.endswith(".json"):
                return _whole(path).get_vocab(with_added_tokens=True)
            return {token: i for i, token in enumerate(_lines(path))}
    return None


def pad_of(tokenizer: Any, wanted: str, path: str) -> int:
    """Returns the id of padding.

    Args:
      tokenizer: of a vocabulary.
      wanted: the token that pads; "" for the one that the vocabulary has for it.
      path: of the vocabulary, for messages.

    Raises:
      UserError: it has none.
    """
    own = (tokenizer.padding or {}).get("pad_token")
    for token in [wanted] if wanted else [own, *PADS]:
        if token and tokenizer.token_to_id(token) is not None:
            return tokenizer.token_to_id(token)
    raise errors.UserError(
        f"vocabulary {path!r} has no {wanted or 'token for padding'!r}; "
        "name one of its tokens as data.text.pad"
    )
