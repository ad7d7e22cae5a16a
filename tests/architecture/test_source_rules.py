"""The house rules that can be read off the source: layers, forbidden imports, sizes.

Each rule is a function from one source file to its violations, tried at the end on a
file that breaks it, so that a rule that sees nothing cannot pass for one that is kept.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"lightgen": ROOT, "lightgen_runtime": ROOT / "runtime"}

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60

# `path` or `path::function`, with the reason. An entry that is not needed fails.
SIZE_EXEMPTIONS: dict[str, str] = {}

# A room may import itself and the rooms of lower layers, not its neighbours.
RUNTIME_LAYERS = [
    {"utilities"},
    {"io"},  # files and plain dictionaries; `load_from_checkpoint` reads them
    {"core"},
    {"precision", "accelerators", "loggers", "profilers", "optim"},
    {"strategies"},  # puts a precision, devices and checkpoint writing together
    {"callbacks"},
    {"loops"},
    {"trainer"},
    {"cli", "demos", "plugins", "tuner"},
    {""},  # the public names
    {"pytorch"},  # the same under Lightning's longer path
    {"compat", "ckpt"},  # beside the package: they read, and nobody imports them
]
LIGHTGEN_LAYERS = [
    {"", "errors"},
    {"console", "misuse"},
    {"project"},
    {"rendering", "optim", "regen", "cluster"},
    {"blocks"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
LAYERS = {"lightgen": LIGHTGEN_LAYERS, "lightgen_runtime": RUNTIME_LAYERS}

# Never, not even inside a function.
NEVER = {
    "lightgen": {"torch", "lightgen_runtime", "lightning", "numpy", "sklearn"},
    "lightgen_runtime": {"lightgen", "lightning", "pytorch_lightning", "copier"},
}
# Only inside functions: whoever does not use the feature does not pay for it.
LATE = {
    "lightgen": {"copier", "black", "jinja2", "pydantic"},
    "lightgen_runtime": {
        *("jsonargparse", "numpy", "rich", "scipy", "sklearn", "tensorboard"),
        *("fsspec", "matplotlib", "torchmetrics", "yaml"),
    },
}
# Folders and files that are themselves only imported when their feature is used.
EARLY_ALLOWED = {
    "runtime/lightgen_runtime/cli/": {"jsonargparse", "yaml"},
    "runtime/lightgen_runtime/callbacks/progress/rich_lines.py": {"rich"},
}
RICH_USER = "lightgen/console.py"

# Distributions whose package has another name, and packages that only generated
# projects import.
IMPORT_NAMES = {
    "PyYAML": "yaml",
    "scikit-learn": "sklearn",
    "typing-extensions": "typing_extensions",
}
USED_BY_PROJECTS = {"sklearn"}

VAGUE_NAMES = {"utils", "helpers", "misc", "manager", "common"}


@dataclass(frozen=True)
class Import:
    """One imported name, as a dotted path."""

    name: str
    line: int
    runs: bool  # False under TYPE_CHECKING
    late: bool  # inside a function


@dataclass(frozen=True)
class Source:
    """A Python file: its path from the repository, and from its import root."""

    path: str
    module: str
    text: str

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def room(self) -> str:
        return (*self.module.split("."), "")[1]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def imports(self) -> Iterator[Import]:
        yield from _imports(self.tree, runs=True, late=False)


def _imports(node: ast.AST, *, runs: bool, late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, runs, late)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are written in full"
            for alias in child.names:
                name = f"{child.module}.{alias.name}"
                yield Import(name, child.lineno, runs, late)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                holder = ast.Module([statement], [])
                yield from _imports(holder, runs=False, late=late)
            holder = ast.Module(child.orelse, [])
            yield from _imports(holder, runs=runs, late=late)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _imports(child, runs=runs, late=late or inside)


def _module_name(path: Path, import_root: Path) -> str:
    parts = list(path.relative_to(import_root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _sources() -> list[Source]:
    return [
        Source(
            path.relative_to(ROOT).as_posix(),
            _module_name(path, import_root),
            path.read_text(encoding="utf-8"),
        )
        for package, import_root in PACKAGES.items()
        for path in sorted((import_root / package).rglob("*.py"))
    ]


# -- rules --------------------------------------------------------------------


def layer_violations(source: Source) -> Iterator[str]:
    """Imports that run and point at a higher layer, or sideways at another room."""
    layers = LAYERS[source.package]
    rank = {room: index for index, layer in enumerate(layers) for room in layer}
    if source.room not in rank:
        yield f"{source.path}: the room `{source.room}` has no layer"
        return
    for imported in source.imports():
        package, _, rest = imported.name.partition(".")
        if package != source.package or not imported.runs:
            continue
        room = rest.partition(".")[0]
        room = room if room in rank else ""  # a name that the package itself exports
        if rank[room] >= rank[source.room] and room != source.room:
            yield f"{source.path}:{imported.line} imports {imported.name}"


def forbidden_imports(source: Source) -> Iterator[str]:
    """Packages that this file must not import at all, or only inside a function."""
    never = NEVER[source.package]
    allowed = (EARLY_ALLOWED[p] for p in EARLY_ALLOWED if source.path.startswith(p))
    late_only = LATE[source.package].difference(*allowed)
    for imported in source.imports():
        package = imported.name.partition(".")[0]
        early = imported.runs and not imported.late
        if package in never or (early and package in late_only):
            yield f"{source.path}:{imported.line} imports {imported.name}"


def rich_outside_the_console(source: Source) -> Iterator[str]:
    """In `lightgen`, what a terminal shows goes through one module."""
    for imported in source.imports():
        rich = imported.name.partition(".")[0] == "rich"
        if rich and source.package == "lightgen" and source.path != RICH_USER:
            yield f"{source.path}:{imported.line} imports {imported.name}"


def _dependencies() -> set[str]:
    """The distributions that whoever installs lightgen gets with it."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = project.partition("\ndependencies = [")[2].partition("\n]")[0]
    return set(re.findall(r'^ +"([\w-]+)', listed, re.MULTILINE))


