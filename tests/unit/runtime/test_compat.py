"""Running and checking code that was written for Lightning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightgen_runtime.compat.check import check_path

NO_SUCH = "Lightning 2.6.6 has no such argument"
SCRIPT = """\
import sys
import lightning as L
import pytorch_lightning as pl
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.fabric.utilities.seed import seed_everything
from pytorch_lightning.callbacks.early_stopping import EarlyStopping as Same
from pytorch_lightning.core.hooks import ModelHooks

assert L.Trainer is pl.Trainer and EarlyStopping is Same is callbacks.EarlyStopping
assert L.seed_everything is seed_everything and issubclass(BoringModel, ModelHooks)
assert pl.utilities.rank_zero.rank_zero_only.rank == 0
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
        "from lightning.nowhere import Anything\n"
        "import torch\n"
        "L.Trainer(max_epochs=3, max_epoch=4)\n"
        "L.nothing_like_it\n"
    )
    done = compat("check", tmp_path)
    assert done.returncode == 1
    unknown = "is absent: Lightning 2.6.6 has no public name like it"
    assert [line.partition("train.py")[2] for line in done.stdout.splitlines()] == [
        f":2: `lightning.pytorch.callbacks.Nonexistent` {unknown}",
        f":3: `lightning.nowhere` {unknown}",
        f":5: `Trainer(max_epoch)` is absent: {NO_SUCH}; did you mean `max_epochs`?",
        f":6: `lightning.nothing_like_it` {unknown}",
    ]
    assert "4 absent, 0 different" in done.stderr


def test_check_lists_what_is_different_and_is_content(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import lightning as L\nL.Trainer(\n    accumulate_grad_batches=4,\n)\n"
    )
    done = compat("check", tmp_path)
    assert done.returncode == 0
    assert done.stdout.partition("a.py")[2].startswith(
        ":3: `Trainer(accumulate_grad_batches)` is different: the gradient of"
    )
    assert "0 absent, 1 different" in done.stderr


def test_check_finds_nothing_in_code_that_runs(tmp_path: Path) -> None:
    script = SCRIPT.replace("lightning.fabric.utilities.seed", "lightning")
    (tmp_path / "script.py").write_text(script)
    done = compat("check", tmp_path / "script.py")
    assert (done.returncode, done.stdout) == (0, "")


IMPORTS = """\
import lightning as L
import lightning.pytorch as pl
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
"""


