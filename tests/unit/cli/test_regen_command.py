"""`lightgen regen optimizer`, `undo` and `redo` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Cli, environment, snapshot

from lightgen.commands import regen as regen_module

MODULE = "src/mymodel/module.py"


@pytest.fixture
def project(run_cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A generated vision project, and the folder that commands run in."""
    assert run_cli("new", "mymodel", "--defaults", "--no-git").code == 0
    monkeypatch.chdir(work / "mymodel")
    return work / "mymodel"


def regen(run_cli: Cli, *arguments: str) -> str:
    result = run_cli("regen", "optimizer", *arguments)
    assert result.code == 0, result.err
    return result.out


def block(project: Path) -> str:
    text = (project / MODULE).read_text()
    return text.partition("def configure_optimizers")[2].partition("# ---- Shared")[0]


def edit(project: Path, old: str, new: str) -> None:
    path = project / MODULE
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def contents(project: Path) -> dict[str, object]:
    """Everything but the history, which grows."""
    files = snapshot(project)
    return {p: f for p, f in files.items() if not p.startswith(".lightgen/history")}


def test_options_change_only_the_block_and_its_imports(
    run_cli: Cli, project: Path
) -> None:
    before = (project / MODULE).read_text()
    regen(run_cli, "--optimizer", "sgd", "--opt", "momentum=0.9")
    text = block(project)
    assert "torch.optim.SGD(" in text
    assert "momentum=0.9," in text
    assert "lr=self.hparams.lr," in text  # what the config decides, it still decides
    after = (project / MODULE).read_text()
    assert before.partition("def configure_optimizers")[0] == (
        after.partition("def configure_optimizers")[0]
    )
    assert before.partition("# ---- Shared")[2] == after.partition("# ---- Shared")[2]


def test_what_is_not_said_stays_as_it_was(run_cli: Cli, project: Path) -> None:
    regen(run_cli, "--schedule", "cosine:eta_min=1e-6")
    regen(run_cli, "--no-decay", "bias,norm")
    text = block(project)
    assert "eta_min=1e-6," in text
    assert 'no_decay=("bias", "norm"),' in text
    assert "fused=True," in text


def test_edits_survive_a_change_of_everything_around_them(
    run_cli: Cli, project: Path
) -> None:
    edit(
        project,
        "        optimizer = torch.optim.AdamW(\n",
        "        # Chosen after the sweep of May.\n"
        "        optimizer = torch.optim.AdamW(\n",
    )
    edit(
        project,
        "            lr=self.hparams.lr,\n",
        "            lr=self.hparams.lr,  # per 64 images\n            eps=1e-7,\n",
    )
    edit(
        project,
        "        return {\n",
        "        self.print(len(optimizer.param_groups))\n        return {\n",
    )
    out = regen(run_cli, "--schedule", "plateau", "--monitor", "val_loss")
    assert "Your edits are kept." in out
    text = block(project)
    assert "# Chosen after the sweep of May.\n        optimizer = " in text
    assert "lr=self.hparams.lr,  # per 64 images\n            eps=1e-7,\n" in text
    assert "self.print(len(optimizer.param_groups))\n" in text
    assert "ReduceLROnPlateau" in text
    assert "SequentialLR" not in text


def test_running_a_command_twice_changes_nothing_the_second_time(
    run_cli: Cli, project: Path
) -> None:
    arguments = ["--recipe", "adamw-cosine"]
    regen(run_cli, *arguments)
    before = snapshot(project)
    assert "Nothing to do" in regen(run_cli, *arguments)
    assert snapshot(project) == before


def test_conflict_names_both_values_and_writes_nothing(
    run_cli: Cli, project: Path
) -> None:
    edit(project, "            lr=self.hparams.lr,\n", "            lr=0.5,\n")
    before = snapshot(project)
    result = run_cli("regen", "optimizer", "--lr", "0.1")
    assert result.code == 3
    assert "optimizer: lr" in result.err
    assert "you:       lr=0.5" in result.err
    assert "generator: lr=0.1" in result.err
    assert f"{MODULE}:" in result.err
    assert snapshot(project) == before


