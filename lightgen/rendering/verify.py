"""Decides whether a rendered tree may be written, and formats its Python."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from typing import Any

from lightgen.errors import VerificationError, listing
from lightgen.project.journal import JOURNAL_FOLDER
from lightgen.project.names import WINDOWS_DEVICES
from lightgen.project.state import STATE_FOLDER
from lightgen.project.tree import FileTree, TreeFile

# git runs programs named in its own folder; the other two are lightgen's.
_RESERVED = frozenset({".git", STATE_FOLDER, JOURNAL_FOLDER})


def verify_tree(tree: FileTree) -> None:
    """Check paths, and that every .py, .toml and .yaml file can be read.

    Raises:
        VerificationError: On the first file that may not be written, with its line.
    """
    if not tree:
        raise VerificationError(
            "the template produced no files",
            accepted="at least one file",
            todo="check `_subdirectory` and `_exclude` in its copier.yml",
        )
    _check_paths(tree)
    for path, file in tree.items():
        try:
            if path.endswith((".py", ".pyi")):
                ast.parse(file.content, filename=path)
            elif path.endswith(".toml"):
                _toml().loads(file.content.decode())
            elif path.endswith((".yaml", ".yml")):
                _read_yaml(file.content)
        except (SyntaxError, ValueError, RecursionError, _yaml_error()) as error:
            raise VerificationError(
                f"the template produced a file that cannot be read: {error}",
                where=path,
                accepted="Python, TOML and YAML that parse",
                todo="check the answers given, then report it to the template's author",
            ) from error


def format_python(tree: FileTree) -> FileTree:
    """Return the tree with every .py file formatted by black; other files are shared.

    Raises:
        VerificationError: If black cannot read a file.
    """
    import black

    mode = black.Mode()
    formatted = dict(tree)
    for path, file in tree.items():
        if path.endswith(".py"):
            try:
                text = black.format_str(file.content.decode(), mode=mode)
            except ValueError as error:
                raise VerificationError(
                    f"black cannot format a file of the template: {error}",
                    where=path,
                    accepted="Python in UTF-8 that black can read",
                    todo="report it to the template's author",
                ) from error
            formatted[path] = TreeFile(text.encode(), file.executable)
    return formatted


def _check_paths(tree: FileTree) -> None:
    seen: dict[str, str] = {}
    for path in sorted(tree):
        reserved = _RESERVED.intersection(path.casefold().split("/"))
        if reserved:
            raise VerificationError(
                f"the template wants to write into {listing(reserved)}",
                where=path,
                accepted="any other path inside the project",
                todo="report it to the template's author",
            )
        for name in path.split("/"):
            if fault := _fault_on_windows(name):
                raise VerificationError(
                    f"the template produced a name that {fault}: `{name}`",
                    where=path,
                    accepted="names that every system can store",
                    todo="check the answers given, then report it to the template's "
                    "author",
                )
        other = seen.setdefault(path.casefold(), path)
        if other != path:
            raise VerificationError(
                f"`{other}` and `{path}` are one file on some systems",
                accepted="paths that differ in more than case",
                todo="report it to the template's author",
            )


def _fault_on_windows(name: str) -> str | None:
    if found := re.search(r'[<>:"|?*\\\x00-\x1f]', name):
        return f"holds {found.group()!r}, which Windows cannot store"
    if name.endswith((".", " ")):
        return f"ends in {name[-1]!r}, which Windows drops"
    if name.partition(".")[0].rstrip(" ").lower() in WINDOWS_DEVICES:
        return "Windows keeps for a device"
    return None


def _toml() -> Any:
    # The standard library has it from 3.11 on; black brings the same parser for 3.10.
    return importlib.import_module(
        "tomllib" if sys.version_info >= (3, 11) else "tomli"
    )


def _read_yaml(content: bytes) -> None:
    import yaml

    # Composing checks the syntax and builds nothing, so that foreign tags are fine.
    for _ in yaml.compose_all(content, Loader=yaml.SafeLoader):
        pass


def _yaml_error() -> type[Exception]:
    import yaml

    return yaml.YAMLError
