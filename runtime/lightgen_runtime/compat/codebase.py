"""The classes of a code base, so that one file can use what another defines."""

from __future__ import annotations

import ast
from pathlib import Path

from lightgen_runtime.compat.syntax import (
    imported_modules,
    is_program,
    methods_of,
    path_of,
)
from lightgen_runtime.core.module import LightningModule

# The file and the name of a class.
Definition = tuple[Path, str]


class CodeBase:
    """What the files that are read define.

    Args:
        files: Each with its content.

    Attributes:
        types: The class of Lightning's that a class derives from, as far as it is known.
        programs: Files that are run by themselves, and have nothing to do with each other.
    """

    def __init__(self, files: dict[Path, ast.Module]) -> None:
        self.types: dict[Definition, type] = {}
        self._classes = {
            (path, node.name): node
            for path, tree in files.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
        }
        self._paths: dict[str, list[Path]] = {}
        for path, name in self._classes:
            self._paths.setdefault(name, []).append(path)
        imported = {name for tree in files.values() for name in imported_modules(tree)}
        self.programs = {
            path
            for path, tree in files.items()
            if is_program(tree) and path.stem not in imported
        }

    def find(self, node: ast.ImportFrom, name: str) -> Definition | None:
        """Return the class that is imported: from its file, or from a package of it."""
        module = str(node.module or "").rpartition(".")[2]
        for path in self._paths.get(name, ()):
            if module in (path.stem, *path.resolve().parent.parts, ""):
                return path, name
        return None

    def takes(self, cls: Definition | None, argument: str) -> bool:
        """Tell whether a class can be made with this argument; of unknown ones, yes."""
        if cls is None:
            return True
        for method in methods_of(self._classes[cls]):
            if method.name == "__init__":
                given = method.args
                names = {part.arg for part in (*given.args, *given.kwonlyargs)}
                return given.kwarg is not None or argument in names
        return True

    def is_record(self, cls: Definition | None) -> bool:
        """Tell whether it is an enumeration or a dataclass."""
        if cls is None:
            return False
        node = self._classes[cls]
        made_by = [getattr(part, "func", part) for part in node.decorator_list]
        decorators = {path_of(part).rpartition(".")[2] for part in made_by}
        return "dataclass" in decorators or any(
            path_of(base).endswith("Enum") for base in node.bases
        )

    def logs_beside_hooks(self, cls: Definition | None) -> bool:
        """Tell whether it is a module that logs in a method that is no hook."""
        if cls is None or not issubclass(self.types.get(cls, object), LightningModule):
            return False
        return any(
            path_of(part) in ("self.log", "self.log_dict")
            for method in methods_of(self._classes[cls])
            if not hasattr(LightningModule, method.name)
            for part in ast.walk(method)
        )
