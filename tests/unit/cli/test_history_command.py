"""`lightgen undo` and `redo`: whatever was done can be taken back, and nothing else."""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, environment, put_files, snapshot

from lightgen.errors import ConflictError
from lightgen.project import history
from lightgen.project.history import KEPT, write_command
from lightgen.project.tree import TreeFile

MODULE = "src/mymodel/module.py"
REGEN = ["regen", "optimizer", "--no-verify"]
OPTIONS = [
    ["--optimizer", "sgd", "--opt", "momentum=0.9"],
    ["--optimizer", "adam:lr=0.01"],
    ["--schedule", "warmup:5% > cosine:eta_min=1e-6"],
    ["--schedule", "plateau", "--monitor", "val_loss"],
    ["--schedule", "none"],
    ["--schedule", "step:step_size=3ep"],
    ["--no-decay", "bias,norm"],
    ["--recipe", "muon-adamw"],
    ["--recipe", "adamw-cosine"],
    ["--lr", "0.1"],
    ["--weight-decay", "0"],
    ["--from-config", "lr"],
]

Contents = dict[str, tuple[int, bytes | str]]


def regen(run_cli: Cli, *options: str) -> None:
    result = run_cli(*REGEN, *options)
    assert result.code == 0, result.err


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def contents(project: Path) -> Contents:
    """Everything but the history."""
    files = snapshot(project)
    return {p: f for p, f in files.items() if not p.startswith(".lightgen/history")}


@pytest.mark.parametrize("seed", range(3))
def test_random_commands_are_taken_back_and_done_again_exactly(
    seed: int, run_cli: Cli, project: Path
) -> None:
    pick = random.Random(seed)
    states, at = [contents(project)], 0
    for _ in range(14):
        verb = pick.choice(["regen", "regen", "undo", "redo"])
        if verb == "regen":
            command = [*REGEN, *pick.choice(OPTIONS)]
            # An illegal combination is refused.
            assert run_cli(*command).code in (0, 2)
            if contents(project) != states[at]:
                states[at + 1 :] = [contents(project)]
                at += 1
            before = snapshot(project)
            run_cli(*command)
            assert snapshot(project) == before, "the second time does nothing"
        else:
            to = at + (1 if verb == "redo" else -1)
            possible = 0 <= to < len(states)
            assert run_cli(verb).code == (0 if possible else 2)
            at = to if possible else at
        assert contents(project) == states[at]
    for state in reversed(states[:at]):
        assert run_cli("undo").code == 0
        assert contents(project) == state
    assert run_cli("undo").code == 2
    assert contents(project) == states[0]
    assert len(states) > 2


@pytest.mark.parametrize("seed", range(3))
def test_random_commands_among_edits_lose_no_edit(
    seed: int, run_cli: Cli, project: Path
) -> None:
    pick = random.Random(seed)
    module = project / MODULE
    marks: list[str] = []
    done = 0
    for number in range(16):
        verb = pick.choice(["regen", "edit", "undo", "redo"])
        if verb == "edit":
            lines = module.read_text().splitlines(keepends=True)
            marks.append(f"# mine {number}\n")
            lines.insert(pick.randrange(len(lines)), marks[-1])
            module.write_text("".join(lines))
            continue
        before = snapshot(project)
        command = [*REGEN, *pick.choice(OPTIONS)] if verb == "regen" else [verb]
        code = run_cli(*command).code
        assert code in (0, 2, 3)
        done += code == 0
        if code:
            assert snapshot(project) == before
        text = module.read_text()
        ast.parse(text)
        assert [mark for mark in marks if mark not in text] == []
    assert done > 1
    assert len(marks) > 1


def test_edit_outside_of_the_block_stays_where_it_is(
    run_cli: Cli, project: Path
) -> None:
    before = contents(project)
    regen(run_cli, "--recipe", "muon-adamw")
    middle = contents(project)
    edit(project / MODULE, '"train_loss"', '"loss"')
    edited = (project / MODULE).read_text()
    assert run_cli("undo").code == 0
    edit(project / MODULE, '"loss"', '"train_loss"')
    assert contents(project) == before
    edit(project / MODULE, '"train_loss"', '"loss"')
    assert run_cli("redo").code == 0
    assert (project / MODULE).read_text() == edited
    edit(project / MODULE, '"loss"', '"train_loss"')
    assert contents(project) == middle


