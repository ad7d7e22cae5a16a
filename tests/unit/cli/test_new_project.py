from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from command_line import FORMATTED_MAIN, Cli, environment, run_process, snapshot

from lightgen import __version__

pytestmark = pytest.mark.usefixtures("templates")

PROJECT_FILES = {
    "README.md",
    "config.yaml",
    "pyproject.toml",
    "src/mymodel/__init__.py",
    "src/mymodel/__main__.py",
    "src/mymodel/data.bin",
}


def files_below(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
    }


def test_new_writes_the_rendered_and_formatted_files(run_cli: Cli, work: Path) -> None:
    result = run_cli("new", "mymodel", "--no-git")
    assert result.code == 0
    root = work / "mymodel"
    assert {path for path in files_below(root) if path[0] != "."} == PROJECT_FILES
    assert (root / "README.md").read_text() == "# mymodel\n\nclassification\n"
    assert (root / "src/mymodel/__main__.py").read_text() == FORMATTED_MAIN
    assert (root / "src/mymodel/data.bin").read_bytes() == b"\x00\x01"


def test_new_leaves_nothing_beside_the_project(run_cli: Cli, work: Path) -> None:
    run_cli("new", "mymodel", "--no-git")
    assert [path.name for path in work.iterdir()] == ["mymodel"]


