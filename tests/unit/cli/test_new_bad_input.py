from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import MINI_FILES, Cli, put_files, snapshot

pytestmark = pytest.mark.usefixtures("templates")


@pytest.fixture
def refuses(run_cli: Cli, tmp_path: Path):
    """Run a command that must fail, change nothing and say certain things."""

    def check(*arguments: str, code: int, says: list[str]) -> None:
        before = snapshot(tmp_path)
        result = run_cli(*arguments)
        assert result.code == code, result.err
        for text in says:
            assert text in result.err
        assert result.out == ""
        assert "Traceback" not in result.err
        assert snapshot(tmp_path) == before

    return check


def test_non_empty_target_is_a_conflict(refuses, work: Path) -> None:
    put_files(work / "mymodel", {"mine.txt": "mine"})
    refuses(
        *("new", "mymodel"),
        code=3,
        says=["`mymodel` exists and is not empty: `mine.txt`", "--force"],
    )


def test_dry_run_reports_the_same_conflict(refuses, work: Path) -> None:
    put_files(work / "mymodel", {"mine.txt": "mine"})
    refuses("new", "mymodel", "--dry-run", code=3, says=["is not empty"])


def test_target_that_is_a_file_is_a_conflict(refuses, work: Path) -> None:
    (work / "mymodel").write_text("mine")
    refuses("new", "mymodel", "--force", code=3, says=["not a plain folder"])


def test_target_that_is_a_link_is_a_conflict(refuses, work: Path) -> None:
    (work / "mymodel").symlink_to("nowhere")
    refuses("new", "mymodel", "--force", code=3, says=["not a plain folder"])


def test_force_never_removes_a_folder_in_the_way(refuses, work: Path) -> None:
    put_files(work / "mymodel", {"config.yaml/mine.txt": "mine"})
    refuses("new", "mymodel", "--force", code=3, says=["in the way: `config.yaml`"])


def test_force_never_removes_a_file_where_a_folder_goes(refuses, work: Path) -> None:
    put_files(work / "mymodel", {"src": "mine"})
    refuses("new", "mymodel", "--force", code=3, says=["in the way: `src/`"])


def test_force_never_writes_through_a_link_to_a_folder(refuses, work: Path) -> None:
    (work / "other").mkdir()
    (work / "mymodel").mkdir()
    (work / "mymodel/src").symlink_to("../other")
    refuses("new", "mymodel", "--force", code=3, says=["in the way: `src/`"])


def test_missing_output_dir_is_refused(refuses) -> None:
    refuses(
        *("new", "mymodel", "--output-dir", "a/b"),
        code=2,
        says=["`a/b` is not an existing folder", "mkdir -p a/b"],
    )


def test_output_dir_that_is_not_writable_is_named(
    refuses, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As whoever runs the tests may be root, who may write anywhere.
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    says = [f"`{work}` is not writable", "chmod u+rwx"]
    refuses("new", "mymodel", code=2, says=says)


def test_folder_that_the_parser_refuses_is_not_called_a_number(
    refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    says = [
        "error: `--output-dir .` is not accepted: ",
        "where:    option --output-dir",
    ]
    refuses("new", "mymodel", "--output-dir", ".", code=2, says=says)


def test_unknown_option_names_the_nearest_and_all(refuses) -> None:
    refuses(
        *("new", "mymodel", "--data", "widht=8"),
        code=2,
        says=[
            "no option `widht`",
            "accepted: `augment`, `lr`, `task`, `width`",
            "next:     --data width=8",
        ],
    )


@pytest.mark.parametrize("key", ["package", "template_version", "template_title"])
def test_computed_answers_cannot_be_given(refuses, key: str) -> None:
    refuses("new", "mymodel", "--data", f"{key}=x", code=2, says=[f"`{key}`"])


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        (
            "width=wide",
            ["'wide' is no answer to `width`", "a whole number", "width=32"],
        ),
        ("width=1.5", ["a whole number"]),
        ("lr=fast", ["'fast' is no answer to `lr`", "a number"]),
        ("augment=maybe", ["true or false"]),
        ("task=clasification", ["`regression`", "--data task=classification"]),
        ("width=0", ["refuses an answer", "the width must be at least 1"]),
        ("width", ["'width' is no answer", "KEY=VALUE"]),
        ("=8", ["'=8' is no answer", "KEY=VALUE"]),
    ],
)
def test_wrong_answer_is_refused(refuses, pair: str, says: list[str]) -> None:
    refuses("new", "mymodel", "--data", pair, code=2, says=says)


def test_answer_without_a_near_question_points_to_where_they_are(
    refuses, tmp_path: Path
) -> None:
    template = str(put_files(tmp_path / "other", {"copier.yml": "a: 1\n"}))
    for arguments, says in (
        ((), "lightgen templates show vision"),
        (("--template", template), "see the questions in its copier.yml"),
    ):
        wrong = ("new", "mymodel", "--data", "zzzzzz=1", *arguments)
        refuses(*wrong, code=2, says=[f"next:     {says}"])


@pytest.mark.parametrize(
    ("option", "path", "reason"),
    [
        ("--output-dir", "~nosuch/x", "home"),
        ("--output-dir", "x" * 300, "File name too long"),
        ("--output-dir", "loop/x", "Too many levels of symbolic links"),
        ("--template", "~nosuch/x", "home"),
        ("--template", "./" + "x" * 300, "File name too long"),
        ("--template", "./loop", "Too many levels of symbolic links"),
    ],
)
def test_impossible_path_is_refused_with_the_systems_reason(
    refuses, work: Path, option: str, path: str, reason: str
) -> None:
    (work / "loop").symlink_to("loop")
    says = [f"`{path}` cannot be used as a path", reason, f"where:    option {option}"]
    refuses("new", "mymodel", option, path, code=2, says=says)