def messages(code: str, tmp_path: Path) -> list[str]:
    """What the check says of `code`, with the line of it."""
    (tmp_path / "code.py").write_text(IMPORTS + code)
    above = IMPORTS.count("\n")
    return [f"{f.line - above}: {f.message}" for f in check_path(tmp_path)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(
            "from lightning.pytorch.serve import ServableModule",
            "1: `lightning.pytorch.serve.ServableModule` is absent: serving is not part",
            id="import",
        ),
        pytest.param(
            "pl.profilers.XLAProfiler()",
            "1: `lightning.pytorch.profilers.XLAProfiler` is absent: TPUs are",
            id="attribute of a package",
        ),
        pytest.param(
            "from lightning.fabric.utilities.seed import seed_everything",
            "1: `lightning.fabric.utilities.seed.seed_everything` is different: it is "
            "`lightgen_runtime.pytorch.utilities.seed.seed_everything` here",
            id="fabric, there",
        ),
        pytest.param(
            "from lightning.fabric import Fabric",
            "1: `lightning.fabric.Fabric` is absent: there is no Fabric",
            id="fabric, not there",
        ),
        pytest.param(
            "from lightning.pytorch.callbacks import StochasticWeightAveraging",
            "1: `lightning.pytorch.callbacks.StochasticWeightAveraging` is different: the",
            id="name that does something else",
        ),
        pytest.param(
            "Trainer(strategy='deepspeed_stage_2')",
            "1: `Trainer(strategy='deepspeed_stage_2')` is absent: DeepSpeed is not",
            id="string",
        ),
        pytest.param(
            "EarlyStopping(monitr='loss')",
            f"1: `callbacks.EarlyStopping(monitr)` is absent: {NO_SUCH}; did you mean `monitor`?",
            id="argument of a class",
        ),
        pytest.param(
            "Trainer(gpus=1)",
            f"1: `Trainer(gpus)` is absent: {NO_SUCH}",
            id="argument of an older version",
        ),
        pytest.param(
            "ModelCheckpoint(save_on_exception=True)",
            "1: `callbacks.ModelCheckpoint(save_on_exception)` is different: saves",
            id="argument that does something else",
        ),
        pytest.param(
            "def f(trainer):\n    trainer.validate_loop",
            "2: `Trainer.validate_loop` is absent: there are no loop objects",
            id="attribute of what is called trainer",
        ),
        pytest.param(
            "mine = Trainer()\nmine.test_loop",
            "2: `Trainer.test_loop` is absent: there are no loop objects",
            id="attribute of a variable",
        ),
        pytest.param(
            "class M(L.LightningModule):\n"
            "    def configure_sharded_model(self): ...",
            "2: `LightningModule.configure_sharded_model` is absent: Lightning has",
            id="hook that nobody calls",
        ),
        pytest.param(
            "class A(LightningModule): ...\n"
            "class B(A):\n"
            "    def f(self):\n"
            "        return self.configure_sharded_model",
            "4: `LightningModule.configure_sharded_model` is absent: Lightning has",
            id="attribute of self",
        ),
        pytest.param(
            "class M(LightningModule):\n"
            "    def f(self):\n"
            "        self.log('x', 1, on_stp=True)",
            f"3: `LightningModule.log(on_stp)` is absent: {NO_SUCH}; did you mean `on_step`?",
            id="argument of a method of self",
        ),
        pytest.param(
            "class P(pl.plugins.MixedPrecision):\n"
            "    def optimizer_step(self, optimizer): ...",
            "2: `plugins.MixedPrecision.optimizer_step` is absent: a precision converts",
            id="method of a precision that nobody calls",
        ),
        pytest.param(
            "Trainer('cpu', 'deepspeed')",
            "1: `Trainer(strategy='deepspeed')` is absent: DeepSpeed is",
            id="argument without its name",
        ),
        pytest.param(
            "flags = dict(strategy='deepspeed')\nTrainer(**flags)",
            "1: `Trainer(strategy='deepspeed')` is absent: DeepSpeed is",
            id="argument in a dictionary",
        ),
        pytest.param(
            "def make(epochs, **flags):\n"
            "    return Trainer(max_epochs=epochs, **flags)\n"
            "make(epochs=3, strategy='deepspeed')",
            "3: `Trainer(strategy='deepspeed')` is absent: DeepSpeed is",
            id="argument that a function passes on",
        ),
        pytest.param(
            "def make():\n    return Trainer()\n"
            "one, two = make(), make()\n"
            "two.validate_loop",
            "4: `Trainer.validate_loop` is absent",
            id="attribute of what a function returns",
        ),
        pytest.param(
            "class M(LightningModule): ...\n"
            "M.load_from_checkpoint('x', weights_only=False)",
            "2: `LightningModule.load_from_checkpoint(weights_only)` is different: code",
            id="method of a class of one's own",
        ),
        pytest.param(
            "class C(pl.Callback):\n    def teardown(self, *args): ...",
            "2: `Callback.teardown` is different: called after an error too",
            id="hook that is called otherwise",
        ),
        pytest.param(
            "class C(EarlyStopping):\n    def teardown(self, *args): ...",
            "2: `Callback.teardown` is different: called after an error too",
            id="hook of a base class",
        ),
        pytest.param(
            "x = {'scheduler': s, 'interval': 'step',\n    'frequency': 2}",
            "2: `'frequency': 2` is different: \"frequency\" counts optimizer steps",
            id="scheduler",
        ),
    ],
)
def test_check_says_what_and_why(code: str, expected: str, tmp_path: Path) -> None:
    found = messages(code, tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    "code",
    [
        "class M(LightningModule):\n"
        "    on_gpu = True\n"
        "    def f(self):\n"
        "        self.fabric = 1\n"
        "        return self.fabric, self.something_of_mine",
        "class C(EarlyStopping):\n"
        "    def f(self):\n"
        "        return self.wait_count, self.best_score, self.monitor",
        "Trainer(max_epochs=3, strategy='auto').callbacks",
        "pl.utilities.types.STEP_OUTPUT",
        "from .lightning import Nonexistent",
        "x = {'scheduler': s, 'interval': 'step'}",
    ],
)
def test_check_leaves_alone_what_is_the_same_or_ones_own(
    code: str, tmp_path: Path
) -> None:
    assert messages(code, tmp_path) == []


def project(folder: Path, **files: str) -> list[str]:
    """Write files, and return what the check says, with the file's name."""
    for name, code in files.items():
        (folder / f"{name}.py").write_text(code)
    return [f"{f.path.stem}: {f.message}" for f in check_path(folder)]


