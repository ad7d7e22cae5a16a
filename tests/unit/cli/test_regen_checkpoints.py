"""`lightgen regen optimizer` says which checkpoints a fit can still go on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli


@pytest.fixture
def project(run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A generated project, trained by plain Adam without a schedule."""
    options = ("--optimizer", "adam", "--schedule", "none", "--no-git")
    assert run_cli("new", "mymodel", "--defaults", *options).code == 0
    monkeypatch.chdir(work / "mymodel")
    put_manifest(work / "mymodel", 1, entry("Adam"), entry("Adam"))
    return work / "mymodel"


def entry(kind: str | None, groups: int = 1, *schedulers: str) -> dict[str, Any]:
    return {
        "weights_only": False,
        "optimizers": [{"class": kind, "groups": groups}],
        "schedulers": list(schedulers),
    }


def put_manifest(project: Path, run: int, *entries: dict[str, Any]) -> None:
    path = project / f"runs/{run}/checkpoints/manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {f"step={n}.ckpt": each for n, each in enumerate(entries)}
    path.write_text(json.dumps({"format": 1, "checkpoints": named}))


def said(run_cli: Cli, *options: str) -> str:
    return run_cli("regen", "optimizer", "--no-verify", "--diff", *options).err


def test_other_settings_leave_all_resumable(run_cli: Cli, project: Path) -> None:
    assert said(run_cli, "--lr", "0.5") == "2 checkpoints (runs/1) stay resumable\n"


def test_other_optimizer_starts_anew(run_cli: Cli, project: Path) -> None:
    put_manifest(project, 2, entry("AdamW"))
    assert said(run_cli, "--optimizer", "adamw").splitlines() == [
        "1 checkpoint (runs/2) stays resumable",
        "2 checkpoints (runs/1) resume with weights and counters only: the optimizer "
        "changes from Adam to AdamW",
    ]


def test_other_schedule_is_named(run_cli: Cli, project: Path) -> None:
    assert said(run_cli, "--schedule", "warmup:5% > cosine") == (
        "2 checkpoints (runs/1) stay resumable: the schedule changes from none to "
        "SequentialLR\n"
    )


def test_other_groups_cannot_be_resumed(run_cli: Cli, project: Path) -> None:
    options = ("--optimizer", "adam:weight_decay=0.1", "--no-decay", "bias")
    assert "cannot be resumed" in said(run_cli, *options)
    assert "the parameter groups change" in said(run_cli, *options)


def test_groups_that_stay_are_no_change(run_cli: Cli, project: Path) -> None:
    options = ("--optimizer", "adam:weight_decay=0.1", "--no-decay", "bias")
    assert run_cli("regen", "optimizer", "--no-verify", *options).code == 0
    put_manifest(project, 1, entry("Adam", 2))
    assert said(run_cli, "--lr", "0.5") == "1 checkpoint (runs/1) stays resumable\n"


def test_several_optimizers_behind_one(run_cli: Cli, project: Path) -> None:
    put_manifest(project, 1, entry("CombinedOptimizer(Muon, AdamW)", 2))
    assert "(runs/1) stays resumable" in said(run_cli, "--recipe", "muon-adamw")


@pytest.mark.parametrize("text", ["", "[]", '{"checkpoints": {"a": 1}}', "{}"])
def test_manifest_that_cannot_be_read_says_nothing(
    text: str, run_cli: Cli, project: Path
) -> None:
    (project / "runs/1/checkpoints/manifest.json").write_text(text)
    assert said(run_cli, "--lr", "0.5") == ""


def test_what_trained_a_checkpoint_may_be_unknown(run_cli: Cli, project: Path) -> None:
    put_manifest(project, 1, entry(None), {**entry("Adam"), "weights_only": True})
    assert said(run_cli, "--lr", "0.5") == ""


def test_nothing_to_do_says_nothing(run_cli: Cli, project: Path) -> None:
    assert said(run_cli) == ""


def test_json_lists_each_checkpoint(run_cli: Cli, project: Path) -> None:
    result = run_cli(
        "regen", "optimizer", "--no-verify", "--json", "--optimizer", "sgd"
    )
    assert result.err == ""
    assert json.loads(result.out)["checkpoints"][0] == {
        "path": "runs/1/checkpoints/step=0.ckpt",
        "resumes": "without optimizer",
        "why": "the optimizer changes from Adam to SGD",
    }


def test_check_says_it_too(run_cli: Cli, project: Path) -> None:
    result = run_cli("regen", "optimizer", "--check", "--lr", "0.5")
    assert result.code == 6
    assert result.err.startswith("2 checkpoints (runs/1) stay resumable\n")