def test_address_of_an_unknown_host_is_told_how_to_be_one(refuses) -> None:
    refuses(
        *("new", "mymodel", "--template", "https://example.org/x/y"),
        code=2,
        says=["begins with `git+` or ends in `.git`", "git+https://example.org/x/y"],
    )


def test_refusal_by_the_system_names_the_file(
    run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = put_files(work / "mymodel", {"config.yaml": "mine"}) / "config.yaml"
    read = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path == mine:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    result = run_cli("new", "mymodel", "--force")
    assert result.code == 1
    assert "error: the operating system refused: Permission denied\n" in result.err
    assert f"where:    {mine}\n" in result.err
    assert mine.read_text() == "mine"


def test_mistyped_template_names_the_nearest(refuses) -> None:
    refuses(
        *("new", "mymodel", "--template", "visoin"),
        code=2,
        says=["no template `visoin`", "did you mean `vision`?"],
    )


def test_missing_template_folder_is_refused(refuses) -> None:
    refuses(
        *("new", "mymodel", "--template", "./none"),
        code=2,
        says=["there is no folder `./none`"],
    )


def test_template_folder_without_copier_yml_is_refused(refuses, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuses(
        *("new", "mymodel", "--template", str(tmp_path / "empty")),
        code=2,
        says=["has no copier.yml"],
    )


@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        ({"copier.yml": "a: [1\n"}, 2, ["copier.yml", "cannot be read"]),
        ({"copier.yml": "- 3\n"}, 2, ["3 is no mapping"]),
        ({"copier.yaml": "a: 1\n"}, 2, ["both copier.yml and .yaml"]),
        ({"copier.yml": "!include copier.yml\n"}, 2, ["it includes itself"]),
        ({"copier.yml": "x: {type: 3, default: 1}\n"}, 2, ["type of `x` is 3"]),
        ({"copier.yml": "x: {type: [a], default: 1}\n"}, 2, ["type of `x` is ['a']"]),
        ({"files/x.md.jinja": "{{ widht }}"}, 2, ["'widht' is undefined"]),
        ({"files/x.md.jinja": "\n{% if %}"}, 2, ["cannot be rendered", "line 2"]),
        ({"files/x.py": "def f(:\n"}, 5, ["where:    x.py", "invalid syntax"]),
        ({"files/x.toml": "a = \n"}, 5, ["where:    x.toml"]),
        ({"files/x.yaml": "a: [\n"}, 5, ["where:    x.yaml"]),
        ({"files/x.py": "'\\0\x00'\n"}, 5, ["where:    x.py"]),
        ({"files/a.md": "", "files/A.md": ""}, 5, ["`A.md` and `a.md`"]),
        ({"files/{{ '.git' }}/hooks/x": ""}, 5, ["`.git`", "where:    .git/hooks/x"]),
        ({"files/.lightgen/x": ""}, 5, ["`.lightgen`"]),
        ({"files/{{ '..' }}/x.md": ""}, 5, ["wants to leave the project"]),
        ({"files/{{ 'x' * 300 }}": ""}, 2, ["cannot be rendered", "too long"]),
        ({"files/a/NUL.txt": ""}, 5, ["Windows keeps for a device: `NUL.txt`"]),
        ({"files/a:b": ""}, 5, ["holds ':', which Windows cannot store: `a:b`"]),
        ({"files/a\\b": ""}, 5, ["holds '\\\\', which Windows cannot store"]),
        ({"files/a. /b": ""}, 5, ["ends in ' ', which Windows drops: `a. `"]),
    ],
)
def test_broken_template_is_refused(
    refuses, tmp_path: Path, files: dict[str, str], code: int, says: list[str]
) -> None:
    template = put_files(tmp_path / "broken", MINI_FILES | files)
    main = template / "files/src/{{ package }}/__main__.py.jinja"
    main.write_text("print()\n")
    refuses("new", "mymodel", "--template", str(template), code=code, says=says)


def test_template_without_files_is_refused(refuses, tmp_path: Path) -> None:
    template = put_files(tmp_path / "bare", {"copier.yml": "a: 1\n"})
    refuses(
        *("new", "mymodel", "--template", str(template)),
        code=5,
        says=["produced no files"],
    )


def test_template_that_makes_links_is_refused(refuses, tmp_path: Path) -> None:
    template = put_files(
        tmp_path / "links", {"copier.yml": "_preserve_symlinks: true\n", "a.md": ""}
    )
    (template / "b.md").symlink_to("/etc/passwd")
    refuses(
        *("new", "mymodel", "--template", str(template)),
        code=5,
        says=["`b.md` is neither a plain file nor a folder"],
    )


def test_required_answer_is_asked_for_by_name(refuses, tmp_path: Path) -> None:
    template = put_files(
        tmp_path / "asking", {"copier.yml": "city:\n  type: str\n", "a.md": ""}
    )
    refuses(
        *("new", "mymodel", "--template", str(template)),
        code=2,
        says=['Question "city" is required', "--data KEY=VALUE"],
    )


def test_unknown_flag_is_refused(refuses) -> None:
    refuses("new", "mymodel", "--forse", code=2, says=["--forse", "--force"])


def test_unknown_verb_is_refused(refuses) -> None:
    refuses("nwe", code=2, says=["nwe"])
