from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
from command_line import Cli, environment, put_files, run_process, snapshot

PLAIN = {
    "copier.yml": "city: Paris\n",
    "README.md.jinja": "{{ city }} {{ _folder_name }}\n",
    "{{ _copier_conf.answers_file }}.jinja": "{{ _copier_answers|to_nice_yaml }}",
}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    done = subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A template in git: tag v1.0 says Paris, v2.0rc1 says Rome, and the head Oslo."""
    folder = put_files(tmp_path / "template.git", PLAIN)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for city, tag in (("Paris", "v1.0"), ("Rome", "v2.0rc1"), ("Oslo", None)):
        (folder / "copier.yml").write_text(f"city: {city}\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--allow-empty", "--message", city)
        if tag:
            git(folder, "tag", tag)
    return folder


def test_local_folder_is_rendered(run_cli: Cli, work: Path, tmp_path: Path) -> None:
    template = put_files(tmp_path / "plain", PLAIN)
    result = run_cli("new", "mymodel", "--no-git", "--template", "../plain")
    assert result.code == 0
    assert (work / "mymodel/README.md").read_text() == "Paris mymodel\n"
    state = json.loads((work / "mymodel/.lightgen/state.json").read_text())
    assert state["template"]["id"] == "plain"
    assert state["template"]["source"] == str(template)
    assert state["answers"] == {"city": "Paris"}
    answers = (work / "mymodel/.copier-answers.yml").read_text()
    assert f"_src_path: {template}" in answers


def test_local_repository_is_rendered_as_it_lies_there(
    run_cli: Cli, work: Path, repository: Path
) -> None:
    (repository / "copier.yml").write_text("city: Lima\n")
    before = git(repository, "status", "--porcelain"), git(repository, "show-ref")
    result = run_cli("new", "mymodel", "--no-git", "--template", str(repository))
    assert result.code == 0, result.err
    assert (work / "mymodel/README.md").read_text() == "Lima mymodel\n"
    after = git(repository, "status", "--porcelain"), git(repository, "show-ref")
    assert after == before


def test_local_repository_runs_none_of_its_own_programs(
    run_cli: Cli, work: Path, tmp_path: Path, repository: Path
) -> None:
    marker = tmp_path / "marker"
    (repository / ".gitattributes").write_text("* filter=mine\n")
    (repository / "copier.yml").write_text("city: Lima\n")
    for key in ("core.fsmonitor", "filter.mine.clean", "filter.mine.smudge"):
        git(repository, "config", key, f"touch {marker}; cat")
    template = repository.rename(tmp_path / "template")
    result = run_cli("new", "mymodel", "--no-git", "--template", str(template))
    assert result.code == 0, result.err
    assert (work / "mymodel/README.md").read_text() == "Lima mymodel\n"
    assert not marker.exists()


def test_git_settings_of_the_caller_do_not_reach_a_template(
    work: Path, tmp_path: Path, repository: Path
) -> None:
    mine = put_files(tmp_path / "mine", {"a.txt": "mine"})
    git(mine, "init", "--quiet")
    before = snapshot(mine)
    given = environment(GIT_DIR=str(mine / ".git"), GIT_WORK_TREE=str(mine))
    for name, reference in (("one", f"git+file://{repository}"), ("two", repository)):
        arguments = ("new", name, "--no-git", "--template", str(reference))
        done = run_process(*arguments, cwd=work, env=given)
        assert done.returncode == 0, done.stderr
    assert (work / "one/README.md").read_text() == "Paris one\n"
    assert (work / "two/README.md").read_text() == "Oslo two\n"
    assert snapshot(mine) == before


def test_template_around_the_temporary_folder_is_rendered(
    run_cli: Cli, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = put_files(tmp_path / "plain", PLAIN | {"tmp/README.md": ""})
    monkeypatch.setattr(tempfile, "tempdir", str(template / "tmp"))
    result = run_cli("new", "mymodel", "--no-git", "--template", str(template))
    assert result.code == 0, result.err
    assert sorted(path.name for path in (work / "mymodel/tmp").iterdir()) == [
        "README.md"
    ]


def test_git_address_is_rendered_at_its_newest_release(
    run_cli: Cli, work: Path, repository: Path
) -> None:
    address = f"git+file://{repository}"
    result = run_cli("new", "mymodel", "--no-git", "--template", address)
    assert result.code == 0, result.err
    assert (work / "mymodel/README.md").read_text() == "Paris mymodel\n"
    record = json.loads((work / "mymodel/.lightgen/state.json").read_text())["template"]
    assert record["id"] == "template"
    assert record["version"] == "v1.0"
    assert record["source"] == address


def test_git_address_without_releases_is_rendered_at_its_head(
    run_cli: Cli, work: Path, repository: Path
) -> None:
    git(repository, "tag", "--delete", "v1.0")
    address = f"git+file://{repository}"
    result = run_cli("new", "mymodel", "--no-git", "--template", address)
    assert result.code == 0, result.err
    assert (work / "mymodel/README.md").read_text() == "Oslo mymodel\n"
    record = json.loads((work / "mymodel/.lightgen/state.json").read_text())["template"]
    assert record["version"] == git(repository, "rev-parse", "HEAD")


def test_git_address_that_cannot_be_fetched_is_refused(
    run_cli: Cli, work: Path
) -> None:
    result = run_cli("new", "mymodel", "--template", f"git+file://{work}/none")
    assert result.code == 2
    assert "git could not fetch" in result.err
    assert snapshot(work) == {}


def test_git_address_without_git_is_refused(
    run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(work / "nothing"))
    result = run_cli("new", "mymodel", "--template", "gh:owner/name")
    assert result.code == 2
    assert "git is needed to fetch `gh:owner/name`" in result.err


@pytest.mark.parametrize(
    ("config", "feature"),
    [
        ("_tasks: ['touch {marker}']\n", "`_tasks`"),
        ("_tasks:\n  - command: 'touch {marker}'\n", "`_tasks`"),
        ("_migrations:\n  - 'touch {marker}'\n", "`_migrations`"),
        ("_jinja_extensions: [os.path.Join]\n", "`_jinja_extensions`"),
        ("_tasks: ['touch {marker}']\n---\n_tasks: []\n", "`_tasks`"),
        ("!include more/*.yml\n", "`_tasks`"),
    ],
)
@pytest.mark.parametrize("mode", [(), ("--dry-run",)])
def test_template_with_code_of_its_own_is_refused(
    config: str, feature: str, mode: tuple[str, ...], run_cli: Cli, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    files = {
        "copier.yml": config.format(marker=marker),
        "more/tasks.yml": f"_tasks: ['touch {marker}']\n",
        "a.md": "",
    }
    put_files(tmp_path / "bad", files)
    before = snapshot(tmp_path)
    result = run_cli("new", "mymodel", "--template", "../bad", *mode)
    assert result.code == 4
    assert f"wants to run code of its own: {feature}" in result.err
    assert "never runs" in result.err
    assert snapshot(tmp_path) == before


def test_git_template_with_tasks_is_refused(
    run_cli: Cli, tmp_path: Path, repository: Path
) -> None:
    (repository / "copier.yml").write_text(f"_tasks: ['touch {tmp_path}/marker']\n")
    git(repository, "commit", "--quiet", "--all", "--message", "tasks")
    git(repository, "tag", "v3.0")
    result = run_cli("new", "mymodel", "--template", f"git+file://{repository}")
    assert result.code == 4
    assert not (tmp_path / "marker").exists()


def test_include_that_leaves_the_template_is_refused(
    run_cli: Cli, tmp_path: Path
) -> None:
    put_files(tmp_path / "bad", {"copier.yml": "!include ../other.yml\n", "a.md": ""})
    put_files(tmp_path, {"other.yml": "a: 1\n"})
    result = run_cli("new", "mymodel", "--template", "../bad")
    assert result.code == 2
    assert "leaves the template" in result.err


def test_included_questions_are_known(run_cli: Cli, work: Path, tmp_path: Path) -> None:
    files = {
        "copier.yml": "!include parts/*.yml\n---\n_subdirectory: files\n",
        "parts/a.yml": "city: Paris\n",
        "files/README.md.jinja": "{{ city }}\n",
    }
    put_files(tmp_path / "parted", files)
    arguments = ("new", "mymodel", "--no-git", "--template", "../parted")
    assert run_cli(*arguments, "--data", "city=Bonn").code == 0
    assert (work / "mymodel/README.md").read_text() == "Bonn\n"


def test_secret_answers_are_not_recorded(
    run_cli: Cli, work: Path, tmp_path: Path
) -> None:
    config = (
        "_secret_questions: [token]\ntoken: none\nsalt:\n  type: str\n"
        "  default: no\n  secret: true\ncity: Paris\n"
    )
    put_files(tmp_path / "secret", {"copier.yml": config, "a.md": ""})
    arguments = ("new", "mymodel", "--no-git", "--template", "../secret")
    assert run_cli(*arguments, "--data", "token=x1", "--data", "salt=x2").code == 0
    state = json.loads((work / "mymodel/.lightgen/state.json").read_text())
    assert state["answers"] == {"city": "Paris"}


@pytest.mark.parametrize(
    ("question", "given", "kept"),
    [
        ("x: {type: yaml, default: [1]}", "[2, 3]", [2, 3]),
        ("x: {type: json, default: '{}'}", '{"a": 1}', {"a": 1}),
        (
            "x: {type: str, multiselect: true, choices: [a, b], default: [a]}",
            "[b]",
            ["b"],
        ),
        ("x: {type: float, choices: {low: 0.1, high: 1}, default: 0.1}", "1", 1.0),
        ("x: {type: bool, default: true}", "no", False),
        ("x: {type: bool, choices: [true, false], default: true}", "no", False),
        ("x: {type: bool, choices: {on: true}, default: true}", "yes", True),
    ],
)
def test_answers_of_every_type_are_converted(
    question: str, given: str, kept: object, run_cli: Cli, work: Path, tmp_path: Path
) -> None:
    put_files(tmp_path / "typed", {"copier.yml": f"{question}\n", "a.md": ""})
    arguments = ("new", "mymodel", "--no-git", "--template", "../typed")
    result = run_cli(*arguments, "--data", f"x={given}")
    assert result.code == 0, result.err
    state = json.loads((work / "mymodel/.lightgen/state.json").read_text())
    assert state["answers"] == {"x": kept}


@pytest.mark.parametrize(
    ("question", "given"),
    [
        ("x: {type: yaml, default: [1]}", "[2"),
        ("x: {type: json, default: '{}'}", "{"),
        ("x: {type: str, multiselect: true, choices: [a, b], default: [a]}", "[c]"),
        ("x: {type: str, multiselect: true, choices: [a, b], default: [a]}", "b"),
        ("x: {type: str, choices: '[{{ 1 }}, b]', default: b}", "c"),
        ("x: {type: bool, choices: [true], default: true}", "no"),
    ],
)
def test_wrong_answers_of_every_type_are_refused(
    question: str, given: str, run_cli: Cli, tmp_path: Path
) -> None:
    put_files(tmp_path / "typed", {"copier.yml": f"{question}\n", "a.md": ""})
    before = snapshot(tmp_path)
    result = run_cli("new", "mymodel", "--template", "../typed", "--data", f"x={given}")
    assert result.code == 2
    assert "Traceback" not in result.err
    assert snapshot(tmp_path) == before