def undeclared_imports(source: Source) -> Iterator[str]:
    """Packages that an installation has only by the grace of another's dependencies."""
    known = {IMPORT_NAMES.get(name, name) for name in _dependencies()}
    known |= sys.stdlib_module_names | set(PACKAGES)
    for imported in source.imports():
        if imported.runs and imported.name.partition(".")[0] not in known:
            yield f"{source.path}:{imported.line} imports {imported.name}"


def oversized(source: Source) -> Iterator[str]:
    """The file, and each function in it, that is over its limit."""
    if source.text.count("\n") > MAX_FILE_LINES:
        yield source.path
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and (node.end_lineno or 0) - body[0].lineno >= MAX_FUNCTION_LINES:
                yield f"{source.path}::{node.name}"


def vague_names(source: Source) -> Iterator[str]:
    """Modules named after nothing."""
    for part in source.module.split("."):
        if VAGUE_NAMES & set(part.split("_")):
            yield f"{source.path}: `{part}` does not say what is in it"


def non_ascii(source: Source) -> Iterator[str]:
    """Lines with a character that a reader may not be able to tell or type."""
    for number, line in enumerate(source.text.splitlines(), 1):
        if not line.isascii():
            yield f"{source.path}:{number} {line.strip()!a}"


RULES = [
    layer_violations,
    forbidden_imports,
    rich_outside_the_console,
    undeclared_imports,
    vague_names,
    non_ascii,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule: Callable[[Source], Iterator[str]]) -> None:
    broken = [found for source in _sources() for found in rule(source)]
    assert not broken, "\n".join(broken)


