"""Finding a method of a class in a user's file, or saying why it cannot be found."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from lightgen.errors import BlockNotFoundError, listing, nearest
from lightgen.regen.text import SourceText


@dataclass(frozen=True)
class Location:
    """Where a block is, or would be.

    Attributes:
        class_: The class.
        method: The method; None if the class has none.
    """

    class_: ast.ClassDef
    method: ast.FunctionDef | None


def parse_file(text: str, path: str) -> SourceText:
    """Parse a user's file.

    Raises:
        BlockNotFoundError: It is no Python.
    """
    try:
        return SourceText(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise BlockNotFoundError(
            f"the file cannot be read as Python: {getattr(error, 'msg', error)}",
            where=f"{path}:{line}" if line else path,
            accepted="a module that Python can import",
            todo="correct it, then try again",
        ) from error


def locate(source: SourceText, path: str, class_name: str, method: str) -> Location:
    """Find a method.

    Args:
        source: The file.
        path: Its name, for messages.
        class_name: The class; "" for the only one that is a LightningModule.
        method: The method's name.

    Raises:
        BlockNotFoundError: There is no such class, or the method is not simply there.
    """
    class_ = _find_class(source, path, class_name, method)
    found = [
        node
        for node in class_.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name == method
    ]
    hidden = [
        node
        for statement in class_.body
        if not isinstance(statement, (ast.FunctionDef, ast.ClassDef))
        for node in ast.walk(statement)
        if isinstance(node, ast.FunctionDef) and node.name == method
    ]
    if (
        len(found) > 1
        or hidden
        or any(isinstance(n, ast.AsyncFunctionDef) for n in found)
    ):
        line = (hidden or found[1:] or found)[0].lineno
        fault = "is defined twice" if len(found) > 1 else "is defined under a condition"
        raise BlockNotFoundError(
            (
                f"`{class_.name}.{method}` {fault}"
                if hidden or len(found) > 1
                else f"`{class_.name}.{method}` is a coroutine"
            ),
            where=f"{path}:{line}",
            accepted="one plain method in the body of the class",
            todo="keep one of them, then try again",
        )
    if found:
        assert isinstance(found[0], ast.FunctionDef)
        return Location(class_, found[0])
    _refuse_inherited(source, path, class_, method)
    return Location(class_, None)


def module_classes(source: SourceText) -> list[ast.ClassDef]:
    """Return the classes of a file that are LightningModules, by their bases' names."""
    classes = [node for node in source.tree.body if isinstance(node, ast.ClassDef)]
    modules: set[str] = set()
    found = []
    for node in classes:
        names = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        if any(name.endswith("LightningModule") for name in names) or names & modules:
            modules.add(node.name)
            found.append(node)
    return found


def _find_class(
    source: SourceText, path: str, class_name: str, method: str
) -> ast.ClassDef:
    classes = [node for node in source.tree.body if isinstance(node, ast.ClassDef)]
    if class_name:
        named = [node for node in classes if node.name == class_name]
        if named:
            return named[-1]
        near = nearest(class_name, [node.name for node in classes])
        raise BlockNotFoundError(
            f"there is no class `{class_name}`",
            where=path,
            accepted=listing(node.name for node in classes),
            todo=f"say which: {path}:{near or 'CLASS'}",
        )
    modules = module_classes(source) or [
        node
        for node in classes
        if any(isinstance(n, ast.FunctionDef) and n.name == method for n in node.body)
    ]
    if len(modules) == 1:
        return modules[0]
    names = [node.name for node in modules]
    raise BlockNotFoundError(
        (
            "there is no LightningModule"
            if not modules
            else f"there are {len(modules)} LightningModules: {listing(names)}"
        ),
        where=path,
        accepted="the one class that has the block",
        todo=f"say which: {path}:{names[0] if names else 'CLASS'}",
    )


def _refuse_inherited(
    source: SourceText, path: str, class_: ast.ClassDef, method: str
) -> None:
    bases = {ast.unparse(base) for base in class_.bases}
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef) and node.name in bases:
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == method:
                    raise BlockNotFoundError(
                        f"`{class_.name}` inherits `{method}` from `{node.name}`",
                        where=f"{path}:{inner.lineno}",
                        accepted="a class that has the method itself",
                        todo=f"say which: {path}:{node.name}",
                    )