MODEL = """\
import lightning as L
class Net(L.LightningModule):
    def __init__(self, width): ...
    def training_step(self, batch, batch_idx):
        self.manual_backward(batch.mean())
        self.clip_gradients(self.optimizers(), 0.5)
"""
TRAIN = """\
from model import Net
import lightning as L
class Wider(Net):
    def teardown(self, stage): ...
if __name__ == "__main__":
    L.Trainer(precision="16-mixed").fit(Wider(3))
    Net.load_from_checkpoint("x.ckpt", depth=3)
"""


def test_files_of_a_project_are_seen_together(tmp_path: Path) -> None:
    found = project(tmp_path, model=MODEL, train=TRAIN)
    assert [message.partition(" is different")[0] for message in found] == [
        "model: `LightningModule.manual_backward`",
        "model: `LightningModule.clip_gradients`",
        "train: `LightningModule.teardown`",
        "train: `load_from_checkpoint(depth is no argument)`",
    ]


def test_programs_beside_each_other_are_seen_by_themselves(tmp_path: Path) -> None:
    by_hand = MODEL + "L.Trainer().fit(Net(3))\n"
    scaled = "import lightning as L\nL.Trainer(precision='16-mixed').fit(model)\n"
    assert project(tmp_path, one=by_hand, two=scaled) == []


def test_classes_of_the_same_name_are_not_mixed_up(tmp_path: Path) -> None:
    other = "class Net:\n    def teardown(self): ...\n"
    use = "from other import Net\nclass Own(Net):\n    def teardown(self): ...\n"
    assert project(tmp_path, model=MODEL, other=other, use=use) == []


def test_a_rule_is_given_once_for_a_call(tmp_path: Path) -> None:
    found = messages("Trainer(\n    devices=2,\n    strategy='ddp',\n)", tmp_path)
    assert [message.partition(" is")[0] for message in found] == [
        "2: `Trainer(devices=2)`"
    ]


def test_code_without_lightning_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("trainer.fit_loop\n")
    assert list(check_path(tmp_path)) == []


def test_installed_packages_and_hidden_folders_are_left_out(tmp_path: Path) -> None:
    for folder in (".venv", "venv/lib/site-packages/package", "src"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "code.py").write_text("import lightning.nothing\n")
    (finding,) = check_path(tmp_path)
    assert finding.path == tmp_path / "src" / "code.py"


def test_file_that_is_no_python_is_named(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("x = 1\ny = = 2\n")
    (finding,) = check_path(tmp_path)
    assert (finding.line, finding.works) == (2, False)
    assert finding.message.startswith("not readable as Python")


@pytest.mark.parametrize("command", ["run", "check"])
def test_missing_path_is_a_usage_error(command: str) -> None:
    done = compat(command, "nowhere.py")
    assert done.returncode == 2
    assert "there is nothing at `nowhere.py`" in done.stderr


def test_run_names_the_line_that_imports_what_is_absent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from lightning.pytorch import Trainer\n"
        "from lightning.pytorch.strategies import DeepSpeedStrategy\n"
    )
    ran = compat("run", str(script))
    assert ran.returncode == 1
    assert (
        f"{script}:2: `lightning.pytorch.strategies.DeepSpeedStrategy` is absent"
        in (ran.stdout)
    )
    assert "Traceback" not in ran.stderr


def test_run_leaves_other_failing_imports_alone(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import nowhere\nfrom lightning.pytorch.strategies import DeepSpeedStrategy\n"
    )
    assert "No module named 'nowhere'" in compat("run", str(script)).stderr


def test_run_of_a_folder_needs_its_main_module(tmp_path: Path) -> None:
    ran = compat("run", str(tmp_path))
    assert ran.returncode == 2
    assert "without a `__main__.py`" in ran.stderr


def test_what_a_strategy_has_elsewhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        "from lightning.pytorch import Trainer\n"
        "from lightning.pytorch.strategies import SingleDeviceStrategy\n"
        "class Own(SingleDeviceStrategy):\n"
        "    def setup(self, trainer): ...\n"
        "    def of_mine(self): ...\n"
        "trainer = Trainer(strategy=Own('cpu'))\n"
        "trainer.strategy.barrier()\n"
        "trainer.strategy.of_mine()\n"
        "trainer.strategy.optimizers\n"
        "trainer.strategy.block_backward_sync()\n"
    )
    found = list(check_path(tmp_path))
    assert [finding.line for finding in found] == [4, 9, 10]
    assert "`trainer.optimizers`" in found[1].message
    assert "use `no_sync`" in found[2].message
