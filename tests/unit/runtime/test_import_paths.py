"""Public names are found under the runtime's own path and under Lightning's."""

import importlib
import subprocess
import sys

import pytest

import lightgen_runtime as L


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("callbacks", "ModelCheckpoint"),
        ("callbacks.early_stopping", "EarlyStopping"),
        ("loggers", "CSVLogger"),
        ("plugins", "MixedPrecision"),
        ("plugins.io", "TorchCheckpointIO"),
        ("plugins.precision", "HalfPrecision"),
        ("utilities.exceptions", "MisconfigurationException"),
        ("cli", "LightningCLI"),
        ("demos.boring_classes", "BoringModel"),
    ],
)
def test_longer_path_leads_to_the_same_object(path: str, name: str) -> None:
    longer = importlib.import_module(f"lightgen_runtime.pytorch.{path}")
    shorter = importlib.import_module(f"lightgen_runtime.{path}")
    assert longer is shorter
    assert getattr(longer, name) is getattr(shorter, name)
    assert shorter.__spec__ is not None
    assert shorter.__spec__.name == f"lightgen_runtime.{path}"


def test_attributes_are_reached_without_importing_them() -> None:
    assert L.pytorch.Trainer is L.Trainer
    assert L.pytorch.callbacks.Callback is L.Callback


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute `Trianer`"):
        _ = L.Trianer
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("lightgen_runtime.pytorch.nothing_here")


def test_alias_alone_imports_neither_torch_nor_the_command_line() -> None:
    code = (
        "import sys, lightgen_runtime.pytorch;"
        "print([m for m in ('torch', 'jsonargparse') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
