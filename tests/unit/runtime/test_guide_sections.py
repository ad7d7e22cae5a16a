"""No section, statement, table row or example of the guide is without its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from guide import (
    Statement,
    code_blocks,
    example_class,
    examples,
    sections,
    statements,
)

HERE = Path(__file__).parent
CHECKS = "test_guide_sections.py"


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


# What takes several processes is tried beside the rest of that.
SEVERAL_PROCESSES = HERE.parents[1] / "distributed"


def guide_files() -> list[Path]:
    return [
        path for path in sorted(HERE.glob("test_guide_*.py")) if path.name != CHECKS
    ]


def test_the_guide_is_all_there() -> None:
    """Counted in the guide itself; a line lost from the list would be missed by nothing."""
    assert len(sections()) == 32
    assert len(statements()) == 101
    assert len(examples()) == code_blocks() == 30


@pytest.mark.parametrize("section", sections())
def test_section_has_statements(section: str) -> None:
    assert [each for each in statements() if each.section == section]


@pytest.mark.parametrize(
    "statement", statements(), ids=lambda s: re.sub(r"\W+", "_", s.text)[:60]
)
def test_statement_has_tests_that_exist(statement: Statement) -> None:
    files = [*guide_files(), *SEVERAL_PROCESSES.glob("test_*.py")]
    known = set().union(*(names_in(path) for path in files))
    assert statement.tests
    assert set(statement.tests) <= known


def test_every_test_holds_a_statement() -> None:
    named = {test for statement in statements() for test in statement.tests}
    for path in guide_files():
        assert names_in(path) <= named, path.name


@pytest.mark.parametrize("name", sorted(examples()))
def test_example_is_run_by_a_test_that_its_line_names(name: str) -> None:
    (line,) = (s for s in statements() if s.text.startswith(f"- example {name}:"))
    quoting = [
        node.name
        for path in guide_files()
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and f"'{name}'" in ast.unparse(node)
    ]
    assert set(quoting) & set(line.tests)


def test_docstrings_quote_the_section() -> None:
    for path in guide_files():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ":" in (ast.get_docstring(node) or ""), node.name


def test_examples_are_run_as_they_stand() -> None:
    made = example_class("predict_step", object)
    assert made.predict_step.__code__.co_varnames == (
        "self",
        "batch",
        "batch_idx",
        "x",
        "y",
    )
