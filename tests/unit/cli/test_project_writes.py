from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import environment, put_files, run_process, snapshot

from lightgen.cli import exit_code
from lightgen.errors import (
    ConflictError,
    ProjectNotFoundError,
    ProjectStateError,
    UntrustedProjectError,
)
from lightgen.project.journal import JOURNAL_FOLDER, recover, replace_files
from lightgen.project.root import find_root
from lightgen.project.tree import FileTree, TreeFile, folder_digest, sha256
from lightgen.project.write import locked, write_folder

NEW: FileTree = {
    "a.txt": TreeFile(b"new a"),
    "deep/er/b.txt": TreeFile(b"new b"),
    "bin/run": TreeFile(b"#!", executable=True),
}


def interrupted(root: Path, changes: list[dict[str, object]]) -> Path:
    """Lay out the journal of a write that a kill interrupted."""
    undo = json.dumps({"changes": changes, "folders": ["deep/er", "deep"]})
    return put_files(root / JOURNAL_FOLDER, {"undo.json": undo, "old/a.txt": "old a"})


REPLACED_A = {"path": "a.txt", "new": sha256(b"new a"), "replaces": True}
CREATED_B = {"path": "deep/er/b.txt", "new": sha256(b"new b"), "replaces": False}


def test_replace_writes_all_files_and_leaves_no_journal(work: Path) -> None:
    put_files(work, {"a.txt": "old a", "mine.txt": "mine"})
    replace_files(work, NEW)
    assert (work / "a.txt").read_text() == "new a"
    assert (work / "deep/er/b.txt").read_text() == "new b"
    assert (work / "mine.txt").read_text() == "mine"
    assert os.access(work / "bin/run", os.X_OK)
    assert not (work / JOURNAL_FOLDER).exists()


def test_recover_undoes_an_interrupted_write(work: Path) -> None:
    put_files(work, {"a.txt": "new a", "deep/er/b.txt": "new b"})
    interrupted(work, [REPLACED_A, CREATED_B])
    recover(work)
    assert sorted(snapshot(work)) == ["a.txt"]
    assert (work / "a.txt").read_text() == "old a"


