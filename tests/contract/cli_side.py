"""Running a command line with one package, and the same with the other."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_parts import NAMESPACES, parts

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


def comparing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Side], Any]], Any]:
    """Return a function that runs a scenario with each package, and compares."""
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
