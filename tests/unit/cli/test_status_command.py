"""`lightgen status`: what became of every generated file and block."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Cli, environment, put_files, snapshot

from lightgen.project.tree import sha256

MODULE = "src/mymodel/module.py"
DATA = "src/mymodel/data.py"
BLOCK = "DigitsModule.configure_optimizers"
REGEN = ["regen", "optimizer", "--no-verify"]

Statuses = dict[str, str]


def statuses(run_cli: Cli) -> Statuses:
    """Every status that is not `pristine`, by path or `path block`."""
    result = run_cli("status", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    found = {
        f"{each['path']} {each.get('block', '')}".strip(): each["status"]
        for each in (*report["files"], *report["blocks"])
    }
    return {name: status for name, status in found.items() if status != "pristine"}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def test_new_project_is_pristine(run_cli: Cli, project: Path) -> None:
    assert statuses(run_cli) == {}
    out = run_cli("status").out
    assert out == (
        "mymodel, from the template vision 1, by lightgen 0.1.0\n\n"
        "Pristine: 14 of 14 files, 1 of 1 block.\n"
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "sgd"],
        ["--recipe", "muon-adamw"],  # needs an import, too
        ["--schedule", "none", "--no-decay", "bias,norm"],
    ],
)
def test_block_that_was_regenerated_is_no_edit(
    options: list[str], run_cli: Cli, project: Path
) -> None:
    assert run_cli(*REGEN, *options).code == 0
    assert statuses(run_cli) == {}
    assert run_cli(*REGEN, "--recipe", "adamw-cosine").code == 0
    assert statuses(run_cli) == {}
    assert run_cli("undo").code == 0
    assert statuses(run_cli) == {}


def test_edit_in_the_block_is_the_block_s_alone(run_cli: Cli, project: Path) -> None:
    edit(project / MODULE, "lr=self.hparams.lr,", "lr=0.5,")
    assert statuses(run_cli) == {f"{MODULE} {BLOCK}": "edited"}
    assert run_cli(*REGEN, "--schedule", "none").code == 0
    assert statuses(run_cli) == {f"{MODULE} {BLOCK}": "edited"}


def test_edit_outside_of_the_block_is_the_file_s_alone(
    run_cli: Cli, project: Path
) -> None:
    assert run_cli(*REGEN, "--optimizer", "sgd").code == 0
    edit(project / MODULE, '"train_loss"', '"loss"')
    assert statuses(run_cli) == {MODULE: "edited"}
    assert run_cli(*REGEN, "--optimizer", "adam").code == 0
    assert statuses(run_cli) == {MODULE: "edited"}


LAYOUTS = {
    "blank lines": (DATA, lambda text: text.replace("\n\n\n", "\n\n\n\n")),
    "spaces in a docstring": (DATA, lambda text: text.replace('."""', '.  """')),
    "line ends": (DATA, lambda text: text.replace("\n", "\r\n")),
    "quotes": (MODULE, lambda text: text.replace('"', "'").replace("'''", '"""')),
    "no newline at the end": ("README.md", lambda text: text.rstrip("\n")),
    "spaces at the end": ("config.yaml", lambda text: text.replace("\n", "  \n")),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_layout_is_told_from_an_edit(case: str, run_cli: Cli, project: Path) -> None:
    path, change = LAYOUTS[case]
    text = (project / path).read_text()
    assert change(text) != text
    (project / path).write_text(change(text), newline="")
    found = statuses(run_cli)
    assert found.pop(f"{MODULE} {BLOCK}", "formatted") == "formatted"
    assert found == {path: "formatted"}


EDITS = {
    "code": (DATA, lambda text: text.replace("return", "yield", 1)),
    "comment": (DATA, lambda text: f"{text}# mine\n"),
    "docstring": (DATA, lambda text: text.replace('"""', '"""My ', 1)),
    "indentation that counts": ("config.yaml", lambda text: text.replace("  ", "   ")),
    "no Python any more": (DATA, lambda text: f"{text}def f(:\n"),
    "bytes that are no text": (DATA, lambda text: text + "\udcff"),
}


@pytest.mark.parametrize("case", EDITS)
def test_edit_is_told_from_layout(case: str, run_cli: Cli, project: Path) -> None:
    path, change = EDITS[case]
    text = (project / path).read_text()
    assert change(text) != text
    (project / path).write_bytes(change(text).encode(errors="surrogateescape"))
    assert statuses(run_cli) == {path: "edited"}


def test_what_is_gone_is_deleted(run_cli: Cli, project: Path) -> None:
    (project / DATA).unlink()
    text = (project / MODULE).read_text()
    head, _, rest = text.partition("    def configure_optimizers")
    (project / MODULE).write_text(head + rest[rest.index("    # ---- Shared") :])
    assert statuses(run_cli) == {
        DATA: "deleted",
        MODULE: "formatted",  # a blank line more than there should be without it
        f"{MODULE} {BLOCK}": "deleted",
    }
    (project / MODULE).unlink()
    found = statuses(run_cli)
    assert found[MODULE] == found[f"{MODULE} {BLOCK}"] == "deleted"


