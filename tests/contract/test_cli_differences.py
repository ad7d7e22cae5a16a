"""What command lines do otherwise on purpose, shown on both packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli_parts
import pytest
import torch
from cli_parts import NAMESPACES
from cli_side import Side

from lightgen_runtime.utilities.exceptions import CheckpointFormatError

OURS = NAMESPACES[0]
BOTH = pytest.mark.parametrize("namespace", NAMESPACES)
BY_CONFIG = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "argv", ["prog"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("strange", None)


def saved(model: Any, **hparams: Any) -> str:
    content = {"state_dict": model.state_dict(), "hyper_parameters": hparams}
    torch.save({**content, "pytorch-lightning_version": "2.6.6"}, "a.ckpt")
    return "a.ckpt"


@BOTH
def test_class_that_a_checkpoint_names(namespace: str) -> None:
    side = Side(namespace)
    encoder = {"class_path": "cli_parts.WideEncoder", "init_args": {"width": 3}}
    model = side.Encoding(cli_parts.WideEncoder(3))
    path = saved(model, encoder=encoder, **BY_CONFIG)
    if namespace == OURS:
        with pytest.raises(CheckpointFormatError) as caught:
            side.Encoding.load_from_checkpoint(path)
        line = "import cli_parts; torch.serialization.add_safe_globals(["
        assert f"`{line}cli_parts.WideEncoder])`" in str(caught.value)
    with torch.serialization.safe_globals([cli_parts.WideEncoder]):
        loaded = side.Encoding.load_from_checkpoint(path)
    assert loaded.encoder.width == 3


@BOTH
def test_class_of_a_checkpoint_that_nobody_imported(namespace: str) -> None:
    side = Side(namespace)
    Path("strange.py").write_text(
        "import cli_parts\n\nclass Strange(cli_parts.Encoder):\n    pass\n"
    )
    model = side.Encoding(torch.nn.Identity())
    encoder = {"class_path": "strange.Strange", "init_args": {"width": 3}}
    path = saved(model, encoder=encoder, **BY_CONFIG)
    if namespace == OURS:
        with pytest.raises(CheckpointFormatError, match="import strange; "):
            side.Encoding.load_from_checkpoint(path, strict=False)
    else:
        loaded = side.Encoding.load_from_checkpoint(path, strict=False)
        assert type(loaded.encoder).__name__ == "Strange"
    assert ("strange" in sys.modules) is (namespace != OURS)


@BOTH
def test_class_that_a_checkpoint_puts_in_place_of_the_chosen_one(
    namespace: str,
) -> None:
    side = Side(namespace)
    chosen = {"_class_path": side.path("Deep"), "hidden": 5}
    path = saved(side.Deep(), **chosen, **BY_CONFIG)
    command = ["test", f"--model={side.path('Model')}", f"--ckpt_path={path}"]
    if namespace == OURS:
        with pytest.raises(CheckpointFormatError, match="add_safe_globals"):
            side.run(None, *command)
    else:
        assert type(side.run(None, *command).model) is side.Deep


@BOTH
def test_hyperparameter_of_a_checkpoint_that_is_no_argument(namespace: str) -> None:
    side = Side(namespace)
    path = saved(side.Model(hidden=3), hidden=3, former=1)
    if namespace == OURS:
        cli = side.run(side.Model, "test", f"--ckpt_path={path}")
        assert cli.model.layer.out_features == 3
    else:
        with pytest.raises(SystemExit):
            side.run(side.Model, "test", f"--ckpt_path={path}")
