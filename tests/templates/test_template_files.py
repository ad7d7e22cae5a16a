"""What a template renders: valid, finished files for every kind of answer."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import black
import pytest
import yaml

from lightgen.optim.emit import emit
from lightgen.optim.spec import from_record
from lightgen.rendering.bundled import (
    bundled_config,
    bundled_files,
    bundled_names,
    bundled_root,
)
from lightgen.rendering.template import read_config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RenderTemplate = Callable[..., Path]

LONG_NAME = "recognition_of_digits_by_hand_"
# Literals that are spelled differently in Python, YAML and JSON, and the shortest ones.
SMALL = {"lr": 1e-5, "dropout": 0.0, "width": 1, "batch_size": 1, "max_epochs": 1}
LARGE = {"lr": 1, "dropout": 0.999, "width": 4096, "seed": 2**32 - 1}
CHOICES: dict[str, list[dict[str, Any]]] = {
    "tabular": [{"task": "classification"}, {"task": "regression"}],
}
CASES = [
    pytest.param(template, choice | answers, id="-".join([template, *names, kind]))
    for template in bundled_names()
    for choice in CHOICES.get(template, [{}])
    for names in [list(choice.values())]
    for kind, answers in {
        "defaults": {},
        "small": SMALL,
        "large": LARGE | {"package": LONG_NAME},
    }.items()
]
HOSTILE = [
    'Digits: "a"; import os; os.system("true") #',
    'It\'s """quoted""" and ends in a backslash \\',
    "{{ package }} {% for x in y %} {# comment #}",
    "Erkennung von Ziffern \u00fcber Gr\u00f6\u00dfen, \u624b\u5199\u6570\u5b57 \U0001f600",
    "---\\n- !!python/object:os.system [true]",
    "# not a heading, [not] a (link), <b>not</b> HTML",
    "x" * 500,
]


def read_files(project: Path) -> dict[str, str]:
    """Return every rendered text by its path."""
    return {
        path.relative_to(project).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(project.rglob("*"))
        if path.is_file()
    }


def init_defaults(source: str, class_name: str) -> dict[str, Any]:
    """Return the arguments of a class with their defaults, as written."""
    classes = [n for n in ast.parse(source).body if isinstance(n, ast.ClassDef)]
    body = next(c.body for c in classes if c.name == class_name)
    functions = [n for n in body if isinstance(n, ast.FunctionDef)]
    init = next(f for f in functions if f.name == "__init__").args
    defaults = map(ast.literal_eval, init.defaults)
    return dict(zip([arg.arg for arg in init.args[1:]], defaults, strict=True))


@pytest.mark.parametrize(("template", "answers"), CASES)
def test_template_renders_finished_files(
    template: str, answers: dict[str, Any], render_template: RenderTemplate
) -> None:
    files = read_files(render_template(template, **answers))
    package = answers.get("package", "mymodel")
    assert {
        *(".gitignore", "README.md", "config.yaml", "pyproject.toml"),
        *(
            f"src/{package}/{name}.py"
            for name in ("__init__", "__main__", "module", "net", "data")
        ),
    } <= set(files)
    for path, text in files.items():
        assert not {"{{", "{%", "{#", "%}", "}}"} & set(text.split()), path
        assert text.isascii(), path
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert not [line for line in text.splitlines() if line != line.rstrip()], path
        assert "\n\n\n\n" not in text, path


@pytest.mark.parametrize(("template", "answers"), CASES)
def test_template_renders_python_as_black_leaves_it(
    template: str, answers: dict[str, Any], render_template: RenderTemplate
) -> None:
    for path, text in read_files(render_template(template, **answers)).items():
        if path.endswith(".py"):
            assert black.format_str(text, mode=black.Mode()) == text, path


@pytest.mark.parametrize(("template", "answers"), CASES)
def test_template_renders_python_without_lint(
    template: str, answers: dict[str, Any], render_template: RenderTemplate
) -> None:
    pytest.importorskip("ruff")
    project = render_template(template, **answers)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "."]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("template", "answers"), CASES)
def test_configuration_holds_the_answers_and_every_argument(
    template: str, answers: dict[str, Any], render_template: RenderTemplate
) -> None:
    """YAML and Python agree on every value, and no `__init__` argument is missing."""
    files = read_files(render_template(template, **answers))
    package = answers.get("package", "mymodel")
    config = yaml.safe_load(files["config.yaml"])
    main = ast.parse(files[f"src/{package}/__main__.py"])
    imports = [n.names[0].name for n in main.body if isinstance(n, ast.ImportFrom)]
    datamodule_class, module_class = imports[1:]
    module = init_defaults(files[f"src/{package}/module.py"], module_class)
    datamodule = init_defaults(files[f"src/{package}/data.py"], datamodule_class)
    assert config["model"] == module
    assert config["data"] == datamodule
    flat = {**config, **config["trainer"], **config["model"], **config["data"]}
    questions = read_config(bundled_root() / template, shown_as=template).askable
    expected = {name: question.default for name, question in questions.items()}
    expected = {**expected, **answers, "seed_everything": answers.get("seed", 0)}
    for name in {"seed_everything", "max_epochs", "batch_size", "lr"} | set(module):
        if name in expected:
            assert flat[name] == expected[name]
            assert not isinstance(flat[name], str)


@pytest.mark.parametrize(("template", "answers"), CASES)
def test_readme_matches_the_answers(
    template: str, answers: dict[str, Any], render_template: RenderTemplate
) -> None:
    answers = {"description": "Does this and that.", "seed": 12345, **answers}
    files = read_files(render_template(template, **answers))
    readme = files["README.md"]
    package = answers.get("package", "mymodel")
    assert readme.startswith(f"# {package}\n\nDoes this and that.\n")
    assert f"python -m {package} fit --config config.yaml" in readme
    assert str(answers["seed"]) in readme
    assert answers.get("task", "") in readme
    for path in files:
        if path.startswith("src/") and not path.endswith("__init__.py"):
            assert path in readme
    assert "- name" not in readme


@pytest.mark.parametrize("template", bundled_names())
@pytest.mark.parametrize("description", HOSTILE)
def test_description_reaches_text_and_no_code(
    template: str, description: str, render_template: RenderTemplate
) -> None:
    plain = read_files(render_template(template, "plain"))
    hostile = read_files(render_template(template, "hostile", description=description))
    project = tomllib.loads(hostile["pyproject.toml"])["project"]
    assert project["description"] == description
    assert f"\n\n{description}\n\n" in hostile["README.md"]
    changed = {path for path in plain if plain[path] != hostile[path]}
    assert changed == {"README.md", "pyproject.toml"}
    assert plain.keys() == hostile.keys()


@pytest.mark.parametrize("template", bundled_names())
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("package", "my-model", "not a Python identifier"),
        ("package", "\u00fcber", "not a Python identifier"),
        ("package", 'a"; import os', "not a Python identifier"),
        ("description", " ", "one line of printable text"),
        ("description", "two\nlines", "one line of printable text"),
        ("description", "\x1b[31mred", "one line of printable text"),
        ("seed", -1, "from 0 to 4294967295"),
        ("seed", 2**32, "from 0 to 4294967295"),
        ("max_epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("lr", 0, "above 0 and at most 1"),
        ("lr", 1.5, "above 0 and at most 1"),
        ("lr", float("nan"), "above 0 and at most 1"),
        ("width", 0, "from 1 to 4096"),
        ("dropout", 1, "at least 0 and below 1"),
        ("dropout", -0.1, "at least 0 and below 1"),
    ],
)
def test_answer_out_of_range_is_refused_with_a_reason(
    template: str, name: str, value: Any, reason: str, render_template: RenderTemplate
) -> None:
    questions = read_config(bundled_root() / template, shown_as=template).questions
    if name not in questions:
        pytest.skip(f"{template} does not ask for {name}")
    with pytest.raises(ValueError, match=reason):
        render_template(template, **{name: value})


@pytest.mark.parametrize("template", bundled_names())
def test_questions_explain_themselves(template: str) -> None:
    config = read_config(bundled_root() / template, shown_as=template)
    assert config.title
    assert config.version
    assert not config.unsafe_features
    for question in config.askable.values():
        assert question.help, question.name
        assert question.default is not None, question.name
        assert "{" not in str(question.default), question.name


@pytest.mark.parametrize("name", bundled_names())
def test_optimizer_block_is_what_its_specification_generates(name: str) -> None:
    record = bundled_config(name).optimizer_spec
    assert record is not None
    (module,) = [
        file.content.decode()
        for path, file in bundled_files(name).items()
        if path.endswith("/module.py.jinja")
    ]
    assert emit(from_record(record))[0] in module
