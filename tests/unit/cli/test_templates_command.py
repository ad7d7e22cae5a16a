from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli, put_files, snapshot

from lightgen.rendering.bundled import bundled_files, bundled_names


def rendered_by_copier(template: Path, target: Path, package: str) -> dict[str, bytes]:
    import copier

    copier.run_copy(
        str(template), target, {"package": package}, defaults=True, quiet=True
    )
    return contents(target)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".lightgen" not in path.parts
    }


@pytest.mark.usefixtures("templates")
def test_list_names_and_describes_templates(run_cli: Cli) -> None:
    assert run_cli("templates", "list").out == "vision  A small project\n"


@pytest.mark.usefixtures("templates")
def test_list_json_is_one_object(run_cli: Cli) -> None:
    report = json.loads(run_cli("templates", "list", "--json").out)
    assert report["templates"] == [{"name": "vision", "title": "A small project"}]


@pytest.mark.usefixtures("templates")
def test_show_describes_options_and_files(run_cli: Cli) -> None:
    out = run_cli("templates", "show", "vision").out
    assert out.startswith("vision, version 7: A small project\n")
    assert "  width (int)\n      Width of the net\n      default: 32\n" in out
    assert "      choices: classification, regression\n" in out
    assert "  src/{{ package }}/__main__.py\n" in out
    assert "template_version" not in out


@pytest.mark.usefixtures("templates")
def test_show_json_is_one_object(run_cli: Cli) -> None:
    report = json.loads(run_cli("templates", "show", "vision", "--json").out)
    options = {option["name"]: option for option in report["options"]}
    assert list(options) == ["width", "lr", "augment", "task"]
    assert options["task"]["choices"] == ["classification", "regression"]
    assert "config.yaml" in report["files"]


@pytest.mark.usefixtures("templates")
@pytest.mark.parametrize("verb", [("show", "visoin"), ("export", "visoin", "out")])
def test_mistyped_name_is_refused(
    verb: tuple[str, ...], run_cli: Cli, work: Path
) -> None:
    result = run_cli("templates", *verb)
    assert result.code == 2
    assert "did you mean `vision`?" in result.err
    assert snapshot(work) == {}


@pytest.mark.usefixtures("templates")
def test_export_json_is_one_object(run_cli: Cli, work: Path) -> None:
    result = run_cli("templates", "export", "vision", "out", "--json")
    report = json.loads(result.out)
    assert result.out.count("\n") == 1
    assert report["command"] == "templates export"
    assert report["root"] == str(work / "out")
    assert report["files"] == sorted(contents(work / "out"))
    assert "copier.yml" in report["files"]


@pytest.mark.usefixtures("templates")
def test_export_fills_an_empty_folder_in_place(run_cli: Cli, work: Path) -> None:
    (work / "out").mkdir()
    inode = (work / "out").stat().st_ino
    assert run_cli("templates", "export", "vision", "out").code == 0
    assert (work / "out").stat().st_ino == inode
    assert (work / "out/copier.yml").is_file()


@pytest.mark.usefixtures("templates")
@pytest.mark.parametrize("folder", ["none/out", "~nosuch/out", "x" * 300])
def test_export_refuses_a_folder_that_cannot_be_made(
    folder: str, run_cli: Cli, work: Path
) -> None:
    result = run_cli("templates", "export", "vision", folder)
    assert result.code == 2
    assert "where:    argument DIR" in result.err
    assert snapshot(work) == {}


@pytest.mark.usefixtures("templates")
def test_export_refuses_a_folder_with_files(run_cli: Cli, work: Path) -> None:
    put_files(work / "out", {"mine.txt": "mine"})
    before = snapshot(work)
    assert run_cli("templates", "export", "vision", "out").code == 3
    assert snapshot(work) == before


@pytest.mark.parametrize("name", bundled_names())
def test_copier_makes_the_same_files_from_an_export(
    name: str, run_cli: Cli, work: Path, tmp_path: Path
) -> None:
    assert run_cli("templates", "export", name, "exported").code == 0
    result = run_cli("new", "mymodel", "--no-git", "--template", name)
    assert result.code == 0, result.err
    by_copier = rendered_by_copier(work / "exported", tmp_path / "mymodel", "mymodel")
    assert contents(work / "mymodel") == by_copier


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_template_is_strict_about_variables(name: str) -> None:
    config = bundled_files(name)["copier.yml"].content.decode()
    assert "undefined: jinja2.StrictUndefined" in config


def test_default_template_is_bundled() -> None:
    assert "vision" in bundled_names()