def test_edit_inside_of_the_block_is_not_undone_over(
    run_cli: Cli, project: Path
) -> None:
    regen(run_cli, "--optimizer", "sgd")
    edit(project / MODULE, "lr=self.hparams.lr,", "lr=0.5,")
    before = snapshot(project)
    result = run_cli("undo")
    assert result.code == 3
    assert f"`{MODULE}` changed since" in result.err
    assert "three lines away" in result.err
    assert snapshot(project) == before


def test_records_that_changed_are_not_undone_over(run_cli: Cli, project: Path) -> None:
    regen(run_cli, "--optimizer", "sgd")
    edit(project / ".lightgen/state.json", '"vision"', '"visions"')
    before = snapshot(project)
    assert run_cli("undo").code == 3
    assert snapshot(project) == before


def test_file_that_is_gone_is_not_undone_over(run_cli: Cli, project: Path) -> None:
    regen(run_cli, "--optimizer", "sgd")
    (project / MODULE).unlink()
    before = snapshot(project)
    assert run_cli("undo").code == 3
    assert snapshot(project) == before


def test_undo_of_a_sidecar_removes_it_unless_it_was_edited(
    run_cli: Cli, project: Path
) -> None:
    edit(project / MODULE, "lr=self.hparams.lr,", "lr=0.5,")
    before = contents(project)
    command = [*REGEN, "--lr", "0.1", "--on-conflict", "sidecar"]
    sidecar = project / f"{MODULE}.lightgen-new"
    assert run_cli(*command).code == 0
    written = snapshot(project)
    assert run_cli(*command).code == 0
    assert snapshot(project) == written
    text = sidecar.read_text()
    sidecar.write_text("# mine\n")
    assert run_cli("undo").code == 3
    assert sidecar.read_text() == "# mine\n"
    sidecar.write_text(text)
    assert run_cli("undo").code == 0
    assert contents(project) == before


def test_sidecar_that_was_merged_and_removed_does_not_stop_undo(
    run_cli: Cli, project: Path
) -> None:
    before = contents(project)
    regen(run_cli, "--weight-decay", "0.3")
    edit(project / MODULE, "lr=self.hparams.lr,", "lr=0.5,")
    regen(run_cli, "--lr", "0.1", "--on-conflict", "sidecar")
    (project / f"{MODULE}.lightgen-new").unlink()
    edit(project / MODULE, "lr=0.5,", "lr=self.hparams.lr,")
    assert run_cli("undo").code == 0
    assert run_cli("undo").code == 0
    assert contents(project) == before


def test_folders_that_a_command_made_go_with_their_files(work: Path) -> None:
    put_files(work, {"a.txt": "a"})
    before = contents(work)
    tree = {"deep/er/b.txt": TreeFile(b"b"), "deep/c.bin": TreeFile(b"\xff")}
    write_command(work, "made", tree)
    history.undo(work)
    assert contents(work).keys() - {".lightgen"} == before.keys()
    history.redo(work)
    assert (work / "deep/er/b.txt").read_bytes() == b"b"
    assert (work / "deep/c.bin").read_bytes() == b"\xff"


