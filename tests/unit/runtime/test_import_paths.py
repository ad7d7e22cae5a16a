"""Public names are found under the runtime's own path and under Lightning's."""

import importlib
import subprocess
import sys

import pytest

import lightgen_runtime as L
from lightgen_runtime.pytorch.paths import MOVED


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("callbacks.early_stopping", "EarlyStopping"),
        ("utilities.exceptions", "MisconfigurationException"),
        ("demos.boring_classes", "BoringModel"),
    ],
)
def test_longer_path_leads_to_the_same_module(path: str, name: str) -> None:
    longer = importlib.import_module(f"lightgen_runtime.pytorch.{path}")
    shorter = importlib.import_module(f"lightgen_runtime.{path}")
    assert longer is shorter
    assert getattr(longer, name) is getattr(shorter, name)
    assert shorter.__spec__ is not None
    assert shorter.__spec__.name == f"lightgen_runtime.{path}"


PACKAGES = ["callbacks", "loggers", "cli", "core", "utilities", "plugins"]


@pytest.mark.parametrize("path", [*PACKAGES, "plugins.io", "plugins.precision"])
def test_packages_of_the_longer_path_have_the_same_names(path: str) -> None:
    longer = importlib.import_module(f"lightgen_runtime.pytorch.{path}")
    shorter = importlib.import_module(f"lightgen_runtime.{path}")
    assert longer.__all__ == shorter.__all__
    for name in shorter.__all__:
        assert getattr(longer, name) is getattr(shorter, name)


@pytest.mark.parametrize(("path", "home"), MOVED.items())
def test_name_of_another_path_is_found_where_it_lives(path: str, home: str) -> None:
    module, _, name = path.rpartition(".")
    own_module, _, own_name = home.rpartition(".")
    longer = importlib.import_module(f"lightgen_runtime.pytorch.{module}")
    shorter = importlib.import_module(f"lightgen_runtime.{own_module}")
    assert getattr(longer, name) is getattr(shorter, own_name)
    assert f"{module}.{name}" == path
    assert path != home


def test_view_of_a_module_leaves_the_module_alone() -> None:
    hooks = importlib.import_module("lightgen_runtime.core.hooks")
    view = importlib.import_module("lightgen_runtime.pytorch.core.hooks")
    assert view is not hooks
    assert view.HOOKS is hooks.HOOKS
    assert importlib.import_module("lightgen_runtime.core").hooks is hooks
    with pytest.raises(AttributeError, match=r"core.hooks` has no attribute `Nothing"):
        _ = view.Nothing


def test_star_import_brings_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from lightgen_runtime.pytorch.callbacks import *", names)
    assert names["EarlyStopping"] is L.pytorch.callbacks.EarlyStopping


def test_attributes_are_reached_without_importing_them() -> None:
    assert L.pytorch.Trainer is L.Trainer
    assert L.pytorch.callbacks.Callback is L.Callback
    assert L.pytorch.callbacks.timer.Timer is L.callbacks.Timer
    assert L.pytorch.core.hooks.ModelHooks in L.LightningModule.__mro__


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