def test_recover_keeps_what_the_user_wrote_since(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_files(work, {"a.txt": "mine", "deep/er/b.txt": "mine too"})
    interrupted(work, [REPLACED_A, CREATED_B])
    recover(work)
    assert (work / "a.txt").read_text() == "mine"
    assert (work / "a.txt.before-lightgen").read_text() == "old a"
    assert (work / "deep/er/b.txt").read_text() == "mine too"
    assert "a.txt.before-lightgen" in capsys.readouterr().err


def test_recover_restores_a_file_that_is_gone(work: Path) -> None:
    interrupted(work, [REPLACED_A, CREATED_B])
    recover(work)
    assert (work / "a.txt").read_text() == "old a"


def test_recover_removes_a_journal_that_had_not_begun(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_files(work, {"a.txt": "old a", f"{JOURNAL_FOLDER}/new/a.txt": "new a"})
    recover(work)
    assert sorted(snapshot(work)) == ["a.txt"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", ["../outside.txt", "/etc/outside.txt"])
def test_recover_never_follows_a_path_out_of_the_project(path: str, work: Path) -> None:
    root = work / "project"
    outside = put_files(work, {"outside.txt": "mine"}) / "outside.txt"
    interrupted(root, [{"path": path, "new": sha256(b"mine"), "replaces": False}])
    with pytest.raises(ProjectStateError, match="leaves the project"):
        recover(root)
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("path", ["link/outside.txt", "deep/link/outside.txt"])
def test_recover_never_goes_through_a_link(path: str, work: Path) -> None:
    root = work / "project"
    put_files(work / "other", {"outside.txt": "mine"})
    put_files(root / "deep", {"a.txt": ""})
    (root / "link").symlink_to(work / "other")
    (root / "deep/link").symlink_to(work / "other")
    for change in (
        {"path": path, "new": sha256(b"mine"), "replaces": False},
        {"path": path, "new": sha256(b"mine"), "replaces": True},
    ):
        interrupted(root, [change])
        before = snapshot(work)
        with pytest.raises(ProjectStateError, match="a link leads"):
            recover(root)
        assert snapshot(work) == before


def test_recover_takes_no_backup_through_a_link(work: Path) -> None:
    root = work / "project"
    put_files(work / "secrets", {"key": "mine"})
    journal = interrupted(root, [{"path": "key", "new": "", "replaces": True}])
    (journal / "old/a.txt").unlink()
    (journal / "old").rmdir()
    (journal / "old").symlink_to(work / "secrets")
    before = snapshot(work)
    with pytest.raises(ProjectStateError, match="a link leads"):
        recover(root)
    assert snapshot(work) == before


def test_recover_obeys_no_journal_behind_a_link(work: Path) -> None:
    root = put_files(work / "project", {"a.txt": "new a"})
    journal = interrupted(work / "other", [REPLACED_A])
    (root / JOURNAL_FOLDER).symlink_to(journal)
    with pytest.raises(UntrustedProjectError, match="not a plain folder"):
        find_root(root)
    assert (root / "a.txt").read_text() == "new a"


def test_recover_obeys_no_journal_of_another_user(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_files(work, {"a.txt": "new a"})
    interrupted(work, [REPLACED_A])
    monkeypatch.setattr(os, "getuid", lambda: work.stat().st_uid + 1)
    with pytest.raises(UntrustedProjectError, match="another user"):
        recover(work)
    assert (work / "a.txt").read_text() == "new a"


def test_recover_of_a_damaged_journal_touches_nothing(work: Path) -> None:
    put_files(work, {f"{JOURNAL_FOLDER}/undo.json": "{", "a.txt": "new a"})
    before = snapshot(work)
    with pytest.raises(ProjectStateError, match="journal"):
        recover(work)
    assert snapshot(work) == before


def test_any_command_undoes_an_interrupted_write_first(work: Path) -> None:
    put_files(work, {"a.txt": "new a", "sub/x": ""})
    interrupted(work, [REPLACED_A])
    done = run_process("train", cwd=work / "sub")
    assert done.returncode == 2
    assert "undid an interrupted write" in done.stderr
    assert (work / "a.txt").read_text() == "old a"


def test_dry_run_undoes_nothing(work: Path) -> None:
    put_files(work / "mymodel", {"a.txt": "new a"})
    interrupted(work / "mymodel", [REPLACED_A])
    before = snapshot(work)
    done = run_process("new", "mymodel", "--force", "--dry-run", cwd=work)
    assert done.returncode == 0, done.stderr
    assert snapshot(work) == before


def test_running_write_is_left_alone(work: Path) -> None:
    put_files(work, {"a.txt": "new a"})
    journal = interrupted(work, [REPLACED_A])
    with holder_of(journal):
        before = snapshot(work)
        with pytest.raises(ConflictError, match="another lightgen is writing"):
            replace_files(work, NEW)
        assert snapshot(work) == before


def test_staging_of_a_running_write_is_left_alone(work: Path) -> None:
    running = put_files(work / ".mymodel.lightgen-11111111", {"a.txt": ""})
    killed = put_files(work / ".mymodel.lightgen-2222abcd", {"a.txt": ""})
    other = put_files(work / ".yourmodel.lightgen-33333333", {"a.txt": ""})
    with holder_of(running):
        write_folder(work / "mymodel", NEW)
    assert running.exists()
    assert not killed.exists()
    assert other.exists()


def test_sweep_removes_only_what_a_killed_write_can_have_left(work: Path) -> None:
    put_files(work / ".mymodel.lightgen-notes", {"mine.txt": "mine"})
    put_files(work / ".mymodel.lightgen-1234567", {"mine.txt": "mine"})
    put_files(work / ".mymodel.lightgen-12345678.bak", {"mine.txt": "mine"})
    put_files(work, {".mymodel.lightgen-aaaaaaaa": "a file"})
    put_files(work / "elsewhere", {"mine.txt": "mine"})
    (work / ".mymodel.lightgen-bbbbbbbb").symlink_to("elsewhere")
    before = snapshot(work)
    write_folder(work / "mymodel", NEW)
    after = snapshot(work)
    assert {name: after.get(name) for name in before} == before


def test_leftover_that_cannot_be_opened_is_left_alone(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = put_files(work / ".mymodel.lightgen-12345678", {"a.txt": ""})
    opened = os.open

    def refusing(path: str | Path, flags: int, *rest: int, **more: int) -> int:
        if Path(path) == left:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    write_folder(work / "mymodel", NEW)
    assert (work / "mymodel/a.txt").read_text() == "new a"
    assert left.exists()


def test_lock_on_a_folder_that_was_made_again_is_refused(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    flock, folder = fcntl.flock, work / "busy"
    folder.mkdir()

    def meanwhile(descriptor: int, operation: int) -> None:
        folder.rename(work / "moved")
        folder.mkdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with pytest.raises(ConflictError, match="another lightgen"), locked(folder):
        pytest.fail("two processes would hold the same name")


def holder_of(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds `folder` until its context ends."""
    script = (
        "import sys, pathlib\n"
        "from lightgen.project.write import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_journal_that_another_write_takes_away_is_a_conflict(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making it, or seeing it, and holding it there is a moment for others."""
    mkdir, lexists = Path.mkdir, os.path.lexists

    def made_and_swept(self: Path, *args: Any, **kwargs: Any) -> None:
        mkdir(self, *args, **kwargs)
        if self.name == JOURNAL_FOLDER:
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", made_and_swept)
    with pytest.raises(ConflictError, match="another lightgen is writing here"):
        replace_files(work, NEW)
    monkeypatch.setattr(
        os.path, "lexists", lambda path: path.name == JOURNAL_FOLDER or lexists(path)
    )
    with pytest.raises(ConflictError, match="another lightgen is writing here"):
        recover(work)
    assert snapshot(work) == {}


def test_write_never_takes_over_a_folder_that_filled_up(work: Path) -> None:
    put_files(work / "mymodel", {"mine.txt": "mine"})
    before = snapshot(work)
    with pytest.raises(ConflictError, match="files appeared"):
        write_folder(work / "mymodel", NEW)
    assert snapshot(work) == before


def test_root_is_the_nearest_project(work: Path) -> None:
    put_files(work, {".lightgen/state.json": "", "in/.lightgen/state.json": ""})
    put_files(work, {"in/a/b/c.txt": "", "side/c.txt": ""})
    assert find_root(work / "in/a/b") == work / "in"
    assert find_root(work / "side") == work
    with pytest.raises(ProjectNotFoundError):
        find_root(work.parent)


def test_project_of_another_user_is_run_from_its_own_folder_only(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_files(work, {".lightgen/state.json": "", "a/b.txt": ""})
    monkeypatch.setattr(os, "getuid", lambda: work.stat().st_uid + 1)
    assert find_root(work) == work
    with pytest.raises(UntrustedProjectError, match="another user") as caught:
        find_root(work / "a")
    assert exit_code(caught.value) == 4
    assert str(work) in str(caught.value)


def test_digest_sees_names_contents_and_links_but_not_git(work: Path) -> None:
    put_files(work, {"a": "1", "b/c": "2"})
    digests = {folder_digest(work)}
    put_files(work, {".git/x": "", "b/__pycache__/c.pyc": ""})
    digests.add(folder_digest(work))
    assert len(digests) == 1
    (work / "a").write_text("2")
    digests.add(folder_digest(work))
    (work / "a").rename(work / "d")
    digests.add(folder_digest(work))
    (work / "link").symlink_to("d")
    digests.add(folder_digest(work))
    assert len(digests) == 4