def test_only_so_many_commands_are_kept(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    assert KEPT >= 50
    for number in range(5):
        write_command(work, f"command {number}", {"a": TreeFile(str(number).encode())})
    reach = history.read_history(work)
    assert [e.command for e in reach.undo] == ["command 4", "command 3", "command 2"]
    for _ in range(3):
        history.undo(work)
    with pytest.raises(Exception, match="nothing to undo"):
        history.undo(work)
    assert (work / "a").read_text() == "1"


def test_history_hides_itself_from_git(run_cli: Cli, project: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    regen(run_cli, "--optimizer", "sgd")
    shown = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ".lightgen/state.json" in shown
    assert "history" not in shown


def test_json_names_the_command_and_its_files(run_cli: Cli, project: Path) -> None:
    regen(run_cli, "--optimizer", "sgd")
    for verb in ("undo", "redo"):
        report = json.loads(run_cli(verb, "--json").out)
        assert report["command"] == verb
        assert report["of"] == "lightgen regen optimizer --no-verify --optimizer sgd"
        assert MODULE in report["files"]


# ---- what lies in the way ----


def test_modes_survive(run_cli: Cli, project: Path) -> None:
    mask = os.umask(0o077)
    try:
        (project / MODULE).chmod(0o755)
        (project / ".lightgen/state.json").chmod(0o664)
        for command in (["undo"], ["redo"]):
            regen(run_cli, "--optimizer", "sgd")
            run_cli(*command)
            assert (project / MODULE).stat().st_mode & 0o777 == 0o755
            state = project / ".lightgen/state.json"
            assert state.stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(mask)


@pytest.mark.parametrize("command", ["regen", "undo"])
def test_link_is_neither_cut_nor_followed(
    command: str, run_cli: Cli, project: Path, work: Path
) -> None:
    if command == "undo":
        regen(run_cli, "--optimizer", "sgd")
    (project / MODULE).rename(work / "module.py")
    (project / MODULE).symlink_to(work / "module.py")
    before = snapshot(work)
    arguments = [*REGEN, "--optimizer", "adam"] if command == "regen" else ["undo"]
    result = run_cli(*arguments)
    assert result.code == 3
    assert f"`{MODULE}` is a link" in result.err
    assert str(work / "module.py") in result.err
    assert snapshot(work) == before


def test_linked_folder_is_not_written_through(
    run_cli: Cli, project: Path, work: Path
) -> None:
    (project / "src").rename(work / "sources")
    (project / "src").symlink_to(work / "sources")
    before = snapshot(work)
    assert run_cli(*REGEN, "--optimizer", "sgd").code == 3
    assert snapshot(work) == before


def test_edit_while_a_command_runs_is_not_overwritten(work: Path) -> None:
    put_files(work, {"a.txt": "as the user saved it meanwhile"})
    before = snapshot(work)
    with pytest.raises(ConflictError, match=r"`a\.txt` changed while the command ran"):
        write_command(work, "x", {"a.txt": TreeFile(b"new")}, {"a.txt": b"as read"})
    assert snapshot(work) == before


def test_edit_while_the_new_block_is_tried_is_not_overwritten(
    run_cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit_meanwhile(*_: object) -> None:
        edit(project / MODULE, '"train_loss"', '"loss"')

    monkeypatch.setattr("lightgen.commands.regen._verify", edit_meanwhile)
    before = contents(project)
    result = run_cli("regen", "optimizer", "--optimizer", "sgd")
    assert result.code == 3
    assert f"`{MODULE}` changed while the command ran" in result.err
    edit(project / MODULE, '"loss"', '"train_loss"')
    assert contents(project) == before


def test_folder_that_may_not_be_written_to_is_named(
    run_cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == ".lightgen-journal":
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    before = snapshot(project)
    result = run_cli(*REGEN, "--optimizer", "sgd")
    assert result.code == 1
    assert "could not be written: Permission denied" in result.err
    assert snapshot(project) == before


def test_nothing_to_do_leaves_records_as_somebody_laid_them_out(
    run_cli: Cli, project: Path
) -> None:
    path = project / ".lightgen/state.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    before = snapshot(project)
    assert "Nothing to do" in run_cli(*REGEN).out
    assert snapshot(project) == before
    regen(run_cli, "--optimizer", "sgd")
    assert run_cli("undo").code == 0
    assert contents(project) == before


def test_commands_at_once_all_count_or_are_refused(project: Path, run_cli: Cli) -> None:
    options = [["--lr", f"0.{number}"] for number in range(1, 5)]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "lightgen", *REGEN, *each],
            cwd=project,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in options
    ]
    errors = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    assert set(codes) <= {0, 3}, errors
    assert not any("Traceback" in error for error in errors)
    undone = 0
    while run_cli("undo").code == 0:
        undone += 1
    assert undone == codes.count(0) > 0


# ---- new over a project ----


def test_new_with_force_over_a_project_can_be_undone(
    run_cli: Cli, project: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regen(run_cli, "--optimizer", "sgd")
    edit(project / "README.md", "# mymodel", "# My own words")
    (project / "tests/test_shapes.py").unlink()
    before = contents(project)
    monkeypatch.chdir(work)
    command = ["new", "mymodel", "--template", "tabular", "--defaults", "--force"]
    assert run_cli(*command).code == 0
    monkeypatch.chdir(project)
    report = json.loads(run_cli("status", "--json").out)
    assert {each["status"] for each in report["files"]} == {"pristine"}
    assert report["undo"][0].startswith("lightgen new mymodel --template tabular")
    after = contents(project)
    assert run_cli("undo").code == 0
    assert contents(project) == before
    assert run_cli("redo").code == 0
    assert contents(project) == after
    assert run_cli("undo").code == 0
    assert run_cli("undo").code == 0


def test_new_project_has_nothing_to_undo(run_cli: Cli, project: Path) -> None:
    assert not (project / ".lightgen/history").exists()
    result = run_cli("undo")
    assert result.code == 2
    assert "nothing to undo" in result.err
