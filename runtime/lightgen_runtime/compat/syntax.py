"""What the text of code says without the type of anything in it.

Each function yields lines, and uses as `behaviour` describes them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

Fact = tuple[int, str]


def literal(node: ast.AST) -> str:
    """Return a value as Python writes it, or `...` for one that is computed."""
    try:
        return repr(ast.literal_eval(node))
    except (ValueError, TypeError):
        return "..."


def path_of(node: ast.AST) -> str:
    """Return `a.b` for `a.b` and for `a[0].b`, "" for what is no such path."""
    if isinstance(node, ast.Subscript):
        return path_of(node.value)
    if isinstance(node, ast.Attribute):
        owner = path_of(node.value)
        return owner and f"{owner}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def entries_of(node: ast.AST | None) -> dict[str, ast.expr] | None:
    """Return what a dictionary is written with, as a display or as `dict(...)`."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(k.value): v for k, v in pairs if isinstance(k, ast.Constant)}
    if isinstance(node, ast.Call) and path_of(node.func) == "dict":
        return {str(k.arg): k.value for k in node.keywords if k.arg}
    return None


def scheduler_entries(node: ast.AST) -> Iterator[Fact]:
    """Yield the entries of a dictionary that describes a scheduler."""
    entries = entries_of(node)
    if entries and entries.keys() & {"scheduler", "interval"}:
        for name, value in entries.items():
            yield value.lineno, f"{name!r}: {literal(value)}"


def methods_of(cls: ast.ClassDef) -> list[ast.FunctionDef]:
    """Return the methods that a class defines."""
    return [part for part in cls.body if isinstance(part, ast.FunctionDef)]


def facts_of_method(method: ast.FunctionDef) -> Iterator[Fact]:
    """Yield what a method takes, calls and returns."""
    for argument in method.args.args:
        yield argument.lineno, f"{argument.arg} in {method.name}"
    for node in ast.walk(method):
        if isinstance(node, ast.Call) and (path := path_of(node.func)):
            yield node.lineno, f"{path}() in {method.name}"
            for keyword in node.keywords:
                given = f"{keyword.arg}={literal(keyword.value)}"
                yield keyword.value.lineno, f"{path}({given}) in {method.name}"
        elif isinstance(node, ast.Return):
            if node.value is None or literal(node.value) == "None":
                yield node.lineno, f"return None in {method.name}"
        elif isinstance(node, ast.Assign) and method.name == "configure_optimizers":
            yield from _added_entries(node)


def _added_entries(node: ast.Assign) -> Iterator[Fact]:
    for target in node.targets:
        if isinstance(target, ast.Subscript):
            name = literal(target.slice)
            yield node.value.lineno, f"{name}: {literal(node.value)}"


def caught_by(node: ast.Try) -> Iterator[Fact]:
    """Yield the kinds of error that are caught."""
    for handler in node.handlers:
        kinds = (
            handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        )
        for kind in kinds:
            if kind is not None:
                yield handler.lineno, f"except {path_of(kind)}"


def names_of_classes(tree: ast.AST) -> Iterator[str]:
    """Yield every name that is written as those of classes are."""
    for node in ast.walk(tree):
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        if isinstance(node, ast.alias):
            name = node.name.rpartition(".")[2]
        if name and name[:1].isupper():
            yield name


def stored_arguments(cls: ast.ClassDef) -> Iterator[ast.arg]:
    """Yield the arguments of `__init__` that `save_hyperparameters` stores."""
    for method in methods_of(cls):
        calls = [
            node
            for node in ast.walk(method)
            if isinstance(node, ast.Call)
            and path_of(node.func) == "self.save_hyperparameters"
        ]
        if method.name == "__init__" and calls:
            chosen = {literal(argument) for argument in calls[0].args}
            ignored = "".join(
                literal(k.value) for k in calls[0].keywords if k.arg == "ignore"
            )
            for argument in (*method.args.args, *method.args.kwonlyargs):
                name = repr(argument.arg)
                if name not in ignored and (not chosen or name in chosen):
                    yield argument


def names_in(annotation: ast.AST | None) -> Iterator[str]:
    """Yield the names that an annotation consists of, also of one that is a string."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval")
        except SyntaxError:
            return
    if annotation is not None:
        for node in ast.walk(annotation):
            if isinstance(node, ast.Name | ast.Attribute):
                yield path_of(node).rpartition(".")[2]


def is_program(tree: ast.Module) -> bool:
    """Tell whether a file does something when it is run, beside defining names."""
    return any(
        (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        or (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
        for node in tree.body
    )


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Yield the last parts of all names that can be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.name.rpartition(".")[2] for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.rpartition(".")[2]
