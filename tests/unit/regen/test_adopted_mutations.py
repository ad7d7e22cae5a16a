"""Code that nobody would write: it is read as what it does, or it is refused."""

from __future__ import annotations

import ast
import copy
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from adopted import NAMES, case, method_of, observe, with_block
from test_adopted_modules import adopted, changes

from lightgen.blocks.optimizer import plan
from lightgen.errors import UsageError
from lightgen.optim.options import resolve

MUTANTS = int(os.environ.get("LIGHTGEN_MUTANTS", "600"))
MORE = [
    *("None", "self", "[]", "{}", "0", "-1", "''", "'bias'", "x", "lambda: 0", "()"),
    *("self.hparams", "self.hparams.lr", "1e-3", "True", "10", "2", "x.y.z", "1 / 0"),
    *("self.head", "self.head.parameters()", "self.trainer.max_epochs"),
    *("self.trainer.estimated_stepping_batches", "float('inf')", "'a' * 2"),
]
# What they do is in statements of their own, or in comments, which mutants lack.
LEFT_OUT = {"frozen_part", "warmup_by_a_local_function", "own_statements_between"}


def mutants(seed: int, count: int) -> Iterator[str]:
    """Yield files in whose method expressions stand in each other's places."""
    draw = random.Random(seed)
    texts = [case(name).text for name in NAMES if name not in LEFT_OUT]
    pool = [ast.parse(text, mode="eval").body for text in MORE]
    for text in texts:
        nodes = ast.walk(method_of(text))
        pool += [node for node in nodes if isinstance(node, ast.expr)]
    while count:
        tree = ast.parse(draw.choice(texts))
        for _ in range(draw.choice([1, 1, 2])):
            _mutate(_method(tree), draw, pool)
        try:
            text = ast.unparse(ast.fix_missing_locations(tree))
            ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        count -= 1
        yield text


def _method(tree: ast.Module) -> ast.FunctionDef:
    (class_,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return next(
        node
        for node in class_.body
        if isinstance(node, ast.FunctionDef) and node.name == "configure_optimizers"
    )


def _mutate(method: ast.AST, draw: random.Random, pool: list[ast.expr]) -> None:
    places: list[tuple[ast.AST, str, int | None]] = []
    for node in ast.walk(method):
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.expr):
                if isinstance(getattr(value, "ctx", ast.Load()), ast.Load):
                    places.append((node, field, None))
            elif isinstance(value, list) and field in ("args", "elts", "values"):
                places += [(node, field, number) for number in range(len(value))]
    node, field, number = draw.choice(places)
    fresh = copy.deepcopy(draw.choice(pool))
    if number is None:
        setattr(node, field, fresh)
    elif draw.random() < 0.2 and field != "values":
        del getattr(node, field)[number]
    else:
        getattr(node, field)[number] = fresh


def test_mutants_are_refused_or_read_and_changed_rightly(tmp_path: Path) -> None:
    draw = random.Random(0)
    seen: Counter[str] = Counter()
    for text in mutants(seed=0, count=MUTANTS):
        try:
            block, state = adopted(tmp_path, text)
        except UsageError:
            seen["refused"] += 1
            continue
        try:
            before = observe(text)
        except Exception:  # whatever a mutant dies of
            seen["cannot run"] += 1
            continue
        assert before == observe(with_block(text, block.spec)), text
        seen["read"] += 1
        known = changes(block.spec)
        options = known[draw.choice(sorted(known))]
        try:
            spec = resolve(options, block.spec)
            result = plan(tmp_path, state, "", options)
        except UsageError:
            continue
        if (
            result.outcome.conflicts
        ):  # a name of the generator's that means another thing
            assert result.after == text
            seen["conflict"] += 1
            continue
        assert observe(result.after) == observe(with_block(text, spec)), text
        seen["changed"] += 1
    assert seen["read"] >= MUTANTS // 40, seen
    assert seen["changed"] >= MUTANTS // 50, seen
    assert seen["conflict"] <= max(2, seen["changed"] // 50), seen