def test_files_and_functions_keep_their_size_or_are_exempt() -> None:
    tests = [
        Source(path.relative_to(ROOT).as_posix(), "", path.read_text(encoding="utf-8"))
        for folder in ("tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    found = [name for source in _sources() + tests for name in oversized(source)]
    assert sorted(found) == sorted(SIZE_EXEMPTIONS)


def test_early_imports_that_are_allowed_are_there() -> None:
    for path, packages in EARLY_ALLOWED.items():
        there = [source for source in _sources() if source.path.startswith(path)]
        names = {found.name.partition(".")[0] for s in there for found in s.imports()}
        assert packages <= names, f"{path}: take what is unused out of EARLY_ALLOWED"


def test_templates_do_not_import_lightgen() -> None:
    files = [path for path in (ROOT / "templates").rglob("*") if path.is_file()]
    importing = re.compile(r"^\s*(from|import)\s+lightgen\b", re.MULTILINE)
    assert files, "no template is there to be checked"
    assert [f for f in files if importing.search(f.read_text(encoding="utf-8"))] == []


def test_templates_and_tests_are_not_packages_to_import() -> None:
    # With an editable install the repository root is importable.
    for source in _sources():
        roots = {imported.name.partition(".")[0] for imported in source.imports()}
        assert not roots & {"templates", "tests", "benchmarks"}, source.path


def test_every_dependency_is_imported() -> None:
    found = {i.name.partition(".")[0] for s in _sources() for i in s.imports()}
    names = {IMPORT_NAMES.get(name, name) for name in _dependencies()}
    assert names - found == USED_BY_PROJECTS


def test_every_dependency_has_its_entry_in_the_record() -> None:
    names = _dependencies()
    record = ROOT / "docs" / "decisions" / "0002-dependencies.md"
    rows = re.findall(r"^\| ([\w-]+) \|", record.read_text("utf-8"), re.MULTILINE)
    assert names
    assert names == set(rows) - {"package"}


# -- each rule, on a file that breaks it ---------------------------------------


def _one(path: str, text: str) -> Source:
    package_root = "runtime/" if path.startswith("runtime/") else ""
    name = path.removeprefix(package_root).removesuffix(".py").replace("/", ".")
    return Source(path, name.removesuffix(".__init__"), text)


BROKEN = {
    "upward": (layer_violations, "core/x", "import lightgen_runtime.trainer.trainer"),
    "upward, late": (
        layer_violations,
        "core/x",
        "def f():\n    from lightgen_runtime.loops import fit",
    ),
    "the public names": (
        layer_violations,
        "core/x",
        "from lightgen_runtime import Trainer",
    ),
    "sideways": (layer_violations, "loggers/x", "import lightgen_runtime.precision"),
    "no layer": (layer_violations, "cellar/x", ""),
    "never": (forbidden_imports, "cli/x", "def f():\n    import lightning"),
    "too early": (forbidden_imports, "core/x", "import numpy.random"),
    "undeclared": (undeclared_imports, "cli/x", "def f():\n    import omegaconf"),
    "vague": (vague_names, "core/io_utils", ""),
    "accent": (non_ascii, "core/x", "# caf\u00e9"),
    "long file": (oversized, "core/x", "\n" * (MAX_FILE_LINES + 1)),
    "long function": (
        oversized,
        "core/x",
        "def f():\n" + "    f()\n" * (MAX_FUNCTION_LINES + 1),
    ),
}
SOUND = {
    "downward": (layer_violations, "trainer/x", "import lightgen_runtime.core.hooks"),
    "for types": (
        layer_violations,
        "core/x",
        "if TYPE_CHECKING:\n    from lightgen_runtime.trainer.trainer import Trainer",
    ),
    "late": (forbidden_imports, "core/x", "def f():\n    import numpy"),
    "optional": (
        undeclared_imports,
        "loggers/x",
        "if TYPE_CHECKING:\n    import wandb",
    ),
    "at the limit": (
        oversized,
        "core/x",
        'def f():\n    """One."""\n' + "    f()\n" * MAX_FUNCTION_LINES,
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_rule_finds_what_breaks_it(case: str) -> None:
    rule, path, text = BROKEN[case]
    assert list(rule(_one(f"runtime/lightgen_runtime/{path}.py", text)))


@pytest.mark.parametrize("case", SOUND)
def test_rule_lets_pass_what_is_sound(case: str) -> None:
    rule, path, text = SOUND[case]
    assert list(rule(_one(f"runtime/lightgen_runtime/{path}.py", text))) == []


@pytest.mark.parametrize("text", ["import torch", "import copier, black"])
def test_lightgen_finds_a_heavy_import(text: str) -> None:
    assert list(forbidden_imports(_one("lightgen/commands/new.py", text)))


def test_lightgen_finds_rich_outside_the_console() -> None:
    text = "def f():\n    from rich.text import Text"
    assert list(rich_outside_the_console(_one("lightgen/cli.py", text)))
    assert list(rich_outside_the_console(_one(RICH_USER, text))) == []