@pytest.mark.parametrize(("choice", "kept"), [("ours", "0.5"), ("theirs", "0.1")])
def test_conflict_is_settled_as_told(
    choice: str, kept: str, run_cli: Cli, project: Path
) -> None:
    edit(project, "            lr=self.hparams.lr,\n", "            lr=0.5,\n")
    regen(run_cli, "--lr", "0.1", "--schedule", "none", "--on-conflict", choice)
    assert f"            lr={kept},\n" in block(project)
    assert "scheduler" not in block(project)


def test_settled_without_a_change_says_what_is_remembered(
    run_cli: Cli, project: Path
) -> None:
    edit(project, "            lr=self.hparams.lr,\n", "            lr=0.5,\n")
    before = (project / MODULE).read_bytes()
    said = run_cli(
        "regen", "optimizer", "--no-verify", "--lr", "0.1", "--on-conflict", "ours"
    )
    assert (project / MODULE).read_bytes() == before
    assert "keeps what you wrote" in said.out
    assert "The options are remembered: " in said.out


def test_sidecar_leaves_the_file_and_writes_the_new_block_beside_it(
    run_cli: Cli, project: Path
) -> None:
    edit(project, "            lr=self.hparams.lr,\n", "            lr=0.5,\n")
    before = (project / MODULE).read_bytes()
    regen(run_cli, "--lr", "0.1", "--on-conflict", "sidecar")
    assert (project / MODULE).read_bytes() == before
    assert "lr=0.1," in (project / f"{MODULE}.lightgen-new").read_text()


@pytest.mark.parametrize("flag", ["--dry-run", "--diff", "--check"])
def test_looking_writes_nothing(flag: str, run_cli: Cli, project: Path) -> None:
    before = snapshot(project)
    result = run_cli("regen", "optimizer", "--optimizer", "sgd", flag)
    assert result.code == (6 if flag == "--check" else 0)
    assert snapshot(project) == before
    assert ("+        optimizer = torch.optim.SGD(" in result.out) is (flag == "--diff")


def test_check_of_what_is_up_to_date_is_silent_success(
    run_cli: Cli, project: Path
) -> None:
    assert run_cli("regen", "optimizer", "--check").code == 0


def test_json_is_one_object_on_stdout(run_cli: Cli, project: Path) -> None:
    out = regen(run_cli, "--optimizer", "adam:lr=0.1", "--json")
    (line,) = out.splitlines()
    report = json.loads(line)
    assert report["command"] == "regen optimizer"
    assert report["file"] == MODULE
    assert report["changed"] is True
    assert report["spec"]["optimizer"] == [
        "adam:lr=0.1,weight_decay=hparams.weight_decay"
    ]
    assert set(report["written"]) == {
        MODULE,
        ".lightgen/state.json",
        f".lightgen/base/{MODULE}.base",
    }


def test_new_takes_the_same_options(run_cli: Cli, work: Path) -> None:
    options = ["--optimizer", "sgd:momentum=0.9", "--schedule", "onecycle"]
    assert run_cli("new", "other", "--defaults", "--no-git", *options).code == 0
    text = (work / "other/src/other/module.py").read_text()
    assert "torch.optim.SGD(" in text
    assert "OneCycleLR(" in text
    state = json.loads((work / "other/.lightgen/state.json").read_text())
    (record,) = state["blocks"].values()
    assert record["spec"]["schedule"] == {"": "onecycle"}


# ---- undo and redo ----


def test_undo_and_redo_restore_every_byte(run_cli: Cli, project: Path) -> None:
    states = [contents(project)]
    commands = (
        ["--optimizer", "sgd"],
        ["--schedule", "plateau", "--monitor", "val_loss"],
        ["--recipe", "adamw-cosine"],
    )
    for command in commands:
        regen(run_cli, *command)
        states.append(contents(project))
    for state in reversed(states[:-1]):
        assert run_cli("undo").code == 0
        assert contents(project) == state
    assert run_cli("undo").code == 2
    for state in states[1:]:
        assert run_cli("redo").code == 0
        assert contents(project) == state
    assert run_cli("redo").code == 2


