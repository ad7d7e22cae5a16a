"""`lightgen doctor`: whether the installation and the project are sound."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, environment, put_files, snapshot

from lightgen.commands import doctor
from lightgen.optim import drift
from lightgen.optim.arguments import REQUIRED
from lightgen.optim.catalogue import OPTIMIZERS, SCHEDULERS
from lightgen.optim.drift import Installed, Signature, read_installed

MODULE = "src/mymodel/module.py"
STATE = ".lightgen/state.json"

Findings = dict[str, list[dict[str, str]]]


def as_catalogued() -> dict[str, Signature]:
    """The signatures that the catalogue describes."""
    return {
        entry.path: {
            a.name: {} if a.default == REQUIRED else {"default": jsonable(a.default)}
            for a in entry.arguments
        }
        for entry in (*OPTIMIZERS.values(), *SCHEDULERS.values())
    }


def jsonable(value: object) -> Any:
    return json.loads(json.dumps(value))


@pytest.fixture(autouse=True)
def torch(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Signature]:
    """Stands for the installed torch, whose import takes seconds."""
    classes = as_catalogued()
    installed = Installed("2.13.0", classes)
    monkeypatch.setattr(doctor, "read_installed", lambda: installed)
    return classes


def findings(run_cli: Cli, *, sound: bool) -> Findings:
    """What doctor finds beyond what is in order, by check."""
    result = run_cli("doctor", "--json")
    report = json.loads(result.out)
    assert report["sound"] is sound
    assert result.code == (0 if sound else 5), result.err
    assert ("problem" in result.err) is not sound
    found: Findings = {}
    for each in report["findings"]:
        if each["level"] == "ok":
            assert not each["todo"]
        else:
            assert each["todo"] or each["check"] == "catalogue"
            found.setdefault(each["check"], []).append(each)
    return found


def test_new_project_is_sound(run_cli: Cli, project: Path) -> None:
    before = snapshot(project)
    assert findings(run_cli, sound=True) == {}
    assert snapshot(project) == before
    out = run_cli("doctor").out
    assert "ok       torch: 2.13.0\n" in out
    assert f"ok       block: {MODULE}, DigitsModule.configure_optimizers" in out
    assert "problem" not in out


def test_project_with_a_history_is_sound(run_cli: Cli, project: Path) -> None:
    for recipe in ("muon-adamw", "adamw-cosine"):
        command = ["regen", "optimizer", "--recipe", recipe, "--no-verify"]
        assert run_cli(*command).code == 0
    run_cli("undo")
    assert findings(run_cli, sound=True) == {}
    assert "history: 1 to undo, 1 to redo" in run_cli("doctor").out


def test_outside_of_a_project_the_installation_is_checked(run_cli: Cli) -> None:
    (note,) = findings(run_cli, sound=True)["project"]
    assert note["level"] == "note"
    assert "lightgen new" in note["todo"]


# ---- the installation ----


def test_installed_torch_agrees_with_the_catalogue() -> None:
    installed = read_installed()
    assert installed is not None
    assert installed.version.startswith(importlib.metadata.version("torch"))
    assert len(installed.classes) > 25
    known = [d for d in drift.drift(installed.classes) if d.breaks]
    assert known == []


def without(signature: Signature, *names: str) -> Signature:
    return {name: value for name, value in signature.items() if name not in names}


DRIFTS: dict[str, tuple[str, Any, bool, str]] = {
    "no class": ("Muon", None, False, "Muon: torch has it since 2.9"),
    "no argument": (
        "AdamW",
        lambda s: without(s, "fused"),
        False,
        "AdamW.fused: the catalogue has it, this torch not",
    ),
    "other default": (
        "SGD",
        lambda s: {**s, "lr": {"default": 0.5}},
        True,
        "SGD.lr: the default is 0.5 in torch, 0.001 in the catalogue",
    ),
    "no default any more": (
        "SGD",
        lambda s: {**s, "lr": {}},
        False,
        "SGD.lr: the default is 'required' in torch",
    ),
    "new argument": (
        "AdamW",
        lambda s: {**s, "cautious": {"default": False}},
        True,
        "AdamW.cautious: torch has it, the catalogue not",
    ),
    "new argument without default": (
        "AdamW",
        lambda s: {**s, "cautious": {}},
        False,
        "AdamW.cautious: torch has it, the catalogue not",
    ),
    "new class": ("Lion", lambda s: {}, True, "Lion: torch has it, the catalogue not"),
}


@pytest.mark.parametrize("case", DRIFTS)
def test_drift_is_reported_by_argument(
    case: str, torch: dict[str, Signature], run_cli: Cli
) -> None:
    name, change, sound, message = DRIFTS[case]
    path = f"torch.optim.{name}"
    if change is None:
        del torch[path]
    else:
        torch[path] = change(torch.get(path, {}))
    (finding,) = findings(run_cli, sound=sound)["catalogue"]
    assert message in finding["text"]
    assert finding["level"] == ("note" if sound else "problem")


def test_missing_torch_is_said(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "read_installed", lambda: None)
    (finding,) = findings(run_cli, sound=False)["torch"]
    assert "not installed" in finding["text"]


FAKES = {
    "missing": ('raise ModuleNotFoundError(name="torch")', None),
    "broken": ('raise OSError("libcudart.so is missing")', "libcudart.so is missing"),
    "half": ("import nothing_of_the_kind", "nothing_of_the_kind"),
}


@pytest.mark.parametrize("case", FAKES)
def test_torch_that_cannot_be_imported_is_asked_all_the_same(
    case: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, message = FAKES[case]
    put_files(work / "site", {"torch/__init__.py": code})
    monkeypatch.setenv("PYTHONPATH", str(work / "site"))
    if message is None:
        assert read_installed() is None
    else:
        with pytest.raises(ImportError, match=message):
            read_installed()


def test_files_in_the_folder_are_not_run(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_files(work, {"json.py": "raise SystemExit('mine')"})
    fake = {"torch/__init__.py": 'raise ModuleNotFoundError(name="torch")'}
    put_files(work / "site", fake)
    monkeypatch.setenv("PYTHONPATH", str(work / "site"))
    assert read_installed() is None


def test_dependency_that_is_too_old_or_missing_is_named(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def reported(name: str) -> str:
        if name == "black":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "copier" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", reported)
    (finding,) = findings(run_cli, sound=False)["dependencies"]
    assert "black is missing" in finding["text"]
    assert "copier is 1.0, not >=" in finding["text"]
    assert "torch" not in finding["text"]


# ---- the project ----


def damaged_state(project: Path) -> None:
    (project / STATE).write_text("{")


def lost_base(project: Path) -> None:
    (project / f".lightgen/base/{MODULE}.base").unlink()


def changed_base(project: Path) -> None:
    (project / f".lightgen/base/{MODULE}.base").write_text("mine")


def damaged_history(project: Path) -> None:
    put_files(project, {".lightgen/history/position.json": "["})


def damaged_journal(project: Path) -> None:
    put_files(project, {".lightgen-journal/undo.json": "["})


def renamed_class(project: Path) -> None:
    path = project / MODULE
    path.write_text(path.read_text().replace("class DigitsModule", "class Other"))


def damaged_block(project: Path) -> None:
    state = json.loads((project / STATE).read_text())
    (block,) = state["blocks"].values()
    del block["base"]
    (project / STATE).write_text(json.dumps(state))


PROBLEMS = [
    (damaged_state, "records", "restore"),
    (damaged_block, "records", "adopt"),
    (lost_base, "base", "git checkout -- .lightgen/base/src"),
    (changed_base, "base", "git checkout -- .lightgen/base/src"),
    (damaged_history, "history", "remove `.lightgen/history`"),
    (damaged_journal, "journal", ".lightgen-journal/old"),
    (renamed_class, "block", "lightgen adopt PATH:CLASS"),
]


@pytest.mark.parametrize(
    ("damage", "check", "todo"), PROBLEMS, ids=[p[0].__name__ for p in PROBLEMS]
)
def test_damage_is_found_with_its_remedy(
    damage: Any, check: str, todo: str, run_cli: Cli, project: Path
) -> None:
    damage(project)
    before = snapshot(project)
    found = findings(run_cli, sound=False)
    assert list(found) == [check]
    (finding,) = found[check]
    assert finding["level"] == "problem"
    assert todo in finding["todo"]
    assert snapshot(project) == before
    result = run_cli("doctor")
    assert result.code == 5
    assert f"problem  {check}: " in result.out
    assert "error: 1 problem in " in result.err


@pytest.mark.parametrize(
    ("version", "text"), [("99.0", "newer than this one"), ("x", "which is no version")]
)
def test_project_of_another_lightgen_is_noted(
    version: str, text: str, run_cli: Cli, project: Path
) -> None:
    path = project / STATE
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"generator": version}))
    (note,) = findings(run_cli, sound=True)["records"]
    assert text in note["text"]


def test_what_only_waits_for_the_user_is_a_note(run_cli: Cli, project: Path) -> None:
    put_files(project, {f"{MODULE}.lightgen-new": "", "README.md.before-lightgen": ""})
    path = project / MODULE
    text = path.read_text()
    path.write_text(text.replace("def configure_optimizers", "def something"))
    found = findings(run_cli, sound=True)
    assert [each["text"] for each in found["leftover"]] == [
        "README.md.before-lightgen waits to be merged",
        f"{MODULE}.lightgen-new waits to be merged",
    ]
    assert "--restore" in found["block"][0]["todo"]


def test_doctor_imports_no_torch_itself(project: Path) -> None:
    code = (
        "import sys; from lightgen.cli import app\n"
        "app(['doctor'], standalone_mode=False)\n"
        "print([m for m in ('torch', 'lightgen_runtime', 'copier') if m in sys.modules])"
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
    assert "ok       catalogue: " in done.stdout