def test_new_records_what_the_project_was_made_from(run_cli: Cli, work: Path) -> None:
    run_cli("new", "mymodel", "--no-git", "--data", "lr=1e-3")
    root = work / "mymodel"
    text = (root / ".lightgen/state.json").read_text()
    state = json.loads(text)
    assert text == json.dumps(state, indent=2, sort_keys=True) + "\n"
    assert state["schema"] == 1
    assert state["generator"] == __version__
    assert state["package"] == "mymodel"
    assert state["blocks"] == {}
    assert state["answers"] == {
        "package": "mymodel",
        "width": 32,
        "lr": 0.001,
        "augment": False,
        "task": "classification",
    }
    template = state["template"]
    assert (template["id"], template["version"]) == ("vision", "7")
    assert template["source"] == "bundled"
    assert template["digest"].startswith("sha256:")
    assert set(state["files"]) == PROJECT_FILES
    for path, digest in state["files"].items():
        content = (root / path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert (root / f".lightgen/base/{path}.base").read_bytes() == content


def test_new_twice_gives_the_same_bytes(run_cli: Cli, work: Path) -> None:
    (work / "one").mkdir()
    (work / "two").mkdir()
    for folder in ("one", "two"):
        run_cli("new", "mymodel", "--no-git", "--output-dir", folder)
    assert snapshot(work / "one") == snapshot(work / "two")


def test_new_passes_answers_on(run_cli: Cli, work: Path) -> None:
    result = run_cli(
        *("new", "mymodel", "--no-git"),
        *("--data", "width=8", "--data", "task=regression"),
    )
    assert result.code == 0
    assert "width: 8\n" in (work / "mymodel/config.yaml").read_text()
    assert "regression" in (work / "mymodel/README.md").read_text()


def test_new_shows_the_files_and_the_next_commands(run_cli: Cli) -> None:
    result = run_cli("new", "mymodel", "--no-git")
    lines = result.out.splitlines()
    assert lines[0] == "Created mymodel from the template vision, version 7."
    assert "  src/" in lines
    assert "      __main__.py" in lines
    assert lines[-2:] == ["  cd mymodel", "  lightgen train"]
    assert result.err == ""


def test_new_quotes_the_folder_in_the_next_command(run_cli: Cli, work: Path) -> None:
    (work / "my models").mkdir()
    result = run_cli("new", "mymodel", "--no-git", "--output-dir", "my models")
    assert "  cd 'my models/mymodel'" in result.out.splitlines()


def test_new_json_prints_one_object(run_cli: Cli, work: Path) -> None:
    result = run_cli("new", "mymodel", "--no-git", "--json")
    report = json.loads(result.out)
    assert report["command"] == "new"
    assert report["root"] == str(work / "mymodel")
    assert report["template"]["id"] == "vision"
    assert report["answers"]["width"] == 32
    assert report["git"] is False
    assert report["dry_run"] is False
    assert {"path": "config.yaml", "action": "create"} in report["files"]
    assert result.out.count("\n") == 1


def test_dry_run_writes_nothing_and_shows_the_plan(run_cli: Cli, work: Path) -> None:
    result = run_cli("new", "mymodel", "--dry-run")
    assert result.code == 0
    assert "  create   src/mymodel/__main__.py" in result.out.splitlines()
    assert snapshot(work) == {}


def test_diff_shows_contents_and_writes_nothing(run_cli: Cli, work: Path) -> None:
    result = run_cli("new", "mymodel", "--diff")
    assert "+++ b/config.yaml\n@@ -0,0 +1,3 @@\n+model:\n+  width: 32\n" in result.out
    assert snapshot(work) == {}


def test_diff_compares_with_what_is_there(run_cli: Cli, work: Path) -> None:
    run_cli("new", "mymodel", "--no-git")
    before = snapshot(work)
    result = run_cli("new", "mymodel", "--force", "--diff", "--data", "width=8")
    assert "--- a/config.yaml\n+++ b/config.yaml\n" in result.out
    assert "-  width: 32\n+  width: 8\n" in result.out
    assert "  replace  config.yaml" in result.out.splitlines()
    assert "  keep     pyproject.toml" in result.out.splitlines()
    assert snapshot(work) == before


def test_diff_leaves_the_records_out(run_cli: Cli) -> None:
    assert "b/.lightgen" not in run_cli("new", "mymodel", "--diff").out


def test_next_commands_leave_out_a_needless_cd(
    run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cli("new", "mymodel", "--no-git")
    monkeypatch.chdir(work / "mymodel")
    out = run_cli("new", "mymodel", "--force", "--output-dir", "..").out
    assert out.startswith("Rewrote mymodel from the template vision, version 7.\n")
    assert out.endswith("\nNext:\n  lightgen train\n")


def test_diff_says_when_a_file_is_not_text(run_cli: Cli, work: Path) -> None:
    run_cli("new", "mymodel", "--no-git")
    (work / "mymodel/src/mymodel/data.bin").write_bytes(b"\xff\xfe")
    result = run_cli("new", "mymodel", "--force", "--diff")
    assert (
        "Binary files a/src/mymodel/data.bin and b/src/mymodel/data.bin" in result.out
    )


def test_new_fills_an_empty_folder(run_cli: Cli, work: Path) -> None:
    (work / "mymodel").mkdir(mode=0o750)
    assert run_cli("new", "mymodel", "--no-git").code == 0
    assert (work / "mymodel/config.yaml").is_file()
    assert (work / "mymodel").stat().st_mode & 0o777 == 0o750


def test_new_in_the_empty_working_folder_leaves_it_in_place(
    run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = work / "mymodel"
    root.mkdir()
    monkeypatch.chdir(root)
    inode = root.stat().st_ino
    result = run_cli("new", "mymodel", "--no-git", "--output-dir", "..")
    assert result.code == 0, result.err
    assert root.stat().st_ino == inode
    assert Path.cwd() == root
    assert Path("config.yaml").is_file()
    assert result.out.endswith("\nNext:\n  lightgen train\n")


def test_force_keeps_the_permissions_of_what_it_replaces(
    run_cli: Cli, work: Path
) -> None:
    run_cli("new", "mymodel", "--no-git")
    (work / "mymodel/config.yaml").write_text("mine\n")
    (work / "mymodel/config.yaml").chmod(0o640)
    assert run_cli("new", "mymodel", "--force").code == 0
    assert (work / "mymodel/config.yaml").read_text().startswith("model:")
    assert (work / "mymodel/config.yaml").stat().st_mode & 0o777 == 0o640


def test_force_replaces_ours_and_keeps_everything_else(
    run_cli: Cli, work: Path
) -> None:
    root = work / "mymodel"
    (root / "runs/1").mkdir(parents=True)
    (root / "runs/1/metrics.csv").write_text("epoch\n")
    (root / "config.yaml").write_text("mine\n")
    result = run_cli("new", "mymodel", "--force")
    assert result.code == 0
    assert "Replaced:\n  config.yaml\n" in result.out
    assert (root / "config.yaml").read_text().startswith("model:")
    assert (root / "runs/1/metrics.csv").read_text() == "epoch\n"
    assert not (root / ".lightgen-journal").exists()
    assert not (root / ".git").exists()


def test_force_replaces_a_link_and_not_what_it_leads_to(
    run_cli: Cli, work: Path
) -> None:
    root = work / "mymodel"
    root.mkdir()
    (work / "elsewhere.yaml").write_text("mine\n")
    (root / "config.yaml").symlink_to("../elsewhere.yaml")
    assert run_cli("new", "mymodel", "--force").code == 0
    assert not (root / "config.yaml").is_symlink()
    assert (work / "elsewhere.yaml").read_text() == "mine\n"


def test_force_over_an_unchanged_project_changes_nothing(
    run_cli: Cli, work: Path
) -> None:
    run_cli("new", "mymodel", "--no-git")
    before = snapshot(work)
    assert run_cli("new", "mymodel", "--force").code == 0
    assert snapshot(work) == before


def test_new_makes_a_repository_outside_of_any(run_cli: Cli, work: Path) -> None:
    report = json.loads(run_cli("new", "mymodel", "--json").out)
    assert report["git"] is True
    assert (work / "mymodel/.git").is_dir()


def test_new_makes_no_repository_inside_another(run_cli: Cli, work: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=work, check=True)
    report = json.loads(run_cli("new", "mymodel", "--json").out)
    assert report["git"] is False
    assert not (work / "mymodel/.git").exists()


def test_git_asks_for_a_repository_inside_another(run_cli: Cli, work: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=work, check=True)
    assert run_cli("new", "mymodel", "--git").code == 0
    assert (work / "mymodel/.git").is_dir()


def test_new_works_without_git(
    run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(work / "nothing"))
    assert run_cli("new", "mymodel").code == 0
    assert not (work / "mymodel/.git").exists()


def test_git_asked_for_but_missing_is_an_error(
    run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(work / "nothing"))
    result = run_cli("new", "mymodel", "--git")
    assert result.code == 2
    assert "git is not installed" in result.err
    assert snapshot(work) == {}


def test_git_settings_of_the_caller_are_not_obeyed(work: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=mine, check=True)
    before = snapshot(mine)
    given = {"GIT_DIR": str(mine / ".git"), "GIT_WORK_TREE": str(mine)}
    done = run_process("new", "mymodel", cwd=work, env=environment(**given))
    assert done.returncode == 0, done.stderr
    assert (work / "mymodel/.git").is_dir()
    assert snapshot(mine) == before


def test_git_failure_is_a_warning_and_the_project_stays(
    run_cli: Cli, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "broken git" >&2\nexit 9\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent))
    result = run_cli("new", "mymodel", "--git")
    assert result.code == 0
    assert "warning: `git init` failed: broken git" in result.err
    assert (work / "mymodel/config.yaml").is_file()


def test_executable_files_stay_executable(
    run_cli: Cli, work: Path, templates: Path
) -> None:
    script = templates / "vision/files/run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    run_cli("new", "mymodel", "--no-git")
    assert (work / "mymodel/run.sh").stat().st_mode & 0o111
    assert not (work / "mymodel/config.yaml").stat().st_mode & 0o111


def test_user_settings_of_copier_change_nothing(
    run_cli: Cli, work: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "home/config/copier/settings.yml"
    settings.parent.mkdir(parents=True)
    settings.write_text("defaults:\n  width: 5\n")
    run_cli("new", "mymodel", "--no-git")
    assert "width: 32\n" in (work / "mymodel/config.yaml").read_text()
