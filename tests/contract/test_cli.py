"""LightningCLI on both packages: the same command lines give the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_side import ADAM, QUIET, STEPS, Side, comparing, own_values

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return comparing(tmp_path, monkeypatch)


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


def test_trainer_that_takes_no_callbacks(same: Any) -> None:
    def scenario(side: Side) -> Any:
        def make(max_epochs: int = 3) -> Any:
            return side.L.Trainer(**{**QUIET, "max_epochs": max_epochs})

        make.__annotations__["return"] = side.L.Trainer
        make.__annotations__["max_epochs"] = int
        with pytest.warns(UserWarning, match="callbacks"):
            cli = side.build(
                side.Model,
                trainer_class=make,
                trainer_defaults={"callbacks": [side.Patience()]},
                save_config_callback=side.cli.SaveConfigCallback,
            )
        return cli.trainer.max_epochs, len(cli.trainer.callbacks) < 3

    same(scenario)


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