CONFLICTS = {
    "sidecar": {"config.yaml.lightgen-new": "lr: 1\n"},
    "old text": {"config.yaml.before-lightgen": "lr: 1\n"},
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_file_with_another_version_beside_it_conflicts(
    case: str, run_cli: Cli, project: Path
) -> None:
    put_files(project, CONFLICTS[case])
    assert statuses(run_cli) == {"config.yaml": "conflicting"}
    (name,) = CONFLICTS[case]
    assert f"`{name}` waits to be merged" in run_cli("status").out


def test_sidecar_of_regen_makes_its_file_conflict(run_cli: Cli, project: Path) -> None:
    edit(project / MODULE, "lr=self.hparams.lr,", "lr=0.5,")
    assert run_cli(*REGEN, "--lr", "0.1", "--on-conflict", "sidecar").code == 0
    assert statuses(run_cli) == {
        MODULE: "conflicting",
        f"{MODULE} {BLOCK}": "edited",
    }
    assert run_cli("undo").code == 0
    assert statuses(run_cli) == {f"{MODULE} {BLOCK}": "edited"}


def test_sidecar_beside_a_file_of_the_user_s_own_is_the_block_s(
    run_cli: Cli, project: Path
) -> None:
    path = project / ".lightgen/state.json"
    state = json.loads(path.read_text())
    del state["files"][MODULE]
    path.write_text(json.dumps(state))
    assert statuses(run_cli) == {}
    put_files(project, {f"{MODULE}.lightgen-new": ""})
    assert statuses(run_cli) == {f"{MODULE} {BLOCK}": "conflicting"}


def test_edit_of_a_file_whose_base_does_not_fit_conflicts(
    run_cli: Cli, project: Path
) -> None:
    base = project / f".lightgen/base/{DATA}.base"
    base.write_text(base.read_text() + "# not ours\n")
    assert statuses(run_cli) == {}
    (project / DATA).write_text((project / DATA).read_text() + "# mine\n")
    assert statuses(run_cli) == {DATA: "conflicting"}
    base.unlink()
    assert statuses(run_cli) == {DATA: "conflicting"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("class DigitsModule", "class Renamed", "there is no class `DigitsModule`"),
        ("import torch\n", "import torch)\n", "cannot be read as Python"),
    ],
)
def test_block_that_cannot_be_found_conflicts(
    old: str, new: str, reason: str, run_cli: Cli, project: Path
) -> None:
    edit(project / MODULE, old, new)
    assert statuses(run_cli) == {MODULE: "edited", f"{MODULE} {BLOCK}": "conflicting"}
    assert reason in run_cli("status").out


def test_folder_in_the_place_of_a_file_conflicts(run_cli: Cli, project: Path) -> None:
    (project / DATA).unlink()
    (project / DATA).mkdir()
    assert statuses(run_cli) == {DATA: "conflicting"}


def test_journal_that_cannot_be_undone_is_shown(run_cli: Cli, project: Path) -> None:
    put_files(project, {".lightgen-journal/undo.json": "{"})
    before = snapshot(project)
    result = run_cli("status")
    assert result.code == 0
    assert "the journal of an interrupted write cannot be read" in result.out
    assert "lightgen doctor" in result.out
    assert snapshot(project) == before


def test_running_write_is_shown_with_its_files(run_cli: Cli, project: Path) -> None:
    change = {"path": DATA, "new": "0", "replaces": True}
    undo = json.dumps({"changes": [change], "folders": []})
    journal = put_files(project / ".lightgen-journal", {"undo.json": undo})
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys\n"
            "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
            "print('held', flush=True)\nsys.stdin.read()",
            str(journal),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert statuses(run_cli) == {DATA: "conflicting"}
        assert "another lightgen is writing here" in run_cli("status").out
        holder.communicate()


def test_interrupted_write_is_undone_first(run_cli: Cli, project: Path) -> None:
    text = (project / DATA).read_text()
    (project / DATA).write_text("")
    change = {"path": DATA, "new": sha256(b""), "replaces": True}
    undo = json.dumps({"changes": [change], "folders": []})
    put_files(project / ".lightgen-journal", {"undo.json": undo, f"old/{DATA}": text})
    assert statuses(run_cli) == {}
    assert (project / DATA).read_text() == text


def test_table_lists_what_counts_first_and_counts_the_rest(
    run_cli: Cli, project: Path
) -> None:
    edit(project / MODULE, "lr=self.hparams.lr,", "lr=0.5,")
    (project / "README.md").unlink()
    assert run_cli(*REGEN, "--schedule", "none").code == 0
    assert run_cli("status").out == (
        "mymodel, from the template vision 1, by lightgen 0.1.0\n\n"
        "  deleted      README.md\n"
        f"  edited       {MODULE}  {BLOCK}\n\n"
        "Pristine: 13 of 14 files, 0 of 1 block.\n"
        "lightgen undo: lightgen regen optimizer --no-verify --schedule none\n"
    )
    shown = run_cli("status", "--all").out
    assert "  pristine     config.yaml\n" in shown


def test_status_writes_nothing_and_works_from_below(
    run_cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(project)
    monkeypatch.chdir(project / "src/mymodel")
    assert "Pristine: 14 of 14" in run_cli("status").out
    assert snapshot(project) == before


def test_status_outside_of_a_project_says_so(run_cli: Cli, work: Path) -> None:
    result = run_cli("status")
    assert result.code == 2
    assert "not inside a project" in result.err


def test_project_without_blocks_has_none_to_count(run_cli: Cli, project: Path) -> None:
    path = project / ".lightgen/state.json"
    state = json.loads(path.read_text())
    state["blocks"] = {}
    path.write_text(json.dumps(state))
    assert run_cli("status").out.endswith("Pristine: 14 of 14 files.\n")


def test_status_imports_nothing_heavy(project: Path) -> None:
    code = (
        "import sys; from lightgen.cli import app\n"
        "app(['status'], standalone_mode=False)\n"
        "print([m for m in ('torch', 'copier', 'jinja2', 'black') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("[]\n")
