"""Bad configs and command lines: one line, file and line number, exit 2, no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.cli import ProjectCLI
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.module import LightningModule

HERE = __name__
CALLBACKS = "lightgen_runtime.callbacks"


class Patience(Callback):
    def __init__(self, monitor: str, patience: int = 3) -> None:
        self.patience = patience


class Model(LightningModule):
    def __init__(
        self, lr: float = 0.1, hidden: int = 4, mode: Literal["min", "max"] = "min"
    ) -> None:
        super().__init__()
        self.lr = lr


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 2) -> None:
        super().__init__()


def disk() -> dict[Path, bytes | None]:
    """Return every path below the current folder and the content of files."""
    paths = Path().rglob("*")
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def refuse(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run `args`, which must be refused without a trace, and return the message."""
    before = disk()
    with pytest.raises(SystemExit) as exit_info:
        ProjectCLI(Model, Data, args=args)
    assert exit_info.value.code == 2
    assert disk() == before
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.endswith("\n")
    return err.removeprefix("error: ").removesuffix("\n")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def callback(lines: str) -> str:
    return f"trainer:\n  callbacks:\n  - class_path: {HERE}.Patience\n{lines}"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "seed_everything: 1\ntrainer:\n  # so many\n  max_epoch: 3\n",
            "c.yaml:4: unknown key `max_epoch` in `trainer`; "
            "did you mean `max_epochs`?",
        ),
        ("modle:\n  lr: 1\n", "c.yaml:1: unknown key `modle`; did you mean `model`?"),
        ("lr: 1\n", "c.yaml:1: unknown key `lr`; did you mean `model.lr`?"),
        (
            "model:\n  zzzz: 1\n",
            "c.yaml:2: unknown key `zzzz` in `model`; accepted: lr, hidden, mode",
        ),
        (
            "trainer:\n  max_epochs: ten\n",
            "c.yaml:2: trainer.max_epochs: got 'ten' (str), expected int or null",
        ),
        ("model:\n  lr: true\n", "c.yaml:2: model.lr: got True (bool), expected float"),
        (
            "model:\n  lr: 1\n  mode: mean\n",
            "c.yaml:3: model.mode: got 'mean' (str), expected 'min' or 'max'",
        ),
        (
            "model:\n  lr: 1\ntrainer:\n",
            "c.yaml:3: trainer: got null, expected a mapping of arguments; "
            "remove the key to use the defaults",
        ),
        (
            "model: 3\n",
            "c.yaml:1: model: got 3, expected a mapping of arguments; "
            "remove the key to use the defaults",
        ),
        (
            callback("    init_args:\n      monitor: x\n      patiense: 2\n"),
            "c.yaml:6: unknown key `patiense` in `trainer.callbacks[0].init_args`; "
            "did you mean `patience`?",
        ),
        (
            callback("    init_args:\n      monitor: x\n      patience: soon\n"),
            "c.yaml:6: trainer.callbacks[0].init_args.patience: got 'soon' (str), "
            "expected int",
        ),
        (
            callback("    monitor: x\n"),
            "c.yaml:4: unknown key `monitor` beside `class_path` in "
            "`trainer.callbacks[0]`; arguments of Patience go under `init_args`",
        ),
        (
            callback(""),
            "c.yaml:3: trainer.callbacks[0]: Patience needs `monitor` "
            "under `init_args`",
        ),
        (
            f"trainer:\n  callbacks:\n  - class_path: {HERE}.Patients\n",
            f"c.yaml:3: trainer.callbacks[0].class_path: module `{HERE}` has no "
            "`Patients`; did you mean `Patience`?",
        ),
        (
            f"trainer:\n  callbacks:\n  - class_path: {CALLBACKS}.EarlyStoping\n",
            f"c.yaml:3: trainer.callbacks[0].class_path: module `{CALLBACKS}` has no "
            "`EarlyStoping`; did you mean `EarlyStopping`?",
        ),
        (
            "trainer:\n  callbacks:\n  - class_path: no_such.Callback\n",
            "c.yaml:3: trainer.callbacks[0].class_path: there is no module `no_such`",
        ),
        (
            "trainer:\n  callbacks:\n  - class_path: collections.OrderedDict\n",
            "c.yaml:3: trainer.callbacks[0].class_path: `collections.OrderedDict` is "
            "not a subclass of Callback",
        ),
        (
            "trainer:\n  max_epochs: 1\n  max_epochs: 2\n",
            "c.yaml:3: key `max_epochs` in `trainer` is given twice; the first is in "
            "line 2. Keep one of them",
        ),
        (
            "- trainer\n",
            "c.yaml:1: expected a mapping of keys such as `trainer:` or `model:`, "
            "got a list",
        ),
        (
            "# nothing yet\n",
            "c.yaml: the file is empty; expected keys such as `trainer:` or `model:`",
        ),
    ],
)
def test_config_error_names_file_line_and_what_is_accepted(
    config: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text(config)
    assert refuse(["fit", "--config", "c.yaml"], capsys) == message


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ("trainer:\n  max_epochs: 1\n model: 2\n", "c.yaml:3:2: not YAML: "),
        ("model:\n\tlr: 2\n", "c.yaml:2:1: not YAML: "),
        ("trainer: [1\n", "c.yaml:2:1: not YAML: "),
    ],
)
def test_config_that_is_not_yaml_names_line_and_column(
    config: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text(config)
    assert refuse(["fit", "--config", "c.yaml"], capsys).startswith(place)


def test_config_that_is_not_text_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("c.yaml").write_bytes(b"\xff\xfe\x00")
    assert "c.yaml: not UTF-8 text" in refuse(["fit", "--config", "c.yaml"], capsys)


def test_missing_config_suggests_the_nearest_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("config.yaml").write_text("model:\n  lr: 1\n")
    message = refuse(["fit", "--config", "confg.yaml"], capsys)
    assert message == "confg.yaml: no such config file; did you mean `config.yaml`?"


def test_missing_config_in_a_missing_folder_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = refuse(["fit", "--config", "no/c.yaml"], capsys)
    assert message == (
        "no/c.yaml: no such config file; the folder no does not exist either"
    )


def test_config_that_is_a_folder_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("conf").mkdir()
    message = refuse(["fit", "--config", "conf"], capsys)
    assert message == "conf: is a folder; expected a YAML file"


def test_error_in_a_later_config_names_that_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("a.yaml").write_text("model:\n  lr: 1\n")
    Path("b.yaml").write_text("model:\n  lr: many\n")
    message = refuse(["fit", "--config", "a.yaml", "--config", "b.yaml"], capsys)
    assert message == "b.yaml:2: model.lr: got 'many' (str), expected float"


def test_error_under_a_subcommand_key_names_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("c.yaml").write_text("fit:\n  trainer:\n    max_epoch: 1\n")
    message = refuse(["--config", "c.yaml", "fit"], capsys)
    assert message == (
        "c.yaml:3: unknown key `max_epoch` in `fit.trainer`; "
        "did you mean `max_epochs`?"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["fit", "--model.lrr", "3"],
            "unknown option `--model.lrr`; did you mean `--model.lr`?",
        ),
        (["fit", "--lr=3"], "unknown option `--lr`; did you mean `--model.lr`?"),
        (
            ["fit", "--data.zzzz", "3"],
            "unknown option `--data.zzzz`; accepted: batch_size",
        ),
        (["fit", "--model.lr", "abc"], "`--model.lr`: got 'abc', expected float"),
        (
            ["fit", "--trainer.max_epochs", "ten"],
            "`--trainer.max_epochs`: got 'ten', expected int or null",
        ),
        (
            ["fit", "--model.hidden=1.5"],
            "`--model.hidden`: got '1.5', expected int",
        ),
        (["fit", "--model.lr"], "`--model.lr` needs a value"),
        (["fit", "--config"], "`--config` needs a value"),
        (["fit", "more"], "unexpected argument `more`; options start with `--`"),
        (
            ["fit", "--data", "five"],
            "`--data`: got 'five', expected a YAML file, or an option such as "
            "`--data.batch_size`",
        ),
        (["fitt"], "unknown subcommand `fitt`; did you mean `fit`?"),
        ([], "a subcommand is needed; accepted: fit, validate, test, predict, export"),
    ],
)
def test_command_line_error_names_the_option(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refuse(args, capsys) == message


def test_abbreviated_option_is_an_unknown_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = refuse(["fit", "--model.hid", "3"], capsys)
    assert message == "unknown option `--model.hid`; did you mean `--model.hidden`?"
