"""`lightgen adopt` as a user meets it: in a project of lightgen's, and in any folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Cli, environment, snapshot

NET = """\
import lightning as L
from torch import nn, optim


class Net(L.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.net = nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        loss = self.net(batch).mean()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        # By hand, long ago.
        opt = optim.Adam(self.parameters(), lr=self.lr)
        print("made", opt)
        return opt
"""


@pytest.fixture
def net(work: Path) -> Path:
    """A file of somebody who never heard of lightgen."""
    path = work / "net.py"
    path.write_text(NET)
    return path


def state(folder: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads(
        (folder / ".lightgen/state.json").read_text()
    )
    return record


def test_adopted_block_is_edited_only_once_somebody_edits_it(
    run_cli: Cli, net: Path
) -> None:
    def status() -> str:
        (block,) = json.loads(run_cli("status", "--json").out)["blocks"]
        return str(block["status"])

    assert run_cli("adopt", "net.py").code == 0
    assert status() == "adopted"
    assert "adopted      net.py  Net.configure_optimizers" in run_cli("status").out
    assert run_cli("regen", "optimizer").code == 0
    assert status() == "adopted"
    net.write_text(NET.replace("long ago", "today"))
    assert status() == "edited"
    net.write_text(NET.replace("nn.Linear(2, 2)", "nn.Linear(2, 3)"))
    assert status() == "adopted"
    assert run_cli("regen", "optimizer", "--lr", "0.02").code == 0
    assert status() == "edited"


def test_plain_folder_becomes_one_that_regen_works_in(
    run_cli: Cli, work: Path, net: Path
) -> None:
    result = run_cli("adopt", "net.py:Net")
    assert result.code == 0, result.err
    assert "--optimizer adam:lr=hparams.lr" in result.out
    assert net.read_text() == NET
    (record,) = state(work)["blocks"].values()  # type: ignore[attr-defined]
    assert record["spec"] == {"optimizer": ["adam:lr=hparams.lr"]}

    result = run_cli("regen", "optimizer", "--lr", "0.02")
    assert result.code == 0, result.err
    text = net.read_text()
    assert "        opt = optim.Adam(self.parameters(), lr=0.02)\n" in text
    assert "        # By hand, long ago.\n        opt = " in text

    assert run_cli("regen", "optimizer", "--schedule", "cosine").code == 0
    text = net.read_text()
    assert "        opt = optim.Adam(self.parameters(), lr=0.02)\n" in text
    assert '        print("made", opt)\n        return {\n' in text
    assert "CosineAnnealingLR(" in text

    for _ in range(3):
        assert run_cli("undo").code == 0
    assert net.read_text() == NET
    assert not (work / ".lightgen/state.json").exists()


def test_records_go_where_the_repository_begins(
    run_cli: Cli, work: Path, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "pyproject.toml").write_text("")
    (work / "models").mkdir()
    net.rename(work / "models/net.py")
    monkeypatch.chdir(work / "models")
    result = run_cli("adopt", "net.py")
    assert result.code == 0, result.err
    assert "models/net.py" in result.out
    assert list(state(work)["blocks"]) == ["optimizer models/net.py:Net"]  # type: ignore[call-overload]


def test_block_in_a_generated_project(
    run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli("new", "mymodel", "--defaults", "--no-git").code == 0
    monkeypatch.chdir(work / "mymodel")
    (work / "mymodel/src/mymodel/second.py").write_text(NET)
    result = run_cli("adopt", "src/mymodel/second.py")
    assert result.code == 0, result.err
    module = "src/mymodel/second.py:Net"
    result = run_cli("regen", "optimizer", "--module", module, "--lr", "0.3")
    assert result.code == 0, result.err
    assert "lr=0.3" in (work / "mymodel/src/mymodel/second.py").read_text()


def test_looking_writes_nothing(run_cli: Cli, work: Path, net: Path) -> None:
    before = snapshot(work)
    result = run_cli("adopt", "net.py", "--dry-run")
    assert result.code == 0
    assert "Nothing written." in result.out
    assert "--optimizer adam:lr=hparams.lr" in result.out
    assert snapshot(work) == before


def test_json_is_one_object(run_cli: Cli, work: Path, net: Path) -> None:
    text = NET.replace("lr=self.lr", "lr=RATE")
    net.write_text(text.replace("\n\nclass", "\nRATE = 0.5\n\nclass", 1))
    result = run_cli("adopt", "net.py", "--json")
    (line,) = result.out.splitlines()
    assert json.loads(line) == {
        "command": "adopt",
        "root": str(work),
        "file": "net.py",
        "class": "Net",
        "spec": {"optimizer": ["adam:lr=0.5"]},
        "options": ["--optimizer", "adam:lr=0.5"],
        "notes": [{"line": 20, "text": "`RATE` is 0.5 now"}],
        "written": [".lightgen/state.json"],
    }


def test_second_time_there_is_nothing_to_do(
    run_cli: Cli, work: Path, net: Path
) -> None:
    assert run_cli("adopt", "net.py").code == 0
    before = snapshot(work)
    result = run_cli("adopt", "net.py")
    assert result.code == 0
    assert "Nothing to do" in result.out
    assert snapshot(work) == before


def test_record_that_says_something_else_is_replaced_by_force_only(
    run_cli: Cli, work: Path, net: Path
) -> None:
    assert run_cli("adopt", "net.py").code == 0
    net.write_text(NET.replace("optim.Adam(", "optim.NAdam("))
    before = snapshot(work)
    result = run_cli("adopt", "net.py")
    assert result.code == 2
    assert "recorded already" in result.err
    assert "--force" in result.err
    assert snapshot(work) == before
    assert run_cli("adopt", "net.py", "--force").code == 0
    (record,) = state(work)["blocks"].values()  # type: ignore[attr-defined]
    assert record["spec"] == {"optimizer": ["nadam:lr=hparams.lr"]}


def test_every_line_that_options_cannot_say_is_named(
    run_cli: Cli, work: Path, net: Path
) -> None:
    net.write_text(
        NET.replace(
            "lr=self.lr)",
            "lr=self.lr * 2, betas=(0.9, self.net.beta),\n            eps=eps())",
        )
    )
    before = snapshot(work)
    result = run_cli("adopt", "net.py")
    assert result.code == 2
    assert "net.py:19: " in result.err
    assert "net.py:20: `eps()` is decided only in a run" in result.err
    assert result.err.count("instead: ") == 3
    assert snapshot(work) == before


def changed(old: str, new: str) -> str:
    assert old in NET
    return NET.replace(old, new)


SECOND = NET.replace("class Net", "class Other").partition("\n\n\n")[2]
BAD = {
    "no file": ("other.py", NET, ["other.py", "cannot be read"]),
    "a folder": (".", NET, ["cannot be read"]),
    "no such class": ("net.py:Nett", NET, ["`Nett`", "net.py:Net"]),
    "two classes": ("net.py", f"{NET}\n\n{SECOND}", ["2 LightningModules", "`Other`"]),
    "no module": ("net.py", "x = 1\n", ["no LightningModule"]),
    "no method": (
        "net.py",
        changed("def configure_optimizers", "def optimizers_of"),
        ["has no method", "lightgen regen optimizer"],
    ),
    "method twice": (
        "net.py",
        f"{NET}\n    def configure_optimizers(self): ...\n",
        ["defined twice"],
    ),
    "method under a condition": (
        "net.py",
        changed(
            "    def configure_optimizers(self):\n",
            "    if L:\n        def configure_optimizers(self): ...\n"
            "    def other(self):\n",
        ),
        ["under a condition"],
    ),
    "inherited": (
        "net.py:Child",
        f"{NET}\n\nclass Child(Net):\n    pass\n",
        ["inherits", "net.py:Net"],
    ),
    "syntax error": ("net.py", f"{NET}\ndef (:\n", ["read as Python", "net.py:23"]),
    "outside": ("/etc/passwd", NET, ["outside of the project"]),
    "two optimizers, automatic": (
        "net.py",
        changed("return opt", "return [opt, optim.SGD(self.net.parameters())]"),
        ["without parameters of its own"],
    ),
    "metric that nobody logs": (
        "net.py",
        changed(
            "return opt",
            "plateau = optim.lr_scheduler.ReduceLROnPlateau(opt)\n"
            '        config = {"scheduler": plateau, "monitor": "val"}\n'
            '        return {"optimizer": opt, "lr_scheduler": config}',
        ),
        ["never logs `val`", "`train_loss`"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_to_do_and_changes_nothing(
    case: str, run_cli: Cli, work: Path, net: Path
) -> None:
    target, text, parts = BAD[case]
    net.write_text(text)
    before = snapshot(work)
    result = run_cli("adopt", target)
    assert result.code == 2, result.err
    for part in parts:
        assert part in result.err
    assert snapshot(work) == before


def test_adopt_imports_neither_torch_nor_copier(work: Path, net: Path) -> None:
    code = (
        "import sys; from lightgen.cli import app\n"
        "app(['adopt', 'net.py'], standalone_mode=False)\n"
        "print([m for m in ('torch', 'copier', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=work,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("[]\n")