def test_undo_does_not_take_an_edit_with_it(run_cli: Cli, project: Path) -> None:
    regen(run_cli, "--optimizer", "sgd")
    edit(project, "            lr=self.hparams.lr,\n", "            lr=0.5,\n")
    before = snapshot(project)
    result = run_cli("undo")
    assert result.code == 3
    assert f"`{MODULE}` changed since" in result.err
    assert snapshot(project) == before


def test_command_after_an_undo_replaces_what_was_undone(
    run_cli: Cli, project: Path
) -> None:
    regen(run_cli, "--optimizer", "sgd")
    run_cli("undo")
    regen(run_cli, "--optimizer", "adam")
    assert run_cli("redo").code == 2
    run_cli("undo")
    assert "torch.optim.AdamW(" in block(project)


# ---- bad input ----

BAD_OPTIONS = {
    "unknown optimizer": (["--optimizer", "adamv"], 2, ["`adamv`", "did you mean"]),
    "unknown scheduler": (
        ["--schedule", "warmup:5% > cosin"],
        2,
        ["column 13", "`cosine`"],
    ),
    "unknown argument": (["--optimizer", "sgd:momentun=1"], 2, ["`momentum`"]),
    "wrong type": (["--lr", "fast"], 2, ["'fast'", "a number at least 0"]),
    "out of range": (["--opt", "betas=0.9:1.5"], 2, ["2 numbers", "below 1"]),
    "illegal pair": (
        ["--optimizer", "adagrad", "--schedule", "onecycle"],
        2,
        ["cycle_momentum=false"],
    ),
    "plateau in a sequence": (
        ["--schedule", "warmup:5% > plateau:monitor=val_loss"],
        2,
        ["warmup:5% & plateau"],
    ),
    "plateau without a metric": (["--schedule", "plateau"], 2, ["--monitor val_loss"]),
    "metric that nobody logs": (
        ["--schedule", "plateau", "--monitor", "val_accuracy"],
        2,
        ["never logs `val_accuracy`", "`val_acc`", "`val_loss`"],
    ),
    "value the config lacks": (
        ["--opt", "betas=hparams.beta"],
        2,
        ["no argument `beta`", "`weight_decay`"],
    ),
    "two optimizers, one loss": (
        ["--optimizer", "a=adam@net", "--optimizer", "b=adam@net"],
        2,
        ['return {"a": a_loss, "b": b_loss}'],
    ),
    "matrices only": (["--optimizer", "muon"], 2, ["2 dimensions", "muon-adamw"]),
    "unreadable selector": (["--freeze", "net[0]"], 2, ["--freeze, column 1"]),
    "unknown recipe": (["--recipe", "adamw-cosin"], 2, ["did you mean `adamw-cosine`"]),
    "way to settle": (["--on-conflict", "mine"], 2, ["refuse, ours, theirs"]),
    "class": (["--module", f"{MODULE}:Digits"], 2, [f"{MODULE}:DigitsModule"]),
    "file": (["--module", "src/nothing.py"], 2, ["src/nothing.py"]),
    "outside": (["--module", "/etc/passwd"], 2, ["outside of the project"]),
    "no spec file": (["--spec", "none.yaml"], 2, ["none.yaml"]),
    "interval": (["--interval", "batch"], 2, ["--interval, column 1", "step or epoch"]),
    "mode": (
        ["--schedule", "plateau", "--monitor", "val_loss", "--mode", "low"],
        2,
        ["--mode, column 1", "min or max"],
    ),
    "steps of an epoch's schedule": (
        ["--schedule", "warmup:9st > cosine", "--interval", "epoch"],
        2,
        ["a length in steps"],
    ),
    "monitor that a schedule cannot hold": (
        ["--schedule", "plateau", "--monitor", "a,b"],
        2,
        ["--monitor, column 1"],
    ),
    "value of a schedule that the config lacks": (
        ["--schedule", "cosine:eta_min=hparams.least"],
        2,
        ["no argument `least`"],
    ),
    "layers": (["--layer-decay", "0.5", "--layers", "net[0]"], 2, ["--layers, column"]),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_option_says_what_to_do_and_changes_nothing(
    case: str, run_cli: Cli, project: Path
) -> None:
    arguments, code, parts = BAD_OPTIONS[case]
    before = snapshot(project)
    result = run_cli("regen", "optimizer", *arguments)
    assert result.code == code, result.err
    for part in parts:
        assert part in result.err
    assert snapshot(project) == before


BAD_FILES = {
    "syntax error": (lambda text: f"{text}\ndef broken(:\n", "read as Python"),
    "method deleted": (
        lambda text: text.replace("def configure_optimizers", "def something"),
        "--restore",
    ),
    "method twice": (
        lambda text: text.replace(
            "    # ---- Shared",
            "    def configure_optimizers(self):\n        ...\n\n    #",
        ),
        "defined twice",
    ),
    "method under a condition": (
        lambda text: text.replace(
            "    def configure_optimizers(self) -> dict[str, object]:\n",
            "    if True:\n        def configure_optimizers(self): ...\n\n    def other(self):\n",
        ),
        "under a condition",
    ),
    "class renamed": (
        lambda text: text.replace("class DigitsModule", "class Renamed"),
        "no class `DigitsModule`",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_file_that_cannot_be_worked_on_is_left_alone(
    case: str, run_cli: Cli, project: Path
) -> None:
    change, message = BAD_FILES[case]
    path = project / MODULE
    path.write_text(change(path.read_text()))
    before = snapshot(project)
    result = run_cli("regen", "optimizer", "--optimizer", "sgd")
    assert result.code == 2, result.err
    assert message in result.err
    assert f"{MODULE}" in result.err
    assert snapshot(project) == before


def test_restore_writes_a_deleted_block_anew(run_cli: Cli, project: Path) -> None:
    path = project / MODULE
    head, _, rest = path.read_text().partition("    def configure_optimizers")
    path.write_text(head + "    # ---- Shared" + rest.partition("    # ---- Shared")[2])
    regen(run_cli, "--restore")
    assert "torch.optim.AdamW(" in path.read_text()


def test_read_only_file_is_not_replaced(run_cli: Cli, project: Path) -> None:
    (project / MODULE).chmod(0o444)
    before = snapshot(project)
    result = run_cli("regen", "optimizer", "--optimizer", "sgd")
    assert result.code == 1
    assert "read-only" in result.err
    assert f"chmod u+w {MODULE}" in result.err
    assert snapshot(project) == before


@pytest.mark.parametrize(
    "text", ["{", '{"schema": 99}', '{"schema": 1, "blocks": 3}'], ids=repr
)
def test_damaged_state_is_named(text: str, run_cli: Cli, project: Path) -> None:
    (project / ".lightgen/state.json").write_text(text)
    result = run_cli("regen", "optimizer", "--optimizer", "sgd")
    assert result.code == 2
    assert "state.json" in result.err


def test_windows_lines_tabs_and_encoding_survive(run_cli: Cli, project: Path) -> None:
    path = project / MODULE
    text = path.read_text().replace("    ", "\t").replace("\n", "\r\n")
    text = "# -*- coding: latin-1 -*-\r\n# caf\u00e9\r\n" + text
    path.write_bytes(text.encode("latin-1"))
    regen(run_cli, "--optimizer", "sgd", "--schedule", "step:step_size=3ep")
    after = path.read_bytes().decode("latin-1")
    assert after.startswith("# -*- coding: latin-1 -*-\r\n# caf\u00e9\r\n")
    assert "\t\toptimizer = torch.optim.SGD(\r\n\t\t\tself.parameters(),\r\n" in after
    assert "\n" not in after.replace("\r\n", "")
    assert "    " not in after.partition("def configure_optimizers")[2]


def test_regen_imports_neither_torch_nor_copier(project: Path) -> None:
    code = (
        "import sys; from lightgen.cli import app\n"
        "app(['regen', 'optimizer', '--optimizer', 'sgd', '--no-verify'],"
        " standalone_mode=False)\n"
        "print([m for m in ('torch', 'copier', 'jinja2') if m in sys.modules])"
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


def test_long_import_is_wrapped_and_follows_the_block_in_any_layout(
    run_cli: Cli, project: Path
) -> None:
    recipe = ["--no-verify", "--recipe", "muon-adamw", "--no-decay", "bias,norm"]
    regen(run_cli, *recipe, "--freeze", "net")
    wrapped = (
        "from lightgen_runtime.optim import (\n    CombinedOptimizer,\n    freeze,\n"
        "    parameter_groups,\n    split_parameters,\n)\n"
    )
    assert wrapped in (project / MODULE).read_text()
    regen(run_cli, "--no-verify", "--freeze", "none")
    text = (project / MODULE).read_text()
    assert text.count("lightgen_runtime.optim import") == 1
    assert "freeze" not in text


def test_variable_of_every_branch_of_a_try_statement_is_no_conflict(
    run_cli: Cli, project: Path
) -> None:
    edit(
        project,
        "        return {\n",
        "        try:\n            count = len(self.hparams)\n"
        "        except TypeError as error:\n            count = len(error.args)\n"
        "        self.print(count)\n        return {\n",
    )
    regen(run_cli, "--no-verify", "--lr", "0.1")
    assert "self.print(count)\n" in block(project)


def test_optimizer_behind_several_keeps_what_the_config_decides(
    run_cli: Cli, project: Path
) -> None:
    regen(run_cli, "--no-verify", "--recipe", "muon-adamw")
    regen(run_cli, "--no-verify", "--optimizer", "sgd")
    assert "lr=self.hparams.lr," in block(project)


def test_sidecar_that_is_only_looked_at_is_not_said_to_be_written(
    run_cli: Cli, project: Path
) -> None:
    edit(project, "            lr=self.hparams.lr,\n", "            lr=0.5,\n")
    before = snapshot(project)
    out = regen(run_cli, "--lr", "0.1", "--on-conflict", "sidecar", "--dry-run")
    assert out.startswith("Nothing written.")
    assert snapshot(project) == before


@pytest.mark.parametrize("flag", ["--diff", "--dry-run"])
def test_read_only_file_can_be_looked_at(
    flag: str, run_cli: Cli, project: Path
) -> None:
    (project / MODULE).chmod(0o444)
    regen(run_cli, "--optimizer", "sgd", flag)


BAD_SPECS = {
    "number for texts": ("optimizer: 3\n", ["`optimizer` cannot be 3"]),
    "list for a mapping": (
        "optimizer: sgd\nschedule: [cosine]\n",
        ["`schedule` cannot be", "a mapping"],
    ),
    "selector": ("optimizer: sgd\nfreeze: 'net[0]'\n", ["`net[0]`", "`freeze`"]),
    "factor": ("optimizer: sgd\nlr_scale: {net: -1}\n", ["`-1` is no factor"]),
    "schedule": ("optimizer: sgd\nschedule: cosin\n", ["`schedule`, column 1"]),
    "key": ("optimizer: sgd\nscheduler: cosine\n", ["did you mean `schedule`"]),
}


@pytest.mark.parametrize("case", BAD_SPECS)
def test_bad_spec_file_is_named_with_the_key(
    case: str, run_cli: Cli, project: Path
) -> None:
    text, parts = BAD_SPECS[case]
    (project / "spec.yaml").write_text(text)
    before = snapshot(project)
    result = run_cli("regen", "optimizer", "--spec", "spec.yaml")
    assert result.code == 2, result.err
    for part in ["spec.yaml", *parts]:
        assert part in result.err
    assert snapshot(project) == before


def test_spec_file_may_leave_lists_of_one_out(run_cli: Cli, project: Path) -> None:
    (project / "spec.yaml").write_text(
        "optimizer: adamw:lr=hparams.lr\nschedule: cosine\nno_decay: bias\n"
        "lr_scale: {net: 1e-1}\n"
    )
    regen(run_cli, "--no-verify", "--spec", "spec.yaml")
    text = block(project)
    assert 'no_decay=("bias",),' in text
    assert '"net": 0.1,' in text
    assert "CosineAnnealingLR(" in text


def test_interrupt_while_the_block_is_tried_is_said(
    run_cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = contents(project)
    monkeypatch.setattr(regen_module, "can_probe", lambda *_: True)
    monkeypatch.setattr(regen_module, "probe", interrupted)
    done = run_cli("regen", "optimizer", "--optimizer", "sgd", "--verify")
    assert done.code == 130
    assert "Interrupted while the new block was tried. Nothing written." in done.err
    assert contents(project) == before
