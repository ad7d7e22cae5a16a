"""`lightgen lr` and `lightgen optimizers`: what they print, and what they refuse."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli

from lightgen.blocks import probe
from lightgen.blocks.probe import Probed
from lightgen.commands import adopt, lr
from lightgen.project.history import write_command
from lightgen.project.state import STATE_PATH
from lightgen.project.tree import TreeFile


@pytest.fixture
def project(run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert run_cli("new", "mymodel", "--defaults", "--no-git").code == 0
    monkeypatch.chdir(work / "mymodel")
    return work / "mymodel"


def curve(*rates: float) -> Probed:
    group = {"name": None, "lr": rates[0], "tensors": 3} if rates else {}
    return Probed(
        optimizers=[{"class": "SGD", "groups": [group] if rates else []}],
        unoptimized=[],
        shared=[],
        schedules=[],
        total_steps=len(rates),
        steps_per_epoch=1,
        curve=[(step, [rate]) for step, rate in enumerate(rates)],
        step=None,
    )


def answer(monkeypatch: pytest.MonkeyPatch, *found: Probed) -> None:
    """Have the project's program answer so, one time after the other."""
    answers = iter(found)
    monkeypatch.setattr(lr, "probe", lambda *args, **kwargs: next(answers))


@pytest.mark.parametrize(("other", "code"), [(0.1, 0), (0.2, 6)])
def test_json_is_one_object_beside_a_comparison(
    other: float,
    code: int,
    run_cli: Cli,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch, curve(0.1, 0.1), curve(0.1, other))
    result = run_cli("lr", "--json", "--against", "cosine")
    assert result.code == code, result.err
    assert json.loads(result.out)["curve"] == [[0, [0.1]], [1, [0.1]]]
    assert ("in 1 steps, first in step 1: 0.1, not 0.2" in result.err) == (code == 6)


def test_run_without_a_step_has_no_curve(
    run_cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, curve())
    result = run_cli("lr")
    assert result.code == 2
    assert "no optimizer step" in result.err


def test_missing_matplotlib_is_said_before_the_run(
    run_cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(lr.importlib, "import_module", missing)
    answer(monkeypatch)
    result = run_cli("lr", "--png", "curve.png")
    assert result.code == 2
    assert "lightgen[plot]" in result.err


@pytest.mark.parametrize(
    ("code", "said", "exit_code", "parts"),
    [
        (2, "error: unknown option `--bogus`", 2, ["unknown option `--bogus`"]),
        (1, "ValueError: no", 5, ["the project's code fails: ValueError: no"]),
        (0, "", 5, ["says nothing of its optimizers", "ProjectCLI"]),
    ],
)
def test_failure_of_the_program_is_told_as_what_it_is(
    code: int,
    said: str,
    exit_code: int,
    parts: list[str],
    run_cli: Cli,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = subprocess.CompletedProcess([], code, stdout="", stderr=said)
    monkeypatch.setattr(probe.subprocess, "run", lambda *args, **kwargs: done)
    result = run_cli("lr")
    assert result.code == exit_code
    for part in parts:
        assert part in result.err
    assert "--no-verify" not in result.err


@pytest.mark.parametrize(
    ("name", "first"),
    [("exp", "exponential:"), ("LinearLR", "linear:"), ("AdamW", "adamw:")],
)
def test_optimizers_knows_the_names_that_options_know(
    name: str, first: str, run_cli: Cli
) -> None:
    assert run_cli("optimizers", name).out.startswith(first)


def test_recipe_and_defaults_are_shown_as_they_are_typed(run_cli: Cli) -> None:
    recipe = run_cli("optimizers", "muon-adamw").out
    assert "  --optimizer 'muon:lr=0.02@ndim==2,!type:Embedding'\n" in recipe
    assert "  --optimizer adamw:lr=hparams.lr\n" in recipe
    assert "default 0.9:0.999\n" in run_cli("optimizers", "adam").out


def test_adopt_does_not_write_over_what_another_command_recorded(
    run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "net.py").write_text(
        "import lightgen_runtime as L\nimport torch\n\n\n"
        "class Net(L.LightningModule):\n"
        "    def configure_optimizers(self):\n"
        "        return torch.optim.Adam(self.parameters(), lr=0.1)\n"
    )
    taken = adopt.adopt

    def beside(*args: Any, **kwargs: Any) -> Any:
        write_command(work, "another", {STATE_PATH: TreeFile(b"{}")})
        return taken(*args, **kwargs)

    monkeypatch.setattr(adopt, "adopt", beside)
    result = run_cli("adopt", "net.py")
    assert result.code == 3, result.err
    assert "changed while the command ran" in result.err
    assert (work / STATE_PATH).read_bytes() == b"{}"


def test_program_that_would_train_by_itself_is_not_let(
    run_cli: Cli, project: Path
) -> None:
    main = project / "src" / "mymodel" / "__main__.py"
    main.write_text(main.read_text().replace("ProjectCLI", "LightningCLI"))
    result = run_cli("lr")
    assert result.code == 5
    assert "a program that starts `lightgen_runtime.cli.ProjectCLI`" in result.err
    assert not list(project.rglob("*.ckpt"))
