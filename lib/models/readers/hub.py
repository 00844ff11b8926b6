"""A Hugging Face hub's model as a local folder."""

import pathlib
import re

from lib import errors

# One owner and one name: never a path such as ../weights or /tmp/weights.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

WANTED = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
)
# Fetched only where there is no safetensors file.
OTHERWISE = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")


def is_name(text: str) -> bool:
    """Returns whether `text` may be a hub's `owner/name`."""
    return _NAME.fullmatch(text) is not None


def fetch(name: str) -> pathlib.Path:
    """Returns the folder of a model's files, from the hub's cache or downloaded.

    Args:
      name: `owner/name` on the hub.

    Raises:
      UserError: `huggingface_hub` is not installed, or the model cannot be fetched:
        offline, or there is none of that name.
    """
    try:
        import huggingface_hub
    except ImportError as e:
        raise errors.UserError(
            f"there is no file or folder {name!r}; to fetch it as a name from the "
            "Hugging Face hub, pip install huggingface_hub"
        ) from e
    try:
        folder = _snapshot(huggingface_hub, name, WANTED)
        if not any(folder.glob("model*.safetensors*")):
            folder = _snapshot(huggingface_hub, name, (*WANTED, *OTHERWISE))
    except Exception as e:  # of the hub, of the network, or of neither
        why = str(e).strip().partition("\n")[0]
        raise errors.UserError(
            f"there is no file or folder {name!r}, and the Hugging Face hub's model of "
            f"that name cannot be fetched: {why or type(e).__name__}"
        ) from e
    return folder


def _snapshot(huggingface_hub, name: str, wanted: tuple[str, ...]) -> pathlib.Path:
    found = huggingface_hub.snapshot_download(name, allow_patterns=list(wanted))
    return pathlib.Path(found)
