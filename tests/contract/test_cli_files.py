"""What command lines of both packages save, and read again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cli_parts
import pytest
import torch
import yaml
from cli_parts import NAMESPACES
from cli_side import ADAM, QUIET, Side, comparing, own_values

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return comparing(tmp_path, monkeypatch)


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
        with torch.serialization.safe_globals([cli_parts.WideEncoder]):
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
        load = side.L.LightningModule.load_from_checkpoint
        with torch.serialization.safe_globals([side.Deep]):
            loaded = load(path, map_location="cpu")
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
        with torch.serialization.safe_globals([cli_parts.WideEncoder]):
            loaded = reader.Encoding.load_from_checkpoint(path, map_location="cpu")
        assert loaded.encoder.width == 6


def test_module_from_saved_hyperparameters(same: Any) -> None:
    def scenario(side: Side) -> Any:
        build = side.cli.instantiate_module
        encoder = {"class_path": "cli_parts.WideEncoder", "init_args": {"width": 5}}
        deep = {"_class_path": side.path("Deep"), "hidden": 5}
        found = [build(side.Model, {"hidden": 5}), build(side.Model, deep)]
        return (
            [[type(m).__name__, dict(m.hparams)] for m in found],
            build(side.Encoding, {"encoder": encoder}).encoder.width,
        )

    assert same(scenario)[1] == 5
