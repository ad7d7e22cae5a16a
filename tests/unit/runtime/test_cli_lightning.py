"""LightningCLI: the convention that users' command lines and configs rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.cli import (
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.trainer.trainer import Trainer
from lightgen_runtime.utilities.exceptions import (
    LightgenRuntimeError,
    MisconfigurationException,
)

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "max_epochs": 1,
}


class Model(LightningModule):
    def __init__(self, lr: float = 0.1, hidden: int = 4) -> None:
        super().__init__()
        self.lr = lr
        self.hidden = hidden


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 2) -> None:
        super().__init__()
        self.batch_size = batch_size


class Patience(Callback):
    def __init__(self, patience: int = 3) -> None:
        self.patience = patience


class RecordingTrainer(Trainer):
    """Remember the call instead of training; what the CLI passes is the subject."""

    called: dict[str, dict[str, Any]]

    def _record(self, name: str, arguments: dict[str, Any]) -> None:
        self.called = {name: arguments}

    def fit(self, *args: Any, **kwargs: Any) -> None:
        self._record("fit", kwargs)

    def validate(self, *args: Any, **kwargs: Any) -> list[dict[str, float]]:
        self._record("validate", kwargs)
        return []

    def test(self, *args: Any, **kwargs: Any) -> list[dict[str, float]]:
        self._record("test", kwargs)
        return []

    def predict(self, *args: Any, **kwargs: Any) -> list[Any]:
        self._record("predict", kwargs)
        return []


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(*args: str, **kwargs: Any) -> LightningCLI:
    kwargs.setdefault("trainer_defaults", QUIET)
    return LightningCLI(Model, Data, args=list(args), run=False, **kwargs)


def run(*args: str, **kwargs: Any) -> LightningCLI:
    kwargs.setdefault("trainer_defaults", QUIET)
    kwargs.setdefault("trainer_class", recording_trainer)
    return LightningCLI(Model, Data, args=list(args), **kwargs)


def recording_trainer(
    logger: bool | None = None,
    callbacks: list[Callback] | None = None,
    fast_dev_run: int | bool = False,
    max_epochs: int = 1,
    enable_progress_bar: bool | None = None,
) -> RecordingTrainer:
    return RecordingTrainer(
        logger=logger,
        callbacks=callbacks,
        fast_dev_run=fast_dev_run,
        max_epochs=max_epochs,
        enable_progress_bar=enable_progress_bar,
    )


def called(cli: LightningCLI) -> dict[str, dict[str, Any]]:
    assert isinstance(cli.trainer, RecordingTrainer)
    return cli.trainer.called


def test_options_set_arguments_of_model_data_and_trainer() -> None:
    cli = build("--model.lr=0.5", "--data.batch_size", "7", "--trainer.max_epochs=3")
    assert isinstance(cli.model, Model)
    assert isinstance(cli.datamodule, Data)
    assert (cli.model.lr, cli.datamodule.batch_size) == (0.5, 7)
    assert cli.trainer.max_epochs == 3
    assert cli.config.model.lr == 0.5


def test_option_beats_config_and_config_beats_default() -> None:
    Path("c.yaml").write_text("model:\n  lr: 1e-3\n  hidden: 8\n")
    cli = build("--config=c.yaml", "--model.hidden=16")
    assert (cli.model.lr, cli.model.hidden) == (0.001, 16)


def test_config_may_be_given_as_text() -> None:
    assert build("--config", "{model: {lr: 0.25}}").model.lr == 0.25


def test_later_config_beats_an_earlier_one() -> None:
    Path("a.yaml").write_text("model:\n  lr: 1\n  hidden: 8\n")
    Path("b.yaml").write_text("model:\n  lr: 2\n")
    cli = build("--config=a.yaml", "--config=b.yaml")
    assert (cli.model.lr, cli.model.hidden) == (2, 8)


def test_arguments_may_be_a_dict() -> None:
    cli = LightningCLI(
        Model, args={"model": {"lr": 2.0}}, run=False, trainer_defaults=QUIET
    )
    assert cli.model.lr == 2.0
    assert cli.datamodule is None


def test_subclass_mode_takes_any_class_by_class_path() -> None:
    cli = LightningCLI(
        args=[f"--model={__name__}.Model", "--model.lr=0.5"],
        run=False,
        trainer_defaults=QUIET,
    )
    assert isinstance(cli.model, Model)
    assert cli.model.lr == 0.5


def test_functions_may_stand_for_classes() -> None:
    def make_model(width: int = 3) -> Model:
        return Model(hidden=2 * width)

    cli = LightningCLI(
        make_model, args=["--model.width=5"], run=False, trainer_defaults=QUIET
    )
    assert cli.model.hidden == 10


def test_callbacks_of_config_parser_and_defaults_all_reach_the_trainer() -> None:
    class CLI(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_lightning_class_args(Patience, "patience")
            parser.set_defaults({"patience.patience": 5})

    Path("c.yaml").write_text(
        f"trainer:\n  callbacks:\n  - class_path: {__name__}.Patience\n"
    )
    cli = CLI(
        Model,
        args=["--config=c.yaml"],
        run=False,
        trainer_defaults={**QUIET, "callbacks": Patience(7)},
    )
    found = [c.patience for c in cli.trainer.callbacks if isinstance(c, Patience)]
    assert found == [3, 5, 7]


def test_linked_argument_follows_its_source() -> None:
    class CLI(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.link_arguments("data.batch_size", "model.hidden")

    cli = CLI(
        Model, Data, args=["--data.batch_size=9"], run=False, trainer_defaults=QUIET
    )
    assert cli.model.hidden == 9


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_subcommand_calls_the_trainer_with_model_and_data(subcommand: str) -> None:
    cli = run(subcommand, "--ckpt_path=none.ckpt")
    assert cli.subcommand == subcommand
    [(name, arguments)] = called(cli).items()
    assert name == subcommand
    assert arguments["model"] is cli.model
    assert arguments["datamodule"] is cli.datamodule
    assert arguments["ckpt_path"] == "none.ckpt"
    assert cli.config[subcommand].model.lr == 0.1


def test_hooks_around_classes_and_subcommand_run_in_order() -> None:
    steps: list[str] = []

    class CLI(LightningCLI):
        def before_instantiate_classes(self) -> None:
            steps.append("before_instantiate_classes")

        def after_instantiate_classes(self) -> None:
            steps.append("after_instantiate_classes")

        def before_fit(self) -> None:
            steps.append("before_fit")

        def after_fit(self) -> None:
            steps.append("after_fit" if called(self) else "no fit")

    CLI(
        Model,
        args=["fit"],
        trainer_class=recording_trainer,
        trainer_defaults=QUIET,
    )
    assert steps == [
        "before_instantiate_classes",
        "after_instantiate_classes",
        "before_fit",
        "after_fit",
    ]


@pytest.mark.parametrize(
    ("args", "default", "seed"),
    [
        ([], True, 0),
        ([], 5, 5),
        (["--seed_everything=3"], True, 3),
        (["--seed_everything=true"], 5, 0),
        (["--seed_everything=false"], True, False),
        ([], False, False),
    ],
)
def test_seed_in_the_config_is_the_seed_in_force(
    args: list[str],
    default: bool | int,
    seed: int | bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    torch.manual_seed(99)
    cli = build(*args, seed_everything_default=default)
    assert cli.config.seed_everything == seed
    assert type(cli.config.seed_everything) is type(seed)
    assert torch.initial_seed() == (99 if seed is False else seed)


def test_print_config_prints_yaml_that_gives_the_same_config(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run("fit", "--model.lr=0.3", "--print_config")
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["model"] == {"lr": 0.3, "hidden": 4}
    Path("c.yaml").write_text(text)
    assert run("fit", "--config=c.yaml").model.lr == 0.3


def test_help_of_a_subcommand_lists_the_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run("fit", "--help")
    assert exit_info.value.code == 0
    out = capsys.readouterr().out
    for option in ("--config", "--seed_everything", "--model.lr", "--ckpt_path"):
        assert option in out


def test_hyperparameters_in_the_checkpoint_replace_those_of_the_config() -> None:
    hparams = {"hidden": 77, "unknown": 1}
    torch.save({"state_dict": {}, "hyper_parameters": hparams}, "a.ckpt")
    cli = run("test", "--ckpt_path=a.ckpt", "--model.lr=0.2")
    assert (cli.model.hidden, cli.model.lr) == (77, 0.2)
    assert cli.config.test.model.hidden == 77


def save_with(callback: SaveConfigCallback, log_dir: Path) -> None:
    trainer = Trainer(**QUIET, default_root_dir=str(log_dir))
    callback.setup(trainer, Model(), "fit")


def test_config_is_saved_once_in_the_log_folder(folder: Path) -> None:
    cli = build("--model.lr=0.3")
    callback = SaveConfigCallback(cli.parser, cli.config)
    save_with(callback, folder / "log")
    saved = yaml.safe_load((folder / "log/config.yaml").read_text())
    assert saved["model"] == {"lr": 0.3, "hidden": 4}
    assert saved["trainer"]["min_epochs"] is None
    save_with(callback, folder / "log")


def test_saved_config_of_another_run_is_kept(folder: Path) -> None:
    (folder / "config.yaml").write_text("precious\n")
    cli = build()
    with pytest.raises(LightgenRuntimeError, match="earlier run"):
        save_with(SaveConfigCallback(cli.parser, cli.config), folder)
    assert (folder / "config.yaml").read_text() == "precious\n"
    save_with(SaveConfigCallback(cli.parser, cli.config, overwrite=True), folder)
    assert "seed_everything" in (folder / "config.yaml").read_text()


def test_save_config_callback_is_left_out_where_asked() -> None:
    def saving(cli: LightningCLI) -> bool:
        return any(isinstance(c, SaveConfigCallback) for c in cli.trainer.callbacks)

    assert saving(build())
    assert not saving(build(save_config_callback=None))
    assert not saving(build("--trainer.fast_dev_run=true"))


def test_class_that_is_no_part_of_a_run_is_refused() -> None:
    parser = LightningArgumentParser()
    with pytest.raises(MisconfigurationException, match="`thing`"):
        parser.add_lightning_class_args(dict, "thing")
    with pytest.raises(MisconfigurationException, match="subclass of Optimizer"):
        parser.add_optimizer_args(dict)  # type: ignore[arg-type]
    with pytest.raises(MisconfigurationException, match="or ReduceLROnPlateau"):
        parser.add_lr_scheduler_args((dict,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("true", {}),
        ("false", None),
        ("null", None),
        ("max-autotune", {"mode": "max-autotune"}),
        ("{backend: eager, dynamic: false}", {"backend": "eager", "dynamic": False}),
    ],
)
def test_compilation_is_chosen_by_option_or_config(
    written: str, options: Any, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"trainer:\n  compile: {written}\n  matmul_precision: high\n")
    for arguments in (["--config", str(config)], [f"--trainer.compile={written}"]):
        assert build(*arguments).trainer.compile_options == options
