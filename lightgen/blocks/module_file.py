"""What a module's source says of it, without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

STEPS = ("training_step", "validation_step", "test_step")


def is_manual(class_: ast.ClassDef) -> bool:
    """Tell whether a class sets `automatic_optimization = False` anywhere."""
    for node in ast.walk(class_):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = {ast.unparse(target).rpartition(".")[2] for target in node.targets}
            if "automatic_optimization" in names and node.value.value is False:
                return True
    return False


def logged_names(class_: ast.ClassDef) -> tuple[set[str], bool]:
    """Return the keys that a class logs, and whether these are surely all."""
    names: set[str] = set()
    complete = True
    for node in ast.walk(class_):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "log" and node.args:
            keys: list[ast.expr | None] = [node.args[0]]
        elif node.func.attr == "log_dict" and node.args:
            keys = list(_dictionary_keys(node.args[0], class_))
        else:
            continue
        for key in keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                names.add(key.value)
            else:
                complete = False
    return names, complete


def _dictionary_keys(node: ast.expr, class_: ast.ClassDef) -> Iterator[ast.expr | None]:
    if isinstance(node, ast.Dict):
        yield from node.keys
        return
    found = [
        assigned.value
        for assigned in ast.walk(class_)
        if isinstance(assigned, ast.Assign)
        and isinstance(node, ast.Name)
        and any(ast.unparse(target) == node.id for target in assigned.targets)
    ]
    if not found or not all(isinstance(value, ast.Dict) for value in found):
        yield None
    for value in found:
        if isinstance(value, ast.Dict):
            yield from value.keys


def init_arguments(class_: ast.ClassDef) -> tuple[list[str], bool]:
    """Return the arguments of `__init__`, and whether hyperparameters may be others too."""
    for node in class_.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments = node.args
            names = [a.arg for a in (*arguments.args, *arguments.kwonlyargs)]
            return names[1:], arguments.kwarg is not None or _saves_more(node)
    return [], True


def _saves_more(init: ast.FunctionDef) -> bool:
    """Tell whether hyperparameters are taken from something else than the arguments."""
    for node in ast.walk(init):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            if function == "self.save_hyperparameters" and any(
                not isinstance(given, ast.Constant) for given in node.args
            ):
                return True
            if function.startswith("self.hparams."):
                return True
        elif isinstance(node, ast.Attribute) and (
            isinstance(node.ctx, ast.Store)
            and ast.unparse(node).startswith("self.hparams")
        ):
            return True
    return False


def returned_losses(class_: ast.ClassDef) -> set[str] | None:
    """Return the keys of the mapping that `training_step` returns; None if none shows."""
    for node in class_.body:
        if isinstance(node, ast.FunctionDef) and node.name == "training_step":
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Dict):
                    return {
                        str(key.value)
                        for key in inner.value.keys
                        if isinstance(key, ast.Constant)
                    }
    return None


def calls_optimizers(class_: ast.ClassDef) -> bool:
    """Tell whether a class asks for its optimizers, to step them itself."""
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func) == "self.optimizers"
        for node in ast.walk(class_)
    )
