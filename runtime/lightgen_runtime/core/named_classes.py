"""What a file may name: only what the user has named before it was opened.

A file never decides which code is imported, built or called. It may name the class whose
`load_from_checkpoint` is called, and what `torch.serialization.add_safe_globals` allows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch.serialization import get_safe_globals

from lightgen_runtime.utilities.exceptions import CheckpointFormatError


class NamedClasses:
    """The objects that a file may name, by every path that leads to them.

    Args:
        also: What the user has named beside torch's safe globals.
    """

    def __init__(self, *also: Any) -> None:
        self._by_path: dict[str, Any] = {}
        for given in (*get_safe_globals(), *also):
            # torch takes pairs too, for an object that files call by another path.
            named, path = given if isinstance(given, tuple) else (given, path_of(given))
            self._by_path[path] = named

    def find(self, path: str) -> Any | None:
        """Return what `path` names, or None where nobody has allowed it."""
        if path in self._by_path:
            return self._by_path[path]
        # A shorter path, as in `torch.nn.Linear`, for the same object.
        found = already_loaded(path)
        allowed = any(found is named for named in self._by_path.values())
        return found if found is not None and allowed else None

    def check(self, content: Any, source: object) -> None:
        """Refuse `content` if it says that anything else is to be built.

        Raises:
            CheckpointFormatError: The file names what nobody has allowed.
        """
        paths = dict.fromkeys(class_paths(content))
        refused = [path for path in paths if self.find(path) is None]
        if refused:
            raise not_allowed(refused, source)

    def paths_for(self, content: Any) -> set[str]:
        """Return every path that may be imported to build `content`."""
        named = {text for text in texts(content) if self.find(text) is not None}
        return named | set(self._by_path) | {path_of(self.find(n)) for n in named}


def not_allowed(paths: list[str], source: object) -> CheckpointFormatError:
    """Return the error for a file that names what nobody has allowed."""
    refusal = (
        f"`{source}` says that objects are to be built of "
        f"{', '.join(map(repr, paths)):.500}. A file does not decide which code runs, so "
        "nothing was imported or built."
    )
    full = [path for path in paths if "." in path]
    if not all(part.isidentifier() for path in full for part in path.split(".")):
        return CheckpointFormatError(f"{refusal} No command line has written that.")
    imports = sorted({f"import {path.rpartition('.')[0]}" for path in full})
    allowing = f"torch.serialization.add_safe_globals([{', '.join(full)}])"
    return CheckpointFormatError(
        f"{refusal} If you trust whoever wrote it, allow them: "
        f"`{'; '.join([*imports, allowing])}`"
    )


def path_of(named: Any) -> str:
    """Return the path under which a class or function is defined."""
    module = getattr(named, "__module__", "")
    return f"{module}.{getattr(named, '__qualname__', '')}"


def already_loaded(path: str) -> Any | None:
    """Return what `path` leads to, if that needs no import and runs no code."""
    parts = path.split(".")
    for number in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:number]))
        for name in parts[number:]:
            # Not `getattr`: a module or class may answer it by running something.
            # Nor a plain `if found`, which asks it as well.
            inside = {} if found is None else getattr(found, "__dict__", {})
            found = inside.get(name)
        if found is not None:
            return found
    return None


def class_paths(content: Any) -> Iterator[str]:
    """Yield the class paths anywhere in a config, also one that is text in it."""
    if isinstance(content, dict):
        if "class_path" in content:
            yield str(content["class_path"])
        for entry in content.values():
            yield from class_paths(entry)
    elif isinstance(content, (list, tuple, set)):
        for entry in content:
            yield from class_paths(entry)
    elif isinstance(content, str) and "class_path" in content:
        yield content  # a parser may take the text apart


def texts(content: Any) -> Iterator[str]:
    """Yield the texts anywhere in a config, keys left out."""
    if isinstance(content, dict):
        content = content.values()
    elif isinstance(content, str):
        yield content
        return
    elif not isinstance(content, (list, tuple, set)):
        return
    for entry in content:
        yield from texts(entry)
