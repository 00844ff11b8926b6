"""What a stage chose before it trained, on disk: a restart chooses alike."""

import pathlib
from collections.abc import Callable
from typing import Any

from lib import files


class Choices:
    """Plain data by name, in one JSON file that is written as a choice is made."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads what is there."""
        self._path = path
        self._made = files.read_json(path) if path.exists() else {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns what was chosen under a name, or makes the choice and keeps it."""
        if name not in self._made:
            self._made[name] = make()
            files.write_json(self._path, self._made)
        return self._made[name]
