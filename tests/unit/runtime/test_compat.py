"""Running and checking code that was written for Lightning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """\
import sys
import lightning as L
import pytorch_lightning as pl
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.demos.boring_classes import BoringModel
from pytorch_lightning.callbacks.early_stopping import EarlyStopping as Same

assert L.Trainer is pl.Trainer and EarlyStopping is Same is callbacks.EarlyStopping
assert __name__ == "__main__"
trainer = L.Trainer(fast_dev_run=True, logger=False, enable_progress_bar=False)
trainer.fit(BoringModel())
print(L.Trainer.__module__, sys.argv[1:], beside.VALUE if "beside" in globals() else "")
"""


def compat(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lightgen_runtime.compat", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_run_resolves_every_spelling_of_the_package(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import beside\n" + SCRIPT)
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    done = compat("run", script, "--lr", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "lightgen_runtime.trainer.trainer ['--lr', '3'] 7\n"


def test_run_passes_the_exit_status_of_the_script_on(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\nsys.exit(5)\n")
    assert compat("run", tmp_path / "script.py").returncode == 5


def test_check_lists_what_is_absent_with_its_place(tmp_path: Path) -> None:
    code = tmp_path / "package" / "train.py"
    code.parent.mkdir()
    code.write_text(
        "import lightning as L\n"
        "from lightning.pytorch.callbacks import EarlyStopping, Nonexistent\n"
        "from lightning.fabric import Fabric\n"
        "import torch\n"
        "L.Trainer(max_epochs=3, max_epoch=4)\n"
        "L.nothing_like_it\n"
    )
    done = compat("check", tmp_path)
    assert done.returncode == 1
    assert [line.partition("train.py")[2] for line in done.stdout.splitlines()] == [
        ":2: `lightning.pytorch.callbacks.Nonexistent` is absent",
        ":3: the module `lightning.fabric` is absent",
        ":5: `Trainer(max_epoch=...)` is absent; did you mean `max_epochs`?",
        ":6: `lightning.nothing_like_it` is absent",
    ]


def test_check_finds_nothing_in_code_that_runs(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = compat("check", tmp_path / "script.py")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("command", ["run", "check"])
def test_missing_path_is_a_usage_error(command: str) -> None:
    done = compat(command, "nowhere.py")
    assert done.returncode == 2
    assert "there is nothing at `nowhere.py`" in done.stderr
