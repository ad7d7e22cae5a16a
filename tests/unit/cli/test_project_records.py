"""Records of a project that are damaged, foreign or too new."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, put_files, snapshot

REGEN = ["regen", "optimizer", "--optimizer", "sgd", "--no-verify"]
STATE = ".lightgen/state.json"
HISTORY = ".lightgen/history"


def change_state(project: Path, change: Callable[[dict[str, Any]], object]) -> None:
    state = json.loads((project / STATE).read_text())
    change(state)
    (project / STATE).write_text(json.dumps(state))


def only_block(state: dict[str, Any]) -> dict[str, Any]:
    (block,) = state["blocks"].values()
    found: dict[str, Any] = block
    return found


STATES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer layout": (lambda s: s.update(schema=2), "layout 2"),
    "unknown field": (lambda s: s.update(extra=1), "extra"),
    "no files": (lambda s: s.pop("files"), "files"),
    "files as a list": (lambda s: s.update(files=[]), "`files` is no object"),
    "blocks as a list": (lambda s: s.update(blocks=[]), "`blocks` is no object"),
    "block as a text": (lambda s: s.update(blocks={"a": "b"}), "the block `a`"),
    "file outside": (lambda s: s["files"].update({"../x": ""}), "'../x' leads out"),
    "block outside": (lambda s: only_block(s).update(file="/etc/x"), "'/etc/x' leads"),
}


@pytest.mark.parametrize("command", [REGEN, ["status"]], ids=["regen", "status"])
@pytest.mark.parametrize("case", STATES)
def test_state_that_cannot_be_used_is_named(
    case: str, command: list[str], run_cli: Cli, project: Path
) -> None:
    change, message = STATES[case]
    change_state(project, change)
    before = snapshot(project)
    result = run_cli(*command)
    assert result.code == 2
    assert message in result.err
    assert STATE in result.err
    assert snapshot(project) == before


BLOCKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no base": lambda block: block.pop("base"),
    "base as a number": lambda block: block.update(base=3),
    "base that is no method": lambda block: block.update(base="    x = 1\n"),
    "base that is no Python": lambda block: block.update(base="    def f(:\n"),
    "imports that are none": lambda block: block.update(imports=["not python"]),
    "no spec": lambda block: block.pop("spec"),
    "spec as a text": lambda block: block.update(spec="adam"),
    "spec of an unknown optimizer": lambda block: block["spec"].update(
        optimizer=["adamv"]
    ),
}


@pytest.mark.parametrize("command", [REGEN, ["status"]], ids=["regen", "status"])
@pytest.mark.parametrize("case", BLOCKS)
def test_damaged_block_is_named(
    case: str, command: list[str], run_cli: Cli, project: Path
) -> None:
    change_state(project, lambda state: BLOCKS[case](only_block(state)))
    before = snapshot(project)
    result = run_cli(*command)
    assert result.code == 2
    assert STATE in result.err
    assert snapshot(project) == before


def test_unfinished_merge_is_named_with_its_line(run_cli: Cli, project: Path) -> None:
    text = (project / STATE).read_text()
    line = '\n  "package": "mymodel",'
    assert text.count(line) == 1
    both = f"\n<<<<<<< HEAD{line}\n======={line}\n>>>>>>> other"
    (project / STATE).write_text(text.replace(line, both))
    number = text[: text.index(line)].count("\n") + 2
    result = run_cli(*REGEN)
    assert result.code == 2
    assert "both sides of an unfinished merge" in result.err
    assert f"{STATE}:{number}" in result.err
    assert "git checkout --ours" in result.err


POSITIONS = [
    "{",
    "[]",
    "{}",
    '{"position": "x", "last": 1}',
    '{"position": 3, "last": 1}',
    '{"position": 1, "last": 1000000000000}',
]


@pytest.mark.parametrize("text", POSITIONS)
@pytest.mark.parametrize("command", [REGEN, ["undo"], ["redo"]], ids=lambda c: c[0])
def test_damaged_position_is_named(
    text: str, command: list[str], run_cli: Cli, project: Path
) -> None:
    put_files(project, {f"{HISTORY}/position.json": text})
    before = snapshot(project)
    result = run_cli(*command)
    assert result.code == 2
    assert "the history cannot be read" in result.err
    assert f"remove `{HISTORY}`" in result.err
    assert snapshot(project) == before


ENTRIES = {
    "no JSON": "{",
    "a list": "[]",
    "no command": '{"before": {}, "after": {}}',
    "other files": '{"command": "x", "before": {}, "after": {"a": null}}',
    "bad bytes": '{"command": "x", "before": {"a": "base64:!"}, "after": {"a": null}}',
    "outside": '{"command": "x", "before": {"../a": null}, "after": {"../a": null}}',
    "absolute": '{"command": "x", "before": {"/a": null}, "after": {"/a": null}}',
}


@pytest.mark.parametrize("case", ENTRIES)
def test_damaged_entry_is_named_and_never_obeyed(
    case: str, run_cli: Cli, project: Path
) -> None:
    files = {
        f"{HISTORY}/position.json": '{"position": 1, "last": 1}',
        f"{HISTORY}/000001.json": ENTRIES[case],
    }
    put_files(project, files)
    before = snapshot(project.parent)
    result = run_cli("undo")
    assert result.code == 2
    assert "000001.json" in result.err
    assert snapshot(project.parent) == before
    status = run_cli("status")
    assert status.code == 0
    assert "the history cannot be read" in status.out


def test_entry_that_is_gone_cannot_be_redone(run_cli: Cli, project: Path) -> None:
    assert run_cli(*REGEN).code == 0
    assert run_cli("undo").code == 0
    (project / f"{HISTORY}/000001.json").unlink()
    result = run_cli("redo")
    assert result.code == 2
    assert "000001.json" in result.err
