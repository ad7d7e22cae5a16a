"""LightningCLI on both packages: the same command lines give the same."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from cli_parts import NAMESPACES, parts

pytestmark = pytest.mark.filterwarnings("ignore")

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 1,
}
ADAM = ["--optimizer=Adam", "--optimizer.lr=0.1"]
STEPS = ["--lr_scheduler=StepLR", "--lr_scheduler.step_size=2"]


class Side(SimpleNamespace):
    """One package: its `cli` module and its classes of `cli_parts`."""

    def __init__(self, namespace: str) -> None:
        super().__init__(**vars(parts(namespace)))
        self.namespace = namespace
        self.cli = importlib.import_module(f"{namespace}.pytorch.cli")
        self.L = importlib.import_module(namespace)

    def path(self, name: str) -> str:
        return f"cli_parts.{name}_{self.namespace}"

    def run(self, model: Any, *args: str, cli: Any = None, **kwargs: Any) -> Any:
        kwargs.setdefault("trainer_defaults", QUIET)
        kwargs.setdefault("seed_everything_default", 1)
        kwargs.setdefault("save_config_callback", None)
        kwargs.setdefault("args", list(args))
        return (cli or self.cli.LightningCLI)(model, **kwargs)

    def build(self, model: Any, *args: str, **kwargs: Any) -> Any:
        return self.run(model, *args, run=False, **kwargs)


@pytest.fixture
def same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Side], Any]], Any]:
    """Run a scenario with each package in a folder of its own; compare what it returns."""
    monkeypatch.setattr(sys, "argv", ["prog"])

    def compare(scenario: Callable[[Side], Any]) -> Any:
        found = []
        for namespace in NAMESPACES:
            folder = tmp_path / namespace
            folder.mkdir()
            monkeypatch.chdir(folder)
            text = json.dumps(scenario(Side(namespace)), default=str, sort_keys=True)
            text = text.replace("lightgen_runtime", "lightning")
            found.append(json.loads(text.replace("lightning.pytorch.", "lightning.")))
        assert found[0] == found[1]
        return found[0]

    return compare


def own_values(config: Any) -> dict[str, Any]:
    """Return the config without what belongs to the Trainer."""
    values = config if isinstance(config, dict) else config.as_dict()
    left_out = ("trainer", "config", "weights_only")
    return {k: v for k, v in values.items() if k not in left_out}


def optimizers(model: Any) -> Any:
    """Return what `configure_optimizers` returns, as data."""

    def shown(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [shown(item) for item in value]
        if isinstance(value, dict):
            return {k: shown(item) for k, item in value.items()}
        state = value.state_dict() if hasattr(value, "state_dict") else value
        return [type(value).__name__, state]

    return shown(model.configure_optimizers())


# ---- optimizers and schedulers ----


@pytest.mark.parametrize(
    "args",
    [
        ADAM,
        [*ADAM, *STEPS],
        ["--optimizer=torch.optim.SGD", "--optimizer.lr=0.1"],
        ["--optimizer", '{"class_path": "SGD", "init_args": {"lr": 0.2}}'],
        [*ADAM, "--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=loss"],
    ],
    ids=" ".join,
)
def test_chosen_optimizers(args: list[str], same: Any) -> None:
    def scenario(side: Side) -> Any:
        cli = side.run(side.Model, "fit", *args)
        weights = cli.model.layer.weight.tolist()
        return own_values(cli.config.fit), weights, optimizers(cli.model)

    same(scenario)


def test_optimizer_of_a_class_set_in_code(same: Any) -> None:
    def scenario(side: Side) -> Any:
        class CLI(side.cli.LightningCLI):  # type: ignore[name-defined,misc]
            def add_arguments_to_parser(self, parser: Any) -> None:
                parser.add_optimizer_args(torch.optim.Adam)
                parser.add_lr_scheduler_args(torch.optim.lr_scheduler.ExponentialLR)
                parser.set_defaults({"lr_scheduler.gamma": 0.5, "optimizer.lr": 0.3})

        cli = side.build(side.Model, "--optimizer.weight_decay=0.1", cli=CLI)
        return own_values(cli.config), optimizers(cli.model)

    same(scenario)


@pytest.mark.parametrize("one_class", [True, False])
def test_linked_optimizers(one_class: bool, same: Any) -> None:
    def scenario(side: Side) -> Any:
        class CLI(side.cli.LightningCLI):  # type: ignore[name-defined,misc]
            def add_arguments_to_parser(self, parser: Any) -> None:
                sgd, step = torch.optim.SGD, torch.optim.lr_scheduler.StepLR
                parser.add_optimizer_args(
                    sgd if one_class else (sgd, torch.optim.Adam),
                    nested_key="first",
                    link_to="model.optimizer_init",
                )
                parser.add_lr_scheduler_args(
                    step if one_class else (step,), "rate", "model.scheduler_init"
                )

        args = ["--first.lr=0.25", "--rate.step_size=3"]
        if not one_class:
            args = ["--first=Adam", "--first.lr=0.25", "--rate=StepLR", args[1]]
        cli = side.build(side.Inits, *args, cli=CLI)
        return own_values(cli.config), optimizers(cli.model)

    same(scenario)


def test_two_optimizers_for_one_module(same: Any) -> None:
    def scenario(side: Side) -> Any:
        class CLI(side.cli.LightningCLI):  # type: ignore[name-defined,misc]
            def add_arguments_to_parser(self, parser: Any) -> None:
                parser.add_optimizer_args(torch.optim.SGD, "one")
                parser.add_optimizer_args(torch.optim.SGD, "two")

        with pytest.raises(Exception, match="one") as caught:
            side.build(side.Model, "--one.lr=0.1", "--two.lr=0.1", cli=CLI)
        return type(caught.value).__name__

    assert same(scenario) == "MisconfigurationException"


def test_overridden_configure_optimizers(same: Any) -> None:
    def scenario(side: Side) -> Any:
        class CLI(side.cli.LightningCLI):  # type: ignore[name-defined,misc]
            @staticmethod
            def configure_optimizers(
                lightning_module: Any, optimizer: Any, lr_scheduler: Any = None
            ) -> Any:
                scheduler = {"scheduler": lr_scheduler, "interval": "step"}
                return {"optimizer": optimizer, "lr_scheduler": scheduler}

        cli = side.run(side.Model, "fit", *ADAM, *STEPS, cli=CLI)
        return optimizers(cli.model), cli.trainer.optimizers[0].state_dict()

    same(scenario)


def test_options_of_optimizers_can_be_left_out(same: Any) -> None:
    def scenario(side: Side) -> Any:
        cli = side.build(side.Model, auto_configure_optimizers=False)
        return own_values(cli.config), cli.auto_configure_optimizers

    assert "optimizer" not in same(scenario)[0]


def test_callables_given_to_the_module(same: Any) -> None:
    args = ["--model.optimizer=Adam", "--model.optimizer.lr=0.3"]
    args += ["--model.scheduler=StepLR", "--model.scheduler.step_size=4"]

    def scenario(side: Side) -> Any:
        cli = side.run(side.Callables, "fit", *args)
        return (
            own_values(cli.config.fit),
            dict(cli.model.hparams),
            optimizers(cli.model),
        )

    same(scenario)


# ---- configs ----


def test_several_configs_environment_and_options(
    same: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_CONFIG", "{model: {rate: 0.5, hidden: 9}}")
    monkeypatch.setenv("PL_TRAINER__MAX_EPOCHS", "4")
    monkeypatch.setenv("PL_MODEL__HIDDEN", "6")

    def scenario(side: Side) -> Any:
        Path("a.yaml").write_text("model:\n  rate: 1\n  hidden: 7\n")
        Path("b.yaml").write_text("model:\n  rate: 2\n")
        kwargs = {"parser_kwargs": {"default_env": True}}
        found = []
        for args in ([], ["--config=a.yaml"], ["--config=a.yaml", "--config=b.yaml"]):
            cli = side.build(side.Model, *args, "--seed_everything=5", **kwargs)
            found.append([own_values(cli.config), cli.trainer.max_epochs])
        return found

    found = same(scenario)
    assert found[0] == [{**found[0][0], "model": {"hidden": 6, "rate": 0.5}}, 4]


def test_printed_config(same: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def scenario(side: Side) -> Any:
        with pytest.raises(SystemExit) as stop:
            side.run(side.Model, "fit", *ADAM, "--print_config")
        printed = yaml.safe_load(capsys.readouterr().out)
        Path("again.yaml").write_text(yaml.safe_dump(printed))
        again = side.run(side.Model, "fit", "--config=again.yaml")
        return stop.value.code, own_values(printed), own_values(again.config.fit)

    same(scenario)


def test_arguments_as_dict_and_namespace(same: Any) -> None:
    from jsonargparse import Namespace

    def scenario(side: Side) -> Any:
        given = {"model": {"hidden": 3}, "trainer": {"max_epochs": 2}}
        cli = side.build(side.Model, args=given)
        other = side.build(side.Model, args=Namespace(cli.config))
        third = side.run(side.Model, args={"subcommand": "fit", "fit": given})
        return [own_values(c.config) for c in (cli, other)], own_values(
            third.config.fit
        )

    # The module has no optimizer of its own, and the config gives it one.
    given = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}

    def with_optimizer(side: Side) -> Any:
        model = {"hidden": 3}
        cli = side.run(
            side.Model,
            args={"subcommand": "fit", "fit": {"model": model, "optimizer": given}},
        )
        return own_values(cli.config.fit), cli.trainer.global_step

    same(with_optimizer)


def test_parsers_of_subcommands(same: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def scenario(side: Side) -> Any:
        class Parser(side.cli.LightningArgumentParser):  # type: ignore[name-defined,misc]
            pass

        Path("fit.yaml").write_text("model:\n  hidden: 3\n")
        kwargs = {"fit": {"default_config_files": ["fit.yaml"]}}
        cli = side.run(
            side.Model, "fit", *ADAM, parser_kwargs=kwargs, parser_class=Parser
        )
        with pytest.raises(SystemExit):
            side.run(side.Model, "fit", "--help")
        shown = capsys.readouterr().out
        options = ("--config", "--optimizer ", "--lr_scheduler ", "--ckpt_path")
        return (
            own_values(cli.config.fit),
            isinstance(cli.parser, Parser),
            [option in shown for option in options],
        )

    same(scenario)


# ---- classes ----


def test_subclasses_by_name(same: Any) -> None:
    def scenario(side: Side) -> Any:
        deep = side.path("Deep")
        cli = side.build(None, f"--model={deep}", "--model.depth=4")
        name = deep.rpartition(".")[2]
        short = side.build(side.Model, f"--model={name}", subclass_mode_model=True)
        data_path = side.path("Data")
        data = side.build(
            side.Model, f"--data={data_path}", "--data.batch_size=4", *ADAM
        )
        return [
            [own_values(c.config), dict(c.model.hparams), str(c.model_class)[:6]]
            for c in (cli, short, data)
        ] + [data.datamodule.batch_size, dict(data.datamodule.hparams)]

    same(scenario)


def test_arguments_linked_at_parsing_and_at_building(same: Any) -> None:
    def scenario(side: Side) -> Any:
        class CLI(side.cli.LightningCLI):  # type: ignore[name-defined,misc]
            def add_arguments_to_parser(self, parser: Any) -> None:
                parser.add_argument("--width", default=8, type=int)
                parser.link_arguments("width", "data.batch_size")
                parser.link_arguments(
                    "data.num_classes", "model.hidden", apply_on="instantiate"
                )

        cli = side.build(side.Model, "--width=3", datamodule_class=side.Data, cli=CLI)
        hparams = [dict(part.hparams) for part in (cli.model, cli.datamodule)]
        return own_values(cli.config), hparams, cli.model.layer.out_features

    assert same(scenario)[2] == 13


def test_trainer_made_by_a_function(same: Any) -> None:
    def scenario(side: Side) -> Any:
        def make(
            max_epochs: int = 3, callbacks: list[side.L.Callback] | None = None  # type: ignore[name-defined]
        ) -> side.L.Trainer:  # type: ignore[name-defined]
            return side.L.Trainer(
                **{**QUIET, "max_epochs": max_epochs, "callbacks": callbacks}
            )

        class CLI(side.cli.LightningCLI):  # type: ignore[name-defined,misc]
            def add_arguments_to_parser(self, parser: Any) -> None:
                parser.add_lightning_class_args(side.Patience, "own")

        make.__annotations__.update(
            max_epochs=int,
            callbacks=list[side.L.Callback] | None,
            **{"return": side.L.Trainer},
        )
        cli = side.build(
            side.Model,
            "--own.patience=4",
            "--trainer.max_epochs=6",
            f"--trainer.callbacks=[{side.path('Patience')}]",
            cli=CLI,
            trainer_class=make,
            trainer_defaults={"callbacks": [side.Patience(8)]},
        )
        patiences = [getattr(c, "patience", None) for c in cli.trainer.callbacks]
        return cli.trainer.max_epochs, [p for p in patiences if p]

    assert same(scenario) == [6, [3, 4, 8]]


def test_callbacks_and_loggers_by_their_short_names(same: Any) -> None:
    args = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=loss"]
    args += ["--trainer.callbacks+=LearningRateMonitor"]
    args += ["--trainer.callbacks.logging_interval=epoch", "--trainer.logger=CSVLogger"]
    args += ["--trainer.logger.save_dir=logs", "--trainer.profiler=SimpleProfiler"]

    def scenario(side: Side) -> Any:
        cli = side.build(side.Model, *args)
        found = [type(c).__name__ for c in cli.trainer.callbacks[:2]]
        trainer = cli.config.trainer
        given = [vars(c.init_args) for c in trainer.callbacks]
        return found, given, vars(trainer.logger.init_args), trainer.profiler.class_path

    same(scenario)


def test_short_names_in_a_process_that_has_imported_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from lightgen_runtime.cli import LightningCLI\n"
        "from lightgen_runtime.demos.boring_classes import BoringModel\n"
        "cli = LightningCLI(BoringModel, run=False)\n"
        "print([type(c).__name__ for c in cli.trainer.callbacks])\n"
    )
    option = "--trainer.callbacks=[LambdaCallback, SpikeDetection]"
    done = subprocess.run(
        [sys.executable, str(script), option, "--trainer.logger=false"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "'LambdaCallback', 'SpikeDetection'" in done.stdout, done.stderr


def test_hooks_and_subcommands_of_a_subclass(same: Any) -> None:
    def scenario(side: Side) -> Any:
        calls: list[Any] = []

        class Trainer(side.L.Trainer):  # type: ignore[name-defined,misc]
            def count(self, model: Any, to: int = 3) -> None:
                """Count. And more."""
                calls.append(("count", to))

        class CLI(side.cli.LightningCLI):  # type: ignore[name-defined,misc]
            @staticmethod
            def subcommands() -> dict[str, set[str]]:
                own = {"count": {"model"}}
                return {**side.cli.LightningCLI.subcommands(), **own}

            def before_instantiate_classes(self) -> None:
                calls.append("before classes")
                self.config[self.subcommand].model.hidden += 1

            def after_instantiate_classes(self) -> None:
                calls.append(("after classes", self.model.layer.out_features))

            def before_count(self) -> None:
                calls.append("before")

            def after_count(self) -> None:
                calls.append("after")

            def test(self, model: Any, **kwargs: Any) -> None:
                calls.append(("own test", kwargs["ckpt_path"]))

        cli = side.run(side.Model, "count", "--to=5", cli=CLI, trainer_class=Trainer)
        side.run(side.Model, "test", cli=CLI, trainer_class=Trainer)
        return calls, dict(cli.model.hparams), cli.subcommand

    same(scenario)


# ---- saved configs ----


@pytest.mark.parametrize("kwargs", [{}, {"config_filename": "c.yaml"}], ids=str)
def test_saved_config(kwargs: dict[str, Any], same: Any) -> None:
    def scenario(side: Side) -> Any:
        callback = side.cli.SaveConfigCallback
        trainer = {**QUIET, "default_root_dir": "root"}

        def fit(**more: Any) -> str:
            try:
                cli = side.run(
                    side.Model,
                    "fit",
                    *ADAM,
                    save_config_callback=callback,
                    save_config_kwargs={**kwargs, **more},
                    trainer_defaults=trainer,
                )
            except RuntimeError:
                return "refused"
            side.run(side.Model, "fit", f"--config={saved()[0]}")
            return str(type(cli.trainer.callbacks[-1]).__name__)

        def saved() -> list[str]:
            return sorted(map(str, Path().rglob("*.yaml")))

        outcomes = [fit(), fit(), fit(overwrite=True)]
        values = yaml.safe_load(Path(saved()[0]).read_text())
        return outcomes, saved(), own_values(values), "max_epochs" in values["trainer"]

    assert same(scenario)[0] == ["SaveConfigCallback", "refused", "SaveConfigCallback"]


def test_config_saved_elsewhere(same: Any) -> None:
    def scenario(side: Side) -> Any:
        class Elsewhere(side.cli.SaveConfigCallback):  # type: ignore[name-defined,misc]
            def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
                text = self.parser.dump(self.config, skip_link_targets=False)
                Path("elsewhere.yaml").write_text(text)

        options = {"save_to_log_dir": False}
        side.run(
            side.Model,
            "fit",
            *ADAM,
            save_config_callback=Elsewhere,
            save_config_kwargs=options,
        )
        with pytest.raises(ValueError, match="save_to_log_dir"):
            side.run(
                side.Model,
                "fit",
                save_config_callback=side.cli.SaveConfigCallback,
                save_config_kwargs=options,
            )
        files = sorted(map(str, Path().rglob("*.yaml")))
        return files, own_values(yaml.safe_load(Path("elsewhere.yaml").read_text()))

    assert same(scenario)[0] == ["elsewhere.yaml"]


def test_config_saved_as_the_files_it_came_from(same: Any) -> None:
    def scenario(side: Side) -> Any:
        Path("model.yaml").write_text("hidden: 3\n")
        Path("all.yaml").write_text("model: model.yaml\n")
        side.run(
            side.Model,
            "fit",
            *ADAM,
            "--config=all.yaml",
            save_config_callback=side.cli.SaveConfigCallback,
            save_config_kwargs={"multifile": True},
            trainer_defaults={**QUIET, "default_root_dir": "root"},
        )
        return {
            str(path): own_values(yaml.safe_load(path.read_text()))
            for path in Path("root").rglob("*.yaml")
        }

    assert set(same(scenario)) == {"root/config.yaml", "root/model.yaml"}


# ---- checkpoints ----


def saved_by(side: Side, *args: str, model: Any = None, **kwargs: Any) -> str:
    cli = side.run(model, "fit", *args, **kwargs)
    path = f"{side.namespace}.ckpt"
    cli.trainer.save_checkpoint(path)
    return path


def test_built_arguments_come_back_from_a_checkpoint(same: Any) -> None:
    wide = ["--model.encoder=cli_parts.WideEncoder", "--model.encoder.width=6"]

    def scenario(side: Side) -> Any:
        path = saved_by(side, *ADAM, *wide, model=side.Encoding)
        hparams = torch.load(path, weights_only=True)["hyper_parameters"]
        loaded = side.Encoding.load_from_checkpoint(path, map_location="cpu")
        encoder = loaded.encoder
        return hparams, type(encoder).__name__, encoder.width, dict(loaded.hparams)

    found = same(scenario)
    assert found[1:3] == ["WideEncoder", 6]


def test_chosen_class_comes_back_from_a_checkpoint(same: Any) -> None:
    def scenario(side: Side) -> Any:
        deep = [f"--model={side.path('Deep')}", "--model.hidden=6"]
        path = saved_by(side, *ADAM, *deep)
        hparams = torch.load(path, weights_only=True)["hyper_parameters"]
        loaded = side.L.LightningModule.load_from_checkpoint(path, map_location="cpu")
        again = side.run(None, "test", *deep[:1], f"--ckpt_path={path}")
        return hparams, type(loaded).__name__, own_values(again.config.test)

    found = same(scenario)
    assert found[2]["model"]["init_args"]["hidden"] == 6


def test_hyperparameters_of_the_checkpoint_replace_those_of_the_config(
    same: Any,
) -> None:
    def scenario(side: Side) -> Any:
        path = saved_by(side, *ADAM, "--model.hidden=6", model=side.Model)
        cli = side.run(side.Model, "test", f"--ckpt_path={path}", "--model.hidden=3")
        return own_values(cli.config.test), cli.model.layer.out_features

    assert same(scenario)[1] == 6


def test_plain_checkpoints_without_support_for_loading(same: Any) -> None:
    def scenario(side: Side) -> Any:
        path = saved_by(
            side, *ADAM, model=side.Model, load_from_checkpoint_support=False
        )
        return torch.load(path, weights_only=True)["hyper_parameters"]

    assert same(scenario) == {"hidden": 2, "rate": 0.1}


def test_checkpoints_of_a_command_line_are_read_by_the_other_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prog"])
    wide = ["--model.encoder=cli_parts.WideEncoder", "--model.encoder.width=6"]
    ours, theirs = map(Side, NAMESPACES)
    for writer, reader in ((ours, theirs), (theirs, ours)):
        path = saved_by(writer, *ADAM, *wide, model=writer.Encoding)
        loaded = reader.Encoding.load_from_checkpoint(path, map_location="cpu")
        assert loaded.encoder.width == 6


def test_class_of_a_file_that_nobody_imported_stays_so(tmp_path: Path) -> None:
    ours = Side(NAMESPACES[0])
    encoder = {"class_path": "this.Encoder", "init_args": {}}
    hparams = {
        "encoder": encoder,
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }
    file = {"state_dict": {}, "hyper_parameters": hparams}
    torch.save({**file, "pytorch-lightning_version": "2.6.6"}, tmp_path / "a.ckpt")
    with pytest.raises(Exception, match="Import `this` before"):
        ours.Encoding.load_from_checkpoint(tmp_path / "a.ckpt")
    assert "this" not in sys.modules
