"""Whether a merged method still reads only what was assigned before."""

from __future__ import annotations

import ast


def unassigned_names(method: ast.FunctionDef, names: set[str]) -> list[str]:
    """Return which of `names` are read somewhere before they are surely assigned.

    Args:
        method: The method.
        names: Variables that the method is expected to assign itself.
    """
    found: list[str] = []
    arguments = method.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    _body(method.body, {argument.arg for argument in given}, names, found)
    return list(dict.fromkeys(found))


def assigned_names(node: ast.AST) -> set[str]:
    """Return every variable that is assigned anywhere inside."""
    return {
        inner.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
    }


def _body(
    body: list[ast.stmt], assigned: set[str], names: set[str], found: list[str]
) -> set[str] | None:
    """Follow statements; return what is assigned behind them, None if nothing is."""
    for statement in body:
        after = _statement(statement, assigned, names, found)
        if after is None:
            return None
        assigned = after
    return assigned


def _statement(
    statement: ast.stmt, assigned: set[str], names: set[str], found: list[str]
) -> set[str] | None:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return assigned | {statement.name}  # its body runs later
    if isinstance(statement, ast.If):
        _reads(statement.test, assigned, names, found)
        branches = (statement.body, statement.orelse)
        return _either([_body(b, set(assigned), names, found) for b in branches])
    if isinstance(statement, (ast.For, ast.While, ast.AsyncFor)):
        inner = set(assigned)
        if isinstance(statement, ast.While):
            _reads(statement.test, assigned, names, found)
        else:
            _reads(statement.iter, assigned, names, found)
            inner |= assigned_names(statement.target)
        _body(statement.body, inner, names, found)
        _body(statement.orelse, set(assigned), names, found)
        return assigned
    if isinstance(statement, (ast.With, ast.AsyncWith)):
        for item in statement.items:
            _reads(item.context_expr, assigned, names, found)
            if item.optional_vars is not None:
                assigned = assigned | assigned_names(item.optional_vars)
        return _body(statement.body, assigned, names, found)
    if isinstance(statement, ast.Try):
        inside = [*statement.body, *statement.orelse]
        ends = [_body(inside, set(assigned), names, found)]
        for handler in statement.handlers:
            caught = assigned | {handler.name or ""}
            ends.append(_body(handler.body, caught, names, found))
        after = _either(ends)
        last = _body(statement.finalbody, after or assigned, names, found)
        return None if after is None else last
    _reads(statement, assigned, names, found)
    if isinstance(statement, (ast.Return, ast.Raise)):
        return None
    return assigned | assigned_names(statement)


def _either(ends: list[set[str] | None]) -> set[str] | None:
    """Return what is assigned behind branches, None if none of them goes on."""
    going_on = [end for end in ends if end is not None]
    return set.intersection(*going_on) if going_on else None


def _reads(
    node: ast.AST, assigned: set[str], names: set[str], found: list[str]
) -> None:
    own: set[str] = set()
    for inner in ast.walk(node):  # what comprehensions and lambdas name for themselves
        if isinstance(inner, ast.comprehension):
            own |= assigned_names(inner.target)
        elif isinstance(inner, ast.Lambda):
            own |= {argument.arg for argument in inner.args.args}
    found += [
        inner.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name)
        and isinstance(inner.ctx, ast.Load)
        and inner.id in names
        and inner.id not in assigned | own
    ]
