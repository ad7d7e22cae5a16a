"""The imports at the top of a file, as far as a block needs or no longer needs them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable

from lightgen.regen.edits import Edit
from lightgen.regen.text import SourceText, Span

Names = dict[str, set[str]]


def import_edits(
    source: SourceText, needed: Iterable[str], dropped: Iterable[str]
) -> list[Edit]:
    """Return the edits that bring missing imports in and take unused ones out.

    Args:
        source: The file, its block merged already.
        needed: Statements such as `import torch` and `from a import b, c`.
        dropped: Statements that an earlier block needed.
    """
    wanted, former = _names(needed), _names(dropped)
    used = {node.id for node in ast.walk(source.tree) if isinstance(node, ast.Name)}
    present = _present(source)
    edits: list[Edit] = []
    for module in sorted({*wanted, *former}):
        missing = {
            name
            for name in wanted.get(module, set()) - present.get(module, set())
            if (name or module.partition(".")[0]) in used
        }
        unused = former.get(module, set()) - wanted.get(module, set()) - used - {""}
        if missing or unused:
            edits += _changed(source, module, missing, unused)
    return edits


def _names(statements: Iterable[str]) -> Names:
    """Return the names that statements import, by module; "" for the module itself."""
    return _imported(ast.parse("\n".join(statements)).body)


def _present(source: SourceText) -> Names:
    return _imported(source.tree.body)


def _imported(body: list[ast.stmt]) -> Names:
    found: Names = defaultdict(set)
    for node in body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            found[str(node.module)] |= {
                alias.name for alias in node.names if alias.asname in (None, alias.name)
            }
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname is None:
                    found[alias.name].add("")
    return found


def _changed(
    source: SourceText, module: str, missing: set[str], unused: set[str]
) -> list[Edit]:
    """Rewrite the one statement that imports from a module, or add one."""
    edits = []
    if "" in missing:
        edits.append(_new_line(source, f"import {module}"))
        missing = missing - {""}
    statement = _rewritable(source, module)
    if statement is None:
        if missing:
            edits.append(_new_line(source, _from_line(source, module, missing)))
        return edits
    names = {alias.name for alias in statement.names}
    left = (names | missing) - unused
    if left == names:
        return edits
    span = source.span(statement)
    if not left:
        return [*edits, Edit(Span(span.start, source.line_end(span.end - 1)), "")]
    return [*edits, Edit(span, _from_line(source, module, left))]


def _from_line(source: SourceText, module: str, names: set[str]) -> str:
    line = f"from {module} import {', '.join(sorted(names))}"
    if len(line) <= 88:
        return line
    listed = "".join(f"    {name},{source.newline}" for name in sorted(names))
    return f"from {module} import ({source.newline}{listed})"


def _rewritable(source: SourceText, module: str) -> ast.ImportFrom | None:
    for node in source.tree.body:
        if not isinstance(node, ast.ImportFrom) or node.module != module:
            continue
        span = source.span(node)
        commented = source.comments_in(Span(span.start, source.line_end(span.end - 1)))
        plain = all(alias.asname is None and alias.name != "*" for alias in node.names)
        if plain and not commented:
            return node
    return None


def _new_line(source: SourceText, line: str) -> Edit:
    at = _place(source, line)
    return Edit(Span(at, at), line + source.newline)


def _place(source: SourceText, line: str) -> int:
    """Return where an import goes: in order among third-party ones, else at the end."""
    body = source.tree.body
    imports = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    if not imports:
        first = body[0]
        documented = isinstance(first, ast.Expr) and isinstance(
            first.value, ast.Constant
        )
        span = source.span(first)
        return source.line_end(span.end - 1) if documented else span.start
    for node in imports:
        text = source.of(node)
        third_party = text.split()[1].partition(".")[0] in ("torch", "lightgen_runtime")
        if third_party and _rank(text) > _rank(line):
            return source.span(node).start
    return source.line_end(source.span(imports[-1]).end - 1)


def _rank(line: str) -> tuple[bool, str]:
    """Order imports as isort does: `import x` before `from x import y`, by module."""
    return line.startswith("from "), line.split()[1]
